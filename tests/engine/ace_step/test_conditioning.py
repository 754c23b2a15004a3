"""Conditions have the pipeline's bits, know nothing of their neighbours, and are remembered."""

import numpy as np
import pytest
import torch
from diffusers import AceStepPipeline

from engine.ace_step import conditioning
from engine.ace_step.bundle import Bundle
from engine.ace_step.conditioning import Conditioner, TensorCache, reference_windows
from engine.ace_step.prompt import Prompt, prompt_of
from engine.schema import EngineRequest, Sound, Task
from tests.engine.ace_step.oracle import SECOND, a_request, a_sound, caught


def prompt_for(conditioner: Conditioner, request: EngineRequest) -> Prompt:
    return prompt_of(request, task=request.task, count_tokens=conditioner.count_tokens)


@pytest.fixture(scope="module", name="conditioner")
def _conditioner(turbo_bundle: Bundle) -> Conditioner:
    return Conditioner(turbo_bundle)


@pytest.fixture(name="short_windows")
def _short_windows(turbo: AceStepPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second instead of ten, on both sides; the pipeline counts in its own sample rate."""
    monkeypatch.setattr(conditioning, "_PART_SAMPLES", SECOND)
    monkeypatch.setattr(turbo, "sample_rate", SECOND // 10)


def test_a_condition_has_the_pipelines_bits(
    turbo: AceStepPipeline, conditioner: Conditioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = a_request()
    theirs = caught(turbo, request, monkeypatch)["encoder_hidden_states"]
    assert torch.equal(conditioner.condition(prompt_for(conditioner, request)).hidden, theirs[0])


@pytest.mark.usefixtures("short_windows")
@pytest.mark.parametrize("seconds", [0.7, 4.1])
def test_a_condition_with_a_reference_has_the_pipelines_bits(
    turbo: AceStepPipeline, conditioner: Conditioner, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """One that must be repeated, and one that has three windows of its own."""
    request = a_request(reference=Sound(a_sound(seconds)))
    theirs = caught(turbo, request, monkeypatch)["encoder_hidden_states"]
    ours = conditioner.condition(prompt_for(conditioner, request), request.reference).hidden
    assert torch.equal(ours, theirs[0])


@pytest.mark.slow
def test_a_condition_with_a_reference_of_full_length_has_the_pipelines_bits(
    turbo: AceStepPipeline, conditioner: Conditioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = a_request(reference=Sound(a_sound(31)))
    theirs = caught(turbo, request, monkeypatch)["encoder_hidden_states"]
    ours = conditioner.condition(prompt_for(conditioner, request), request.reference).hidden
    assert torch.equal(ours, theirs[0])


def test_a_condition_holds_its_own_tokens_and_no_padding(conditioner: Conditioner) -> None:
    """Pitfall 1: in a batch the shorter prompt is padded, and the padding is attended to."""
    lengths = set()
    for caption in ("piano", "slow piano ballad, warm analog synth"):
        prompt = prompt_for(conditioner, a_request(prompt=caption))
        expected = [conditioner.count_tokens(text) for text in (prompt.lyrics, prompt.text)]
        assert len(conditioner.condition(prompt).hidden) == sum(expected) + 1
        lengths.add(sum(expected))
    assert len(lengths) == 2


def test_reference_windows_are_always_the_same_three() -> None:
    """Pitfall 12: windows at random would make another song of the same seed."""
    ramp = np.tile(np.arange(45 * SECOND, dtype=np.float32), (2, 1))
    windows = reference_windows(ramp)
    assert windows.shape == (2, 30 * SECOND)
    assert [windows[0, place] for place in (0, 10 * SECOND, 20 * SECOND)] == [0, 15 * SECOND, 35 * SECOND]
    assert np.array_equal(windows, reference_windows(ramp))


def test_a_short_reference_is_repeated() -> None:
    ramp = np.tile(np.arange(7 * SECOND, dtype=np.float32), (2, 1))
    windows = reference_windows(ramp)
    assert windows.shape == (2, 30 * SECOND)
    assert windows[0, 7 * SECOND] == 0


def test_a_silent_reference_is_no_reference(conditioner: Conditioner) -> None:
    prompt = prompt_for(conditioner, a_request())
    none = conditioner.condition(prompt).hidden
    quiet = conditioner.condition(prompt, Sound(np.zeros((2, SECOND), np.float32))).hidden
    assert torch.equal(none, quiet)


@pytest.mark.usefixtures("short_windows")
def test_what_was_encoded_once_is_not_encoded_again(turbo_bundle: Bundle) -> None:
    conditioner = Conditioner(turbo_bundle)
    calls: list[str] = []
    parts = {
        "text": turbo_bundle.text_encoder,
        "lyrics": turbo_bundle.condition_encoder.lyric_encoder,
        "timbre": turbo_bundle.condition_encoder.timbre_encoder,
        "vae": turbo_bundle.vae.encoder,
    }
    hooks = [
        part.register_forward_pre_hook(lambda *_, name=name: calls.append(name))
        for name, part in parts.items()
    ]
    try:
        first, reference = a_request(), Sound(a_sound(1))
        for request in (first, first, a_request(prompt="slow piano")):
            for sound in (None, reference):
                conditioner.condition(prompt_for(conditioner, request), sound)
    finally:
        for hook in hooks:
            hook.remove()
    assert sorted(calls) == ["lyrics", "text", "text", "timbre", "timbre", "vae"]


def test_the_null_condition_is_the_learned_token_repeated(
    base: AceStepPipeline, base_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditioner = Conditioner(base_bundle)
    request = a_request(guidance_scale=7.0)
    theirs = caught(base, request, monkeypatch)["encoder_hidden_states"]
    condition = conditioner.condition(prompt_for(conditioner, request))
    assert torch.equal(condition.hidden, theirs[0])
    assert torch.equal(conditioner.null(condition).hidden, theirs[1])


def test_a_cache_forgets_the_longest_unused_first_and_stays_within_its_bytes() -> None:
    cache = TensorCache(most_bytes=3 * 4)
    made: list[str] = []

    def get(key: str) -> None:
        cache.get(key, lambda: made.append(key) or torch.zeros(1))

    for key in "abcabdab":
        get(key)
        assert cache.used_bytes <= 12
    assert "".join(made) == "abcd"
    get("c")
    assert "".join(made) == "abcdc"


def test_what_is_larger_than_the_cache_is_made_and_not_kept() -> None:
    cache = TensorCache(most_bytes=8)
    assert len(cache.get("song", lambda: torch.ones(100))) == 100
    assert cache.used_bytes == 0


def test_a_cached_slice_does_not_hold_on_to_all_of_its_storage() -> None:
    cache = TensorCache(most_bytes=100)
    kept = cache.get("slice", lambda: torch.ones(1000)[:2])
    assert kept.untyped_storage().nbytes() == 8


def test_tasks_are_told_apart_by_their_condition(conditioner: Conditioner) -> None:
    request = a_request()
    hidden = [
        conditioner.condition(prompt_of(request, task=task, count_tokens=conditioner.count_tokens)).hidden
        for task in (Task.TEXT2MUSIC, Task.COVER)
    ]
    assert hidden[0].shape != hidden[1].shape or not torch.equal(*hidden)
