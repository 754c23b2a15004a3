"""Prices are versions in time: appended, never changed, an agreed one before the list."""

import billing
from billing.pricing import SeedPrice
from tests.factories import CATALOG, NANO_PER_SECOND, Conn, new_customer


async def price_of(conn: Conn, account_id: object, model: str = "sandbox") -> int | None:
    price = (await billing.read_price_book(conn)).find(model, account_id)  # type: ignore[arg-type]
    return price.nano_per_second if price else None


async def test_the_last_version_is_in_force(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    assert await price_of(conn, account_id) == NANO_PER_SECOND
    for nano in (7, 3, 5):
        await billing.set_price(conn, model="sandbox", nano_per_second=nano)
        assert await price_of(conn, account_id) == nano


async def test_the_last_version_of_one_transaction_is_in_force(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    async with conn.transaction():
        for nano in (7, 3, 5):
            await billing.set_price(conn, model="sandbox", nano_per_second=nano)
    assert await price_of(conn, account_id) == 5


async def test_an_agreed_price_comes_before_the_list_and_is_nobody_elses(conn: Conn) -> None:
    one, other = [(await new_customer(conn)).organization_id for _ in range(2)]
    await billing.set_price(conn, model="sandbox", nano_per_second=9, account_id=one)
    await billing.set_price(conn, model="sandbox", nano_per_second=11)
    assert (await price_of(conn, one), await price_of(conn, other)) == (9, 11)


async def test_a_free_agreement_is_an_agreement(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await billing.set_price(conn, model="sandbox", nano_per_second=0, account_id=account_id)
    assert await price_of(conn, account_id) == 0


async def test_a_price_of_tomorrow_is_not_in_force(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await conn.execute(
        """
        INSERT INTO price_version (id, model, nano_per_second, effective_from)
        VALUES (gen_random_uuid(), 'sandbox', 1, now() + interval '1 day')
        """
    )
    assert await price_of(conn, account_id) == NANO_PER_SECOND


async def test_a_model_without_a_price_has_none(conn: Conn) -> None:
    assert await price_of(conn, (await new_customer(conn)).organization_id, "unheard-of") is None


async def test_seeding_fills_gaps_and_leaves_decisions_alone(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await billing.set_price(conn, model="sandbox", nano_per_second=9)
    fresh = SeedPrice(model="fresh", nano_per_second=4, was_nano_per_second=5)
    async with conn.transaction():
        assert await billing.seed_prices(conn, [*CATALOG.seed_prices(), fresh]) == 1
    assert (await price_of(conn, account_id), await price_of(conn, account_id, "fresh")) == (9, 4)


async def test_an_agreed_price_does_not_stand_in_for_the_list(conn: Conn) -> None:
    account_id = (await new_customer(conn)).organization_id
    await billing.set_price(conn, model="fresh", nano_per_second=9, account_id=account_id)
    async with conn.transaction():
        assert await billing.seed_prices(conn, [SeedPrice(model="fresh", nano_per_second=4)]) == 1
    other = (await new_customer(conn)).organization_id
    assert (await price_of(conn, account_id, "fresh"), await price_of(conn, other, "fresh")) == (9, 4)
