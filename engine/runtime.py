"""The engine's second door: the one that imports torch and wires the runners."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from weakref import WeakSet

import msgspec
import torch

from engine.composer.runner import ComposerRunner
from engine.engine import Engine, Loading
from engine.errors import DeviceUnavailable
from engine.models import ModelSpec, Tuning
from engine.runner import Runner
from engine.schema import SAMPLE_RATE, EngineRequest
from engine.wear import Sounds, Watermark, resident_bytes


def open_engine(
    *,
    device: str = "auto",
    threads: int = 1,
    max_waiting: int = 64,
    models: Sequence[ModelSpec] = (),
    planner: str | None = None,
    composer: bool = True,
    tuning: Tuning = Tuning(),  # noqa: B008 - frozen
) -> Engine:
    """Start an engine; raises DeviceUnavailable for a device that this machine lacks.

    `device` is `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for models with weights; the composer stays on the
    CPU, and has `threads`; it shares this engine's thread with the models, or has an engine of its own.
    Returns at once: the composer plays while models are loaded one after the other, and `Engine.status` says
    how far they are, or why one could not be loaded.
    """
    check_device(device)
    where = _resolved(device)
    shelf, sounds = _Shelf(where, planner, tuning), Sounds()
    return Engine(
        [ComposerRunner(threads=threads)] if composer else [],
        loading=[
            Loading(
                model=spec.name,
                load=partial(shelf.load, spec),
                warm_up=_warm_up(spec, tuning, thinking=planner is not None and where.type == "cuda"),
            )
            for spec in models
        ],
        max_waiting=max_waiting,
        watermarks=shelf.watermarks(sounds),
        sounds=sounds,
    )


def check_device(device: str) -> None:
    """Raise DeviceUnavailable, with the reason, unless models could be put on `device`."""
    if device == "auto":
        return
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        # torch raises AssertionError for a CUDA device in a build without CUDA.
        raise DeviceUnavailable(f"device {device!r}: {str(error).splitlines()[0]}") from error


class _Shelf:
    """The models of one engine and the planner that they share; `load` is called by one thread only."""

    def __init__(self, device: torch.device, planner: str | None, tuning: Tuning) -> None:
        self._device = device
        self._planner_source = planner
        # Asked here, because on the engine's thread the composer has the last word about threads.
        self._tuning = msgspec.structs.replace(tuning, threads=tuning.threads or torch.get_num_threads())
        self._planner: Any = None
        self._runners: WeakSet[Any] = WeakSet()  # one that fails its first song must not stay

    def load(self, spec: ModelSpec) -> Callable[[], Runner]:
        """See Loading."""
        # The import takes seconds and 300 MB, which the composer neither waits for nor pays.
        from engine.ace_step import serving  # noqa: PLC0415

        if self._planner_source is not None and self._planner is None:
            self._planner = serving.read_planner(self._planner_source, device=self._device)
        build = serving.read_model(spec, device=self._device, planner=self._planner, tuning=self._tuning)

        def built() -> Runner:
            runner = build()
            self._runners.add(runner)
            return runner

        return built

    def watermarks(self, sounds: Sounds) -> list[Watermark]:
        """Of this process, and of the device: what is held there that nobody asked for or would give back."""
        allowance = self._tuning.leak_bytes
        if allowance is None:
            return []
        marks = [Watermark(lambda: resident_bytes() - sounds.bytes, allowance_bytes=allowance)]
        if self._device.type == "cuda":
            marks.append(Watermark(self._device_bytes, allowance_bytes=allowance))
        return marks

    def _device_bytes(self) -> int:
        kept = sum(runner.kept_bytes for runner in self._runners)
        allocated: int = torch.cuda.memory_allocated(self._device)
        return allocated - int(kept)


def _resolved(device: str) -> torch.device:
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _warm_up(spec: ModelSpec, tuning: Tuning, *, thinking: bool) -> EngineRequest | None:
    """A short song through every phase; `thinking` only where a plan takes seconds, not minutes."""
    if tuning.warm_up_seconds is None:
        return None
    return EngineRequest(
        id="warm-up",
        model=spec.name,
        prompt="warm up",
        lyrics="[Verse]\nla la la",
        frames=round(tuning.warm_up_seconds * SAMPLE_RATE),
        seed=0,
        num_inference_steps=2,
        thinking=thinking,
    )
