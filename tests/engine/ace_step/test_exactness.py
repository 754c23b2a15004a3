"""Our sampler against AceStepPipeline on the same weights: alone, a song has the oracle's very bits."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from diffusers import AceStepPipeline, FlowMatchEulerDiscreteScheduler

from engine.ace_step.dit import Dit
from engine.ace_step.song import Condition, Guidance, Injection, Switch
from engine.schema import GuidanceType
from tests.engine.ace_step.sampler_songs import Ask, apart, condition, context, latents, noise, render, song

WINDOW_FRAMES = 32
"""The tiny model's sliding window: 16 tokens to each side."""


@pytest.mark.parametrize("frames", [1, 15, WINDOW_FRAMES, 51, 150, 331])
def test_a_song_alone_is_the_oracles_to_the_bit(turbo: AceStepPipeline, frames: int) -> None:
    ask = Ask(frames=frames, seed=frames, steps=3)
    assert torch.equal(render(Dit(turbo.transformer), [song(turbo, ask)])["song"], latents(turbo, ask))


@pytest.mark.parametrize(("steps", "shift"), [(8, 1.0), (8, 3.0), (5, 2.5)])
def test_every_schedule_takes_the_oracles_steps_to_the_bit(
    turbo: AceStepPipeline, steps: int, shift: float
) -> None:
    ask = Ask(steps=steps, shift=shift)
    assert torch.equal(render(Dit(turbo.transformer), [song(turbo, ask)])["song"], latents(turbo, ask))


def test_own_timesteps_are_used_as_they_are(turbo: AceStepPipeline) -> None:
    times = (0.97, 0.7, 0.33, 0.05)
    ours = render(Dit(turbo.transformer), [song(turbo, Ask(), timesteps=times)])["song"]
    assert torch.equal(ours, latents(turbo, Ask(), timesteps=list(times)))


@pytest.mark.parametrize("codes", [(5, 63_999, 0, 17_000), tuple(range(0, 10_000, 1_000))])
def test_audio_codes_give_the_oracles_bits(turbo: AceStepPipeline, codes: tuple[int, ...]) -> None:
    ask = Ask(frames=5 * len(codes), codes=codes)
    assert torch.equal(render(Dit(turbo.transformer), [song(turbo, ask)])["song"], latents(turbo, ask))


def test_unguided_base_models_give_the_oracles_bits(base: AceStepPipeline) -> None:
    assert torch.equal(render(Dit(base.transformer), [song(base, Ask())])["song"], latents(base, Ask()))


@pytest.mark.parametrize(
    "ask", [Ask(scale=7.0, steps=6, frames=77), Ask(scale=1.5, steps=6, frames=15, codes=(900, 12, 7_777))]
)
def test_projected_guidance_is_the_oracles(base: AceStepPipeline, ask: Ask) -> None:
    wanted = latents(base, ask)
    assert apart(render(Dit(base.transformer), [song(base, ask)])["song"], wanted) < 1e-5
    assert apart(wanted, latents(base, Ask(steps=6, frames=ask.frames, codes=ask.codes))) > 0.01


def test_the_guidance_interval_counts_t_itself_where_the_oracle_mirrors_it(base: AceStepPipeline) -> None:
    ask = Ask(scale=7.0, steps=6, interval=(0.55, 0.95))
    ours = render(Dit(base.transformer), [song(base, ask)])["song"]
    assert apart(ours, latents(base, ask)) < 1e-5, "[1 - b, 1 - a] there is [a, b] here"
    same = latents(base, ask, cfg_interval_start=0.55, cfg_interval_end=0.95)
    assert apart(ours, same) > 0.01


def test_a_negative_prompt_may_be_longer_or_shorter_than_the_prompt(base: AceStepPipeline) -> None:
    """Both are masked apart: the oracle's null, cut to one token, still means the same."""
    ask = Ask(scale=5.0)
    null = Condition(base.condition_encoder.null_condition_emb[0].detach())
    guidance = Guidance(kind=GuidanceType.APG, scale=5.0, interval=(0.0, 1.0), null=null)
    ours = render(Dit(base.transformer), [song(base, ask, guidance=guidance)])["song"]
    assert apart(ours, latents(base, ask)) < 1e-5


def test_a_cover_lets_go_at_its_step_and_never_blends(turbo: AceStepPipeline) -> None:
    """The oracle in two halves: the source's words and codes, then new words over silence."""
    ask = Ask(codes=(1, 2, 3, 4, 5, 6), frames=30, steps=8)
    seen: list[torch.Tensor] = []
    latents(turbo, ask, callback_on_step_end=_recorder(seen))
    cover = song(turbo, ask)
    after = Ask(frames=ask.frames)
    wanted = latents(turbo, after, latents=seen[2], timesteps=list(cover.timesteps[3:]))
    switch = Switch(step=3, condition=condition(turbo, after), context=context(turbo, ask.frames))
    ours = render(Dit(turbo.transformer), [song(turbo, ask, switch=switch)])["song"]
    assert torch.equal(ours, wanted)
    assert apart(ours, latents(turbo, ask, audio_cover_strength=3 / 8)) > 0.1, "the oracle blends"


@pytest.mark.parametrize("steps", [0, 2, 4])
def test_injection_puts_the_source_back_after_each_early_step(turbo: AceStepPipeline, steps: int) -> None:
    ask = Ask(frames=45, seed=9, steps=4)
    source, keep = noise(77, 45), torch.arange(45) < 20
    plain = song(turbo, ask)
    after = [*plain.timesteps[1:], 0.0]

    def put_back(_: Any, step: int, __: float, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if step < steps:
            noised = (1.0 - after[step]) * source + after[step] * plain.noise
            values["latents"] = torch.where(keep[:, None], noised, values["latents"])
        return values

    wanted = latents(turbo, ask, callback_on_step_end=put_back)
    injection = Injection(source=source, keep=keep, steps=steps)
    ours = render(Dit(turbo.transformer), [song(turbo, ask, injection=injection)])["song"]
    assert torch.equal(ours, wanted)
    assert torch.equal(ours[:20], source[:20]) == (steps == 4), "the last step's t is 0: the source itself"


def test_a_song_can_begin_with_other_latents_than_its_noise(turbo: AceStepPipeline) -> None:
    start = noise(5, 60) * 0.5
    ours = render(Dit(turbo.transformer), [song(turbo, Ask(), start=start, timesteps=(0.6, 0.3))])["song"]
    assert torch.equal(ours, latents(turbo, Ask(), latents=start[None], timesteps=[0.6, 0.3]))


def test_sde_steps_predict_the_music_and_noise_it_anew(stochastic: AceStepPipeline) -> None:
    """Against the oracle with a stochastic scheduler, which draws from torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        wanted = latents(stochastic, Ask(steps=6))
    ours = render(Dit(stochastic.transformer), [song(stochastic, Ask(steps=6), sde_seed=123)])["song"]
    assert torch.equal(ours, wanted)


def test_in_half_precision_the_forward_pass_is_the_models_to_the_bit(turbo: AceStepPipeline) -> None:
    model = copy.deepcopy(turbo.transformer).to(torch.bfloat16)
    ask = Ask(frames=51)
    own, around, x = condition(turbo, ask).hidden, context(turbo, 51), noise(1, 51)[None]
    dit, t = Dit(model), torch.tensor([0.7])
    ours = dit.velocity(dit.batch([around], [dit.memory(Condition(own))]), x, t)
    with torch.no_grad():
        half = [part.bfloat16() for part in (x, t, t, own[None], around[None])]
        wanted = model(*half, return_dict=False)[0]
    assert ours.dtype == torch.float32
    assert torch.equal(ours, wanted.float())


@pytest.fixture
def stochastic(turbo: AceStepPipeline) -> Iterator[AceStepPipeline]:
    before = turbo.scheduler
    turbo.scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1, shift=1.0, stochastic_sampling=True
    )
    yield turbo
    turbo.scheduler = before


def _recorder(seen: list[torch.Tensor]) -> Any:
    def record(_: Any, __: int, ___: float, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(values["latents"].clone())
        return values

    return record
