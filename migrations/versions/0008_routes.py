"""Several ways to one model: fallbacks, attempts that outlive their worker, what providers cost, margins"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_FINISHED = "(state IN ('done', 'failed'{more})) = (finished_at IS NOT NULL)"
_ERROR = "(state IN ('failed'{more})) = (error_code IS NOT NULL)"


def upgrade() -> None:
    op.add_column("job", sa.Column("routes", postgresql.ARRAY(sa.Text()), nullable=True, comment="queues to fall back to, in order; null: none"))
    op.add_column("job", sa.Column("route_reason", sa.Text(), nullable=True, comment="why it stands in this queue"))
    op.create_index("ix_job_routes", "job", ["queue", "turn", "id"], postgresql_where=sa.text("status = 'queued' AND routes IS NOT NULL"))
    op.create_index("ix_job_cancel_running", "job", ["worker_id"], postgresql_where=sa.text("status = 'processing' AND cancel_requested_at IS NOT NULL"))
    op.add_column("attempt", sa.Column("cost_is_possible", sa.Boolean(), nullable=False, server_default="false", comment="nobody knows whether the provider took it: booked to variance"))
    op.add_column("attempt", sa.Column("reason", sa.Text(), nullable=True, comment="why this backend"))
    op.add_column("attempt", sa.Column("lost", sa.Integer(), nullable=False, server_default="0", comment="workers that died with it"))
    op.add_column("attempt", sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index("ix_attempt_sent", "attempt", ["sent_at"], postgresql_where=sa.text("finished_at IS NULL AND remote_task IS NOT NULL"))
    _check_attempts(", 'ambiguous'")
    op.add_column("worker", sa.Column("routes", postgresql.JSONB(), nullable=False, server_default="[]", comment="how its backends fare, as RouteHealth"))
    op.create_table(
        "attempt_tally",
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False, comment="done, ambiguous, or why it failed"),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("backend", "result", name=op.f("pk_attempt_tally")),
        comment="counters for Prometheus, moved in the same commit as the attempts that they count",
    )
    op.create_table(
        "margin_day",
        sa.Column("day", sa.Date(), nullable=False, comment="on which the jobs and attempts ended, by UTC"),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("revenue_nano", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("attempts", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("possible_cost_nano", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("day", "model", "backend", name=op.f("pk_margin_day")),
        comment="what providers cost against what customers paid; moved in the same commit as both",
    )
    op.create_table(
        "provider_balance",
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Column("balance_nano", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("backend", "at", name=op.f("pk_provider_balance")),
        comment="what our accounts at providers held, as they told",
    )


def downgrade() -> None:
    op.drop_table("provider_balance")
    op.drop_table("margin_day")
    op.drop_table("attempt_tally")
    op.drop_column("worker", "routes")
    op.execute("UPDATE attempt SET state = 'failed' WHERE state = 'ambiguous'")
    _check_attempts("")
    op.drop_index("ix_attempt_sent", table_name="attempt")
    for column in ("accepted_at", "lost", "reason", "cost_is_possible"):
        op.drop_column("attempt", column)
    op.drop_index("ix_job_routes", table_name="job")
    op.drop_index("ix_job_cancel_running", table_name="job")
    op.drop_column("job", "route_reason")
    op.drop_column("job", "routes")


def _check_attempts(more: str) -> None:
    for name, condition in (("finished", _FINISHED), ("error", _ERROR)):
        op.drop_constraint(op.f(f"ck_attempt_{name}"), "attempt", type_="check")
        op.create_check_constraint(op.f(f"ck_attempt_{name}"), "attempt", condition.format(more=more))
