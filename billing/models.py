"""The ledger's tables. Every rule that money rests on stands here a second time, as a constraint.

Sign convention: `posted` of a customer is what we owe them, so a grant is positive there and
negative on the account that paid for it; over all accounts the sum is zero at every commit.
"""

import uuid

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

NAMING_CONVENTION = {
    "pk": "pk_%(table_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
}

metadata = MetaData(naming_convention=NAMING_CONVENTION)

NOW = text("now()")


def _created_at() -> Column[object]:
    return Column("created_at", DateTime(timezone=True), nullable=False, server_default=NOW)


account = Table(
    "account",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("posted_nano", BigInteger, nullable=False, server_default="0"),
    Column("held_nano", BigInteger, nullable=False, server_default="0"),
    Column("overdraft_nano", BigInteger, nullable=False, server_default="0"),
    Column(
        "owed_nano",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="what a dispute or refund took beyond the balance; nothing is held while it is owed",
    ),
    Column(
        "next_expiry_at", DateTime(timezone=True), nullable=True, comment="of the grants with something left"
    ),
    Column("low_nano", BigInteger, nullable=False, server_default="1000000000"),
    Column("critical_nano", BigInteger, nullable=False, server_default="100000000"),
    Column(
        "level",
        SmallInteger,
        nullable=False,
        server_default="0",
        comment="0 fine, 1 low, 2 critical: already told",
    ),
    _created_at(),
    CheckConstraint(
        "kind IN ('customer', 'revenue', 'promo_expense', 'variance', 'stripe_clearing', 'breakage', "
        "'receivable', 'cogs_expense', 'cogs_payable')",
        name="kind",
    ),
    CheckConstraint("held_nano >= 0 AND overdraft_nano >= 0 AND owed_nano >= 0", name="not_negative"),
    CheckConstraint("critical_nano >= 0 AND low_nano >= critical_nano", name="thresholds"),
    CheckConstraint("level BETWEEN 0 AND 2", name="level"),
    CheckConstraint("kind = 'customer' OR held_nano = 0", name="only_customers_hold"),
    CheckConstraint("kind <> 'customer' OR posted_nano - held_nano + overdraft_nano >= 0", name="covered"),
    Index("ix_account_next_expiry_at", "next_expiry_at", postgresql_where=text("next_expiry_at IS NOT NULL")),
    Index("ix_account_owing", "id", postgresql_where=text("owed_nano > 0")),
    Index("ix_account_level", "level", postgresql_where=text("level > 0")),
)

price_version = Table(
    "price_version",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("model", Text, nullable=False),
    Column("account_id", ForeignKey("account.id"), nullable=True, comment="null: the list price"),
    Column("nano_per_second", BigInteger, nullable=False),
    Column("was_nano_per_second", BigInteger, nullable=True),
    Column("discount_ppm", Integer, nullable=False, server_default="0"),
    Column(
        "withdrawn",
        Boolean,
        nullable=False,
        server_default="false",
        comment="from then on the account pays the list price again",
    ),
    Column("effective_from", DateTime(timezone=True), nullable=False, server_default=NOW),
    _created_at(),
    CheckConstraint("nano_per_second >= 0", name="not_negative"),
    CheckConstraint("was_nano_per_second > nano_per_second", name="was_is_more"),
    CheckConstraint("discount_ppm BETWEEN 0 AND 1000000", name="discount"),
    CheckConstraint("NOT withdrawn OR account_id IS NOT NULL", name="only_agreed_prices_are_withdrawn"),
    Index(None, "model", "account_id", "effective_from"),
)

hold = Table(
    "hold",
    metadata,
    Column("reference", Uuid, primary_key=True, comment="the job that the money is kept for"),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("price_version_id", ForeignKey("price_version.id"), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="open"),
    Column("budget_ids", ARRAY(Uuid), nullable=False, server_default="{}"),
    Column("deadline_at", DateTime(timezone=True), nullable=False),
    _created_at(),
    Column("closed_at", DateTime(timezone=True), nullable=True),
    CheckConstraint("amount_nano >= 0", name="not_negative"),
    CheckConstraint("state IN ('open', 'settled', 'released')", name="state"),
    CheckConstraint("(state = 'open') = (closed_at IS NULL)", name="closed"),
    Index("ix_hold_open_account_id", "account_id", postgresql_where=text("state = 'open'")),
    Index("ix_hold_open_created_at", "created_at", postgresql_where=text("state = 'open'")),
)

budget = Table(
    "budget",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("subject", Uuid, nullable=False, comment="key, project or organization that is capped"),
    Column("scope", Text, nullable=False, server_default="key"),
    Column("period", Text, nullable=False),
    Column("limit_nano", BigInteger, nullable=False),
    Column("period_start", DateTime(timezone=True), nullable=False),
    Column("spent_nano", BigInteger, nullable=False, server_default="0"),
    Column("held_nano", BigInteger, nullable=False, server_default="0"),
    Column("alert_nano", BigInteger, nullable=True, comment="say so when this much is spent; null: never"),
    Column("alerted_at", DateTime(timezone=True), nullable=True, comment="said so in this period"),
    _created_at(),
    UniqueConstraint("subject", "period"),
    CheckConstraint("scope IN ('key', 'project', 'organization')", name="scope"),
    CheckConstraint("alert_nano > 0", name="alert"),
    CheckConstraint("period IN ('day', 'month', 'total')", name="period"),
    CheckConstraint("limit_nano >= 0 AND spent_nano >= 0 AND held_nano >= 0", name="not_negative"),
)

TRANSFER_KINDS = (
    "grant",
    "settle",
    "top_up",
    "usage_refund",
    "expiry",
    "payment_refund",
    "payment_refund_failed",
    "dispute",
    "dispute_won",
    "debt_payment",
    "provider_cost",
)
PER_JOB_KINDS = ("settle", "provider_cost")

transfer = Table(
    "transfer",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("reference", Uuid, nullable=True, comment="the job that was settled or refunded"),
    Column("external_ref", Text, nullable=True, comment="the object at the payment provider"),
    Column("reason", Text, nullable=True),
    _created_at(),
    CheckConstraint(f"kind IN ({', '.join(map(repr, TRANSFER_KINDS))})", name="kind"),
    CheckConstraint("kind <> 'settle' OR reference IS NOT NULL", name="settle_names_its_job"),
    UniqueConstraint("kind", "reference"),
    UniqueConstraint("kind", "external_ref"),
)

entry = Table(
    "entry",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("transfer_id", ForeignKey("transfer.id"), nullable=False),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("balance_after_nano", BigInteger, nullable=False),
    _created_at(),
    Column("kind", Text, nullable=True, comment="of its transfer; null for kinds that come with every job"),
    UniqueConstraint("transfer_id", "account_id"),
    Index(None, "account_id", "id"),
    # What is rare is found among millions of settlements, which are not in it and do not pay for it.
    Index("ix_entry_rare", "account_id", "kind", "id", postgresql_where=text("kind IS NOT NULL")),
)

credit_grant = Table(
    "credit_grant",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("transfer_id", ForeignKey("transfer.id"), nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("amount_nano", BigInteger, nullable=False),
    Column("remaining_nano", BigInteger, nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=True, comment="null: never"),
    Column("closed_at", DateTime(timezone=True), nullable=True, comment="when the last of it went"),
    _created_at(),
    CheckConstraint("kind IN ('paid', 'promotional', 'refund')", name="kind"),
    CheckConstraint("amount_nano > 0 AND remaining_nano BETWEEN 0 AND amount_nano", name="remaining"),
    CheckConstraint("(remaining_nano = 0) = (closed_at IS NOT NULL)", name="closed"),
    # Not on `remaining_nano`: an index on what every settlement changes would double its writes.
    Index("ix_credit_grant_open", "account_id", postgresql_where=text("closed_at IS NULL")),
    comment="where a balance comes from; what is spent is taken from what expires first",
)

notice = Table(
    "notice",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("data", JSONB, nullable=False),
    _created_at(),
    Column("told_at", DateTime(timezone=True), nullable=True),
    Index("ix_notice_untold", "id", postgresql_where=text("told_at IS NULL")),
    Index(None, "account_id", "id"),
    comment="what somebody should know, written in the commit that made it true",
)

ledger_watch = Table(
    "ledger_watch",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("checked_entry_id", BigInteger, nullable=False, server_default="0"),
    Column("checked_at", DateTime(timezone=True), nullable=False, server_default=NOW),
    Column("halted_at", DateTime(timezone=True), nullable=True, comment="since when nothing new is held"),
    Column("violations", JSONB, nullable=False, server_default="[]"),
    CheckConstraint("id = 1", name="one_row"),
    comment="how far the books were checked while in use, and what was found",
)

usage_record = Table(
    "usage_record",
    metadata,
    Column("reference", Uuid, ForeignKey("hold.reference"), primary_key=True),
    Column("account_id", ForeignKey("account.id"), nullable=False),
    Column("price_version_id", ForeignKey("price_version.id"), nullable=False),
    Column("frames", BigInteger, nullable=False),
    Column("sample_rate", Integer, nullable=False),
    Column("billed_ms", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    _created_at(),
    CheckConstraint("frames > 0 AND sample_rate > 0 AND cost_nano >= 0", name="positive"),
    CheckConstraint("billed_ms = (frames * 1000 + sample_rate - 1) / sample_rate", name="billed_ms"),
    Index(None, "account_id", "created_at"),
)

APPEND_ONLY = ("price_version", "transfer", "entry", "usage_record")

REVENUE = uuid.UUID(int=1)
PROMO_EXPENSE = uuid.UUID(int=2)
VARIANCE = uuid.UUID(int=3)
STRIPE_CLEARING = uuid.UUID(int=4)
BREAKAGE = uuid.UUID(int=5)
RECEIVABLE = uuid.UUID(int=6)
COGS_EXPENSE = uuid.UUID(int=7)
COGS_PAYABLE = uuid.UUID(int=8)
HOUSE_ACCOUNTS = {
    REVENUE: "revenue",
    PROMO_EXPENSE: "promo_expense",
    VARIANCE: "variance",
    STRIPE_CLEARING: "stripe_clearing",
    BREAKAGE: "breakage",
    RECEIVABLE: "receivable",
    COGS_EXPENSE: "cogs_expense",
    COGS_PAYABLE: "cogs_payable",
}
"""Our own side of every transfer; opened by migrations."""
