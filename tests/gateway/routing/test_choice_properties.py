"""What holds for every request and every state of the world: the order is total, and nobody cannot serve."""

from random import Random
from typing import Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import Task
from gateway.catalog import Model
from gateway.errors import InvalidRequest, ModelUnavailable
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest, ProviderChoice
from gateway.jobs.workforce import LoadedModel
from gateway.routing import (
    BACKENDS,
    ENGINE,
    REMOTE,
    Choice,
    Circuit,
    Known,
    Route,
    RouteHealth,
    choose,
    judge,
)

MODEL: Final = Model(
    id="m",
    name="M",
    tasks=(Task.TEXT2MUSIC, Task.COVER),
    duration_seconds=(5, 600, 60),
    usd_per_second="0.001",
    engine="turbo",
    runware="runware:ace-step@v1.5-turbo",
    wavespeed="wavespeed-ai/ace-step-1.5",
)
NAMES: Final = st.lists(st.sampled_from(BACKENDS), unique=True).map(tuple)
PRICES: Final = st.sampled_from([None, 0, 1, 100_000, 300_000])
ALLOWED: Final = (InvalidRequest, ModelUnavailable)


@st.composite
def routes(draw: st.DrawFn) -> list[Route]:
    """At least one way to the model, in any order."""
    model = msgspec.structs.replace(MODEL, routes=draw(NAMES))
    names = draw(st.lists(st.sampled_from(BACKENDS), unique=True, min_size=1))
    return [
        Route(backend=name, model=model, nano_per_second=0)
        if name == ENGINE
        else Route(
            backend=name,
            model=model,
            remote_model=model.backends[name],
            nano_per_second=draw(PRICES),
        )
        for name in names
    ]


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """Whatever the model's ranges let through."""
    is_cover = draw(st.booleans())
    source = AudioInput(file_id="f", frames=60 * SAMPLE_RATE)
    return GenerationRequest(
        prompt="a song",
        frames=draw(st.sampled_from([5, 29, 60, 241, 301, 600])) * SAMPLE_RATE,
        seed=draw(st.sampled_from([0, 2**31 - 2, 2**31, 2**32 - 1])),
        n=draw(st.integers(1, 8)),
        task=Task.COVER if is_cover else Task.TEXT2MUSIC,
        source_audio=source if is_cover else None,
        reference_audio=draw(st.sampled_from([None, None, source])),
        bpm=draw(st.sampled_from([None, 120])),
        strict=draw(st.booleans()),
        provider=draw(
            st.none()
            | st.builds(ProviderChoice, order=NAMES, only=NAMES, ignore=NAMES, allow_fallbacks=st.booleans())
        ),
    )


@st.composite
def worlds(draw: st.DrawFn) -> Known:
    """What workers may tell."""
    health = {
        (name, MODEL.id): RouteHealth(
            backend=name,
            model=MODEL.id,
            circuit=draw(st.sampled_from(Circuit)),
            latency_seconds=draw(st.sampled_from([None, 1.0, 9.0])),
            no_credit=draw(st.booleans()),
        )
        for name in draw(st.lists(st.sampled_from(REMOTE), unique=True))
    }
    loaded = LoadedModel(
        model=MODEL.id,
        state=draw(st.sampled_from(["loading", "ready"])),
        longest_seconds=draw(st.sampled_from([None, 100.5, 600.0])),
        realtime_factor=draw(st.sampled_from([None, 2.0])),
    )
    return Known(models={MODEL.id: loaded} if draw(st.booleans()) else {}, health=health)


def outcome(ways: list[Route], request: GenerationRequest, known: Known) -> Choice | type[Exception]:
    try:
        return choose(ways, request, known, able=list)
    except ALLOWED as error:
        return type(error)


@given(routes(), requests(), worlds())
@settings(max_examples=120)
def test_no_route_is_taken_that_cannot_express_it_and_none_is_left_out_that_can(
    ways: list[Route], request: GenerationRequest, known: Known
) -> None:
    found = outcome(ways, request, known)
    loaded = known.models.get(MODEL.id)
    able = {way.queue: way for way in ways if not judge(way, request, loaded).objections}
    asked = request.provider
    if isinstance(found, Choice):
        assert set(found.queues) <= set(able)
        assert len(set(found.queues)) == len(found.queues) > 0
        assert found.reason
        if asked is None:
            assert set(found.queues) == set(able)
        else:
            taken = [able[queue].backend for queue in found.queues]
            assert not set(taken) & set(asked.ignore)
            assert not asked.only or set(taken) <= set(asked.only)
            assert asked.allow_fallbacks or len(taken) == 1
    elif issubclass(found, InvalidRequest):
        assert not able or asked is not None


@given(routes(), requests(), worlds(), st.randoms(use_true_random=False))
@settings(max_examples=80)
def test_the_order_does_not_depend_on_how_the_routes_were_listed(
    ways: list[Route], request: GenerationRequest, known: Known, random: Random
) -> None:
    shuffled = list(ways)
    random.shuffle(shuffled)
    assert outcome(ways, request, known) == outcome(shuffled, request, known)


@given(routes(), requests(), worlds(), worlds())
@settings(max_examples=80)
def test_health_reorders_routes_and_hides_none(
    ways: list[Route], request: GenerationRequest, known: Known, later: Known
) -> None:
    request = msgspec.structs.replace(request, provider=None)
    later = Known(models=known.models, health=later.health)
    found = [outcome(ways, request, world) for world in (known, later)]
    queues = [set(one.queues) for one in found if isinstance(one, Choice)]
    assert all(one == queues[0] for one in queues)
    refusals = {one for one in found if not isinstance(one, Choice)}
    # Where nobody may be paid, it is the operator's turn; what cannot be expressed does not change.
    assert not queues or refusals <= {ModelUnavailable}


@given(routes(), requests(), worlds())
@settings(max_examples=80)
def test_what_would_only_wait_comes_last_unless_there_is_nothing_else(
    ways: list[Route], request: GenerationRequest, known: Known
) -> None:
    found = outcome(ways, msgspec.structs.replace(request, provider=None), known)
    if not isinstance(found, Choice):
        return

    def is_out(queue: str) -> bool:
        backend, slash, _ = queue.partition("/")
        if not slash:
            return MODEL.id not in known.models
        health = known.health.get((backend, MODEL.id))
        return health is None or health.no_credit or health.circuit is Circuit.OPEN

    told = [is_out(queue) for queue in found.queues]
    assert told == sorted(told)
