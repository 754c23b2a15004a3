"""Which backend serves a job, and why: what is configured, what can express it, what is well and cheap."""

from gateway.routing.choice import (
    REHEARSED,
    Choice,
    Known,
    choose,
    judge,
    longest_seconds,
    ordered_frames,
    route_request,
)
from gateway.routing.health import Circuit, RouteHealth
from gateway.routing.judgement import Judgement, Objection
from gateway.routing.offer import Offer, offer
from gateway.routing.route import (
    ENGINE,
    REMOTE,
    RUNWARE,
    WAVESPEED,
    Route,
    backend_of,
    model_of,
    remote_queue,
)
from gateway.routing.routes import (
    BACKENDS,
    COMPOSER,
    Routes,
    RoutingError,
    configured_providers,
    open_routes,
)

__all__ = [
    "BACKENDS",
    "COMPOSER",
    "ENGINE",
    "REHEARSED",
    "REMOTE",
    "RUNWARE",
    "WAVESPEED",
    "Choice",
    "Circuit",
    "Judgement",
    "Known",
    "Objection",
    "Offer",
    "Route",
    "RouteHealth",
    "Routes",
    "RoutingError",
    "backend_of",
    "choose",
    "configured_providers",
    "judge",
    "longest_seconds",
    "model_of",
    "offer",
    "open_routes",
    "ordered_frames",
    "remote_queue",
    "route_request",
]
