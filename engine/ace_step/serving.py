"""From a specification to a runner: weights first, on any thread; the rest on the engine's own."""

from collections.abc import Callable

import torch

from engine.ace_step.bundle import Bundle
from engine.ace_step.checkpoint.loading import load_bundle
from engine.ace_step.fast import Recorder, accelerate, capture
from engine.ace_step.planner import Planner
from engine.ace_step.planner.loading import load_planner
from engine.ace_step.runner import AceStepRunner
from engine.ace_step.vae import fold_weight_norm
from engine.errors import NotLoaded
from engine.models import ModelSpec, Tuning
from engine.variants import VARIANTS


def read_planner(source: str, *, device: torch.device) -> Planner:
    """Load the planner that all models share."""
    return load_planner(source, device=device, dtype=_dtype(device), capture=capture(Recorder(device)))


def read_model(
    spec: ModelSpec, *, device: torch.device, planner: Planner | None, tuning: Tuning
) -> Callable[[], AceStepRunner]:
    """Load the weights. What is returned computes, and is for the thread that will render."""
    bundle = load_bundle(spec.source, name=spec.name, device=device, dtype=_dtype(device), donor=spec.donor)
    if bundle.kind != spec.variant.removeprefix("xl-"):
        raise NotLoaded(f"{spec.source} holds {bundle.kind} weights; {spec.name} is served as {spec.variant}")
    return lambda: _runner(bundle, spec, planner, tuning)


def _runner(bundle: Bundle, spec: ModelSpec, planner: Planner | None, tuning: Tuning) -> AceStepRunner:
    if bundle.device.type == "cuda":
        _set_precision()
    fold_weight_norm(bundle.vae)  # half of its memory, and a multiplication in each call
    fast = accelerate(bundle)
    return AceStepRunner(
        bundle,
        VARIANTS[spec.variant],
        planner=planner,
        dit=fast.dit,
        vae=fast.vae,
        limits=tuning.limits,
        threads=tuning.threads,
    )


def _dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA, never float16, whose range is too small for these models; float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def _set_precision() -> None:
    """float32 means float32: what is left in it beside bfloat16 weights is small, and has to be exact.

    By the older names: the compiler reads them, and torch refuses to answer where only newer ones were set.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
