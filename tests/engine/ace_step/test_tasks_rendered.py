"""From request to song on the tiny weights: every part of the way, in the order in which a runner goes it."""

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AceStepPipeline

from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.dit import Dit
from engine.ace_step.finish import finish, settle
from engine.ace_step.sampler import Denoised, denoise
from engine.ace_step.vae import DECODER_OVERLAP, Vae
from engine.schema import EngineRequest, EngineResult, Sound, Task, result_fault
from tests.engine.ace_step.oracle import SECOND, a_request, a_sound, prepared

SOURCE = Sound(a_sound(1.51))
REST: dict[Task, dict[str, Any]] = {
    Task.TEXT2MUSIC: {"frames": 72_480},
    Task.COVER: {"cover_strength": 0.5, "cover_noise_strength": 0.2},
    Task.REPAINT: {"repainting_start": 0.5, "repainting_end": 2.01, "frames": 96_480},
    Task.EXTRACT: {"track_name": "vocals"},
    Task.LEGO: {"track_name": "drums"},
    Task.COMPLETE: {"track_classes": ("drums", "bass")},
}


def render(bundle: Bundle, request: EngineRequest, *, codes: list[int] | None = None) -> EngineResult:
    song = prepared(bundle, request, codes=codes)
    vae = Vae(bundle.vae)
    (latents,) = (
        event.latents
        for event in denoise(Dit(bundle.dit), [song], lambda _: True)
        if isinstance(event, Denoised)
    )
    # What lies farther behind the song's end than the decoder hears need not be decoded.
    heard = settle(song, latents)[: -(-request.frames // HOP) + DECODER_OVERLAP]
    return finish(request, torch.cat(list(vae.decode(heard)), dim=1))


def asked(task: Task, **changes: Any) -> EngineRequest:
    source = {} if task is Task.TEXT2MUSIC else {"source": SOURCE, "frames": SOURCE.frames}
    return a_request(task=task, num_inference_steps=3, **(source | REST[task] | changes))


@pytest.mark.parametrize("task", Task)
def test_every_task_makes_a_song_of_the_asked_length_twice_the_same(base_bundle: Bundle, task: Task) -> None:
    request = asked(task)
    first, again = (render(base_bundle, request) for _ in range(2))
    assert result_fault(first, request) is None
    assert np.array_equal(first.samples, again.samples)


def test_a_repaint_keeps_its_source_and_goes_on_behind_it(base_bundle: Bundle) -> None:
    result = render(base_bundle, asked(Task.REPAINT)).samples
    border = SECOND // 2
    assert np.array_equal(result[:, :border], SOURCE.samples[:, :border])
    assert not np.array_equal(result[:, border : SOURCE.frames], SOURCE.samples[:, border:])
    assert np.abs(result[:, SOURCE.frames :]).max() > 0.01


def test_a_single_song_is_the_pipelines_sound(turbo: AceStepPipeline, turbo_bundle: Bundle) -> None:
    request = a_request(num_inference_steps=3)
    theirs = turbo(
        prompt=request.prompt,
        lyrics=request.lyrics,
        audio_duration=request.frames / SECOND,
        bpm=request.bpm,
        keyscale=request.key_scale,
        timesignature="4",
        num_inference_steps=3,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(request.seed),
        output_type="np",
    ).audios[0]
    np.testing.assert_allclose(render(turbo_bundle, request).samples, theirs, atol=2e-6)


def test_audio_codes_are_heard(turbo_bundle: Bundle) -> None:
    request = asked(Task.TEXT2MUSIC)
    songs = [render(turbo_bundle, request, codes=codes) for codes in (None, [5] * 8, [63_000] * 8)]
    samples = [song.samples for song in songs]
    assert not np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[1], samples[2])
