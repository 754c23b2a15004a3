"""Payments: customers at the payment provider, payments, automatic top-ups, refunds that were ordered"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_processor_customer()
    _create_payment()
    _create_auto_top_up()
    _create_refund_order()
    _create_processor_event()


def _create_processor_customer() -> None:
    op.create_table("processor_customer",
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("customer_ref", sa.Text(), nullable=False),
    sa.Column("payment_method_ref", sa.Text(), nullable=True, comment="the saved card"),
    sa.Column("card", postgresql.JSONB(astext_type=sa.Text()), nullable=True, comment="what may be shown of it"),
    sa.Column("card_chosen_at", sa.DateTime(timezone=True), nullable=True, comment="by the provider's clock; older news does not bring an older card back"),
    sa.Column("setup_ref", sa.Text(), nullable=True, comment="the page on which a card is being saved"),
    sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True, comment="when that page was last asked about"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.CheckConstraint("(payment_method_ref IS NULL) = (card IS NULL)", name=op.f("ck_processor_customer_card")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_processor_customer_account_id")),
    sa.PrimaryKeyConstraint("account_id", name=op.f("pk_processor_customer")),
    sa.UniqueConstraint("customer_ref", name=op.f("uq_processor_customer_customer_ref")),
    sa.UniqueConstraint("payment_method_ref", name=op.f("uq_processor_customer_payment_method_ref"))
    )


def _create_payment() -> None:
    op.create_table("payment",
    sa.Column("id", sa.Uuid(), nullable=False),
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("status", sa.Text(), server_default="created", nullable=False),
    sa.Column("amount_nano", sa.BigInteger(), nullable=False),
    sa.Column("refunded_nano", sa.BigInteger(), server_default="0", nullable=False),
    sa.Column("disputed_nano", sa.BigInteger(), server_default="0", nullable=False, comment="taken and not won back"),
    sa.Column("idempotency_key", sa.Text(), nullable=True),
    sa.Column("request_hash", postgresql.BYTEA(), nullable=True),
    sa.Column("success_url", sa.Text(), nullable=True),
    sa.Column("cancel_url", sa.Text(), nullable=True),
    sa.Column("save_card", sa.Boolean(), server_default="false", nullable=False),
    sa.Column("payment_method_ref", sa.Text(), nullable=True, comment="the card that an automatic payment charges"),
    sa.Column("checkout_ref", sa.Text(), nullable=True),
    sa.Column("intent_ref", sa.Text(), nullable=True),
    sa.Column("url", sa.Text(), nullable=True, comment="where the customer pays"),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("receipt_url", sa.Text(), nullable=True),
    sa.Column("error_code", sa.Text(), nullable=True),
    sa.Column("error_message", sa.Text(), nullable=True),
    sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True, comment="when the provider was last asked about it"),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
    sa.CheckConstraint("(kind = 'automatic') = (payment_method_ref IS NOT NULL)", name=op.f("ck_payment_card")),
    sa.CheckConstraint("(status IN ('created', 'pending')) = (finished_at IS NULL)", name=op.f("ck_payment_finished")),
    sa.CheckConstraint("kind IN ('checkout', 'automatic', 'external')", name=op.f("ck_payment_kind")),
    sa.CheckConstraint("status <> 'paid' OR intent_ref IS NOT NULL", name=op.f("ck_payment_paid")),
    sa.CheckConstraint("status IN ('created', 'pending', 'paid', 'failed', 'expired')", name=op.f("ck_payment_status")),
    sa.CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name=op.f("ck_payment_idempotency")),
    sa.CheckConstraint("amount_nano > 0 AND refunded_nano >= 0 AND disputed_nano >= 0", name=op.f("ck_payment_amounts")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_payment_account_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_payment")),
    sa.UniqueConstraint("account_id", "idempotency_key", name=op.f("uq_payment_account_id_idempotency_key")),
    sa.UniqueConstraint("checkout_ref", name=op.f("uq_payment_checkout_ref")),
    sa.UniqueConstraint("intent_ref", name=op.f("uq_payment_intent_ref"))
    )
    op.create_index(op.f("ix_payment_account_id_created_at_id"), "payment", ["account_id", "created_at", "id"], unique=False)
    op.create_index("ix_payment_unfinished", "payment", ["created_at"], unique=False, postgresql_where=sa.text("finished_at IS NULL"))
    op.create_index("uq_payment_one_automatic", "payment", ["account_id"], unique=True, postgresql_where=sa.text("kind = 'automatic' AND finished_at IS NULL"))


def _create_auto_top_up() -> None:
    op.create_table("auto_top_up",
    sa.Column("account_id", sa.Uuid(), nullable=False),
    sa.Column("enabled", sa.Boolean(), server_default="false", nullable=False),
    sa.Column("threshold_nano", sa.BigInteger(), nullable=False),
    sa.Column("amount_nano", sa.BigInteger(), nullable=False),
    sa.Column("daily_cap_nano", sa.BigInteger(), nullable=True, comment="by UTC; null: none"),
    sa.Column("monthly_cap_nano", sa.BigInteger(), nullable=True),
    sa.Column("failures", sa.Integer(), server_default="0", nullable=False, comment="in a row"),
    sa.Column("next_try_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("disabled_reason", sa.Text(), nullable=True, comment="why we switched it off"),
    sa.CheckConstraint("NOT enabled OR disabled_reason IS NULL", name=op.f("ck_auto_top_up_disabled")),
    sa.CheckConstraint("daily_cap_nano > 0 AND monthly_cap_nano > 0", name=op.f("ck_auto_top_up_caps")),
    sa.CheckConstraint("threshold_nano > 0 AND amount_nano > 0 AND failures >= 0", name=op.f("ck_auto_top_up_amounts")),
    sa.ForeignKeyConstraint(["account_id"], ["account.id"], name=op.f("fk_auto_top_up_account_id")),
    sa.PrimaryKeyConstraint("account_id", name=op.f("pk_auto_top_up"))
    )
    op.create_index("ix_auto_top_up_enabled", "auto_top_up", ["account_id"], unique=False, postgresql_where=sa.text("enabled"))


def _create_refund_order() -> None:
    op.create_table("refund_order",
    sa.Column("id", sa.Uuid(), nullable=False, comment="also the idempotency key at the provider"),
    sa.Column("payment_id", sa.Uuid(), nullable=False),
    sa.Column("amount_nano", sa.BigInteger(), nullable=False),
    sa.Column("reason", sa.Text(), nullable=True),
    sa.Column("refund_ref", sa.Text(), nullable=True),
    sa.Column("error", sa.Text(), nullable=True),
    sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True, comment="null: not known whether the provider did it"),
    sa.CheckConstraint("amount_nano > 0", name=op.f("ck_refund_order_amount")),
    sa.CheckConstraint("finished_at IS NOT NULL OR (refund_ref IS NULL AND error IS NULL)", name=op.f("ck_refund_order_finished")),
    sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("fk_refund_order_payment_id")),
    sa.PrimaryKeyConstraint("id", name=op.f("pk_refund_order")),
    sa.UniqueConstraint("refund_ref", name=op.f("uq_refund_order_refund_ref")),
    comment="what an operator ordered to be paid back, written before the provider is told"
    )
    op.create_index("uq_refund_order_one", "refund_order", ["payment_id"], unique=True, postgresql_where=sa.text("finished_at IS NULL"))


def _create_processor_event() -> None:
    op.create_table("processor_event",
    sa.Column("event_ref", sa.Text(), nullable=False),
    sa.Column("kind", sa.Text(), nullable=False),
    sa.Column("object_ref", sa.Text(), nullable=False),
    sa.Column("received_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
    sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
    sa.Column("outcome", sa.Text(), nullable=True, comment="what was booked, or why nothing was"),
    sa.PrimaryKeyConstraint("event_ref", name=op.f("pk_processor_event"))
    )
    op.create_index(op.f("ix_processor_event_received_at"), "processor_event", ["received_at"], unique=False)


def downgrade() -> None:
    op.drop_table("processor_event")
    op.drop_table("refund_order")
    op.drop_table("auto_top_up")
    op.drop_table("payment")
    op.drop_table("processor_customer")
