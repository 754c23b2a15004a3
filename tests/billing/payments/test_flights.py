"""Work that many ask for is done once, and nobody gets an answer from before they asked."""

import asyncio

import pytest

from billing.payments.flights import Flights


class Oracle:
    """Answers with how many questions had been put when it began to think."""

    def __init__(self) -> None:
        self.asked = 0
        self.runs = 0
        self.may_answer = asyncio.Event()

    async def think(self) -> int:
        self.runs += 1
        seen = self.asked
        await self.may_answer.wait()
        return seen


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_all_who_ask_before_it_begins_share_one_answer() -> None:
    flights, oracle = Flights[int](), Oracle()
    asking = [asyncio.create_task(flights.join("k", oracle.think)) for _ in range(50)]
    oracle.may_answer.set()
    assert await asyncio.gather(*asking) == [0] * 50
    assert oracle.runs == 1


async def test_who_asks_while_it_is_under_way_gets_a_younger_answer() -> None:
    flights, oracle = Flights[int](), Oracle()
    first = asyncio.create_task(flights.join("k", oracle.think))
    await settle()
    oracle.asked = 1
    late = [asyncio.create_task(flights.join("k", oracle.think)) for _ in range(49)]
    await settle()
    oracle.may_answer.set()
    assert await first == 0
    assert await asyncio.gather(*late) == [1] * 49
    assert oracle.runs == 2


async def test_different_keys_do_not_wait_for_each_other() -> None:
    flights, oracle = Flights[int](), Oracle()
    stuck = asyncio.create_task(flights.join("a", oracle.think))
    await settle()
    assert await flights.join("b", _seven) == 7
    oracle.may_answer.set()
    await stuck


async def test_an_error_reaches_all_who_share_it_and_nobody_later() -> None:
    flights = Flights[int]()

    async def fail() -> int:
        raise LookupError("nothing there")

    results = await asyncio.gather(*(flights.join("k", fail) for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in results] == [LookupError] * 3
    assert await flights.join("k", _seven) == 7


async def test_work_goes_on_when_the_first_who_asked_leaves() -> None:
    flights, oracle = Flights[int](), Oracle()
    first = asyncio.create_task(flights.join("k", oracle.think))
    second = asyncio.create_task(flights.join("k", oracle.think))
    await settle()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    oracle.may_answer.set()
    assert await second == 0
    await flights.land()


async def _seven() -> int:
    return 7
