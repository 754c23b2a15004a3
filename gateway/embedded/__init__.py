"""The embedded Postgres: a real server of our own, for machines where nobody set one up."""

from gateway.embedded.errors import EmbeddedPostgresError
from gateway.embedded.record import read_dsn
from gateway.embedded.server import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError", "read_dsn"]
