"""Everything the engine can say no with, drawn by who must act.

EngineError
├── RequestError          the caller: this request will never work
│   ├── InvalidRequest    a value is out of range (also a ValueError)
│   ├── TooLarge          the song would not fit into this device's memory
│   └── UnknownModel      no runner of this engine has the model
├── Unavailable           the caller, later or elsewhere
│   ├── EngineFull        as many requests wait as may wait
│   ├── NotLoaded         the model is still being loaded, or could not be
│   └── EngineClosed      the engine is shutting down
├── Canceled              nobody: the caller asked for it
└── RenderError           the operator, or another backend
    ├── OutOfMemory       this request did not fit
    ├── Silent            what was rendered cannot be heard
    ├── RenderFailed      the runner crashed or broke its promise; `__cause__` has the reason
    └── DeviceUnavailable the asked device does not exist here
"""

import traceback
from types import TracebackType
from typing import TypeVar

AnyError = TypeVar("AnyError", bound=BaseException)


class EngineError(Exception):
    """The root; catching it catches everything the engine raises on purpose."""


class RequestError(EngineError):
    """This request will never work, here or later."""


class InvalidRequest(RequestError, ValueError):
    """A value of the request is out of range; the message names the field."""


class TooLarge(RequestError):
    """By the estimate, the song does not fit into this device's memory; the message says what would."""


class UnknownModel(RequestError):
    """No runner of this engine has the model."""


class Unavailable(EngineError):
    """Not now; the same request may work later or elsewhere."""


class EngineFull(Unavailable):
    """As many requests wait as may wait."""


class NotLoaded(Unavailable):
    """The model is still being loaded, or could not be; the message says which."""


class EngineClosed(Unavailable):
    """The engine is shutting down and takes nothing new."""


class Canceled(EngineError):
    """The caller canceled; ends the future of a canceled ticket."""


class RenderError(EngineError):
    """The request was fine; rendering it was not."""


class OutOfMemory(RenderError):
    """This request did not fit into the device's memory."""


class RenderFailed(RenderError):
    """The runner crashed or broke its promise; `__cause__` has the reason."""


class Silent(RenderError):
    """What was rendered cannot be heard; the same request would give the same again."""


class DeviceUnavailable(RenderError):
    """The asked device does not exist on this machine."""


def without_frames(error: AnyError) -> AnyError:
    """The same error, holding no local variable of where it and its causes were raised and caught.

    An error lives as long as whoever wants to know it; the tensors and songs in those frames must not.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = _behind_running(link.__traceback__)
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    return error


def _behind_running(trace: TracebackType | None) -> TracebackType | None:
    """Without the frames that caught it: they still run, cannot be cleared, and would be kept whole."""
    while trace is not None:
        try:
            trace.tb_frame.clear()
        except RuntimeError:
            trace = trace.tb_next
        else:
            break
    return trace
