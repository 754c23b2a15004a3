"""Batches of songs that have nothing in common, and what they do to each other: nothing."""

import copy
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Final

import msgspec
import pytest
import torch
from diffusers import AceStepPipeline

from engine.ace_step.dit import Attention, Batch, Dit, Memory
from engine.ace_step.sampler import Denoised, StepDone, _Pace, denoise
from engine.ace_step.song import Condition, Injection, Song, Switch
from engine.schema import GuidanceType
from tests.engine.ace_step.sampler_songs import Ask, apart, condition, context, latents, noise, render, song

ROUNDING: Final = 1e-5
"""Of latents around 1."""

LONG_LYRICS: Final = (
    "[Verse]\nthe night is long and I am on my way home again\n[Chorus]\nsinging to the moon\n" * 3
)


@pytest.fixture(name="mixed")
def _mixed(base: AceStepPipeline) -> list[Song]:
    """Songs of every kind: lengths, words, steps, guidance and methods are all different."""
    codes = tuple(range(100, 117))
    cover = Ask(prompt="slow piano ballad", lyrics="", frames=85, seed=2, steps=6, scale=3.0, codes=codes)
    switch = Switch(step=2, condition=condition(base, Ask(lyrics=LONG_LYRICS)), context=context(base, 85))
    injection = Injection(source=noise(8, 40), keep=torch.arange(40) % 3 == 0, steps=3)
    return [
        song(base, Ask(frames=151, lyrics=LONG_LYRICS, steps=5, scale=7.0, interval=(0.6, 1.0)), "long"),
        song(base, cover, "cover", switch=switch),
        song(base, Ask(prompt="bass", lyrics="", frames=33, seed=3, steps=3), "short"),
        song(base, Ask(frames=152, seed=4, kind=GuidanceType.ADG, scale=4.0), "angled", sde_seed=11),
        song(
            base,
            Ask(frames=40, seed=5, steps=7, kind=GuidanceType.CFG, scale=2.0),
            "repaint",
            injection=injection,
        ),
        song(base, Ask(frames=1, seed=6, steps=1), "blip"),
    ]


class CountingDit(Dit):
    """The real one; it counts what it is asked for."""

    def __init__(self, oracle: AceStepPipeline) -> None:
        super().__init__(oracle.transformer)
        self.rows: list[int] = []
        self.memories = 0
        self.batches = 0

    def memory(self, condition: Condition) -> Memory:
        self.memories += 1
        return super().memory(condition)

    def batch(self, contexts: Sequence[torch.Tensor], memories: Sequence[Memory]) -> Batch:
        self.batches += 1
        return super().batch(contexts, memories)

    def velocity(self, batch: Batch, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(latents))
        return super().velocity(batch, latents, t)


def test_songs_of_one_batch_have_their_own_length_words_steps_and_guidance(
    base: AceStepPipeline, mixed: list[Song]
) -> None:
    dit = Dit(base.transformer)
    together = render(dit, mixed)
    assert set(together) == {song.id for song in mixed}
    for each in mixed:
        alone = render(dit, [each])[each.id]
        assert together[each.id].shape == each.noise.shape
        assert apart(together[each.id], alone) < ROUNDING, each.id


def test_the_same_batch_gives_the_same_bits(base: AceStepPipeline, mixed: list[Song]) -> None:
    once, again = (render(Dit(base.transformer), mixed) for _ in range(2))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_a_longer_neighbours_prompt_changes_nothing(turbo: AceStepPipeline) -> None:
    """The oracle pads the shorter prompt and then reads the padding, which changes the song."""
    short, long = Ask(prompt="bass", lyrics="", steps=8), Ask(lyrics=LONG_LYRICS, steps=8)
    alone = latents(turbo, short)
    both = render(Dit(turbo.transformer), [song(turbo, short, "short"), song(turbo, long, "long")])
    assert apart(both["short"], alone) < ROUNDING
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    theirs = turbo(
        [short.prompt, long.prompt],
        [short.lyrics, long.lyrics],
        audio_duration=short.seconds,
        generator=generators,
        output_type="latent",
        return_dict=False,
    )
    assert apart(theirs[0][0], alone) > 0.01


def test_songs_of_one_length_need_no_masks(turbo: AceStepPipeline) -> None:
    dit = Dit(turbo.transformer)
    memory = dit.memory(condition(turbo, Ask()))
    even = dit.batch([context(turbo, 50)] * 2, [memory] * 2)
    assert even.padding is None
    assert even.masks[Attention.FULL] is None
    assert even.masks[Attention.CROSS] is None
    band = even.masks[Attention.SLIDING]
    assert band is not None
    assert band.shape == (1, 1, 25, 25)
    half_a_token = dit.batch([context(turbo, 49), context(turbo, 50)], [memory] * 2)
    assert half_a_token.padding is not None
    assert half_a_token.masks[Attention.FULL] is None


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("frames", [(151, 40, 2), (33, 34, 35), (1, 150), (64, 1, 1, 65)])
def test_what_stands_behind_the_end_of_a_song_changes_no_bit(
    turbo: AceStepPipeline, frames: tuple[int, ...], garbage: float
) -> None:
    dit = Dit(turbo.transformer)
    memories = [dit.memory(Condition(noise(count, 3 + count % 7, 24))) for count in frames]
    batch = dit.batch([noise(count, count, 16) for count in frames], memories)
    clean = torch.zeros(len(frames), max(frames), 8)
    for row, count in enumerate(frames):
        clean[row, :count] = noise(count, count)
    dirty = clean.clone()
    for row, count in enumerate(frames):
        dirty[row, count:] = garbage
    t = torch.linspace(0.1, 1.0, len(frames))
    wanted, got = dit.velocity(batch, clean, t), dit.velocity(batch, dirty, t)
    for row, count in enumerate(frames):
        assert torch.equal(got[row, :count], wanted[row, :count])
    assert got.isfinite().all(), "a row without a number would spoil the others' sums"


def test_every_token_sees_itself_even_in_padding(turbo: AceStepPipeline) -> None:
    """One that sees nothing is 0 / 0 in kernels that hide by minus infinity."""
    dit = Dit(turbo.transformer)
    memory = dit.memory(condition(turbo, Ask()))
    mask = dit.batch([context(turbo, 4), context(turbo, 120)], [memory] * 2).masks[Attention.SLIDING]
    assert mask is not None
    assert (mask.diagonal(dim1=-2, dim2=-1) == 0).all()
    assert (mask[0, 0, 59, :59] < 0).all()


def test_words_behind_the_end_of_a_prompt_are_never_read(turbo: AceStepPipeline) -> None:
    dit = Dit(turbo.transformer)
    memories = [dit.memory(Condition(noise(count, count, 24))) for count in (4, 9)]
    batch = dit.batch([noise(1, 30, 16)] * 2, memories)
    keys, values = batch.keys.clone(), batch.values.clone()
    keys[:, 0, 4:], values[:, 0, 4:] = 1e4, 1e4
    dirty = msgspec.structs.replace(batch, keys=keys, values=values)
    x, t = noise(2, 30).expand(2, -1, -1), torch.tensor([0.5, 0.5])
    assert torch.equal(dit.velocity(dirty, x, t), dit.velocity(batch, x, t))


def test_every_row_has_its_own_time(turbo: AceStepPipeline) -> None:
    dit = Dit(turbo.transformer)
    memory, around, x = dit.memory(condition(turbo, Ask())), context(turbo, 50), noise(1, 50)[None]
    times = torch.tensor([1.0, 0.4, 0.01])
    together = dit.velocity(dit.batch([around] * 3, [memory] * 3), x.expand(3, -1, -1), times)
    for row, t in enumerate(times):
        alone = dit.velocity(dit.batch([around], [memory]), x, t[None])
        assert apart(together[row], alone[0]) < ROUNDING
    assert apart(together[0], together[1]) > 0.01


def test_events_come_after_each_step_in_the_songs_order(turbo: AceStepPipeline) -> None:
    songs = [song(turbo, Ask(frames=10, steps=1), "a"), song(turbo, Ask(frames=20, steps=2), "b")]
    told = [
        (event.id, event.step, event.steps) if isinstance(event, StepDone) else (event.id, "music")
        for event in denoise(Dit(turbo.transformer), songs, lambda _: True)
    ]
    assert told == [("a", 1, 1), ("a", "music"), ("b", 1, 2), ("b", 2, 2), ("b", "music")]


def test_a_gpu_is_at_most_one_step_behind_what_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[int] = []
    waited: list[int] = []

    class Stream:
        def record_event(self) -> SimpleNamespace:
            place = len(recorded)
            recorded.append(place)
            return SimpleNamespace(synchronize=lambda: waited.append(place))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: Stream())
    pace = _Pace(torch.device("cuda"))
    for step in range(4):
        pace.keep()
        assert recorded == list(range(step + 1))
        assert waited == list(range(step))


def test_finished_songs_and_their_guidance_leave_the_batch(base: AceStepPipeline) -> None:
    dit = CountingDit(base)
    songs = [
        song(base, Ask(frames=90, steps=2), "first"),
        song(base, Ask(frames=30, steps=4, scale=7.0, shift=1.0, interval=(0.6, 1.0)), "guided"),
    ]
    render(dit, songs)
    assert dit.rows == [3, 3, 1, 1], "at t = 1 and 0.75 two songs and a null, then one song"
    assert dit.batches == 2, "masks and padded words are made anew only when the rows change"
    assert dit.memories == 3, "words are projected once"


def test_a_song_that_nobody_wants_takes_no_further_step(base: AceStepPipeline, mixed: list[Song]) -> None:
    dit = CountingDit(base)
    unwanted: set[str] = set()
    seen: list[StepDone | Denoised] = []
    for event in denoise(dit, mixed[:3], lambda name: name not in unwanted):
        seen.append(event)
        if isinstance(event, StepDone) and (event.id, event.step) == ("long", 2):
            unwanted.add("long")
    assert [event.step for event in seen if isinstance(event, StepDone) and event.id == "long"] == [1, 2]
    finished = {event.id: event.latents for event in seen if isinstance(event, Denoised)}
    assert set(finished) == {"cover", "short"}
    untouched = render(dit, mixed[:3])
    for name, made in finished.items():
        assert apart(made, untouched[name]) < ROUNDING, name


def test_noise_of_another_length_than_the_context_is_refused(turbo: AceStepPipeline) -> None:
    """In a padded batch it would pass for padding."""
    odd = song(turbo, Ask(frames=20), "odd", noise=noise(1, 19))
    with pytest.raises(ValueError, match="song odd: 19 frames of noise, 20 of context"):
        render(Dit(turbo.transformer), [odd, song(turbo, Ask(frames=30))])


def test_closing_the_iterator_ends_the_work(turbo: AceStepPipeline) -> None:
    dit = CountingDit(turbo)
    events = denoise(dit, [song(turbo, Ask(steps=8))], lambda _: True)
    next(events)
    next(events)
    events.close()  # type: ignore[attr-defined]
    assert dit.rows == [1, 1]


def test_nobody_wanted_from_the_start_costs_no_forward_pass(turbo: AceStepPipeline) -> None:
    dit = CountingDit(turbo)
    assert render(dit, [song(turbo, Ask())], lambda _: False) == {}
    assert render(dit, []) == {}
    assert dit.rows == []


def test_noise_of_steps_is_the_songs_own_whoever_else_draws(base: AceStepPipeline) -> None:
    """Neither neighbours nor torch's global generator have a say, and a seed means one song."""
    dit = Dit(base.transformer)
    songs = [song(base, Ask(frames=50, seed=1), name, sde_seed=seed) for name, seed in (("a", 1), ("b", 2))]
    alone = render(dit, songs[:1])["a"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(999)
        before = torch.random.get_rng_state()
        together = render(dit, songs)
        assert torch.equal(torch.random.get_rng_state(), before)
    assert apart(together["a"], alone) < ROUNDING
    assert torch.equal(render(dit, songs[:1])["a"], alone)
    assert apart(together["a"], together["b"]) > 0.1


def test_half_precision_keeps_the_latents_in_full(turbo: AceStepPipeline) -> None:
    """The transformer rounds its answers; the sum of the steps is never rounded to its precision."""
    half = copy.deepcopy(turbo.transformer).to(torch.bfloat16)
    made = render(Dit(half), [song(turbo, Ask(frames=50))])["song"]
    assert made.dtype == torch.float32
    assert not torch.equal(made, made.bfloat16().float())
    assert apart(made, render(Dit(turbo.transformer), [song(turbo, Ask(frames=50))])["song"]) < 0.5
