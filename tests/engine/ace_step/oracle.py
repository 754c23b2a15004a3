"""What AceStepPipeline gives its transformer, caught on the way in."""

import hashlib
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from diffusers import AceStepPipeline, AutoencoderOobleck
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution

from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.conditioning import REFERENCE_SEED, Conditioner
from engine.ace_step.song import Song
from engine.ace_step.tasks import SOURCE_SEED, prepare
from engine.ace_step.vae import Vae
from engine.schema import EngineRequest

SECOND = 48_000
FRAMES = 128
"""5.12 s: the shortest that the models render."""


def a_request(**changes: Any) -> EngineRequest:
    values: dict[str, Any] = {
        "id": "song",
        "model": "tiny",
        "prompt": "upbeat indie pop, bright guitars",
        "lyrics": "[Verse]\nthe night is long",
        "frames": FRAMES * HOP,
        "seed": 17,
        "bpm": 120,
        "key_scale": "C major",
        "time_signature": 4,
    }
    return EngineRequest(**(values | changes))


def a_sound(seconds: float, *, seed: int = 2) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((2, round(seconds * SECOND)), dtype=np.float32)
    return noise * np.float32(0.2)


class RememberingVae(Vae):
    """Encodes a sound once a session: many tests share one."""

    heard: ClassVar[dict[Any, torch.Tensor]] = {}

    def encode(self, samples: np.ndarray, *, seed: int | None, **options: Any) -> torch.Tensor:
        key = (id(self._module), hashlib.sha256(samples.tobytes()).digest(), seed, *options.items())
        if key not in self.heard:
            self.heard[key] = super().encode(samples, seed=seed, **options)
        return self.heard[key].clone()


class MeanVae(Vae):
    """Draws nothing: the same sound has the same latents wherever it stands."""

    def encode(self, samples: np.ndarray, *, seed: int | None, **options: Any) -> torch.Tensor:
        assert seed is not None
        return super().encode(samples, seed=None, **options)


def prepared(
    bundle: Bundle, request: EngineRequest, *, codes: list[int] | None = None, vae: Vae | None = None
) -> Song:
    vae = RememberingVae(bundle.vae) if vae is None else vae
    return prepare(bundle, Conditioner(bundle), vae, request, codes=codes)


def caught(
    pipeline: AceStepPipeline, request: EngineRequest, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> dict[str, torch.Tensor]:
    """The arguments of the transformer's first call for the same request, one step long.

    The pipeline draws sources and references from the global generator; here both sides use ours.
    """
    seeds = [SOURCE_SEED] * (request.source is not None) + [REFERENCE_SEED] * (request.reference is not None)
    sample = OobleckDiagonalGaussianDistribution.sample

    def seeded(self: OobleckDiagonalGaussianDistribution, generator: None = None) -> torch.Tensor:
        assert generator is None
        return sample(self, generator=torch.Generator().manual_seed(seeds.pop(0)))

    calls: list[dict[str, torch.Tensor]] = []
    hook = pipeline.transformer.register_forward_pre_hook(
        lambda _, __, arguments: calls.append(arguments), with_kwargs=True
    )
    try:
        with monkeypatch.context() as patch:
            patch.setattr(OobleckDiagonalGaussianDistribution, "sample", seeded)
            patch.setattr(pipeline.vae, "encode", _remembering(pipeline.vae))
            pipeline(**_arguments(request), **options)
    finally:
        hook.remove()
    assert not seeds
    return calls[0]


def _remembering(vae: AutoencoderOobleck) -> Callable[[torch.Tensor], Any]:
    """Its own `encode`, which has not forgotten what it heard in earlier tests."""
    encode = vae.encode

    def remembered(sound: torch.Tensor) -> Any:
        key = (id(vae), hashlib.sha256(sound.numpy().tobytes()).digest())
        if key not in _POSTERIORS:
            _POSTERIORS[key] = encode(sound)
        return _POSTERIORS[key]

    return remembered


_POSTERIORS: dict[tuple[int, bytes], Any] = {}


def _arguments(request: EngineRequest) -> dict[str, Any]:
    sounds = {"src_audio": request.source, "reference_audio": request.reference}
    return {
        "prompt": request.prompt,
        "lyrics": request.lyrics,
        "audio_duration": request.frames / SECOND,
        "vocal_language": request.vocal_language or "en",
        "bpm": request.bpm,
        "keyscale": request.key_scale,
        "timesignature": str(request.time_signature),
        "task_type": request.task.value,
        "track_name": request.track_name,
        "complete_track_classes": list(request.track_classes),
        "repainting_start": request.repainting_start,
        "repainting_end": request.repainting_end,
        "num_inference_steps": 1,
        "guidance_scale": 1.0 if request.guidance_scale is None else request.guidance_scale,
        "generator": torch.Generator().manual_seed(request.seed),
        "output_type": "latent",
        **{name: torch.from_numpy(sound.samples) for name, sound in sounds.items() if sound is not None},
    }
