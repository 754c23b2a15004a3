"""The provider's lists against the books, both ways. What the books lack is booked, unless told not to."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, time
from typing import Final, TypeAlias

import msgspec

from billing.models import STRIPE_CLEARING
from billing.payments.cards import Pool
from billing.payments.errors import ObjectMissing
from billing.payments.processor import (
    CURRENCY,
    FAILED_REFUNDS,
    NANO_PER_CENT,
    UNTAKEN_DISPUTES,
    Intent,
    Movement,
    Processor,
)
from billing.payments.syncing import sync_page, sync_payment

KINDS: Final = ("top_up", "payment_refund", "payment_refund_failed", "dispute", "dispute_won")
CHUNK: Final = 5000

Lines: TypeAlias = dict[str, dict[str, int]]
"""By object and kind of transfer: what came in, negative for what went out, in nano."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing on which provider and books do not agree."""

    problem: str
    """`not_booked`, `not_at_processor`, `amount`, `currency` or `unfinished`."""
    kind: str
    ref: str
    at_processor_nano: int | None = None
    in_books_nano: int | None = None
    closed: bool = False
    """It was booked just now."""


class Day(msgspec.Struct, frozen=True, kw_only=True):
    """Charges less refunds and disputes of one day (by UTC, of the provider's clock), and the same booked."""

    day: date
    at_processor_nano: int
    in_books_nano: int


class Reconciliation(msgspec.Struct, frozen=True, kw_only=True):
    """What was compared and what differs."""

    since: datetime
    objects: int
    """Payments, refunds and disputes of our customers."""
    others: int
    """Those of somebody else's customers on the same account of the provider."""
    differences: list[Difference]
    days: list[Day]

    @property
    def agrees(self) -> bool:
        """Nothing differs any more."""
        return all(one.closed for one in self.differences)


async def reconcile(
    pool: Pool, processor: Processor, *, since: datetime, dry_run: bool = False
) -> Reconciliation:
    """Compare everything that was made at the provider, or booked, since the beginning of that day."""
    start = datetime.combine(since.astimezone(UTC).date(), time(), UTC)
    unfinished = await _close_unfinished(pool, processor, dry_run=dry_run)
    listed = [one async for one in processor.list_movements(start)]
    ours = await _keep_ours(pool, listed)
    refs = {one.ref for one in ours}
    lines = await _read_lines(pool, refs)
    found = [one for movement in ours for one in _compare(movement, lines.get(movement.ref, {}))]
    if not dry_run and found:
        differing = {one.ref for one in found}
        for intent_ref in sorted({one.intent_ref for one in ours if one.ref in differing}):
            await sync_payment(pool, processor, intent_ref)
        lines = await _read_lines(pool, refs)
        still = [one for movement in ours for one in _compare(movement, lines.get(movement.ref, {}))]
        left = {(one.kind, one.ref) for one in still}
        found = [msgspec.structs.replace(one, closed=(one.kind, one.ref) not in left) for one in found]
    strange, strange_lines = await _find_strange(pool, processor, start, refs)
    return Reconciliation(
        since=start,
        objects=len(ours),
        others=len(listed) - len(ours),
        differences=[*unfinished, *found, *strange],
        days=_days(ours, lines, strange_lines),
    )


async def _keep_ours(pool: Pool, listed: Sequence[Movement]) -> list[Movement]:
    """Those of payments that we know, or of customers that we know."""
    rows = await pool.fetch("SELECT customer_ref FROM processor_customer")
    customers = {row["customer_ref"] for row in rows}
    intents = {one.intent_ref for one in listed if one.customer_ref in customers}
    for chunk in _chunks({one.intent_ref for one in listed} - intents):
        rows = await pool.fetch("SELECT intent_ref FROM payment WHERE intent_ref = ANY($1)", chunk)
        intents.update(row["intent_ref"] for row in rows)
    return [one for one in listed if one.intent_ref in intents]


async def _read_lines(pool: Pool, refs: Iterable[str]) -> Lines:
    lines: Lines = defaultdict(dict)
    for chunk in _chunks(refs):
        rows = await pool.fetch(
            """
            SELECT t.kind, t.external_ref, -e.amount_nano AS nano
              FROM transfer t JOIN entry e ON e.transfer_id = t.id AND e.account_id = $3
             WHERE t.kind = ANY($1) AND t.external_ref = ANY($2)
            """,
            KINDS,
            chunk,
            STRIPE_CLEARING,
        )
        for row in rows:
            lines[row["external_ref"]][row["kind"]] = row["nano"]
    return lines


def _expected(kind: str, status: str, amount_nano: int, booked: Iterable[str]) -> dict[str, int]:
    """What the books should say of an object. One that failed before it was booked never is."""
    if kind == "payment":
        return {"top_up": amount_nano}
    if kind == "refund":
        if status not in FAILED_REFUNDS:
            return {"payment_refund": -amount_nano}
        if "payment_refund" not in booked:
            return {}
        return {"payment_refund": -amount_nano, "payment_refund_failed": amount_nano}
    if status.startswith(UNTAKEN_DISPUTES):
        return {}
    won = {"dispute_won": amount_nano} if status == "won" else {}
    return {"dispute": -amount_nano} | won


def _compare(movement: Movement, booked: dict[str, int]) -> Iterator[Difference]:
    nano = movement.amount_cents * NANO_PER_CENT
    if movement.currency != CURRENCY:
        yield Difference(problem="currency", kind=f"{movement.kind} in {movement.currency}", ref=movement.ref)
        return
    yield from _differences(movement.ref, _expected(movement.kind, movement.status, nano, booked), booked)


def _differences(ref: str, expected: dict[str, int], booked: dict[str, int]) -> Iterator[Difference]:
    for kind in KINDS:
        at_processor, in_books = expected.get(kind), booked.get(kind)
        if at_processor == in_books:
            continue
        problem = "amount"
        if in_books is None:
            problem = "not_booked"
        elif at_processor is None:
            problem = "not_at_processor"
        yield Difference(
            problem=problem, kind=kind, ref=ref, at_processor_nano=at_processor, in_books_nano=in_books
        )


async def _find_strange(
    pool: Pool, processor: Processor, start: datetime, listed: set[str]
) -> tuple[list[Difference], dict[date, int]]:
    """What was booked since and is not in the lists: older objects, or none at all."""
    rows = await pool.fetch(
        """
        SELECT t.external_ref AS ref, (t.created_at AT TIME ZONE 'UTC')::date AS day,
               CASE WHEN t.kind = 'top_up' THEN t.external_ref ELSE coalesce(t.reason, taken.reason) END
                   AS intent_ref
          FROM transfer t
          LEFT JOIN transfer taken ON taken.external_ref = t.external_ref
               AND taken.kind = CASE t.kind WHEN 'payment_refund_failed' THEN 'payment_refund'
                                            WHEN 'dispute_won' THEN 'dispute' END
         WHERE t.kind = ANY($1) AND t.created_at >= $2
         ORDER BY t.created_at
        """,
        KINDS,
        start,
    )
    wanted = {row["ref"]: row for row in rows if row["ref"] not in listed}
    lines = await _read_lines(pool, wanted)
    found: list[Difference] = []
    strange_days: dict[date, int] = defaultdict(int)
    known: dict[str, Intent | None] = {}
    for ref, row in wanted.items():
        intent_ref = row["intent_ref"]
        if intent_ref is not None and intent_ref not in known:
            try:
                known[intent_ref] = await processor.read_intent(intent_ref)
            except ObjectMissing:
                known[intent_ref] = None
        intent = known.get(intent_ref or "")
        expected = _expected_of(intent, ref, lines[ref]) if intent is not None else {}
        found += _differences(ref, expected, lines[ref])
        if not expected:
            strange_days[row["day"]] += sum(lines[ref].values())
    return found, strange_days


def _expected_of(intent: Intent, ref: str, booked: dict[str, int]) -> dict[str, int]:
    if ref == intent.ref and intent.is_paid:
        return {"top_up": intent.received_cents * NANO_PER_CENT}
    for refund in intent.refunds:
        if refund.ref == ref:
            return _expected("refund", refund.status, refund.amount_cents * NANO_PER_CENT, booked)
    for dispute in intent.disputes:
        if dispute.ref == ref:
            return _expected("dispute", dispute.status, dispute.amount_cents * NANO_PER_CENT, booked)
    return {}


async def _close_unfinished(pool: Pool, processor: Processor, *, dry_run: bool) -> list[Difference]:
    """Payments that should have ended a day ago, or whose page has expired."""
    query = """
        SELECT id, kind, checkout_ref, intent_ref, amount_nano FROM payment
         WHERE finished_at IS NULL AND least(expires_at, created_at + interval '1 day') < now()
         ORDER BY created_at
    """
    rows = await pool.fetch(query)
    if not dry_run:
        for row in rows:
            if row["checkout_ref"] is not None:
                await sync_page(pool, processor, row["id"], row["checkout_ref"])
            elif row["intent_ref"] is not None:
                await sync_payment(pool, processor, row["intent_ref"])
    left = {row["id"] for row in await pool.fetch(query)}
    return [
        Difference(
            problem="unfinished",
            kind=row["kind"],
            ref=row["id"].hex,
            in_books_nano=row["amount_nano"],
            closed=row["id"] not in left,
        )
        for row in rows
    ]


def _days(ours: Sequence[Movement], lines: Lines, strange: dict[date, int]) -> list[Day]:
    """Each object counts on its own day, however late it was booked."""
    at_processor: dict[date, int] = defaultdict(int)
    in_books: dict[date, int] = defaultdict(int, strange)
    for one in ours:
        if one.currency != CURRENCY:
            continue
        day, booked = one.created_at.date(), lines.get(one.ref, {})
        expected = _expected(one.kind, one.status, one.amount_cents * NANO_PER_CENT, booked)
        at_processor[day] += sum(expected.values())
        in_books[day] += sum(booked.values())
    return [
        Day(day=day, at_processor_nano=at_processor[day], in_books_nano=in_books[day])
        for day in sorted(at_processor.keys() | in_books.keys())
    ]


def _chunks(refs: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(refs)
    for start in range(0, len(ordered), CHUNK):
        yield ordered[start : start + CHUNK]
