"""The scheduler's promises, over every queue Hypothesis can think of."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import BatchLimits, EngineRequest
from engine.scheduler import next_batch, pack

BUCKET = 64


def _request(index: int, model: str, frames: int) -> EngineRequest:
    return EngineRequest(id=str(index), model=model, prompt="", lyrics="", frames=frames, seed=0)


def _few_frames(batch: Sequence[EngineRequest]) -> bool:
    """A memory that counts what is really there, not what is padded."""
    return sum(request.frames for request in batch) <= 900


queues = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), max_size=40).map(
    lambda rows: [_request(i, model, frames) for i, (model, frames) in enumerate(rows)]
)
limits = st.builds(
    BatchLimits,
    requests=st.integers(1, 8),
    frames=st.integers(1, 1500),
    bucket=st.sampled_from([1, BUCKET]),
    waste=st.sampled_from([0.0, 0.2, 0.5]),
    fits=st.sampled_from([None, _few_frames]),
)


def _allowed(batch: Sequence[EngineRequest], limits: BatchLimits) -> bool:
    """Whether a batch of several keeps every bound, said in another way than the scheduler does."""
    rounded = [-(-request.frames // limits.bucket) * limits.bucket for request in batch]
    padded = max(rounded) * len(rounded)
    return (
        len(batch) <= limits.requests
        and padded <= limits.frames
        and 1 - sum(rounded) / padded <= limits.waste + 1e-9
        and (limits.fits is None or limits.fits(batch))
    )


@given(queues, limits)
def test_a_batch_holds_one_model_and_keeps_its_bounds(
    waiting: list[EngineRequest], limits: BatchLimits
) -> None:
    batch = next_batch(waiting, limits)
    assert bool(batch) == bool(waiting)
    assert len({request.model for request in batch}) <= 1
    assert len(batch) <= 1 or _allowed(batch, limits)


@given(queues, limits)
def test_the_oldest_leads_and_a_batch_is_in_order_of_arrival(
    waiting: list[EngineRequest], limits: BatchLimits
) -> None:
    batch = next_batch(waiting, limits)
    assert batch[:1] == waiting[:1]
    assert batch == [request for request in waiting if request in batch]


@given(queues, limits)
def test_nobody_is_left_behind_who_would_have_fitted(
    waiting: list[EngineRequest], limits: BatchLimits
) -> None:
    batch = next_batch(waiting, limits)
    joined: list[EngineRequest] = []
    for request in waiting:
        if request in batch:
            joined.append(request)
        elif request.model == waiting[0].model:
            assert not _allowed([*joined, request], limits)


@given(queues, limits)
def test_nothing_starves(waiting: list[EngineRequest], limits: BatchLimits) -> None:
    """Every request is served after at most as many batches as requests stood before it, plus its own."""
    position = {request.id: i for i, request in enumerate(waiting)}
    left, rounds, served = list(waiting), 0, set()
    while left:
        batch = next_batch(left, limits)
        for request in batch:
            assert rounds <= position[request.id]
            served.add(request.id)
        left = [request for request in left if request not in batch]
        rounds += 1
    assert served == set(position)


@given(st.lists(queues, min_size=1, max_size=6), limits)
def test_newcomers_never_push_back_who_waits(
    arrivals: list[list[EngineRequest]], limits: BatchLimits
) -> None:
    """Requests that keep arriving, however well they would fit, delay nobody beyond the first order."""
    left: list[EngineRequest] = []
    latest: dict[str, int] = {}
    for rounds, arrived in enumerate([*arrivals, *([[]] * 240)]):
        for request in arrived:
            left.append(_request(len(latest), request.model, request.frames))
            latest[left[-1].id] = rounds + len(left) - 1
        batch = next_batch(left, limits)
        assert all(rounds <= latest[request.id] for request in batch)
        left = [request for request in left if request not in batch]
    assert not left


@given(st.lists(st.integers(1, 500), max_size=12), limits)
def test_planned_songs_are_packed_by_the_same_rules(lengths: list[int], limits: BatchLimits) -> None:
    groups = pack(lengths, limits)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    plain = BatchLimits(
        requests=limits.requests, frames=limits.frames, bucket=limits.bucket, waste=limits.waste
    )
    for group in groups:
        requests = [_request(index, "a", lengths[index]) for index in group]
        assert group == sorted(group)
        assert len(group) <= 1 or _allowed(requests, plain)


def test_an_open_length_counts_with_its_most() -> None:
    short, open_ended = (
        _request(0, "a", 100),
        EngineRequest(id="1", model="a", prompt="", lyrics="", frames=500, open_length=True, seed=0),
    )
    bounds = BatchLimits(requests=4, frames=5000)
    assert next_batch([short, open_ended], bounds) == [short]
    assert next_batch([open_ended, _request(2, "a", 450)], bounds)[1:]


@pytest.mark.parametrize("fields", [{"requests": 0}, {"frames": 0}, {"bucket": 0}, {"waste": 1.0}])
def test_limits_that_hold_nothing_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"batch|padding"):
        BatchLimits(**{"requests": 1, "frames": 1, **fields})
