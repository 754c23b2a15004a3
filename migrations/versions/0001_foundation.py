"""Foundation: organizations, keys, prices, ledger, jobs"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_tables()
    _open_the_house_accounts()
    _forbid_changes_of_the_past()


def _create_tables() -> None:
    _create_account()
    _create_config_revision()
    _create_job_tally()
    _create_organization()
    _create_transfer()
    _create_budget()
    _create_entry()
    _create_entry_indexes()
    _create_price_version()
    _create_price_version_indexes()
    _create_project()
    _create_api_key()
    _create_api_key_indexes()
    _create_hold()
    _create_hold_indexes()
    _create_job()
    _create_job_indexes()
    _create_key_meter()
    _create_usage_record()
    _create_usage_record_indexes()
    _create_attempt()
    _create_worker()


def _create_account() -> None:
    op.create_table("account",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("posted_nano", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("held_nano", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("overdraft_nano", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("kind <> 'customer' OR posted_nano - held_nano + overdraft_nano >= 0", name=op.f("ck_account_covered")),
    sa.CheckConstraint("kind = 'customer' OR held_nano = 0", name=op.f("ck_account_only_customers_hold")),
    sa.CheckConstraint("kind IN ('customer', 'revenue', 'promo_expense', 'variance')", name=op.f("ck_account_kind")),
    sa.CheckConstraint("held_nano >= 0 AND overdraft_nano >= 0", name=op.f("ck_account_not_negative")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_account"))
    )


def _create_config_revision() -> None:
    op.create_table("config_revision",
    sa.Column("id", sa.Integer(), nullable=False),
    sa.Column("revision", sa.BigInteger(), server_default="0", nullable=False),
    sa.CheckConstraint("id = 1", name=op.f("ck_config_revision_one_row")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_config_revision")),
    comment="bumped with every change of keys and prices; processes watch it"
    )


def _create_job_tally() -> None:
    op.create_table("job_tally",
    sa.Column("model", sa.Text(), nullable=False),
    sa.Column("backend", sa.Text(), nullable=False),
    sa.Column("outcome", sa.Text(), nullable=False),
    sa.Column("jobs", sa.BigInteger(), nullable=False),
    sa.Column("audio_ms", sa.BigInteger(), nullable=False),
    sa.PrimaryKeyConstraint("model", "backend", "outcome", name=op.f("pk_job_tally")),
    comment="counters for Prometheus, moved in the same commit as the jobs that they count"
    )


def _create_organization() -> None:
    op.create_table("organization",
    sa.Column("id", sa.Uuid(), nullable=False, comment="also the id of its account"),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_organization"))
    )


def _create_transfer() -> None:
    op.create_table("transfer",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("reference", sa.Uuid(), nullable=True, comment="the job that was settled"),
    sa.Column("external_ref", sa.Text(), nullable=True, comment="the object at the payment provider"),
    sa.Column("reason", sa.Text(), nullable=True),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("kind <> 'settle' OR reference IS NOT NULL", name=op.f("ck_transfer_settle_names_its_job")),
    sa.CheckConstraint("kind IN ('grant', 'settle')", name=op.f("ck_transfer_kind")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_transfer")),
    sa.UniqueConstraint("kind", "external_ref", name=op.f("uq_transfer_kind_external_ref")),
    sa.UniqueConstraint("kind", "reference", name=op.f("uq_transfer_kind_reference"))
    )


def _create_budget() -> None:
    op.create_table("budget",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("subject", sa.Uuid(), nullable=False, comment="key, project or organization that is capped"),
    sa.Column("period", sa.Text(), nullable=False),
    sa.Column("limit_nano", sa.BigInteger(), nullable=False),
    sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
    sa.Column("spent_nano", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("held_nano", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("period IN ('day', 'month', 'total')", name=op.f("ck_budget_period")),
    sa.CheckConstraint("limit_nano >= 0 AND spent_nano >= 0 AND held_nano >= 0", name=op.f("ck_budget_not_negative")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_budget_account_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_budget")),
    sa.UniqueConstraint("subject", "period", name=op.f("uq_budget_subject_period"))
    )


def _create_entry() -> None:
    op.create_table("entry",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column("transfer_id", sa.Uuid(), nullable=False),
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("amount_nano", sa.BigInteger(), nullable=False),
    sa.Column("balance_after_nano", sa.BigInteger(), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_entry_account_id")),
    sa.ForeignKeyConstraint(["transfer_id"], ["transfer.id"], name=op.f("fk_entry_transfer_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_entry")),
    sa.UniqueConstraint("transfer_id", "account_id", name=op.f("uq_entry_transfer_id_account_id"))
    )


def _create_entry_indexes() -> None:
    op.create_index(op.f("ix_entry_account_id_id"), "entry", ["account_id", "id"], unique=False)


def _create_price_version() -> None:
    op.create_table("price_version",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("model", sa.Text(), nullable=False),
    sa.Column("account_id", sa.Uuid(), nullable=True, comment="null: the list price"),
    sa.Column("nano_per_second", sa.BigInteger(), nullable=False),
    sa.Column("was_nano_per_second", sa.BigInteger(), nullable=True),
    sa.Column("discount_ppm", sa.Integer(), server_default="0", nullable=False),
    sa.Column("effective_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("discount_ppm BETWEEN 0 AND 1000000", name=op.f("ck_price_version_discount")),
    sa.CheckConstraint("nano_per_second >= 0", name=op.f("ck_price_version_not_negative")),
    sa.CheckConstraint("was_nano_per_second > nano_per_second", name=op.f("ck_price_version_was_is_more")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_price_version_account_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_price_version"))
    )


def _create_price_version_indexes() -> None:
    op.create_index(op.f("ix_price_version_model_account_id_effective_from"), "price_version", ["model", "account_id", "effective_from"], unique=False)


def _create_project() -> None:
    op.create_table("project",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("organization_id", sa.Uuid(), nullable=False),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_project_organization_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
    sa.UniqueConstraint("organization_id", "name", name=op.f("uq_project_organization_id_name"))
    )


def _create_api_key() -> None:
    op.create_table("api_key",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("organization_id", sa.Uuid(), nullable=False),
    sa.Column("project_id", sa.Uuid(), nullable=True, comment="null: the whole organization"),
    sa.Column("name", sa.Text(), nullable=False),
    sa.Column("mode", sa.Text(), nullable=False),
    sa.Column("prefix", sa.Text(), nullable=False, comment="the first characters, for people"),
    sa.Column("digest", postgresql.BYTEA(), nullable=False, comment="HMAC-SHA256 with the pepper"),
    sa.Column("pepper_id", sa.Text(), nullable=False),
    sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=True, comment="null: all"),
    sa.Column("models", postgresql.ARRAY(sa.Text()), nullable=True, comment="null: all"),
    sa.Column("cidrs", postgresql.ARRAY(sa.Text()), nullable=True, comment="null: from anywhere"),
    sa.Column("requests_per_minute", sa.Integer(), nullable=True),
    sa.Column("max_open_jobs", sa.Integer(), nullable=True),
    sa.Column("has_budget", sa.Boolean(), server_default="false", nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("mode IN ('live', 'test')", name=op.f("ck_api_key_mode")),
    sa.CheckConstraint("requests_per_minute > 0 AND max_open_jobs > 0", name=op.f("ck_api_key_limits")),
    sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_api_key_organization_id")),
    sa.ForeignKeyConstraint(["project_id"], ["project.id"], name=op.f("fk_api_key_project_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_api_key")),
    sa.UniqueConstraint("digest", name=op.f("uq_api_key_digest"))
    )


def _create_api_key_indexes() -> None:
    op.create_index(op.f("ix_api_key_organization_id"), "api_key", ["organization_id"], unique=False)


def _create_hold() -> None:
    op.create_table("hold",
    sa.Column("reference", sa.Uuid(), nullable=False, comment="the job that the money is kept for"),
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("price_version_id", sa.Uuid(), nullable=False),
    sa.Column("amount_nano", sa.BigInteger(), nullable=False),
    sa.Column("state", sa.Text(), server_default="open", nullable=False),
    sa.Column("budget_ids", postgresql.ARRAY(sa.Uuid()), server_default="{}", nullable=False),
    sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(state = 'open') = (closed_at IS NULL)", name=op.f("ck_hold_closed")),
    sa.CheckConstraint("state IN ('open', 'settled', 'released')", name=op.f("ck_hold_state")),
    sa.CheckConstraint("amount_nano >= 0", name=op.f("ck_hold_not_negative")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_hold_account_id")),
    sa.ForeignKeyConstraint(["price_version_id"], ["price_version.id"], name=op.f("fk_hold_price_version_id")),
    sa.PrimaryKeyConstraint("reference", name=op.f("pk_hold"))
    )


def _create_hold_indexes() -> None:
    op.create_index("ix_hold_open_account_id", "hold", ["account_id"], unique=False, postgresql_where=sa.text("state = 'open'"))
    op.create_index("ix_hold_open_created_at", "hold", ["created_at"], unique=False, postgresql_where=sa.text("state = 'open'"))


def _create_job() -> None:
    op.create_table("job",
    sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7: ordered by creation"),
    sa.Column("organization_id", sa.Uuid(), nullable=False),
    sa.Column("project_id", sa.Uuid(), nullable=True),
    sa.Column("key_id", sa.Uuid(), nullable=False),
    sa.Column("test", sa.Boolean(), nullable=False),
    sa.Column("model", sa.Text(), nullable=False, comment="as the client named it, canonical spelling"),
    sa.Column("task", sa.Text(), nullable=False),
    sa.Column("request", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column("metadata", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column("idempotency_key", sa.Text(), nullable=True),
    sa.Column("request_hash", postgresql.BYTEA(), nullable=False),
    sa.Column("status", sa.Text(), server_default="queued", nullable=False),
    sa.Column("queue", sa.Text(), nullable=False, comment="which workers can serve it"),
    sa.Column("turn", sa.BigInteger(), nullable=False, comment="fair order: milliseconds of audio, see jobs/queue"),
    sa.Column("length_ms", sa.BigInteger(), nullable=False, comment="the longest that it may become"),
    sa.Column("run_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
    sa.Column("fence", sa.BigInteger(), server_default="0", nullable=False, comment="grows with every claim"),
    sa.Column("worker_id", sa.Uuid(), nullable=True),
    sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
    sa.Column("progress", sa.Double(), server_default="0", nullable=False),
    sa.Column("cancel_requested_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("audio_deleted_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("price_version_id", sa.Uuid(), nullable=False),
    sa.Column("nano_per_second", sa.BigInteger(), nullable=False),
    sa.Column("held_nano", sa.BigInteger(), nullable=False),
    sa.Column("charged_nano", sa.BigInteger(), nullable=True),
    sa.Column("billed_ms", sa.BigInteger(), nullable=True),
    sa.Column("backend", sa.Text(), nullable=True),
    sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column("error", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
    sa.Column("warnings", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("(charged_nano IS NOT NULL) = (status = 'completed' AND NOT test)", name=op.f("ck_job_charged")),
    sa.CheckConstraint("(status = 'completed') = (billed_ms IS NOT NULL)", name=op.f("ck_job_billed")),
    sa.CheckConstraint("(status = 'completed') = (result IS NOT NULL)", name=op.f("ck_job_result")),
    sa.CheckConstraint("(status = 'processing') = (lease_until IS NOT NULL)", name=op.f("ck_job_lease")),
    sa.CheckConstraint("(status = 'processing') = (worker_id IS NOT NULL)", name=op.f("ck_job_worker")),
    sa.CheckConstraint("(status IN ('queued', 'processing')) = (completed_at IS NULL)", name=op.f("ck_job_final")),
    sa.CheckConstraint("(status IN ('failed', 'canceled')) = (error IS NOT NULL)", name=op.f("ck_job_error")),
    sa.CheckConstraint("status IN ('queued', 'processing', 'completed', 'failed', 'canceled')", name=op.f("ck_job_status")),
    sa.CheckConstraint("charged_nano <= held_nano AND (NOT test OR held_nano = 0)", name=op.f("ck_job_within_hold")),
    sa.CheckConstraint("progress BETWEEN 0 AND 1 AND attempts >= 0", name=op.f("ck_job_bounds")),
    sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_job_key_id")),
    sa.ForeignKeyConstraint(["organization_id"], ["organization.id"], name=op.f("fk_job_organization_id")),
    sa.ForeignKeyConstraint(["price_version_id"], ["price_version.id"], name=op.f("fk_job_price_version_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_job"))
    )


def _create_job_indexes() -> None:
    op.create_index("ix_job_deadline", "job", ["deadline_at"], unique=False, postgresql_where=sa.text("status IN ('queued', 'processing')"))
    op.create_index("ix_job_lease", "job", ["lease_until"], unique=False, postgresql_where=sa.text("status = 'processing'"))
    op.create_index("ix_job_expires_at", "job", ["expires_at"], unique=False, postgresql_where=sa.text("audio_deleted_at IS NULL"))
    op.create_index("ix_job_organization_id_id", "job", ["organization_id", "id"], unique=False)
    op.create_index("ix_job_organization_id_status_id", "job", ["organization_id", "status", "id"], unique=False)
    op.create_index("ix_job_started", "job", ["queue", "started_at", "turn"], unique=False, postgresql_where=sa.text("started_at IS NOT NULL"))
    op.create_index("ix_job_queue", "job", ["queue", "turn", "id"], unique=False, postgresql_where=sa.text("status = 'queued'"))
    op.create_index("ix_job_turn", "job", ["organization_id", "queue", sa.literal_column("(turn + length_ms) DESC")], unique=False, postgresql_where=sa.text("status = 'queued' OR started_at IS NOT NULL"))
    op.create_index("uq_job_idempotency_key", "job", ["organization_id", "idempotency_key", "project_id", "test"], unique=True, postgresql_nulls_not_distinct=True, postgresql_where=sa.text("idempotency_key IS NOT NULL"))


def _create_key_meter() -> None:
    op.create_table("key_meter",
    sa.Column("key_id", sa.Uuid(), nullable=False),
    sa.Column("minute_start", sa.DateTime(timezone=True), nullable=False),
    sa.Column("minute_count", sa.Integer(), server_default="0", nullable=False),
    sa.Column("open_jobs", sa.Integer(), server_default="0", nullable=False),
    sa.CheckConstraint("minute_count >= 0 AND open_jobs >= 0", name=op.f("ck_key_meter_not_negative")),
    sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_key_meter_key_id")),
    sa.PrimaryKeyConstraint("key_id", name=op.f("pk_key_meter")),
    comment="only keys with limits have a row; it is locked with the account"
    )


def _create_usage_record() -> None:
    op.create_table("usage_record",
    sa.Column("reference", sa.Uuid(), nullable=False),
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("price_version_id", sa.Uuid(), nullable=False),
    sa.Column("frames", sa.BigInteger(), nullable=False),
    sa.Column("sample_rate", sa.Integer(), nullable=False),
    sa.Column("billed_ms", sa.BigInteger(), nullable=False),
    sa.Column("cost_nano", sa.BigInteger(), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("billed_ms = (frames * 1000 + sample_rate - 1) / sample_rate", name=op.f("ck_usage_record_billed_ms")),
    sa.CheckConstraint("frames > 0 AND sample_rate > 0 AND cost_nano >= 0", name=op.f("ck_usage_record_positive")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_usage_record_account_id")),
    sa.ForeignKeyConstraint(["price_version_id"], ["price_version.id"], name=op.f("fk_usage_record_price_version_id")),
    sa.ForeignKeyConstraint(["reference"], ["hold.reference"], name=op.f("fk_usage_record_reference")),
    sa.PrimaryKeyConstraint("reference", name=op.f("pk_usage_record"))
    )


def _create_usage_record_indexes() -> None:
    op.create_index(op.f("ix_usage_record_account_id_created_at"), "usage_record", ["account_id", "created_at"], unique=False)


def _create_attempt() -> None:
    op.create_table("attempt",
    sa.Column("job_id", sa.Uuid(), nullable=False),
    sa.Column("n", sa.Integer(), nullable=False),
    sa.Column("backend", sa.Text(), nullable=False),
    sa.Column("state", sa.Text(), server_default="intent", nullable=False),
    sa.Column("worker_id", sa.Uuid(), nullable=False),
    sa.Column("remote_task", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="what a crash needs to resume, not to pay twice"),
    sa.Column("provider_ref", sa.Text(), nullable=True),
    sa.Column("provider_cost_nano", sa.BigInteger(), nullable=True),
    sa.Column("error_code", sa.Text(), nullable=True),
    sa.Column("error_message", sa.Text(), nullable=True),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("sent_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(state = 'failed') = (error_code IS NOT NULL)", name=op.f("ck_attempt_error")),
    sa.CheckConstraint("(state IN ('done', 'failed')) = (finished_at IS NOT NULL)", name=op.f("ck_attempt_finished")),
    sa.CheckConstraint("state IN ('intent', 'sent', 'accepted', 'ambiguous', 'done', 'failed')", name=op.f("ck_attempt_state")),
    sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_attempt_job_id")),
    sa.PrimaryKeyConstraint("job_id", "n", name=op.f("pk_attempt")),
    sa.UniqueConstraint("backend", "provider_ref", name=op.f("uq_attempt_backend_provider_ref"))
    )


def _create_worker() -> None:
    op.create_table("worker",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("queues", postgresql.ARRAY(sa.Text()), nullable=False),
    sa.Column("started_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("seen_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    comment="who is working; a row that is not seen any more is removed"
    )


def _open_the_house_accounts() -> None:
    op.execute(
        """
        INSERT INTO account (id, kind) VALUES
            ('00000000-0000-0000-0000-000000000001', 'revenue'),
            ('00000000-0000-0000-0000-000000000002', 'promo_expense'),
            ('00000000-0000-0000-0000-000000000003', 'variance')
        """
    )
    op.execute("INSERT INTO config_revision (id) VALUES (1)")


def _forbid_changes_of_the_past() -> None:
    """A trigger, because it stops the owner too.

    Revoking UPDATE from the owner would break foreign keys: their checks lock rows as the owner.
    """
    op.execute(
        """
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
        END $$
        """
    )
    for table in ("price_version", "transfer", "entry", "usage_record"):
        op.execute(
            f"CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def downgrade() -> None:
    raise RuntimeError("the first revision has nothing below it: drop the database instead")
