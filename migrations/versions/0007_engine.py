"""Workers tell what they have in memory: for refusals in time, and for GET /v1/models"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "worker",
        sa.Column(
            "models",
            postgresql.JSONB(),
            nullable=False,
            server_default="[]",
            comment="the engine's models, as LoadedModel",
        ),
    )


def downgrade() -> None:
    op.drop_column("worker", "models")
