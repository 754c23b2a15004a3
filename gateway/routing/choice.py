"""Which route serves a request, which ones it may fall back to, and why. Pure: no I/O, no clock."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from gateway.catalog import SANDBOX, Model
from gateway.errors import GatewayError, InvalidRequest, ModelUnavailable, UnsupportedParameter
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.routing import engine, runware, wavespeed
from gateway.routing.engine import Loaded
from gateway.routing.health import Circuit, RouteHealth
from gateway.routing.judgement import Judgement, Objection
from gateway.routing.route import ENGINE, RUNWARE, WAVESPEED, Route
from gateway.routing.routes import COMPOSER, Routes

Health = Mapping[tuple[str, str], RouteHealth]
"""By backend and model; whom no living worker tells of is not there."""

REHEARSED: Final = "test keys are served by the sandbox"
MAX_REMOTE_SEED: Final = 2**31 - 1
LONGEST_SECONDS: Final = {RUNWARE: runware.MOST_SECONDS, WAVESPEED: 240}
"""What the providers deliver at most."""

_JUDGES: Final = {RUNWARE: runware.judge, WAVESPEED: wavespeed.judge}
_VALUES: Final = frozenset(
    "audio_duration seed prompt lyrics negative_prompt repainting_start repainting_end n".split()
)
"""Where it is the value that is refused, not the field."""


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What workers have told."""

    models: Mapping[str, Loaded] = {}
    """Of the engine, by public id."""
    health: Health = {}


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Where a job waits, and where it goes if that fails."""

    queues: tuple[str, ...]
    """The first route's, then those to fall back to, in order."""
    reason: str
    """Why the first one, for people."""
    request: GenerationRequest
    """An open length ends where all of these routes end."""
    warnings: tuple[str, ...] = ()
    """What the first route changes."""


class _Trouble(msgspec.Struct, frozen=True):
    """Why a route may not start soon what is sent there."""

    why: str
    """A clause that reads well behind the name of the backend."""
    is_out: bool
    """A job would only wait there: others go first, whatever anybody prefers."""


_ABSENT: Final = _Trouble("has no worker", is_out=True)
_UNPAID: Final = _Trouble("has no credit", is_out=True)
_LOADING: Final = _Trouble("is loading the model", is_out=False)
_OF_A_CIRCUIT: Final = {
    Circuit.OPEN: _Trouble("failed too often", is_out=True),
    Circuit.HALF_OPEN: _Trouble("is being tried again", is_out=False),
}


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    route: Route
    judgement: Judgement
    frames: int
    trouble: _Trouble | None
    key: tuple[float | str, ...]
    """Along _CRITERIA, as if all were well."""

    @property
    def is_out(self) -> bool:
        return self.trouble is not None and self.trouble.is_out

    @property
    def rank(self) -> tuple[float | str, ...]:
        """Sorts as they are tried: what somebody prefers, then what is quite well, then what is cheap."""
        provider, operator, *rest = self.key
        return (self.is_out, provider, operator, self.trouble is not None, *rest)

    @property
    def doubt(self) -> str:
        """In words."""
        return f"{self.route.backend} {self.trouble.why}" if self.trouble is not None else ""


_CRITERIA: Final = ("provider", "operator", "price", "latency", "name")
_WORDS: Final = {
    "provider": "asked for by provider",
    "operator": "first in the operator's order",
    "price": "first by price",
    "latency": "first by latency",
    "name": "first by name",
}


def route_request(
    routes: Routes, model: Model, request: GenerationRequest, known: Known, *, allowed: frozenset[str] | None
) -> Choice:
    """Choose among what is configured here; `allowed`: the models that the caller may use, None: all.

    Raises ModelUnavailable, UnsupportedParameter or InvalidRequest, all before any money is held.
    """
    configured = routes.of(model)
    if not configured:
        raise routes.unavailable(model)

    def able() -> list[str]:
        return [
            other.id
            for other in sorted(routes.models, key=lambda m: m.id == SANDBOX)
            if other.id != model.id and (allowed is None or other.id in allowed)
            if can_make(routes, other, request, known)
        ]

    return choose(configured, request, known, able=able)


def choose(
    routes: Sequence[Route],
    request: GenerationRequest,
    known: Known,
    *,
    able: Callable[[], Sequence[str]],
) -> Choice:
    """Order the routes that can make what is asked. `able`: other models that can, asked if none of them can.

    Raises ModelUnavailable, UnsupportedParameter or InvalidRequest.
    """
    wanted, warnings = _wanted(routes, request)
    judged = [_candidate(route, request, known) for route in wanted]
    fitting = [one for one in judged if not one.judgement.objections]
    if not fitting:
        spurned = [_candidate(route, request, known) for route in routes if route not in wanted]
        raise _refusal(min(judged, key=lambda one: one.key), spurned, able)
    serving = [one for one in fitting if not _is_lost(one.route, known)]
    if not serving or all(one.trouble is _UNPAID for one in serving):
        raise _out_of_order(fitting)
    ranked = sorted(serving, key=lambda one: one.rank)
    if request.provider is not None and not request.provider.allow_fallbacks:
        ranked = ranked[:1]
    first = ranked[0]
    if request.open_length:
        request = msgspec.structs.replace(request, frames=max(one.frames for one in ranked))
    return Choice(
        queues=tuple(_queue(one.route) for one in ranked),
        reason=_reason(routes, wanted, serving, first),
        request=request,
        warnings=(*warnings, *first.judgement.warnings),
    )


def judge(route: Route, request: GenerationRequest, loaded: Loaded | None) -> Judgement:
    """What the route cannot express of a request that its model can have, and what it would change."""
    if route.model.engine == COMPOSER:
        return Judgement()
    if route.backend == ENGINE:
        return engine.judge(request, route.model, loaded)
    fitted = msgspec.structs.replace(request, frames=_frames(route, request, loaded))
    judged = _JUDGES[route.backend](fitted, route.remote_model or "")
    if more := _remote_objections(request, judged):
        return Judgement(objections=(*more, *judged.objections), warnings=judged.warnings)
    return judged


def ordered_frames(backend: str, request: GenerationRequest) -> int:
    """What is made there of each variation, and charged to us: more than is asked where that is too short."""
    return runware.ordered_frames(request) if backend == RUNWARE else request.frames


def longest_seconds(route: Route, loaded: Loaded | None) -> float:
    """What the route delivers at most."""
    if route.backend == ENGINE:
        return engine.longest_seconds(route.model, loaded)
    return min(route.model.duration_seconds[1], LONGEST_SECONDS[route.backend])


def can_make(routes: Routes, model: Model, request: GenerationRequest, known: Known) -> bool:
    """Whether the model is served here by a route that can express what was asked of another one."""
    return _is_in_range(model, request) and any(
        _can_make(route, request, known, planner=routes.planner) for route in routes.of(model)
    )


def _can_make(route: Route, request: GenerationRequest, known: Known, *, planner: bool) -> bool:
    if _is_lost(route, known) or _trouble(route, known) is _UNPAID:
        return False
    if route.backend == ENGINE and not engine.can_express(request, route.model, planner=planner):
        return False
    return not judge(route, request, known.models.get(route.model.id)).objections


def _is_in_range(model: Model, request: GenerationRequest) -> bool:
    """By the catalog."""
    low, high, _ = model.duration_seconds
    ranges = [(request.num_inference_steps, model.steps), (request.guidance_scale, model.guidance_scale)]
    return (
        request.task in model.tasks
        and (request.open_length or low <= request.frames / SAMPLE_RATE <= high)
        and (request.reference_audio is None or model.engine is not None)
        and all(
            value is None or bounds is None or bounds[0] <= value <= bounds[1] for value, bounds in ranges
        )
    )


def _wanted(routes: Sequence[Route], request: GenerationRequest) -> tuple[list[Route], list[str]]:
    """Without those that the client does not want; and warnings of names that lead nowhere."""
    asked = request.provider
    if asked is None:
        return list(routes), []
    model, known = routes[0].model.id, [route.backend for route in routes]
    missing = [name for name in asked.order if name not in known]
    wanted = [
        route
        for route in routes
        if (not asked.only or route.backend in asked.only) and route.backend not in asked.ignore
    ]
    if not asked.allow_fallbacks and asked.order:
        # The first choice or none: what cannot be the first is not looked at.
        chosen = min(wanted, key=lambda route: _place(asked.order, route.backend), default=None)
        wanted = [chosen] if chosen is not None and chosen.backend in asked.order else []
    if missing and request.strict:
        raise _nowhere(f"provider: {missing[0]} does not serve {model} here", missing, known)
    if not wanted:
        raise _nowhere(f"provider leaves no route of {model}", [*asked.order, *asked.only], known)
    return wanted, [f"provider: {name} does not serve {model} here and was ignored" for name in missing]


def _nowhere(why: str, named: Sequence[str], known: Sequence[str]) -> InvalidRequest:
    near = difflib.get_close_matches(named[0], known, n=1, cutoff=0.0) if named else []
    return InvalidRequest(
        f"{why}; it is served by {', '.join(known)}",
        param="provider",
        suggestion=near[0] if near else known[0],
    )


def _candidate(route: Route, request: GenerationRequest, known: Known) -> _Candidate:
    loaded = known.models.get(route.model.id) if route.backend == ENGINE else None
    trouble = _trouble(route, known)
    asked = () if request.provider is None else request.provider.order
    nano, frames = route.nano_per_second, ordered_frames(route.backend, request)
    return _Candidate(
        route=route,
        judgement=judge(route, request, loaded),
        frames=_frames(route, request, loaded),
        trouble=trouble,
        key=(
            _place(asked, route.backend),
            _place(route.model.routes, route.backend),
            float("inf") if nano is None else nano * frames,
            _latency(route, request, known),
            route.backend,
        ),
    )


def _place(names: Sequence[str], name: str) -> float:
    return names.index(name) if name in names else len(names)


def _frames(route: Route, request: GenerationRequest, loaded: Loaded | None) -> int:
    """The most that it will deliver of this."""
    if not request.open_length or route.model.engine == COMPOSER:
        return request.frames
    return min(request.frames, round(longest_seconds(route, loaded) * SAMPLE_RATE))


def _trouble(route: Route, known: Known) -> _Trouble | None:
    if route.model.engine == COMPOSER:
        return None
    if route.backend == ENGINE:
        loaded = known.models.get(route.model.id)
        if loaded is None:
            return _ABSENT
        return _LOADING if loaded.state == "loading" else None
    health = known.health.get((route.backend, route.model.id))
    if health is None:
        return _ABSENT
    return _UNPAID if health.no_credit else _OF_A_CIRCUIT.get(health.circuit)


def _latency(route: Route, request: GenerationRequest, known: Known) -> float:
    if route.backend == ENGINE:
        loaded = known.models.get(route.model.id)
        factor = None if loaded is None else loaded.realtime_factor
        return float("inf") if not factor else request.n * request.frames / SAMPLE_RATE / factor
    health = known.health.get((route.backend, route.model.id))
    seconds = None if health is None else health.latency_seconds
    return float("inf") if seconds is None else seconds


def _is_lost(route: Route, known: Known) -> bool:
    """The worker has tried to load the weights, and will not try again by itself."""
    if route.backend != ENGINE or route.model.engine == COMPOSER:
        return False
    loaded = known.models.get(route.model.id)
    return loaded is not None and loaded.state == "failed"


def _queue(route: Route) -> str:
    return SANDBOX if route.model.engine == COMPOSER else route.queue


def _remote_objections(request: GenerationRequest, judged: Judgement) -> list[Objection]:
    """What no provider has, unless its own judge has said so."""
    found = []
    told = {objection.param for objection in judged.objections}
    if request.thinking and "thinking" not in told:
        found.append(Objection(param="thinking", message="plans no songs", suggestion="false"))
    highest = MAX_REMOTE_SEED + 1 - request.n
    if request.seed > highest and "seed" not in told:
        found.append(
            Objection(param="seed", message=f"takes no seed above {highest} here", suggestion=str(highest))
        )
    return found


def _reason(
    routes: Sequence[Route], wanted: Sequence[Route], serving: Sequence[_Candidate], first: _Candidate
) -> str:
    """Short and stable: by what it differs from the next best."""
    if len(serving) == 1:
        if len(routes) == 1:
            why = "the only route"
        elif len(wanted) == 1:
            why = _WORDS["provider"]
        else:
            why = "the only route that can make it"
    else:
        best, second = sorted(serving, key=lambda one: one.key)[:2]
        if first is not best:
            why = best.doubt
        else:
            differing = (name for name, a, b in zip(_CRITERIA, best.key, second.key, strict=True) if a != b)
            why = _WORDS[next(differing)]
    return f"{why}, though {first.doubt}" if first.is_out else why


def _refusal(
    best: _Candidate, spurned: Sequence[_Candidate], able: Callable[[], Sequence[str]]
) -> GatewayError:
    """Of the route that would have served it; with routes that `provider` rules out, and models, that can."""
    model, objection = best.route.model.id, best.judgement.objections[0]
    who = model if best.route.backend == ENGINE else f"{model} is served by {best.route.backend}, which"
    others = able()
    told = f"models that can: {', '.join(others)}" if others else "no other model here can"
    if capable := [one.route.backend for one in spurned if not (one.is_out or one.judgement.objections)]:
        told = f"{' and '.join(capable)} can, but provider rules that out; {told}"
    kind = InvalidRequest if objection.param in _VALUES else UnsupportedParameter
    return kind(
        f"{who} {objection.message}; {told}",
        param=objection.param,
        suggestion=objection.suggestion or "leave it out",
    )


def _out_of_order(fitting: Sequence[_Candidate]) -> ModelUnavailable:
    """An operator has to act, and is told elsewhere: a job would only keep money held."""
    model = fitting[0].route.model
    unpaid = [one.route.backend for one in fitting if one.trouble is _UNPAID]
    told = (
        f"{model.id} is served by {' and '.join(unpaid)}, without credit there at the moment"
        if unpaid
        else f"the engine could not load {model.id}; the worker's log says why"
    )
    return ModelUnavailable(told, param="model", suggestion=SANDBOX)
