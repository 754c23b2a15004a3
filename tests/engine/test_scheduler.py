"""The scheduler's promises, over every queue Hypothesis can think of."""

from hypothesis import given
from hypothesis import strategies as st

from engine import BatchLimits, EngineRequest
from engine.scheduler import next_batch


def _request(index: int, model: str, frames: int) -> EngineRequest:
    return EngineRequest(id=str(index), model=model, prompt="", lyrics="", frames=frames, seed=0)


queues = st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 500)), max_size=40).map(
    lambda rows: [_request(i, model, frames) for i, (model, frames) in enumerate(rows)]
)
limits = st.builds(BatchLimits, requests=st.integers(1, 8), frames=st.integers(1, 1500))


@given(queues, limits)
def test_a_batch_holds_one_model_and_keeps_its_bounds(
    waiting: list[EngineRequest], limits: BatchLimits
) -> None:
    batch = next_batch(waiting, limits)
    assert bool(batch) == bool(waiting)
    assert len({request.model for request in batch}) <= 1
    assert len(batch) <= limits.requests
    assert len(batch) <= 1 or sum(request.frames for request in batch) <= limits.frames


@given(queues, limits)
def test_the_oldest_leads_and_nobody_overtakes_within_a_model(
    waiting: list[EngineRequest], limits: BatchLimits
) -> None:
    batch = next_batch(waiting, limits)
    if waiting:
        same = [request for request in waiting if request.model == waiting[0].model]
        assert batch == same[: len(batch)]


@given(queues, limits)
def test_a_batch_is_as_large_as_it_may_be(waiting: list[EngineRequest], limits: BatchLimits) -> None:
    batch = next_batch(waiting, limits)
    same = [request for request in waiting if waiting and request.model == waiting[0].model]
    if len(batch) < min(len(same), limits.requests):
        assert sum(request.frames for request in same[: len(batch) + 1]) > limits.frames


@given(queues, limits)
def test_nothing_starves(waiting: list[EngineRequest], limits: BatchLimits) -> None:
    """Every request is served after at most as many batches as stood before it, plus its own."""
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
