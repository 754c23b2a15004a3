"""Live: what a job's caller wants after the answer, and a cheaper submit

Building the indexes locks `job` against writes: a few seconds for a million rows.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("cancel_at", sa.DateTime(timezone=True), nullable=True, comment="asked for at submit: cancel then, unless it has ended"))
    op.add_column("job", sa.Column("retry_slot", sa.BigInteger(), nullable=True, comment="minute and digest, by which a repeat without an idempotency key is found"))
    op.add_column("worker", sa.Column("capacity", sa.Integer(), server_default="1", nullable=False, comment="jobs under way at once"))
    op.create_index("ix_job_cancel_at", "job", ["cancel_at"], unique=False, postgresql_where=sa.text("cancel_at IS NOT NULL AND cancel_requested_at IS NULL AND completed_at IS NULL"))
    op.create_index("ix_job_cancel_wanted", "job", ["cancel_requested_at"], unique=False, postgresql_where=sa.text("status = 'queued' AND cancel_requested_at IS NOT NULL"))
    op.create_index("ix_job_retry_slot", "job", ["retry_slot"], unique=False, postgresql_where=sa.text("retry_slot IS NOT NULL"))
    op.create_index("ix_job_organization_id_model_id", "job", ["organization_id", "model", "id"], unique=False)
    op.create_index("ix_job_project_id_id", "job", ["project_id", "id"], unique=False, postgresql_where=sa.text("project_id IS NOT NULL"))
    # Without the second condition every job that has not ended was in it, for nothing.
    op.drop_index("ix_job_expires_at", table_name="job")
    op.create_index("ix_job_expires_at", "job", ["expires_at"], unique=False, postgresql_where=sa.text("audio_deleted_at IS NULL AND expires_at IS NOT NULL"))


def downgrade() -> None:
    op.drop_index("ix_job_expires_at", table_name="job")
    op.create_index("ix_job_expires_at", "job", ["expires_at"], unique=False, postgresql_where=sa.text("audio_deleted_at IS NULL"))
    op.drop_index("ix_job_project_id_id", table_name="job")
    op.drop_index("ix_job_organization_id_model_id", table_name="job")
    op.drop_index("ix_job_retry_slot", table_name="job")
    op.drop_index("ix_job_cancel_wanted", table_name="job")
    op.drop_index("ix_job_cancel_at", table_name="job")
    op.drop_column("worker", "capacity")
    op.drop_column("job", "retry_slot")
    op.drop_column("job", "cancel_at")
