"""The gateway's tables. States that must agree with another column are held together by a CHECK."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB

import billing.payments

metadata: MetaData = billing.payments.metadata
"""One schema, one metadata: the tables of the ledger and of payments are in it already."""

_NOW = text("now()")


def _created_at() -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW)


def _moment(name: str) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=True)


organization = Table(
    "organization",
    metadata,
    Column("id", Uuid, primary_key=True, comment="also the id of its account"),
    Column("name", Text, nullable=False),
    _created_at(),
)

project = Table(
    "project",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("name", Text, nullable=False),
    _created_at(),
    UniqueConstraint("organization_id", "name"),
)

api_key = Table(
    "api_key",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("organization_id", ForeignKey("organization.id"), nullable=False, index=True),
    Column("project_id", ForeignKey("project.id"), nullable=True, comment="null: the whole organization"),
    Column("name", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("prefix", Text, nullable=False, comment="the first characters, for people"),
    Column("digest", BYTEA, nullable=False, unique=True, comment="HMAC-SHA256 with the pepper"),
    Column("pepper_id", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=True, comment="null: all"),
    Column("models", ARRAY(Text), nullable=True, comment="null: all"),
    Column("cidrs", ARRAY(Text), nullable=True, comment="null: from anywhere"),
    Column("requests_per_minute", Integer, nullable=True),
    Column("max_open_jobs", Integer, nullable=True),
    _moment("expires_at"),
    _moment("revoked_at"),
    _created_at(),
    CheckConstraint("mode IN ('live', 'test')", name="mode"),
    CheckConstraint("requests_per_minute > 0 AND max_open_jobs > 0", name="limits"),
)

key_meter = Table(
    "key_meter",
    metadata,
    Column("key_id", ForeignKey("api_key.id"), primary_key=True),
    Column("minute_start", DateTime(timezone=True), nullable=False),
    Column("minute_count", Integer, nullable=False, server_default="0"),
    Column("open_jobs", Integer, nullable=False, server_default="0"),
    CheckConstraint("minute_count >= 0 AND open_jobs >= 0", name="not_negative"),
    comment="only keys with limits have a row; it is locked with the account",
)

config_revision = Table(
    "config_revision",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    CheckConstraint("id = 1", name="one_row"),
    comment="bumped with every change of keys and prices; processes watch it",
)

job = Table(
    "job",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: ordered by creation"),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("project_id", Uuid, nullable=True),
    Column("key_id", ForeignKey("api_key.id"), nullable=False),
    Column("test", Boolean, nullable=False),
    Column("model", Text, nullable=False, comment="as the client named it, canonical spelling"),
    Column("task", Text, nullable=False),
    Column("request", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=True),
    Column("idempotency_key", Text, nullable=True),
    Column("request_hash", BYTEA, nullable=False),
    Column(
        "retry_slot",
        BigInteger,
        nullable=True,
        comment="minute and digest, by which a repeat without an idempotency key is found",
    ),
    Column("status", Text, nullable=False, server_default="queued"),
    Column("queue", Text, nullable=False, comment="which workers can serve it"),
    Column("routes", ARRAY(Text), nullable=True, comment="queues to fall back to, in order; null: none"),
    Column("route_reason", Text, nullable=True, comment="why it stands in this queue"),
    Column("turn", BigInteger, nullable=False, comment="fair order: milliseconds of audio, see jobs/queue"),
    Column("length_ms", BigInteger, nullable=False, comment="the longest that it may become"),
    Column("run_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("fence", BigInteger, nullable=False, server_default="0", comment="grows with every claim"),
    Column("worker_id", Uuid, nullable=True),
    _moment("lease_until"),
    Column("progress", Double, nullable=False, server_default="0"),
    _moment("cancel_requested_at"),
    Column(
        "cancel_at",
        DateTime(timezone=True),
        nullable=True,
        comment="asked for at submit: cancel then, unless it has ended",
    ),
    _moment("started_at"),
    _moment("completed_at"),
    _moment("expires_at"),
    _moment("audio_deleted_at"),
    Column("price_version_id", ForeignKey("price_version.id"), nullable=False),
    Column("nano_per_second", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("charged_nano", BigInteger, nullable=True),
    Column("billed_ms", BigInteger, nullable=True),
    Column("backend", Text, nullable=True),
    Column("result", JSONB, nullable=True),
    Column("error", JSONB, nullable=True),
    Column("warnings", JSONB, nullable=False, server_default="[]"),
    _created_at(),
    CheckConstraint("status IN ('queued', 'processing', 'completed', 'failed', 'canceled')", name="status"),
    CheckConstraint("(status = 'processing') = (lease_until IS NOT NULL)", name="lease"),
    CheckConstraint("(status = 'processing') = (worker_id IS NOT NULL)", name="worker"),
    CheckConstraint("(status IN ('queued', 'processing')) = (completed_at IS NULL)", name="final"),
    CheckConstraint("(status = 'completed') = (result IS NOT NULL)", name="result"),
    CheckConstraint("(status IN ('failed', 'canceled')) = (error IS NOT NULL)", name="error"),
    CheckConstraint("(status = 'completed') = (billed_ms IS NOT NULL)", name="billed"),
    CheckConstraint("(charged_nano IS NOT NULL) = (status = 'completed' AND NOT test)", name="charged"),
    CheckConstraint("charged_nano <= held_nano AND (NOT test OR held_nano = 0)", name="within_hold"),
    CheckConstraint("progress BETWEEN 0 AND 1 AND attempts >= 0", name="bounds"),
    Index("ix_job_queue", "queue", "turn", "id", postgresql_where=text("status = 'queued'")),
    Index(
        "ix_job_routes",
        "queue",
        "turn",
        "id",
        postgresql_where=text("status = 'queued' AND routes IS NOT NULL"),
    ),
    Index(
        "ix_job_turn",
        "organization_id",
        "queue",
        text("(turn + length_ms) DESC"),
        postgresql_where=text("status = 'queued' OR started_at IS NOT NULL"),
    ),
    Index("ix_job_started", "queue", "started_at", "turn", postgresql_where=text("started_at IS NOT NULL")),
    Index("ix_job_lease", "lease_until", postgresql_where=text("status = 'processing'")),
    Index("ix_job_deadline", "deadline_at", postgresql_where=text("status IN ('queued', 'processing')")),
    Index(
        "ix_job_cancel_at",
        "cancel_at",
        postgresql_where=text(
            "cancel_at IS NOT NULL AND cancel_requested_at IS NULL AND completed_at IS NULL"
        ),
    ),
    Index(
        "ix_job_cancel_wanted",
        "cancel_requested_at",
        postgresql_where=text("status = 'queued' AND cancel_requested_at IS NOT NULL"),
    ),
    Index(
        "ix_job_cancel_running",
        "worker_id",
        postgresql_where=text("status = 'processing' AND cancel_requested_at IS NOT NULL"),
    ),
    Index("ix_job_retry_slot", "retry_slot", postgresql_where=text("retry_slot IS NOT NULL")),
    Index(
        "ix_job_expires_at",
        "expires_at",
        postgresql_where=text("audio_deleted_at IS NULL AND expires_at IS NOT NULL"),
    ),
    Index("ix_job_organization_id_id", "organization_id", "id"),
    Index("ix_job_organization_id_status_id", "organization_id", "status", "id"),
    Index("ix_job_organization_id_model_id", "organization_id", "model", "id"),
    Index("ix_job_project_id_id", "project_id", "id", postgresql_where=text("project_id IS NOT NULL")),
    Index(
        "uq_job_idempotency_key",
        "organization_id",
        "idempotency_key",
        "project_id",
        "test",
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
)

attempt = Table(
    "attempt",
    metadata,
    Column("job_id", ForeignKey("job.id"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("backend", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="intent"),
    Column("worker_id", Uuid, nullable=False),
    Column("remote_task", JSONB, nullable=True, comment="what a crash needs to resume, not to pay twice"),
    Column("provider_ref", Text, nullable=True),
    Column("provider_cost_nano", BigInteger, nullable=True),
    Column(
        "cost_is_possible",
        Boolean,
        nullable=False,
        server_default="false",
        comment="nobody knows whether the provider took it: booked to variance",
    ),
    Column("reason", Text, nullable=True, comment="why this backend"),
    Column("lost", Integer, nullable=False, server_default="0", comment="workers that died with it"),
    Column("error_code", Text, nullable=True),
    Column("error_message", Text, nullable=True),
    _created_at(),
    _moment("sent_at"),
    _moment("accepted_at"),
    _moment("finished_at"),
    PrimaryKeyConstraint("job_id", "n"),
    UniqueConstraint("backend", "provider_ref"),
    Index(
        "ix_attempt_sent",
        "sent_at",
        postgresql_where=text("finished_at IS NULL AND remote_task IS NOT NULL"),
    ),
    CheckConstraint("state IN ('intent', 'sent', 'accepted', 'ambiguous', 'done', 'failed')", name="state"),
    CheckConstraint(
        "(state IN ('done', 'failed', 'ambiguous')) = (finished_at IS NOT NULL)", name="finished"
    ),
    CheckConstraint("(state IN ('failed', 'ambiguous')) = (error_code IS NOT NULL)", name="error"),
)

worker = Table(
    "worker",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("queues", ARRAY(Text), nullable=False),
    Column("capacity", Integer, nullable=False, server_default="1", comment="jobs under way at once"),
    Column(
        "models", JSONB, nullable=False, server_default="[]", comment="the engine's models, as LoadedModel"
    ),
    Column(
        "routes", JSONB, nullable=False, server_default="[]", comment="how its backends fare, as RouteHealth"
    ),
    Column("started_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    comment="who is working; a row that is not seen any more is removed",
)

job_tally = Table(
    "job_tally",
    metadata,
    Column("model", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("jobs", BigInteger, nullable=False),
    Column("audio_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("model", "backend", "outcome"),
    comment="counters for Prometheus, moved in the same commit as the jobs that they count",
)

attempt_tally = Table(
    "attempt_tally",
    metadata,
    Column("backend", Text, nullable=False),
    Column("result", Text, nullable=False, comment="done, ambiguous, or why it failed"),
    Column("attempts", BigInteger, nullable=False),
    PrimaryKeyConstraint("backend", "result"),
    comment="counters for Prometheus, moved in the same commit as the attempts that they count",
)

margin_day = Table(
    "margin_day",
    metadata,
    Column("day", Date, nullable=False, comment="on which the jobs and attempts ended, by UTC"),
    Column("model", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("jobs", BigInteger, nullable=False, server_default="0"),
    Column("revenue_nano", BigInteger, nullable=False, server_default="0"),
    Column("attempts", BigInteger, nullable=False, server_default="0"),
    Column("cost_nano", BigInteger, nullable=False, server_default="0"),
    Column("possible_cost_nano", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("day", "model", "backend"),
    comment="what providers cost against what customers paid; moved in the same commit as both",
)

provider_balance = Table(
    "provider_balance",
    metadata,
    Column("backend", Text, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("balance_nano", BigInteger, nullable=False),
    PrimaryKeyConstraint("backend", "at"),
    comment="what our accounts at providers held, as they told",
)

usage_hour = Table(
    "usage_hour",
    metadata,
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("hour", DateTime(timezone=True), nullable=False, comment="in which the jobs ended, by UTC"),
    Column("key_id", ForeignKey("api_key.id"), nullable=False),
    Column("project_id", Uuid, nullable=True),
    Column("model", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("jobs", BigInteger, nullable=False),
    Column("billed_ms", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    CheckConstraint("jobs > 0 AND billed_ms >= 0 AND cost_nano >= 0", name="counted"),
    Index(
        "uq_usage_hour",
        "organization_id",
        "hour",
        "key_id",
        "project_id",
        "model",
        "backend",
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    comment="what was charged, for reports; moved in the same commit as the charges",
)

file = Table(
    "file",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: ordered by creation"),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("project_id", Uuid, nullable=True),
    Column("key_id", ForeignKey("api_key.id"), nullable=False, comment="who brought it"),
    Column("filename", Text, nullable=False, comment="as the client called it"),
    Column("purpose", Text, nullable=True),
    Column("container", Text, nullable=False, comment="also the extension of the stored object"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("sha256", BYTEA, nullable=False),
    Column("frames", BigInteger, nullable=False, comment="decoded, at 48 kHz"),
    Column("sample_rate", Integer, nullable=False, comment="of the file itself"),
    Column("channels", Integer, nullable=False, comment="of the file itself"),
    Column("stored", Boolean, nullable=False, server_default="false", comment="its bytes are all there"),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    _created_at(),
    CheckConstraint("size_bytes > 0 AND frames > 0 AND sample_rate > 0 AND channels > 0", name="sound"),
    Index("ix_file_organization_id_id", "organization_id", "id"),
    Index("ix_file_expires_at", "expires_at"),
    comment="sound that clients have uploaded; a row goes with its bytes",
)

webhook_endpoint = Table(
    "webhook_endpoint",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: ordered by creation"),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("project_id", ForeignKey("project.id"), nullable=True, comment="null: the whole organization"),
    Column("url", Text, nullable=False),
    Column("events", ARRAY(Text), nullable=True, comment="null: all"),
    Column("description", Text, nullable=False),
    Column("secret_version", Integer, nullable=False, server_default="1", comment="secrets are derived"),
    _moment("old_secret_until"),
    Column("status", Text, nullable=False, server_default="enabled"),
    Column("disabled_reason", Text, nullable=True),
    _moment("failing_since"),
    _moment("deleted_at"),
    _created_at(),
    CheckConstraint("status IN ('enabled', 'disabled')", name="status"),
    CheckConstraint("(status = 'disabled') = (disabled_reason IS NOT NULL)", name="reason"),
    CheckConstraint("deleted_at IS NULL OR status = 'disabled'", name="deleted"),
    CheckConstraint("secret_version > 0", name="version"),
    Index("ix_webhook_endpoint_organization_id_id", "organization_id", "id"),
    Index(
        "ix_webhook_endpoint_enabled",
        "organization_id",
        postgresql_where=text("status = 'enabled'"),
    ),
    comment="where a customer wants to be told; a deleted row stays as long as its deliveries",
)

webhook_signing = Table(
    "webhook_signing",
    metadata,
    Column("owner_id", Uuid, primary_key=True, comment="an organization, or a project"),
    Column("version", Integer, nullable=False),
    _moment("old_until"),
    CheckConstraint("version > 0", name="version"),
    comment="secrets for the URLs that stand in jobs; who has no row has version 1",
)

webhook_event = Table(
    "webhook_event",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7; the webhook-id of all its deliveries"),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("project_id", Uuid, nullable=True),
    Column("type", Text, nullable=False),
    Column("job_id", ForeignKey("job.id"), nullable=True),
    Column("payload", JSONB, nullable=True, comment="null: the job as it is when it is told"),
    _created_at(),
    CheckConstraint("(job_id IS NULL) = (payload IS NOT NULL)", name="content"),
    Index("uq_webhook_event_job_id", "job_id", unique=True, postgresql_where=text("job_id IS NOT NULL")),
    comment="what somebody wants to be told, written in the commit that made it true",
)

webhook_delivery = Table(
    "webhook_delivery",
    metadata,
    Column("id", Uuid, primary_key=True, comment="UUIDv7: ordered by creation"),
    Column("event_id", ForeignKey("webhook_event.id"), nullable=False, index=True),
    Column("organization_id", ForeignKey("organization.id"), nullable=False),
    Column("project_id", Uuid, nullable=True, comment="whose keys may see it, besides the organization's"),
    Column("endpoint_id", ForeignKey("webhook_endpoint.id"), nullable=True, comment="null: a URL of a job"),
    Column("kind", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("lane", Text, nullable=False, comment="what may delay one another; see webhooks/claims"),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0", comment="begun; also the fence"),
    Column("next_attempt_at", DateTime(timezone=True), nullable=True, server_default=_NOW),
    _moment("lease_until"),
    Column("replay_of", Uuid, nullable=True),
    _created_at(),
    _moment("completed_at"),
    CheckConstraint("kind IN ('webhook', 'upload')", name="kind"),
    CheckConstraint("state IN ('pending', 'delivered', 'exhausted', 'dropped')", name="state"),
    CheckConstraint("(state = 'pending') = (completed_at IS NULL)", name="final"),
    CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="next"),
    CheckConstraint("lease_until IS NULL OR state = 'pending'", name="lease"),
    CheckConstraint("attempts >= 0", name="attempts"),
    Index("ix_webhook_delivery_due", "lane", "next_attempt_at", postgresql_where=text("state = 'pending'")),
    Index("ix_webhook_delivery_leased", "lease_until", postgresql_where=text("lease_until IS NOT NULL")),
    Index("ix_webhook_delivery_organization_id_id", "organization_id", "id"),
    Index("ix_webhook_delivery_organization_id_state_id", "organization_id", "state", "id"),
    Index(
        "ix_webhook_delivery_endpoint_id_id",
        "endpoint_id",
        "id",
        postgresql_where=text("endpoint_id IS NOT NULL"),
    ),
    comment="one event on its way to one place",
)

webhook_attempt = Table(
    "webhook_attempt",
    metadata,
    Column("delivery_id", ForeignKey("webhook_delivery.id", ondelete="CASCADE"), nullable=False),
    Column("n", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("status", Integer, nullable=True),
    Column("latency_ms", BigInteger, nullable=False),
    Column("error", Text, nullable=True, comment="why there is no status"),
    Column("answer", Text, nullable=True, comment="its beginning"),
    PrimaryKeyConstraint("delivery_id", "n"),
    CheckConstraint("(status IS NULL) = (error IS NOT NULL)", name="outcome"),
)

webhook_tally = Table(
    "webhook_tally",
    metadata,
    Column("kind", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("total", BigInteger, nullable=False),
    PrimaryKeyConstraint("kind", "result"),
    comment="counters for Prometheus, moved in the same commit as what they count",
)
