"""What the operator must act on."""


class EmbeddedPostgresError(Exception):
    """Postgres cannot run here; the message says why and what to do."""
