"""Whatever a provider's judge lets through, in any combination, the vendor's own rules accept."""

from typing import Any, Final

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import GuidanceType, InferMethod, Task, output_frames
from gateway.backends.remote.provider import Brought, Call
from gateway.backends.runware.tasks import inference_task
from gateway.backends.wavespeed.mapping import input_of
from gateway.generation import (
    LANGUAGES,
    MAX_SEED,
    SAMPLE_RATE,
    TIME_SIGNATURES,
    AudioInput,
    GenerationRequest,
)
from gateway.routing import runware, wavespeed
from tests.providers.runware import rules
from tests.providers.wavespeed import models

REF: Final = "3c45aa70-03e4-41dd-9239-21a7f0c8d971"
TASKS: Final = (Task.TEXT2MUSIC, Task.COVER, Task.REPAINT)
TEXTS: Final = st.sampled_from(["", " ", "a", "la", "[inst]", "a" * 9, "a" * 3000, "a" * 3001, "\n" * 4])
SHARE: Final = st.floats(0, 1)


def seconds(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high).map(lambda value: round(value, 4))


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


FIELDS: Final[dict[str, st.SearchStrategy[Any]]] = {
    "prompt": TEXTS,
    "lyrics": TEXTS,
    "instrumental": st.booleans(),
    "seed": st.integers(0, MAX_SEED) | st.integers(runware.MAX_SEED - 8, runware.MAX_SEED + 1),
    "n": st.integers(1, 8),
    "strict": st.booleans(),
    "thinking": st.booleans(),
    "num_inference_steps": maybe(st.integers(1, 400)),
    "guidance_scale": maybe(st.floats(0, 30) | st.floats(0.98, 1.02)),
    "shift": maybe(st.floats(1, 5)),
    "negative_prompt": maybe(TEXTS),
    "bpm": maybe(st.integers(30, 300)),
    "key_scale": maybe(st.sampled_from(["C major", "F# minor", "Bb major"])),
    "time_signature": maybe(st.sampled_from(TIME_SIGNATURES)),
    "vocal_language": maybe(st.sampled_from(sorted(LANGUAGES))),
    "cfg_interval_start": maybe(SHARE),
    "cfg_interval_end": maybe(SHARE),
    "guidance_type": maybe(st.sampled_from(GuidanceType)),
    "infer_method": maybe(st.sampled_from(InferMethod)),
    "timesteps": st.sampled_from([(), (1.0, 0.5)]),
}


@st.composite
def requests(draw: st.DrawFn) -> GenerationRequest:
    """As they come from validation, for any task that a provider has."""
    fields: dict[str, Any] = draw(st.fixed_dictionaries(FIELDS))
    task = draw(st.sampled_from(TASKS))
    frames = round(draw(seconds(5, 600)) * SAMPLE_RATE)
    if task is not Task.TEXT2MUSIC:
        fields["source_audio"] = AudioInput(file_id="f", frames=frames)
    if task is Task.COVER:
        fields |= {"cover_strength": draw(maybe(SHARE)), "cover_noise_strength": draw(maybe(SHARE))}
    if task is Task.REPAINT:
        start = draw(maybe(seconds(-300, frames / SAMPLE_RATE - 1)))
        end = draw(maybe(seconds(max(start or 0.0, 0.0) + 0.1, 600)))
        fields |= {"repainting_start": start, "repainting_end": end}
        frames = output_frames(task, source_frames=frames, start=start, end=end)
    return GenerationRequest(frames=frames, task=task, **fields)


@settings(max_examples=150, deadline=None)
@given(requests(), st.sampled_from(sorted(rules.MODELS)))
def test_runware_takes_every_part_of_what_was_not_refused(request: GenerationRequest, air: str) -> None:
    if runware.judge(request, air).objections:
        return
    source = None
    if request.source_audio is not None:
        frames = request.source_audio.frames or 0
        source = Brought(content=b"a song", content_type="audio/flac", frames=frames)
    for first in range(0, request.n, runware.MOST_AT_ONCE):
        count = min(runware.MOST_AT_ONCE, request.n - first)
        call = Call(ref=REF, model=air, request=request, first=first, count=count, source=source)
        rules.check(inference_task(call, REF, media="a medium" if source else None, webhook_url=None))


@settings(max_examples=150, deadline=None)
@given(requests(), st.sampled_from(sorted(models.MODELS)))
def test_wavespeed_takes_what_was_not_refused(request: GenerationRequest, name: str) -> None:
    if wavespeed.judge(request, name).objections:
        return
    asked = models.read(name, msgspec.to_builtins(input_of(request, 0)), None)
    assert round(asked.seconds * SAMPLE_RATE) == request.frames
    assert asked.seed == request.seed
