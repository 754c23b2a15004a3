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
from engine.schema import (
    EngineRequest,
    EngineResult,
    GuidanceType,
    InferMethod,
    Sound,
    Task,
    output_frames,
)
from engine.ticket import Ticket
from engine.variants import TRACK_NAMES, VARIANTS, Knobs, Objection, Variant, objections

__all__ = [
    "TRACK_NAMES",
    "VARIANTS",
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
    "GuidanceType",
    "InferMethod",
    "InvalidRequest",
    "Knobs",
    "Objection",
    "OutOfMemory",
    "Progress",
    "RenderError",
    "RenderFailed",
    "RequestError",
    "Runner",
    "RunnerEvent",
    "Sound",
    "Task",
    "Ticket",
    "Unavailable",
    "UnknownModel",
    "Variant",
    "objections",
    "output_frames",
]
