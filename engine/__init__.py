"""Music without money: the engine's front door, free of torch.

`engine.runtime.open_engine` is the second door; importing it imports torch. `engine.weights` is the third,
for those who fetch and check models.
"""

from engine.engine import Engine, Loading
from engine.errors import (
    Canceled,
    DeviceUnavailable,
    EngineClosed,
    EngineError,
    EngineFull,
    InvalidRequest,
    NotLoaded,
    OutOfMemory,
    RenderError,
    RenderFailed,
    RequestError,
    Silent,
    TooLarge,
    Unavailable,
    UnknownModel,
)
from engine.models import LoadState, ModelLimits, ModelSpec, ModelStatus, Tuning
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
from engine.wear import Watermark

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
    "LoadState",
    "Loading",
    "ModelLimits",
    "ModelSpec",
    "ModelStatus",
    "NotLoaded",
    "Objection",
    "OutOfMemory",
    "Progress",
    "RenderError",
    "RenderFailed",
    "RequestError",
    "Runner",
    "RunnerEvent",
    "Silent",
    "Sound",
    "Task",
    "Ticket",
    "TooLarge",
    "Tuning",
    "Unavailable",
    "UnknownModel",
    "Variant",
    "Watermark",
    "objections",
    "output_frames",
]
