"""Music without money: the engine's front door, free of torch.

`engine.runtime.open_engine` is the second door; importing it imports torch.
"""

from engine.engine import Engine
from engine.errors import (
    Canceled,
    DeviceUnavailable,
    EngineClosed,
    EngineError,
    EngineFull,
    InvalidRequest,
    OutOfMemory,
    RenderError,
    RenderFailed,
    RequestError,
    Unavailable,
    UnknownModel,
)
from engine.runner import Failed, Finished, Progress, Runner, RunnerEvent
from engine.scheduler import BatchLimits
from engine.schema import EngineRequest, EngineResult
from engine.ticket import Ticket

__all__ = [
    "BatchLimits",
    "Canceled",
    "DeviceUnavailable",
    "Engine",
    "EngineClosed",
    "EngineError",
    "EngineFull",
    "EngineRequest",
    "EngineResult",
    "Failed",
    "Finished",
    "InvalidRequest",
    "OutOfMemory",
    "Progress",
    "RenderError",
    "RenderFailed",
    "RequestError",
    "Runner",
    "RunnerEvent",
    "Ticket",
    "Unavailable",
    "UnknownModel",
]
