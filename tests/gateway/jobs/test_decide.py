"""The walk over a batch is pure: it never overspends, keeps the order, and forgets who was refused."""

import uuid
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

import billing
from gateway.auth.principal import Principal
from gateway.errors import (
    BudgetExceeded,
    ConcurrencyLimitExceeded,
    GatewayError,
    IdempotencyKeyReused,
    InsufficientCredits,
    LedgerHalted,
    PriceChanged,
    RateLimitExceeded,
)
from gateway.jobs.walk import Admitted, Locked, Meter, Replayed, Submission, Verdict, decide
from tests.factories import new_submission

ORGANIZATIONS = [uuid.UUID(int=100 + n) for n in range(2)]
KEYS = {uuid.UUID(int=200 + n): ORGANIZATIONS[n % 2] for n in range(4)}
PRICE = billing.Price(
    id=uuid.UUID(int=9),
    model="sandbox",
    account_id=None,
    nano_per_second=1_000,
    was_nano_per_second=None,
    discount_ppm=0,
)


def submission_of(
    key_id: uuid.UUID,
    hold: int,
    idempotency_key: str | None = None,
    body: bytes = b"a",
    *,
    test: bool = False,
    limits: tuple[int | None, int | None] = (None, None),
) -> Submission:
    principal = Principal(
        key_id=key_id,
        organization_id=KEYS[key_id],
        project_id=None,
        test=test,
        requests_per_minute=limits[0],
        max_open_jobs=limits[1],
        has_budget=True,
    )
    return new_submission(
        principal, PRICE, length_ms=hold, idempotency_key=idempotency_key, request_hash=body
    )


def locked_of(
    credit: Sequence[int],
    budgets: Sequence[int | None] = (None,) * 4,
    meters: Sequence[tuple[int, int]] = (),
) -> Locked:
    """Fresh state: one account per organization, at most one budget per key, meters for the first keys."""
    return Locked(
        accounts={
            organization: billing.Account(id=organization, posted_nano=nano, held_nano=0)
            for organization, nano in zip(ORGANIZATIONS, credit, strict=True)
        },
        budgets={
            key: [
                billing.Budget(
                    id=key,
                    account_id=KEYS[key],
                    subject=key,
                    scope="key",
                    period="day",
                    limit_nano=limit,
                    spent_nano=0,
                    held_nano=0,
                )
            ]
            for key, limit in zip(KEYS, budgets, strict=True)
            if limit is not None
        },
        meters={
            key: Meter(key_id=key, minute_count=count, open_jobs=open_jobs, seconds_left=7)
            for key, (count, open_jobs) in zip(KEYS, meters, strict=False)
        },
    )


submissions = st.builds(
    submission_of,
    st.sampled_from(list(KEYS)),
    st.integers(0, 60),
    st.none() | st.sampled_from(["one", "two"]),
    st.sampled_from([b"a", b"b"]),
    test=st.booleans(),
    limits=st.tuples(st.none() | st.integers(1, 4), st.none() | st.integers(1, 4)),
)
batches = st.lists(submissions, max_size=20)
credits_of_both = st.tuples(st.integers(0, 200), st.integers(0, 200))
some_budgets = st.lists(st.none() | st.integers(0, 100), min_size=4, max_size=4)
some_meters = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=4)


def admitted(batch: Sequence[Submission], verdicts: Sequence[Verdict]) -> list[Submission]:
    return [s for s, verdict in zip(batch, verdicts, strict=True) if isinstance(verdict, Admitted)]


@given(batches, credits_of_both, some_budgets, some_meters)
def test_nothing_is_ever_overspent(
    batch: list[Submission],
    credit: tuple[int, int],
    budgets: list[int | None],
    meters: list[tuple[int, int]],
) -> None:
    locked = locked_of(credit, budgets, meters)
    taken = admitted(batch, decide(batch, locked))
    for organization, nano in zip(ORGANIZATIONS, credit, strict=True):
        held = sum(s.hold_nano for s in taken if s.organization_id == organization)
        assert locked.accounts[organization].held_nano == held <= nano
    for key, limit in zip(KEYS, budgets, strict=True):
        held = sum(s.hold_nano for s in taken if s.key_id == key)
        assert limit is None or locked.budgets[key][0].held_nano == held <= limit
    for key, (count, open_jobs) in zip(KEYS, meters, strict=True):
        mine = [s for s in taken if s.key_id == key]
        assert locked.meters[key].minute_count == count + len(mine)
        assert locked.meters[key].open_jobs == open_jobs + len(mine)


@given(batches, credits_of_both, some_budgets, some_meters)
def test_the_refused_and_the_replayed_change_nothing(
    batch: list[Submission],
    credit: tuple[int, int],
    budgets: list[int | None],
    meters: list[tuple[int, int]],
) -> None:
    taken = admitted(batch, decide(batch, locked_of(credit, budgets, meters)))
    again = decide(taken, locked_of(credit, budgets, meters))
    assert [_words(v) for v in again] == [(Admitted, s.job_id) for s in taken]


@given(batches, batches, credits_of_both, some_budgets, some_meters)
def test_whoever_comes_first_never_minds_who_comes_later(
    first: list[Submission],
    later: list[Submission],
    credit: tuple[int, int],
    budgets: list[int | None],
    meters: list[tuple[int, int]],
) -> None:
    alone = decide(first, locked_of(credit, budgets, meters))
    followed = decide([*first, *later], locked_of(credit, budgets, meters))
    assert [_words(v) for v in followed[: len(first)]] == [_words(v) for v in alone]


@given(batches, credits_of_both)
def test_one_idempotency_key_is_one_job(batch: list[Submission], credit: tuple[int, int]) -> None:
    verdicts = decide(batch, locked_of(credit))
    first: dict[object, Submission] = {}
    for submission, verdict in zip(batch, verdicts, strict=True):
        scope = submission.idempotency_scope
        if scope is None or (isinstance(verdict, InsufficientCredits) and scope not in first):
            continue
        winner = first.setdefault(scope, submission)
        if winner is submission:
            assert verdict == Admitted(submission.job_id)
        elif winner.request_hash == submission.request_hash:
            assert verdict == Replayed(winner.job_id)
        else:
            assert isinstance(verdict, IdempotencyKeyReused)


def test_a_large_request_that_is_refused_leaves_room_for_a_small_one_behind_it() -> None:
    key = next(iter(KEYS))
    batch = [submission_of(key, hold) for hold in (60, 11, 10, 1)]
    large, middle, small, none_left = decide(batch, locked_of([10, 0]))
    assert isinstance(large, InsufficientCredits)
    assert isinstance(middle, InsufficientCredits)
    assert isinstance(small, Admitted)
    assert isinstance(none_left, InsufficientCredits)
    assert large.details == {"required_usd": "0.000000060", "available_usd": "0.000000010"}


def test_refusals_come_in_the_order_limits_budget_credit() -> None:
    key = next(iter(KEYS))
    submission = submission_of(key, 60, limits=(2, 2))
    refusals = [
        decide([submission], locked_of([0, 0], [0, None, None, None], [counts]))[0]
        for counts in ((2, 2), (1, 2), (1, 1))
    ]
    refusals += decide([submission], locked_of([0, 0]))
    assert [type(refusal) for refusal in refusals] == [
        RateLimitExceeded,
        ConcurrencyLimitExceeded,
        BudgetExceeded,
        InsufficientCredits,
    ]
    assert isinstance(refusals[0], GatewayError)
    assert refusals[0].retry_after_seconds == 7


def test_what_an_earlier_try_has_written_is_admitted_without_reserving_again() -> None:
    submission = submission_of(next(iter(KEYS)), 10)
    locked = locked_of([10, 0])
    locked.present = frozenset({submission.job_id})
    assert decide([submission], locked) == [Admitted(submission.job_id)]
    assert locked.accounts[ORGANIZATIONS[0]].held_nano == 0


def test_while_the_books_are_in_doubt_nothing_new_is_held_and_repeats_are_answered() -> None:
    key = next(iter(KEYS))
    first, repeat, other, free = (
        submission_of(key, 10, "a key"),
        submission_of(key, 10, "a key"),
        submission_of(key, 10),
        submission_of(key, 10, test=True),
    )
    locked = locked_of([100, 0])
    assert decide([first], locked) == [Admitted(first.job_id)]
    locked.is_halted = True
    verdicts = decide([repeat, other, free], locked)
    assert [type(verdict) for verdict in verdicts] == [Replayed, LedgerHalted, Admitted]
    assert locked.accounts[ORGANIZATIONS[0]].held_nano == first.hold_nano


def test_nobody_pays_more_than_agreed_but_repeats_are_answered() -> None:
    key = next(iter(KEYS))
    first, repeat, dearer = (submission_of(key, 10, name) for name in ("a key", "a key", None))
    for one, most in ((first, first.hold_nano), (repeat, 0), (dearer, dearer.hold_nano - 1)):
        one.max_cost_nano = most
    locked = locked_of([100, 0])
    verdicts = decide([first, repeat, dearer], locked)
    assert [type(verdict) for verdict in verdicts] == [Admitted, Replayed, PriceChanged]
    assert locked.accounts[ORGANIZATIONS[0]].held_nano == first.hold_nano


def _words(verdict: Verdict) -> object:
    said = verdict.message if isinstance(verdict, GatewayError) else verdict.job_id
    return (type(verdict), said)
