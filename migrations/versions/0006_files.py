"""Files: sound that clients have uploaded"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "file",
        sa.Column("id", sa.Uuid(), nullable=False, comment="UUIDv7: ordered by creation"),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=False, comment="who brought it"),
        sa.Column("filename", sa.Text(), nullable=False, comment="as the client called it"),
        sa.Column("purpose", sa.Text(), nullable=True),
        sa.Column("container", sa.Text(), nullable=False, comment="also the extension of the stored object"),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("frames", sa.BigInteger(), nullable=False, comment="decoded, at 48 kHz"),
        sa.Column("sample_rate", sa.Integer(), nullable=False, comment="of the file itself"),
        sa.Column("channels", sa.Integer(), nullable=False, comment="of the file itself"),
        sa.Column(
            "stored", sa.Boolean(), server_default="false", nullable=False, comment="its bytes are all there"
        ),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "size_bytes > 0 AND frames > 0 AND sample_rate > 0 AND channels > 0", name=op.f("ck_file_sound")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_file_key_id")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_file_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_file")),
        comment="sound that clients have uploaded; a row goes with its bytes",
    )
    op.create_index("ix_file_organization_id_id", "file", ["organization_id", "id"], unique=False)
    op.create_index("ix_file_expires_at", "file", ["expires_at"], unique=False)


def downgrade() -> None:
    op.drop_table("file")
