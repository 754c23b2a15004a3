"""The ledger's tables. Every rule that money rests on stands here a second time, as a constraint.

Sign convention: `posted` of a customer is what we owe them, so a grant is positive there and
negative on the account that paid for it; over all accounts the sum is zero at every commit.
"""

import uuid

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY

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
    _created_at(),
    CheckConstraint("kind IN ('customer', 'revenue', 'promo_expense', 'variance')", name="kind"),
    CheckConstraint("held_nano >= 0 AND overdraft_nano >= 0", name="not_negative"),
    CheckConstraint("kind = 'customer' OR held_nano = 0", name="only_customers_hold"),
    CheckConstraint("kind <> 'customer' OR posted_nano - held_nano + overdraft_nano >= 0", name="covered"),
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
    Column("effective_from", DateTime(timezone=True), nullable=False, server_default=NOW),
    _created_at(),
    CheckConstraint("nano_per_second >= 0", name="not_negative"),
    CheckConstraint("was_nano_per_second > nano_per_second", name="was_is_more"),
    CheckConstraint("discount_ppm BETWEEN 0 AND 1000000", name="discount"),
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
    Column("period", Text, nullable=False),
    Column("limit_nano", BigInteger, nullable=False),
    Column("period_start", DateTime(timezone=True), nullable=False),
    Column("spent_nano", BigInteger, nullable=False, server_default="0"),
    Column("held_nano", BigInteger, nullable=False, server_default="0"),
    _created_at(),
    UniqueConstraint("subject", "period"),
    CheckConstraint("period IN ('day', 'month', 'total')", name="period"),
    CheckConstraint("limit_nano >= 0 AND spent_nano >= 0 AND held_nano >= 0", name="not_negative"),
)

transfer = Table(
    "transfer",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("reference", Uuid, nullable=True, comment="the job that was settled"),
    Column("external_ref", Text, nullable=True, comment="the object at the payment provider"),
    Column("reason", Text, nullable=True),
    _created_at(),
    CheckConstraint("kind IN ('grant', 'settle')", name="kind"),
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
    UniqueConstraint("transfer_id", "account_id"),
    Index(None, "account_id", "id"),
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
HOUSE_ACCOUNTS = {REVENUE: "revenue", PROMO_EXPENSE: "promo_expense", VARIANCE: "variance"}
"""Our own side of every transfer; opened by the first migration."""
