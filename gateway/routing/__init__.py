"""Which backend serves a job, and why: what is configured, what can express it, what is well and cheap."""

from gateway.routing.health import Circuit, RouteHealth
from gateway.routing.judgement import Judgement, Objection
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
from gateway.routing.routes import COMPOSER, Routes, RoutingError, open_routes

__all__ = [
    "COMPOSER",
    "ENGINE",
    "REMOTE",
    "RUNWARE",
    "WAVESPEED",
    "Circuit",
    "Judgement",
    "Objection",
    "Route",
    "RouteHealth",
    "Routes",
    "RoutingError",
    "backend_of",
    "model_of",
    "open_routes",
    "remote_queue",
]
