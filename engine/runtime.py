"""The engine's second door: the one that imports torch and wires the runners."""

import torch

from engine.composer.runner import ComposerRunner
from engine.engine import Engine
from engine.errors import DeviceUnavailable


def open_engine(*, device: str = "auto", threads: int = 1, max_waiting: int = 64) -> Engine:
    """Start an engine; raises DeviceUnavailable for a device that this machine lacks.

    `device` is `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for models with weights; the composer stays on the
    CPU.
    """
    check_device(device)
    return Engine([ComposerRunner(threads=threads)], max_waiting=max_waiting)


def check_device(device: str) -> None:
    """Raise DeviceUnavailable, with the reason, unless models could be put on `device`."""
    if device == "auto":
        return
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch raises AssertionError for a CUDA device in a build without CUDA.
        raise DeviceUnavailable(f"device {device!r}: {str(error).splitlines()[0]}") from error
