"""When a circuit opens, who may try, and what closes it."""

import random
import uuid

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from gateway.backends.remote.breaker import (
    CONSECUTIVE,
    LONGEST_OPEN_SECONDS,
    OPEN_SECONDS,
    WINDOW,
    WITNESS_SECONDS,
    Breaker,
    Permit,
)
from gateway.routing import Circuit

MOST_JITTER = 1.2


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def breaker(time: Time) -> Breaker:
    return Breaker(time, rng=random.Random(1))


def admitted(breaker: Breaker) -> Permit:
    permit = breaker.admit()
    assert permit is not None
    return permit


def fail(breaker: Breaker, times: int = 1, *, for_certain: bool = False) -> None:
    for _ in range(times):
        breaker.failed(admitted(breaker), "outage", for_certain=for_certain)


def test_failures_in_a_row_open_it_and_a_success_between_them_does_not_let_it(breaker: Breaker) -> None:
    fail(breaker, CONSECUTIVE - 1)
    breaker.succeeded(admitted(breaker))
    fail(breaker, CONSECUTIVE - 1)
    assert breaker.circuit is Circuit.CLOSED
    fail(breaker)
    assert breaker.circuit is Circuit.OPEN
    assert breaker.why == "outage"
    assert breaker.admit() is None


def test_half_of_the_latest_attempts_failing_opens_it(breaker: Breaker) -> None:
    for _ in range(WINDOW // 2):
        assert breaker.circuit is Circuit.CLOSED
        breaker.succeeded(admitted(breaker))
        fail(breaker)
    assert breaker.error_rate == 0.5
    assert breaker.circuit is Circuit.OPEN


def test_one_customers_failures_open_nothing_while_another_is_served(breaker: Breaker) -> None:
    bad, good, third = (uuid.uuid4() for _ in range(3))
    breaker.succeeded(breaker.enter(good))
    for _ in range(2 * WINDOW):
        breaker.failed(breaker.enter(bad), "upstream_error")
    breaker.failed(breaker.enter(bad), "misconfigured", for_certain=True)
    assert breaker.circuit is Circuit.CLOSED
    for _ in range(2):  # it is not that customer alone
        breaker.failed(breaker.enter(third), "upstream_error")
    assert breaker.circuit is Circuit.OPEN


def test_one_customers_failures_open_it_when_no_other_was_served_for_a_while(
    time: Time, breaker: Breaker
) -> None:
    bad = uuid.uuid4()
    breaker.succeeded(breaker.enter(uuid.uuid4()))
    breaker.succeeded(breaker.enter(bad))
    time.now += WITNESS_SECONDS + 1
    for _ in range(CONSECUTIVE):
        assert breaker.circuit is Circuit.CLOSED
        breaker.failed(breaker.enter(bad), "upstream_error")
    assert breaker.circuit is Circuit.OPEN


def test_what_will_fail_every_time_opens_it_at_once(breaker: Breaker) -> None:
    fail(breaker, for_certain=True)
    assert breaker.circuit is Circuit.OPEN


def test_what_says_nothing_of_the_backend_never_opens_it(breaker: Breaker) -> None:
    for _ in range(100):
        breaker.released(admitted(breaker))
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.error_rate == 0


def test_one_probe_at_a_time_tries_again_and_its_success_closes_it(time: Time, breaker: Breaker) -> None:
    fail(breaker, for_certain=True)
    time.now += OPEN_SECONDS * MOST_JITTER
    assert breaker.circuit is Circuit.HALF_OPEN
    probe = admitted(breaker)
    assert breaker.admit() is None
    assert not breaker.lets_through
    breaker.succeeded(probe)
    assert breaker.circuit is Circuit.CLOSED
    assert breaker.why is None
    assert breaker.error_rate == 0


def test_each_failed_probe_doubles_the_wait_up_to_five_minutes(time: Time, breaker: Breaker) -> None:
    fail(breaker, for_certain=True)
    waits = []
    for _ in range(8):
        assert breaker.open_seconds is not None
        waits.append(breaker.open_seconds)
        time.now += breaker.open_seconds
        fail(breaker)
    for index, wait in enumerate(waits):
        planned = min(OPEN_SECONDS * 2**index, LONGEST_OPEN_SECONDS)
        assert 0.8 * planned <= wait <= 1.2 * planned
    time.now += LONGEST_OPEN_SECONDS * MOST_JITTER
    breaker.succeeded(admitted(breaker))
    fail(breaker, for_certain=True)
    assert breaker.open_seconds is not None
    assert breaker.open_seconds <= OPEN_SECONDS * MOST_JITTER


def test_a_probe_that_says_nothing_makes_room_for_the_next_one(time: Time, breaker: Breaker) -> None:
    fail(breaker, for_certain=True)
    time.now += OPEN_SECONDS * MOST_JITTER
    breaker.released(admitted(breaker))
    assert breaker.circuit is Circuit.HALF_OPEN
    breaker.succeeded(admitted(breaker))
    assert breaker.circuit is Circuit.CLOSED


def test_stragglers_from_before_it_opened_neither_close_it_nor_prolong_it(
    time: Time, breaker: Breaker
) -> None:
    early = [admitted(breaker) for _ in range(3)]
    fail(breaker, for_certain=True)
    until = breaker.open_seconds
    breaker.succeeded(early[0])
    breaker.failed(early[1], "timeout")
    assert breaker.open_seconds == until
    time.now += OPEN_SECONDS * MOST_JITTER
    breaker.failed(early[2], "timeout", for_certain=True)
    assert breaker.circuit is Circuit.HALF_OPEN


def test_a_permit_counts_once(breaker: Breaker) -> None:
    permit = admitted(breaker)
    breaker.failed(permit, "outage")
    for _ in range(CONSECUTIVE):
        breaker.failed(permit, "outage")
        breaker.succeeded(permit)
    assert breaker.error_rate == 1
    assert breaker.circuit is Circuit.CLOSED


def test_it_is_tried_again_at_once_when_the_cause_is_gone(breaker: Breaker) -> None:
    breaker.trip("no_credit")
    assert (breaker.circuit, breaker.why) == (Circuit.OPEN, "no_credit")
    breaker.try_again()
    assert breaker.circuit is Circuit.HALF_OPEN
    breaker.succeeded(admitted(breaker))
    breaker.try_again()
    assert breaker.circuit is Circuit.CLOSED


def test_the_latency_is_the_one_in_the_middle(breaker: Breaker) -> None:
    assert breaker.latency_seconds is None
    for seconds in (3, 1, 500):
        breaker.note_latency(seconds)
    assert breaker.latency_seconds == 3


class Circuits(RuleBasedStateMachine):
    """Whatever happens in whatever order: one probe at a time, and never closed without a success."""

    permits = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.time = Time()
        self.breaker = Breaker(self.time, rng=random.Random(2))
        self.probes: set[int] = set()
        self.was_closed = True
        self.has_succeeded = False

    @rule(target=permits)
    def ask(self) -> Permit:
        circuit, permit = self.breaker.circuit, self.breaker.admit()
        assert (permit is None) == (
            circuit is Circuit.OPEN or (circuit is Circuit.HALF_OPEN and bool(self.probes))
        )
        if permit is None:
            return self.breaker.enter()
        assert permit.is_probe == (circuit is Circuit.HALF_OPEN)
        if permit.is_probe:
            self.probes.add(id(permit))
        return permit

    @rule(permit=consumes(permits))
    def succeed(self, permit: Permit) -> None:
        self.breaker.succeeded(permit)
        self.has_succeeded |= id(permit) in self.probes
        self.probes.discard(id(permit))

    @rule(permit=consumes(permits), for_certain=st.booleans())
    def fail(self, permit: Permit, *, for_certain: bool) -> None:
        self.breaker.failed(permit, "outage", for_certain=for_certain)
        self.probes.discard(id(permit))

    @rule(permit=consumes(permits))
    def release(self, permit: Permit) -> None:
        self.breaker.released(permit)
        self.probes.discard(id(permit))

    @rule(seconds=st.floats(0, 400))
    def wait(self, seconds: float) -> None:
        self.time.now += seconds

    @rule()
    def trip(self) -> None:
        self.breaker.trip("no_credit")

    @rule()
    def mend(self) -> None:
        self.breaker.try_again()

    @precondition(lambda self: self.breaker.circuit is Circuit.OPEN)
    @rule()
    def it_is_tried_again_in_the_end(self) -> None:
        seconds = self.breaker.open_seconds
        assert seconds is not None
        assert 0 < seconds <= LONGEST_OPEN_SECONDS * MOST_JITTER
        self.time.now += seconds
        assert self.breaker.circuit is Circuit.HALF_OPEN
        assert self.breaker.lets_through or self.probes

    @invariant()
    def there_is_at_most_one_probe(self) -> None:
        assert len(self.probes) <= 1

    @invariant()
    def only_the_success_of_a_probe_closes_it(self) -> None:
        is_closed = self.breaker.circuit is Circuit.CLOSED
        if is_closed and not self.was_closed:
            assert self.has_succeeded
        self.was_closed, self.has_succeeded = is_closed, False


TestCircuits = Circuits.TestCase
TestCircuits.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
