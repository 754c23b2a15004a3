"""The model behind the engine's seam: batches, cancellation, progress, lengths, memory that runs out."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine import (
    VARIANTS,
    EngineRequest,
    EngineResult,
    Failed,
    Finished,
    InvalidRequest,
    ModelLimits,
    OutOfMemory,
    Progress,
    RunnerEvent,
    Sound,
    Task,
    TooLarge,
)
from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.dit import Dit
from engine.ace_step.runner import AceStepRunner

RATE = 48_000


def _ask(id_: str, seconds: float = 5.2, **fields: Any) -> EngineRequest:
    values = {"model": "tiny-turbo", "prompt": f"song {id_}", "lyrics": "la " * len(id_), "seed": 5, **fields}
    return EngineRequest(id=id_, frames=round(seconds * RATE), **values)


def _noise(seconds: float, seed: int = 0) -> Sound:
    made = np.random.default_rng(seed).standard_normal((2, round(seconds * RATE)), dtype=np.float32)
    return Sound(made * 0.1)


def _results(events: Iterator[RunnerEvent]) -> dict[str, EngineResult]:
    return {event.id: event.result for event in events if isinstance(event, Finished)}


def _alone(runner: AceStepRunner, request: EngineRequest) -> NDArray[np.float32]:
    return _results(runner.run([request], _everyone))[request.id].samples


def _everyone(_id: str) -> bool:
    return True


@contextmanager
def _no_memory(module: Any, refuse: Callable[[torch.Tensor], bool]) -> Iterator[None]:
    """The allocator truly fails before `module` whenever `refuse` says so."""

    def before(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        if refuse(inputs[0]):
            torch.empty(1 << 60, dtype=torch.uint8)

    hook = module.register_forward_pre_hook(before)
    try:
        yield
    finally:
        hook.remove()


@pytest.fixture(name="runner")
def _runner(turbo_bundle: Bundle) -> AceStepRunner:
    return AceStepRunner(turbo_bundle, VARIANTS["turbo"])


@pytest.fixture(name="trio")
def _trio() -> list[EngineRequest]:
    return [_ask("a", 6.01), _ask("bb", 5.5), _ask("ccc", 5.2, num_inference_steps=3)]


def test_a_mixed_batch_equals_single_runs_and_has_exact_lengths(runner: AceStepRunner) -> None:
    batch = [
        _ask("words", 5.513, lyrics="[Verse]\nthe night is long", bpm=90, num_inference_steps=2, shift=1.0),
        _ask("cover", 5.5, task=Task.COVER, source=_noise(1.0), cover_strength=0.5),
        _ask("repaint", 1.5, task=Task.REPAINT, source=_noise(1.2), repainting_start=0.8, repainting_end=1.5),
    ]
    together = _results(runner.run(batch, _everyone))
    for request in batch:
        assert together[request.id].samples.shape == (2, request.frames)
        np.testing.assert_allclose(together[request.id].samples, _alone(runner, request), atol=1e-5)


def test_guided_and_unguided_songs_share_a_batch(base_bundle: Bundle) -> None:
    runner = AceStepRunner(base_bundle, VARIANTS["base"])
    batch = [
        _ask("free", 5.4, num_inference_steps=2, guidance_scale=1.0),
        _ask("lego", 5.2, num_inference_steps=3, task=Task.LEGO, track_name="drums", source=_noise(1.0)),
    ]
    together = _results(runner.run(batch, _everyone))
    for request in batch:
        np.testing.assert_allclose(together[request.id].samples, _alone(runner, request), atol=1e-5)


def test_the_same_batch_gives_the_same_bytes(runner: AceStepRunner, trio: list[EngineRequest]) -> None:
    first, second = (_results(runner.run(trio, _everyone)) for _ in range(2))
    assert all(
        first[request.id].samples.tobytes() == second[request.id].samples.tobytes() for request in trio
    )


def test_canceling_one_of_three_spares_the_others(runner: AceStepRunner, trio: list[EngineRequest]) -> None:
    gone: set[str] = set()
    seen: list[RunnerEvent] = []
    for event in runner.run(trio, lambda id_: id_ not in gone):
        seen.append(event)
        if event.id == "bb" and event.fraction > 0.1 if isinstance(event, Progress) else False:
            gone.add("bb")
    results = _results(iter(seen))
    assert set(results) == {"a", "ccc"}
    np.testing.assert_allclose(results["a"].samples, _alone(runner, trio[0]), atol=1e-5)
    assert max(event.fraction for event in seen if isinstance(event, Progress) and event.id == "bb") < 0.3


def test_a_song_is_canceled_between_two_chunks(turbo_bundle: Bundle) -> None:
    runner = AceStepRunner(turbo_bundle, VARIANTS["turbo"], limits=ModelLimits(chunk_frames=32))
    decoded: list[int] = []
    hook = turbo_bundle.vae.decoder.register_forward_pre_hook(lambda *_: decoded.append(1))
    try:
        events = list(runner.run([_ask("a")], lambda _: not decoded))
    finally:
        hook.remove()
    assert len(decoded) == 1
    assert not any(isinstance(event, Finished | Failed) for event in events)


def test_a_song_with_fewer_steps_is_finished_while_the_others_go_on(
    runner: AceStepRunner, trio: list[EngineRequest]
) -> None:
    events = list(runner.run(trio, _everyone))
    kinds = [(event.id, type(event)) for event in events]
    end_of_short = kinds.index(("ccc", Finished))
    assert kinds[end_of_short:].count(("a", Progress)) > 4
    assert kinds.index(("a", Finished)) < kinds.index(("bb", Finished))


def test_progress_never_falls_and_every_phase_has_its_seconds(
    runner: AceStepRunner, trio: list[EngineRequest]
) -> None:
    events = list(runner.run(trio, _everyone))
    for request in trio:
        told = [event.fraction for event in events if isinstance(event, Progress) and event.id == request.id]
        assert told == sorted(told)
        assert told[0] == 0
        assert told[-1] == pytest.approx(1)
        assert len(told) > (request.num_inference_steps or 8)
    for result in _results(iter(events)).values():
        assert set(result.phases or {}) == {"prepare", "denoise", "decode"}
        assert all(seconds > 0 for seconds in (result.phases or {}).values())


def test_a_request_that_cannot_be_prepared_fails_alone(runner: AceStepRunner) -> None:
    bad = _ask("bad", lyrics="word " * 5000)
    events = list(runner.run([bad, _ask("good")], _everyone))
    failures = [event for event in events if isinstance(event, Failed)]
    assert [failure.id for failure in failures] == ["bad"]
    assert isinstance(failures[0].error, InvalidRequest)
    assert set(_results(iter(events))) == {"good"}


def test_a_batch_too_large_for_memory_is_split(runner: AceStepRunner, turbo_bundle: Bundle) -> None:
    batch = [_ask(name) for name in ("a", "bb", "ccc")]
    rows: list[int] = []

    def refuse(inputs: torch.Tensor) -> bool:
        rows.append(len(inputs))
        return len(inputs) > 1

    proj: Any = turbo_bundle.dit.proj_in_conv
    with _no_memory(proj, refuse):
        results = _results(runner.run(batch, _everyone))
    assert set(results) == {"a", "bb", "ccc"}
    assert rows[0] == 3
    np.testing.assert_array_equal(results["ccc"].samples, _alone(runner, batch[2]))


def test_a_song_that_fits_in_no_way_fails_once_and_the_next_is_fine(
    runner: AceStepRunner, turbo_bundle: Bundle
) -> None:
    proj: Any = turbo_bundle.dit.proj_in_conv
    with _no_memory(proj, lambda inputs: inputs.shape[-1] > 140):
        events = list(runner.run([_ask("long", 6.0), _ask("short")], _everyone))
    failures = [event for event in events if isinstance(event, Failed)]
    assert [(failure.id, type(failure.error)) for failure in failures] == [("long", OutOfMemory)]
    assert set(_results(iter(events))) == {"short"}
    assert set(_results(runner.run([_ask("next", 6.0)], _everyone))) == {"next"}


def test_what_is_kept_for_later_is_given_back_before_a_song_fails(turbo_bundle: Bundle) -> None:
    class Keeping(Dit):
        held_bytes = 1

        def forget(self) -> None:
            self.held_bytes = 0

    dit = Keeping(turbo_bundle.dit)
    runner = AceStepRunner(turbo_bundle, VARIANTS["turbo"], dit=dit)
    assert runner.kept_bytes == 1
    with _no_memory(dit.model.proj_in_conv, lambda _: dit.held_bytes > 0):
        assert set(_results(runner.run([_ask("a")], _everyone))) == {"a"}
    assert runner.kept_bytes == 0


@pytest.mark.parametrize("field", ["source", "reference"])
def test_sounds_are_encoded_in_small_chunks_when_memory_runs_out(
    runner: AceStepRunner, turbo_bundle: Bundle, field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.ace_step.conditioning._PART_SAMPLES", RATE)  # of a reference are heard
    lengths: list[int] = []

    def refuse(inputs: torch.Tensor) -> bool:
        lengths.append(inputs.shape[-1] // HOP)
        return lengths[-1] > 50

    sound = _noise(3.0, seed=3)
    fields: dict[str, Any] = {field: sound, "num_inference_steps": 1}
    request = _ask("a", task=Task.COVER if field == "source" else Task.TEXT2MUSIC, **fields)
    with _no_memory(turbo_bundle.vae.encoder, refuse):
        made = _alone(runner, request)
    assert lengths[0] == 75
    again = msgspec.structs.replace(request, **{field: Sound(sound.samples)})
    plain = AceStepRunner(turbo_bundle, VARIANTS["turbo"])
    np.testing.assert_allclose(made, _alone(plain, again), atol=1e-5)


def test_variations_of_one_source_encode_it_once(runner: AceStepRunner, turbo_bundle: Bundle) -> None:
    encoded: list[int] = []
    hook = turbo_bundle.vae.encoder.register_forward_pre_hook(lambda *_: encoded.append(1))
    fields: dict[str, Any] = {"task": Task.REPAINT, "num_inference_steps": 1, "source": _noise(1.0)}
    try:
        for index, end in enumerate((0.5, 0.6, 1.2)):
            asks = [_ask(f"{index}{seed}", max(1.0, end), seed=seed, **fields) for seed in (1, 2)]
            asks = [msgspec.structs.replace(ask, repainting_end=end) for ask in asks]
            assert len(_results(runner.run(asks, _everyone))) == 2
    finally:
        hook.remove()
    assert len(encoded) == 2  # the last one has grown


@pytest.mark.parametrize("part", ["vae", "words"])
def test_a_failure_keeps_no_tensor_alive(runner: AceStepRunner, turbo_bundle: Bundle, part: str) -> None:
    def broken(*_: object) -> None:
        raise ValueError("broken")

    hook = turbo_bundle.vae.decoder.register_forward_pre_hook(broken)
    try:
        events = list(runner.run([_ask("a", lyrics="word " * (5000 if part == "words" else 1))], _everyone))
    finally:
        hook.remove()
    (failure,) = [event for event in events if isinstance(event, Failed)]
    error: BaseException | None = failure.error
    while error is not None:
        assert not any(frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__))
        error = error.__cause__


def test_a_moments_shortage_of_memory_does_not_last(
    turbo_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = [10**9]
    monkeypatch.setattr("engine.ace_step.room.free_bytes", lambda _: free[0])
    runner = AceStepRunner(turbo_bundle, VARIANTS["turbo"])
    most = runner.longest_seconds("tiny-turbo")
    free[0] = 0
    runner.limits("tiny-turbo")
    assert runner.longest_seconds("tiny-turbo") == 0
    with pytest.raises(TooLarge):
        runner.check(_ask("a"))
    free[0] = 10**9
    runner.check(_ask("a"))
    assert runner.longest_seconds("tiny-turbo") == most


@pytest.mark.parametrize(("largest", "finishes"), [(100, True), (20, False)])
def test_chunks_are_halved_when_the_decoder_runs_out_of_memory(
    runner: AceStepRunner, turbo_bundle: Bundle, largest: int, *, finishes: bool
) -> None:
    lengths: list[int] = []

    def refuse(inputs: torch.Tensor) -> bool:
        lengths.append(inputs.shape[-1])
        return inputs.shape[-1] > largest

    request = _ask("a")
    with _no_memory(turbo_bundle.vae.decoder, refuse):
        events = list(runner.run([request], _everyone))
    if finishes:
        assert lengths[0] == 130
        made = _results(iter(events))["a"].samples
        np.testing.assert_allclose(made, _alone(runner, request), atol=1e-5)
    else:
        assert isinstance(events[-1], Failed)
        assert isinstance(events[-1].error, OutOfMemory)
        assert lengths[-1] == 32 + 12


def test_too_long_a_song_is_refused_in_plain_words(turbo_bundle: Bundle) -> None:
    runner = AceStepRunner(turbo_bundle, VARIANTS["turbo"], limits=ModelLimits(memory_bytes=200_000_000))
    most = runner.longest_seconds("tiny-turbo")
    runner.check(_ask("fits", most))
    with pytest.raises(TooLarge, match=rf"^600 s of tiny-turbo needs .* GB, .* at most {most:.0f} s$"):
        runner.check(_ask("long", 600))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"task": Task.EXTRACT, "source": _noise(0.1), "track_name": "drums"}, "^task: "),
        ({"num_inference_steps": 21}, "^num_inference_steps: "),
        ({"thinking": True}, "^thinking: .*planner"),
    ],
)
def test_what_the_variant_cannot_do_is_refused(
    runner: AceStepRunner, fields: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        runner.check(_ask("a", **fields))
    runner.check(_ask("a", guidance_scale=3.0))  # without effect on turbo, and no reason to refuse


def test_covers_are_refused_without_audio_tokenizers(turbo_bundle: Bundle) -> None:
    bare = msgspec.structs.replace(turbo_bundle, audio_tokenizer=None)
    runner = AceStepRunner(bare, VARIANTS["turbo"])
    with pytest.raises(InvalidRequest, match="audio tokenizers"):
        runner.check(_ask("a", task=Task.COVER, source=_noise(0.1)))
    runner.check(_ask("a"))


def test_a_batch_holds_what_memory_holds(turbo_bundle: Bundle) -> None:
    runner = AceStepRunner(turbo_bundle, VARIANTS["turbo"], limits=ModelLimits(memory_bytes=90_000_000))
    fits = runner.limits("tiny-turbo").fits
    assert fits is not None
    sizes = [fits([_ask(str(i), 240) for i in range(count)]) for count in range(1, 9)]
    assert sizes[0]
    assert not sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
