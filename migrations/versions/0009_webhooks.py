"""Webhooks: where customers want to be told, what happened, and how telling them went"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _make_endpoints()
    _make_events()
    _make_deliveries()


def _make_endpoints() -> None:
    op.create_table(
        "webhook_signing",
        sa.Column("owner_id", sa.Uuid(), nullable=False, comment="an organization, or a project"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("old_until", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("version > 0", name=op.f("ck_webhook_signing_version")),
        sa.PrimaryKeyConstraint("owner_id", name=op.f("pk_webhook_signing")),
        comment="secrets for the URLs that stand in jobs; who has no row has version 1",
    )
    op.create_table(
        "webhook_tally",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("total", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "result", name=op.f("pk_webhook_tally")),
        comment="counters for Prometheus, moved in the same commit as what they count",
    )
    op.create_table(
        "webhook_endpoint",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7: ordered by creation"),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True, comment="null: the whole organization"),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=True, comment="null: all"),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("secret_version", sa.Integer(), server_default="1", nullable=False, comment="secrets are derived"),
        sa.Column("old_secret_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("status", sa.Text(), server_default="enabled", nullable=False),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("failing_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(status = 'disabled') = (disabled_reason IS NOT NULL)", name=op.f("ck_webhook_endpoint_reason")),
        sa.CheckConstraint("deleted_at IS NULL OR status = 'disabled'", name=op.f("ck_webhook_endpoint_deleted")),
        sa.CheckConstraint("status IN ('enabled', 'disabled')", name=op.f("ck_webhook_endpoint_status")),
        sa.CheckConstraint("secret_version > 0", name=op.f("ck_webhook_endpoint_version")),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_webhook_endpoint_organization_id")),
        sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_webhook_endpoint_project_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_endpoint")),
        comment="where a customer wants to be told; a deleted row stays as long as its deliveries",
    )
    op.create_index("ix_webhook_endpoint_enabled", "webhook_endpoint", ["organization_id"], postgresql_where=sa.text("status = 'enabled'"))
    op.create_index("ix_webhook_endpoint_organization_id_id", "webhook_endpoint", ["organization_id", "id"])


def _make_events() -> None:
    op.create_table(
        "webhook_event",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7; the webhook-id of all its deliveries"),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Uuid(), nullable=True),
        sa.Column("payload", postgresql.JSONB(), nullable=True, comment="null: the job as it is when it is told"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("(job_id IS NULL) = (payload IS NOT NULL)", name=op.f("ck_webhook_event_content")),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_webhook_event_job_id")),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_webhook_event_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_event")),
        comment="what somebody wants to be told, written in the commit that made it true",
    )
    op.create_index("uq_webhook_event_job_id", "webhook_event", ["job_id"], unique=True, postgresql_where=sa.text("job_id IS NOT NULL"))


def _make_deliveries() -> None:
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7: ordered by creation"),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True, comment="whose keys may see it, besides the organization's"),
        sa.Column("endpoint_id", sa.Uuid(), nullable=True, comment="null: a URL of a job"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False, comment="what may delay one another; see webhooks/claims"),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False, comment="begun; also the fence"),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("replay_of", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("(state = 'pending') = (completed_at IS NULL)", name=op.f("ck_webhook_delivery_final")),
        sa.CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name=op.f("ck_webhook_delivery_next")),
        sa.CheckConstraint("kind IN ('webhook', 'upload')", name=op.f("ck_webhook_delivery_kind")),
        sa.CheckConstraint("lease_until IS NULL OR state = 'pending'", name=op.f("ck_webhook_delivery_lease")),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'exhausted', 'dropped')", name=op.f("ck_webhook_delivery_state")),
        sa.CheckConstraint("attempts >= 0", name=op.f("ck_webhook_delivery_attempts")),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoint.id"], name=op.f("fk_webhook_delivery_endpoint_id")),
        sa.ForeignKeyConstraint(["event_id"], ["webhook_event.id"], name=op.f("fk_webhook_delivery_event_id")),
        sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_webhook_delivery_organization_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
        comment="one event on its way to one place",
    )
    op.create_index("ix_webhook_delivery_due", "webhook_delivery", ["lane", "next_attempt_at"], postgresql_where=sa.text("state = 'pending'"))
    op.create_index("ix_webhook_delivery_endpoint_id_id", "webhook_delivery", ["endpoint_id", "id"], postgresql_where=sa.text("endpoint_id IS NOT NULL"))
    op.create_index(op.f("ix_webhook_delivery_event_id"), "webhook_delivery", ["event_id"])
    op.create_index("ix_webhook_delivery_leased", "webhook_delivery", ["lease_until"], postgresql_where=sa.text("lease_until IS NOT NULL"))
    op.create_index("ix_webhook_delivery_organization_id_id", "webhook_delivery", ["organization_id", "id"])
    op.create_index("ix_webhook_delivery_organization_id_state_id", "webhook_delivery", ["organization_id", "state", "id"])
    op.create_table(
        "webhook_attempt",
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.BigInteger(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True, comment="why there is no status"),
        sa.Column("answer", sa.Text(), nullable=True, comment="its beginning"),
        sa.CheckConstraint("(status IS NULL) = (error IS NOT NULL)", name=op.f("ck_webhook_attempt_outcome")),
        sa.ForeignKeyConstraint(["delivery_id"], ["webhook_delivery.id"], name=op.f("fk_webhook_attempt_delivery_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("delivery_id", "n", name=op.f("pk_webhook_attempt")),
    )


def downgrade() -> None:
    for table in ("attempt", "delivery", "event", "endpoint", "tally", "signing"):
        op.drop_table(f"webhook_{table}")
