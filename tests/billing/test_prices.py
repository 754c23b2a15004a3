"""Prices are versions in time: appended, never changed, an agreed one before the list."""

import asyncio
import math
import re
import uuid
from datetime import datetime, timedelta

import asyncpg
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import billing
from billing.pricing import MAX_NANO_PER_SECOND
from tests.factories import CATALOG, NANO_PER_SECOND, Conn, new_customer, until

MINUTE = timedelta(minutes=1)
THIRD_PPM = 333_333

# The table that everybody was told: USD per second, and what it was before.
FIRST_PRICES = {
    "sandbox": ("0.00025", None),
    "ace-step-1.5-xl": ("0.00025", "0.0003"),
    "ace-step-1.5-xl-base": ("0.001", None),
    "ace-step-1.5-xl-sft": ("0.001", None),
    "ace-step-1.5": ("0.0003", None),
    "ace-step-1.5-base": ("0.0006", None),
    "ace-step": ("0.0002", None),
}


@st.composite
def prices(draw: st.DrawFn) -> billing.Price:
    """Any that `set_price` takes."""
    nano = draw(st.integers(0, MAX_NANO_PER_SECOND // 1_000)) * draw(st.sampled_from([1, 8, 1_000]))
    step = billing.PPM // math.gcd(nano, billing.PPM)
    return billing.Price(
        id=uuid.uuid4(),
        model="sandbox",
        account_id=None,
        nano_per_second=nano,
        was_nano_per_second=None,
        discount_ppm=step * draw(st.integers(0, billing.PPM // step)),
    )


async def price_of(
    conn: Conn, account_id: uuid.UUID, model: str = "sandbox", *, at: datetime | None = None
) -> int | None:
    price = (await billing.read_price_book(conn)).find(model, account_id, at)
    return price.net_nano_per_second if price else None


async def now(conn: Conn) -> datetime:
    return await conn.fetchval("SELECT clock_timestamp()")


async def is_waited_for(conn: Conn) -> bool:
    """Somebody waits until this session's transaction is over."""
    return bool(
        await conn.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pg_backend_pid() = ANY(pg_blocking_pids(pid)))"
        )
    )


async def account_of(conn: Conn) -> uuid.UUID:
    return (await new_customer(conn)).organization_id


async def test_the_last_version_is_in_force(conn: Conn) -> None:
    account_id = await account_of(conn)
    assert await price_of(conn, account_id) == NANO_PER_SECOND
    for nano in (7, 3, 5):
        await billing.set_price(conn, model="sandbox", nano_per_second=nano)
        assert await price_of(conn, account_id) == nano


async def test_the_last_version_of_one_transaction_is_in_force(conn: Conn) -> None:
    account_id = await account_of(conn)
    async with conn.transaction():
        for nano in (7, 3, 5):
            await billing.set_price(conn, model="sandbox", nano_per_second=nano)
            assert await price_of(conn, account_id) == nano
    assert await price_of(conn, account_id) == 5


async def test_versions_of_two_sessions_take_effect_in_the_order_of_their_commits(
    conn: Conn, database: str
) -> None:
    other = await asyncpg.connect(database)
    async with conn.transaction():
        await billing.set_price(conn, model="sandbox", nano_per_second=7)
        waiting = asyncio.create_task(billing.set_price(other, model="sandbox", nano_per_second=3))
        await until(lambda: is_waited_for(conn))
        await billing.set_price(conn, model="sandbox", nano_per_second=5)
    await waiting
    await other.close()
    assert await price_of(conn, await account_of(conn)) == 3


async def test_an_agreed_price_comes_before_the_list_and_is_nobody_elses(conn: Conn) -> None:
    one, other = await account_of(conn), await account_of(conn)
    await billing.set_price(conn, model="sandbox", nano_per_second=9, account_id=one)
    await billing.set_price(conn, model="sandbox", nano_per_second=11)
    assert (await price_of(conn, one), await price_of(conn, other)) == (9, 11)


async def test_a_free_agreement_is_an_agreement(conn: Conn) -> None:
    account_id = await account_of(conn)
    await billing.set_price(conn, model="sandbox", nano_per_second=0, account_id=account_id)
    assert await price_of(conn, account_id) == 0


async def test_an_agreement_that_ended_gives_back_the_list_as_it_is_then(conn: Conn) -> None:
    account_id = await account_of(conn)
    await billing.set_price(conn, model="sandbox", nano_per_second=9, account_id=account_id)
    await billing.set_price(conn, model="sandbox", nano_per_second=11)
    ended = await billing.withdraw_price(conn, model="sandbox", account_id=account_id)
    assert (ended.withdrawn, ended.nano_per_second) == (True, 9)
    assert await price_of(conn, account_id) == 11
    await billing.set_price(conn, model="sandbox", nano_per_second=12)
    assert await price_of(conn, account_id) == 12
    await billing.set_price(conn, model="sandbox", nano_per_second=8, account_id=account_id)
    assert await price_of(conn, account_id) == 8


async def test_what_was_never_agreed_or_has_ended_cannot_end(conn: Conn) -> None:
    account_id = await account_of(conn)
    tomorrow = await now(conn) + timedelta(days=1)
    with pytest.raises(billing.PriceMissing, match="sandbox"):
        await billing.withdraw_price(conn, model="sandbox", account_id=account_id)
    await billing.set_price(
        conn, model="sandbox", nano_per_second=9, account_id=account_id, effective_from=tomorrow
    )
    with pytest.raises(billing.PriceMissing):
        await billing.withdraw_price(conn, model="sandbox", account_id=account_id)
    await billing.withdraw_price(conn, model="sandbox", account_id=account_id, effective_from=tomorrow)
    with pytest.raises(billing.PriceMissing):
        await billing.withdraw_price(
            conn, model="sandbox", account_id=account_id, effective_from=tomorrow + MINUTE
        )
    assert await price_of(conn, account_id, at=tomorrow) == NANO_PER_SECOND


async def test_a_price_of_tomorrow_takes_effect_then_in_a_book_that_was_read_today(conn: Conn) -> None:
    account_id = await account_of(conn)
    tomorrow = await now(conn) + timedelta(days=1)
    await billing.set_price(conn, model="sandbox", nano_per_second=7, effective_from=tomorrow)
    await billing.set_price(
        conn, model="sandbox", nano_per_second=5, account_id=account_id, effective_from=tomorrow + MINUTE
    )
    book = await billing.read_price_book(conn)
    told = []
    for moment in (tomorrow - MINUTE, tomorrow - timedelta(microseconds=1), tomorrow, tomorrow + MINUTE):
        price = book.find("sandbox", account_id, moment)
        told.append(price and price.nano_per_second)
    assert told == [NANO_PER_SECOND, NANO_PER_SECOND, 7, 5]


async def test_a_clock_that_is_late_brings_no_old_price_back(conn: Conn) -> None:
    account_id = await account_of(conn)
    await billing.set_price(conn, model="sandbox", nano_per_second=7)
    assert await price_of(conn, account_id, at=await now(conn) - timedelta(hours=1)) == 7


async def test_of_two_versions_of_one_moment_the_later_one_counts(conn: Conn) -> None:
    account_id = await account_of(conn)
    tomorrow = await now(conn) + timedelta(days=1)
    for nano in (7, 3, 5):
        await billing.set_price(conn, model="sandbox", nano_per_second=nano, effective_from=tomorrow)
    assert await price_of(conn, account_id, at=tomorrow) == 5


@pytest.mark.parametrize("ahead", [timedelta(microseconds=-1), timedelta(days=-1), timedelta(days=3654)])
async def test_neither_the_past_nor_the_far_future_has_prices(conn: Conn, ahead: timedelta) -> None:
    account_id = await account_of(conn)
    await billing.set_price(conn, model="sandbox", nano_per_second=9, account_id=account_id)
    moment = await now(conn) + ahead
    with pytest.raises(billing.PriceRefused, match="now or later"):
        await billing.set_price(conn, model="sandbox", nano_per_second=7, effective_from=moment)
    with pytest.raises(billing.BillingError):
        await billing.withdraw_price(conn, model="sandbox", account_id=account_id, effective_from=moment)
    assert await price_of(conn, account_id) == 9


@pytest.mark.parametrize(
    ("amounts", "told"),
    [
        ({"nano_per_second": -1}, "from 0 to"),
        ({"nano_per_second": MAX_NANO_PER_SECOND + 1}, "from 0 to 1000"),
        ({"nano_per_second": 5, "was_nano_per_second": 5}, "must be more"),
        ({"nano_per_second": 5, "was_nano_per_second": 4}, "must be more"),
        ({"nano_per_second": 5, "discount_ppm": -1}, "discount"),
        ({"nano_per_second": 5, "discount_ppm": billing.PPM + 1}, "discount"),
    ],
)
async def test_amounts_that_make_no_sense_are_refused_in_words(
    conn: Conn, amounts: dict[str, int], told: str
) -> None:
    with pytest.raises(billing.PriceRefused, match=told):
        await billing.set_price(conn, model="sandbox", **amounts)
    assert await price_of(conn, await account_of(conn)) == NANO_PER_SECOND


async def test_a_discount_that_leaves_a_fraction_names_the_nearest_that_do_not(conn: Conn) -> None:
    with pytest.raises(billing.PriceRefused, match=re.escape("are 33.333 % and 33.334 %")):
        await billing.set_price(conn, model="sandbox", nano_per_second=300_000, discount_ppm=THIRD_PPM)
    for percent, net in (("33.333", 200_001), ("33.334", 199_998)):
        ppm = round(float(percent) * 10_000)
        price = await billing.set_price(conn, model="sandbox", nano_per_second=300_000, discount_ppm=ppm)
        assert (price.discount_percent, price.net_nano_per_second) == (percent, net)


async def test_a_discount_is_kept_and_charged(conn: Conn) -> None:
    account_id = await account_of(conn)
    await billing.set_price(
        conn, model="sandbox", nano_per_second=1_000, was_nano_per_second=1_200, discount_ppm=125_000
    )
    price = (await billing.read_price_book(conn)).find("sandbox", account_id)
    assert price is not None
    assert (price.nano_per_second, price.was_nano_per_second, price.discount_percent) == (
        1_000,
        1_200,
        "12.5",
    )
    assert (price.net_nano_per_second, price.cost_nano(10_000)) == (875, 8_750)


@given(price=prices(), duration_ms=st.integers(0, 10**10))
def test_a_charge_is_the_net_price_times_the_length(price: billing.Price, duration_ms: int) -> None:
    """What the rate card shows, times what was delivered, is what settlement takes."""
    by_the_card = billing.ceil_div(duration_ms * price.net_nano_per_second, 1_000)
    assert price.cost_nano(duration_ms) == by_the_card


@given(nano=st.integers(1, MAX_NANO_PER_SECOND), wanted=st.integers(0, billing.PPM))
async def test_the_discounts_that_are_named_are_the_nearest_whole_ones(nano: int, wanted: int) -> None:
    assume(nano * wanted % billing.PPM)
    with pytest.raises(billing.PriceRefused) as caught:
        await billing.set_price(None, model="m", nano_per_second=nano, discount_ppm=wanted)  # type: ignore[arg-type]
    below, above = (
        round(float(found) * 10_000) for found in re.findall(r"([0-9.]+) %", str(caught.value))[1:]
    )
    assert 0 <= below < wanted < above <= billing.PPM
    assert all(nano * ppm % billing.PPM == 0 for ppm in (below, above))
    # Whole discounts lie a common step apart, so none is left out between two neighbours.
    assert all(nano * ppm % billing.PPM for ppm in range(below + 1, min(above, below + 2_000)))


async def test_a_rate_tells_the_next_change_for_this_account(conn: Conn) -> None:
    one, other = await account_of(conn), await account_of(conn)
    start = await now(conn)
    hours = [start + timedelta(hours=n) for n in range(5)]
    await billing.set_price(conn, model="sandbox", nano_per_second=9, account_id=one)
    await billing.set_price(conn, model="sandbox", nano_per_second=NANO_PER_SECOND, effective_from=hours[1])
    await billing.set_price(conn, model="sandbox", nano_per_second=7, effective_from=hours[2])
    await billing.withdraw_price(conn, model="sandbox", account_id=one, effective_from=hours[3])
    book = await billing.read_price_book(conn)

    def told(account_id: uuid.UUID, at: datetime) -> tuple[int, int | None, datetime | None]:
        rate = book.rate("sandbox", account_id, at)
        assert rate is not None
        following = rate.next_price and rate.next_price.net_nano_per_second
        return rate.price.net_nano_per_second, following, rate.changes_at

    # The first version ahead changes nothing; the second one is not for who has an own price.
    assert told(other, start) == (NANO_PER_SECOND, 7, hours[2])
    assert told(other, hours[2]) == (7, None, None)
    assert told(one, start) == (9, 7, hours[3])
    assert told(one, hours[3]) == (7, None, None)
    assert book.rate("unheard-of", one) is None


async def test_the_history_says_where_each_version_stands(conn: Conn) -> None:
    account_id = await account_of(conn)
    tomorrow = await now(conn) + timedelta(days=1)
    for nano in (9, 8):
        await billing.set_price(conn, model="sandbox", nano_per_second=nano, account_id=account_id)
    for nano in (6, 7):
        await billing.set_price(
            conn, model="sandbox", nano_per_second=nano, account_id=account_id, effective_from=tomorrow
        )
    await billing.withdraw_price(
        conn, model="sandbox", account_id=account_id, effective_from=tomorrow + MINUTE
    )
    await billing.set_price(conn, model="ace-step", nano_per_second=5, account_id=account_id)
    history = await billing.read_price_history(conn, account_id)
    assert [
        (price.model, price.nano_per_second, price.withdrawn, state.value) for price, state in history
    ] == [
        ("ace-step", 5, False, "in_force"),
        ("sandbox", 7, True, "scheduled"),
        ("sandbox", 7, False, "scheduled"),
        ("sandbox", 6, False, "replaced"),
        ("sandbox", 8, False, "in_force"),
        ("sandbox", 9, False, "past"),
    ]
    listed = await billing.read_price_history(conn, None)
    assert {price.model for price, _ in listed} == set(CATALOG.models)
    assert {state for _, state in listed} == {billing.PriceState.IN_FORCE}


async def test_a_model_without_a_price_has_none(conn: Conn) -> None:
    assert await price_of(conn, await account_of(conn), "unheard-of") is None


async def test_the_shipped_catalog_starts_with_the_agreed_prices(conn: Conn) -> None:
    book = await billing.read_price_book(conn)
    found = {
        model: price and (price.nano_per_second, price.was_nano_per_second, price.discount_ppm)
        for model in CATALOG.models
        for price in [book.find(model, uuid.uuid4())]
    }
    assert found == {
        model: (billing.parse_usd(usd), was and billing.parse_usd(was), 0)
        for model, (usd, was) in FIRST_PRICES.items()
    }


async def test_seeding_fills_gaps_and_leaves_decisions_alone(conn: Conn) -> None:
    account_id = await account_of(conn)
    await billing.set_price(conn, model="sandbox", nano_per_second=9)
    fresh = billing.SeedPrice(model="fresh", nano_per_second=4, was_nano_per_second=5)
    async with conn.transaction():
        assert await billing.seed_prices(conn, [*CATALOG.seed_prices(), fresh]) == 1
    assert (await price_of(conn, account_id), await price_of(conn, account_id, "fresh")) == (9, 4)


async def test_two_processes_that_start_together_seed_once(conn: Conn, database: str) -> None:
    async def seed() -> int:
        session = await asyncpg.connect(database)
        async with session.transaction():
            seeded = await billing.seed_prices(session, [billing.SeedPrice(model="fresh", nano_per_second=4)])
        await session.close()
        return seeded

    assert sum(await asyncio.gather(*(seed() for _ in range(4)))) == 1
    assert await conn.fetchval("SELECT count(*) FROM price_version WHERE model = 'fresh'") == 1


async def test_an_agreed_price_does_not_stand_in_for_the_list(conn: Conn) -> None:
    account_id = await account_of(conn)
    await billing.set_price(conn, model="fresh", nano_per_second=9, account_id=account_id)
    async with conn.transaction():
        assert await billing.seed_prices(conn, [billing.SeedPrice(model="fresh", nano_per_second=4)]) == 1
    other = await account_of(conn)
    assert (await price_of(conn, account_id, "fresh"), await price_of(conn, other, "fresh")) == (9, 4)


@pytest.mark.parametrize(
    ("ppm", "text"), [(0, "0"), (1, "0.0001"), (125_000, "12.5"), (100_000, "10"), (billing.PPM, "100")]
)
def test_percents_are_written_without_idle_zeros(ppm: int, text: str) -> None:
    assert billing.format_percent(ppm) == text
