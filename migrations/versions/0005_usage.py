"""Usage: what was charged by the hour, and entries that are rare found among those of jobs

Adding up what there is reads every usage record: a few seconds for a million.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_usage_hour()
    _name_rare_entries()


def _create_usage_hour() -> None:
    op.create_table(
        "usage_hour",
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column(
            "hour", sa.DateTime(timezone=True), nullable=False, comment="in which the jobs ended, by UTC"
        ),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("jobs", sa.BigInteger(), nullable=False),
        sa.Column("billed_ms", sa.BigInteger(), nullable=False),
        sa.Column("cost_nano", sa.BigInteger(), nullable=False),
        sa.CheckConstraint(
            "jobs > 0 AND billed_ms >= 0 AND cost_nano >= 0", name=op.f("ck_usage_hour_counted")
        ),
        sa.ForeignKeyConstraint(["key_id"], ["api_key.id"], name=op.f("fk_usage_hour_key_id")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organization.id"], name=op.f("fk_usage_hour_organization_id")
        ),
        comment="what was charged, for reports; moved in the same commit as the charges",
    )
    op.create_index(
        "uq_usage_hour",
        "usage_hour",
        ["organization_id", "hour", "key_id", "project_id", "model", "backend"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.execute(
        """
        INSERT INTO usage_hour (organization_id, hour, key_id, project_id, model, backend, jobs, billed_ms, cost_nano)
        SELECT j.organization_id, date_trunc('hour', u.created_at, 'UTC'), j.key_id, j.project_id, j.model,
               coalesce(j.backend, 'none'), count(*), sum(u.billed_ms), sum(u.cost_nano)
          FROM usage_record u JOIN job j ON j.id = u.reference
         GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6
        """
    )


def _name_rare_entries() -> None:
    """Entries of jobs keep null, so only the few others are written; the trigger is asleep meanwhile."""
    op.add_column(
        "entry",
        sa.Column(
            "kind",
            sa.Text(),
            nullable=True,
            comment="of its transfer; null for kinds that come with every job",
        ),
    )
    op.execute("GRANT UPDATE (kind) ON entry TO CURRENT_USER")
    op.execute("ALTER TABLE entry DISABLE TRIGGER append_only")
    op.execute(
        """
        UPDATE entry SET kind = t.kind FROM transfer t
         WHERE t.id = entry.transfer_id AND t.kind NOT IN ('settle', 'provider_cost')
        """
    )
    op.execute("ALTER TABLE entry ENABLE TRIGGER append_only")
    op.execute("REVOKE UPDATE (kind) ON entry FROM CURRENT_USER")
    op.create_index(
        "ix_entry_rare",
        "entry",
        ["account_id", "kind", "id"],
        unique=False,
        postgresql_where=sa.text("kind IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_entry_rare", table_name="entry")
    op.drop_column("entry", "kind")
    op.drop_table("usage_hour")
