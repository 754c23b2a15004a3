"""Tables of money that comes in: who is whom at the payment provider, payments, and what it told us.

Rows of an account are locked after the account itself.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB

from billing.models import NOW, metadata

PAYMENT_KINDS = ("checkout", "automatic", "external")
"""The customer pays on the provider's page; we charge the saved card; found at the provider, not ours."""

UNFINISHED = ("created", "pending")
"""Not sent to the provider as far as we know; waiting for the customer or for the bank."""

FINISHED = ("paid", "failed", "expired")


def _words(values: tuple[str, ...]) -> str:
    return ", ".join(map(repr, values))


def _created_at() -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW)


def _moment(name: str, comment: str | None = None) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=True, comment=comment)


processor_customer = Table(
    "processor_customer",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("customer_ref", Text, nullable=False, unique=True),
    Column("payment_method_ref", Text, nullable=True, unique=True, comment="the saved card"),
    Column("card", JSONB, nullable=True, comment="what may be shown of it"),
    _moment("card_chosen_at", "by the provider's clock; older news does not bring an older card back"),
    Column("setup_ref", Text, nullable=True, comment="the page on which a card is being saved"),
    _moment("asked_at", "when that page was last asked about"),
    _created_at(),
    CheckConstraint("(payment_method_ref IS NULL) = (card IS NULL)", name="card"),
)

payment = Table(
    "payment",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="created"),
    Column("amount_nano", BigInteger, nullable=False),
    Column("refunded_nano", BigInteger, nullable=False, server_default="0"),
    Column("disputed_nano", BigInteger, nullable=False, server_default="0", comment="taken and not won back"),
    Column("idempotency_key", Text, nullable=True),
    Column("request_hash", BYTEA, nullable=True),
    Column("success_url", Text, nullable=True),
    Column("cancel_url", Text, nullable=True),
    Column("save_card", Boolean, nullable=False, server_default="false"),
    Column("payment_method_ref", Text, nullable=True, comment="the card that an automatic payment charges"),
    Column("checkout_ref", Text, nullable=True, unique=True),
    Column("intent_ref", Text, nullable=True, unique=True),
    Column("url", Text, nullable=True, comment="where the customer pays"),
    _moment("expires_at"),
    Column("receipt_url", Text, nullable=True),
    Column("error_code", Text, nullable=True),
    Column("error_message", Text, nullable=True),
    _moment("asked_at", "when the provider was last asked about it"),
    _created_at(),
    _moment("finished_at"),
    UniqueConstraint("account_id", "idempotency_key"),
    CheckConstraint(f"kind IN ({_words(PAYMENT_KINDS)})", name="kind"),
    CheckConstraint(f"status IN ({_words(UNFINISHED + FINISHED)})", name="status"),
    CheckConstraint(f"(status IN ({_words(UNFINISHED)})) = (finished_at IS NULL)", name="finished"),
    CheckConstraint("amount_nano > 0 AND refunded_nano >= 0 AND disputed_nano >= 0", name="amounts"),
    CheckConstraint("(idempotency_key IS NULL) = (request_hash IS NULL)", name="idempotency"),
    CheckConstraint("(kind = 'automatic') = (payment_method_ref IS NOT NULL)", name="card"),
    CheckConstraint("status <> 'paid' OR intent_ref IS NOT NULL", name="paid"),
    Index(None, "account_id", "created_at", "id"),
    Index(
        "uq_payment_one_automatic",
        "account_id",
        unique=True,
        postgresql_where=text("kind = 'automatic' AND finished_at IS NULL"),
    ),
    Index("ix_payment_unfinished", "created_at", postgresql_where=text("finished_at IS NULL")),
)

auto_top_up = Table(
    "auto_top_up",
    metadata,
    Column("account_id", ForeignKey("account.id"), primary_key=True),
    Column("enabled", Boolean, nullable=False, server_default="false"),
    Column("threshold_nano", BigInteger, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("daily_cap_nano", BigInteger, nullable=True, comment="by UTC; null: none"),
    Column("monthly_cap_nano", BigInteger, nullable=True),
    Column("failures", Integer, nullable=False, server_default="0", comment="in a row"),
    _moment("next_try_at"),
    Column("disabled_reason", Text, nullable=True, comment="why we switched it off"),
    CheckConstraint("threshold_nano > 0 AND amount_nano > 0 AND failures >= 0", name="amounts"),
    CheckConstraint("daily_cap_nano > 0 AND monthly_cap_nano > 0", name="caps"),
    CheckConstraint("NOT enabled OR disabled_reason IS NULL", name="disabled"),
    Index("ix_auto_top_up_enabled", "account_id", postgresql_where=text("enabled")),
)

refund_order = Table(
    "refund_order",
    metadata,
    Column("id", Uuid, primary_key=True, comment="also the idempotency key at the provider"),
    Column("payment_id", ForeignKey("payment.id"), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("reason", Text, nullable=True),
    Column("refund_ref", Text, nullable=True, unique=True),
    Column("error", Text, nullable=True),
    _created_at(),
    _moment("finished_at", "null: not known whether the provider did it"),
    CheckConstraint("amount_nano > 0", name="amount"),
    CheckConstraint("finished_at IS NOT NULL OR (refund_ref IS NULL AND error IS NULL)", name="finished"),
    Index("uq_refund_order_one", "payment_id", unique=True, postgresql_where=text("finished_at IS NULL")),
    comment="what an operator ordered to be paid back, written before the provider is told",
)

processor_event = Table(
    "processor_event",
    metadata,
    Column("event_ref", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("object_ref", Text, nullable=False),
    Column("received_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    _moment("processed_at"),
    Column("outcome", Text, nullable=True, comment="what was booked, or why nothing was"),
    Index(None, "received_at"),
)
