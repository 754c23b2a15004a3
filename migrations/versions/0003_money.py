"""Money: grants with expiry, debt, budgets at three levels, notices, and who may not change the past"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

APPEND_ONLY = ("price_version", "transfer", "entry", "usage_record")
REFERENCED = ("price_version", "transfer")


def upgrade() -> None:
    _extend_account()
    _extend_prices_and_budgets()
    _extend_transfer()
    _create_credit_grant()
    _create_notice()
    _create_ledger_watch()
    _revoke_changes_of_the_past()


def _extend_account() -> None:
    op.add_column("account", sa.Column("owed_nano", sa.BigInteger(), server_default="0", nullable=False, comment="what a dispute or refund took beyond the balance; nothing is held while it is owed"))
    op.add_column("account", sa.Column("next_expiry_at", sa.DateTime(timezone=True), nullable=True, comment="of the grants with something left"))
    op.add_column("account", sa.Column("low_nano", sa.BigInteger(), server_default="1000000000", nullable=False))
    op.add_column("account", sa.Column("critical_nano", sa.BigInteger(), server_default="100000000", nullable=False))
    op.add_column("account", sa.Column("level", sa.SmallInteger(), server_default="0", nullable=False, comment="0 fine, 1 low, 2 critical: already told"))
    op.drop_constraint(op.f("ck_account_kind"), "account")
    op.create_check_constraint(op.f("ck_account_kind"), "account", "kind IN ('customer', 'revenue', 'promo_expense', 'variance', 'stripe_clearing', 'breakage', 'receivable', 'cogs_expense', 'cogs_payable')")
    op.drop_constraint(op.f("ck_account_not_negative"), "account")
    op.create_check_constraint(op.f("ck_account_not_negative"), "account", "held_nano >= 0 AND overdraft_nano >= 0 AND owed_nano >= 0")
    op.create_check_constraint(op.f("ck_account_thresholds"), "account", "critical_nano >= 0 AND low_nano >= critical_nano")
    op.create_check_constraint(op.f("ck_account_level"), "account", "level BETWEEN 0 AND 2")
    op.create_index("ix_account_next_expiry_at", "account", ["next_expiry_at"], unique=False, postgresql_where=sa.text("next_expiry_at IS NOT NULL"))
    op.create_index("ix_account_owing", "account", ["id"], unique=False, postgresql_where=sa.text("owed_nano > 0"))
    op.create_index("ix_account_level", "account", ["level"], unique=False, postgresql_where=sa.text("level > 0"))
    op.execute(
        """
        INSERT INTO account (id, kind) VALUES
            ('00000000-0000-0000-0000-000000000004', 'stripe_clearing'),
            ('00000000-0000-0000-0000-000000000005', 'breakage'),
            ('00000000-0000-0000-0000-000000000006', 'receivable'),
            ('00000000-0000-0000-0000-000000000007', 'cogs_expense'),
            ('00000000-0000-0000-0000-000000000008', 'cogs_payable')
        """
    )


def _extend_prices_and_budgets() -> None:
    op.add_column("price_version", sa.Column("withdrawn", sa.Boolean(), server_default="false", nullable=False, comment="from then on the account pays the list price again"))
    op.create_check_constraint(op.f("ck_price_version_only_agreed_prices_are_withdrawn"), "price_version", "NOT withdrawn OR account_id IS NOT NULL")
    op.add_column("budget", sa.Column("scope", sa.Text(), server_default="key", nullable=False))
    op.add_column("budget", sa.Column("alert_nano", sa.BigInteger(), nullable=True, comment="say so when this much is spent; null: never"))
    op.add_column("budget", sa.Column("alerted_at", sa.DateTime(timezone=True), nullable=True, comment="said so in this period"))
    op.create_check_constraint(op.f("ck_budget_scope"), "budget", "scope IN ('key', 'project', 'organization')")
    op.create_check_constraint(op.f("ck_budget_alert"), "budget", "alert_nano > 0")
    op.drop_column("api_key", "has_budget")


def _extend_transfer() -> None:
    op.alter_column("transfer", "reference", existing_type=sa.Uuid(), existing_nullable=True, comment="the job that was settled or refunded", existing_comment="the job that was settled")
    op.drop_constraint(op.f("ck_transfer_kind"), "transfer")
    op.create_check_constraint(op.f("ck_transfer_kind"), "transfer", "kind IN ('grant', 'settle', 'top_up', 'usage_refund', 'expiry', 'payment_refund', 'payment_refund_failed', 'dispute', 'dispute_won', 'debt_payment', 'provider_cost')")


def _create_credit_grant() -> None:
    op.create_table("credit_grant",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("transfer_id", sa.Uuid(), nullable=False),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("amount_nano", sa.BigInteger(), nullable=False),
    sa.Column("remaining_nano", sa.BigInteger(), nullable=False),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True, comment="null: never"),
    sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True, comment="when the last of it went"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("kind IN ('paid', 'promotional', 'refund')", name=op.f("ck_credit_grant_kind")),
    sa.CheckConstraint("(remaining_nano = 0) = (closed_at IS NOT NULL)", name=op.f("ck_credit_grant_closed")),
    sa.CheckConstraint("amount_nano > 0 AND remaining_nano BETWEEN 0 AND amount_nano", name=op.f("ck_credit_grant_remaining")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_credit_grant_account_id")),
    sa.ForeignKeyConstraint(["transfer_id"], ["transfer.id"], name=op.f("fk_credit_grant_transfer_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_credit_grant")),
    sa.UniqueConstraint("transfer_id", name=op.f("uq_credit_grant_transfer_id")),
    comment="where a balance comes from; what is spent is taken from what expires first"
    )
    op.create_index("ix_credit_grant_open", "credit_grant", ["account_id"], unique=False, postgresql_where=sa.text("closed_at IS NULL"))
    # Of the credit of before, what is left is that of the last grants: the first ones were spent first.
    op.execute(
        """
        INSERT INTO credit_grant (id, account_id, transfer_id, kind, amount_nano, remaining_nano, closed_at, created_at)
        SELECT gen_random_uuid(), account_id, transfer_id, 'promotional', amount_nano, remaining,
               CASE WHEN remaining = 0 THEN now() END, created_at
          FROM (SELECT e.account_id, e.transfer_id, e.amount_nano, t.created_at,
                       greatest(0, least(e.amount_nano, a.posted_nano + e.amount_nano
                           - sum(e.amount_nano) OVER (PARTITION BY e.account_id ORDER BY e.id DESC))) AS remaining
                  FROM entry e JOIN transfer t ON t.id = e.transfer_id JOIN account a ON a.id = e.account_id
                 WHERE a.kind = 'customer' AND t.kind = 'grant') g
        """
    )


def _create_notice() -> None:
    op.create_table("notice",
    sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("data", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("told_at", sa.DateTime(timezone=True), nullable=True),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_notice_account_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_notice")),
    comment="what somebody should know, written in the commit that made it true"
    )
    op.create_index("ix_notice_untold", "notice", ["id"], unique=False, postgresql_where=sa.text("told_at IS NULL"))
    op.create_index(op.f("ix_notice_account_id_id"), "notice", ["account_id", "id"], unique=False)


def _create_ledger_watch() -> None:
    op.create_table("ledger_watch",
    sa.Column("id", sa.Integer(), nullable=False),
    sa.Column("checked_entry_id", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("checked_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("halted_at", sa.DateTime(timezone=True), nullable=True, comment="since when nothing new is held"),
    sa.Column("violations", postgresql.JSONB(astext_type=sa.Text()), server_default="[]", nullable=False),
    sa.CheckConstraint("id = 1", name=op.f("ck_ledger_watch_one_row")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_watch")),
    comment="how far the books were checked while in use, and what was found"
    )
    op.execute("INSERT INTO ledger_watch (id, checked_entry_id) SELECT 1, coalesce(max(id), 0) FROM entry")


def _revoke_changes_of_the_past() -> None:
    """Privileges beside the trigger, also from the owner.

    A foreign key's check locks the referenced row as the owner, for which Postgres asks for UPDATE on
    any one column: `id` of the tables that are referred to, and the trigger refuses even that.
    """
    for table in APPEND_ONLY:
        op.execute(f"REVOKE UPDATE, DELETE, TRUNCATE ON {table} FROM PUBLIC, CURRENT_USER")
    for table in REFERENCED:
        op.execute(f"GRANT UPDATE (id) ON {table} TO CURRENT_USER")


def downgrade() -> None:
    for table in APPEND_ONLY:
        op.execute(f"GRANT UPDATE, DELETE, TRUNCATE ON {table} TO CURRENT_USER")
    op.drop_table("ledger_watch")
    op.drop_table("notice")
    op.drop_table("credit_grant")
    op.drop_constraint(op.f("ck_transfer_kind"), "transfer")
    op.create_check_constraint(op.f("ck_transfer_kind"), "transfer", "kind IN ('grant', 'settle')")
    op.alter_column("transfer", "reference", existing_type=sa.Uuid(), existing_nullable=True, comment="the job that was settled", existing_comment="the job that was settled or refunded")
    op.add_column("api_key", sa.Column("has_budget", sa.Boolean(), server_default="false", nullable=False))
    op.execute("UPDATE api_key SET has_budget = true WHERE id IN (SELECT subject FROM budget)")
    op.drop_column("budget", "alerted_at")
    op.drop_column("budget", "alert_nano")
    op.drop_column("budget", "scope")
    op.drop_column("price_version", "withdrawn")
    op.execute("DELETE FROM account WHERE kind IN ('stripe_clearing', 'breakage', 'receivable', 'cogs_expense', 'cogs_payable')")
    op.drop_index("ix_account_level", table_name="account")
    op.drop_index("ix_account_owing", table_name="account")
    op.drop_index("ix_account_next_expiry_at", table_name="account")
    op.drop_constraint(op.f("ck_account_kind"), "account")
    op.create_check_constraint(op.f("ck_account_kind"), "account", "kind IN ('customer', 'revenue', 'promo_expense', 'variance')")
    for column in ("level", "critical_nano", "low_nano", "next_expiry_at", "owed_nano"):
        op.drop_column("account", column)
    op.create_check_constraint(op.f("ck_account_not_negative"), "account", "held_nano >= 0 AND overdraft_nano >= 0")
