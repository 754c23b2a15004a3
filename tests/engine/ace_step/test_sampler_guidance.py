"""The three ways to guide, each against numbers that are not ours."""

from typing import Final

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

from engine.ace_step.guidance import Guide
from engine.ace_step.song import Condition, Guidance
from engine.schema import GuidanceType

LATENTS: Final = torch.tensor([[0.5, -1.0], [2.0, 0.25], [-0.75, 1.5], [1.0, 1.0]])
TOWARDS: Final = torch.tensor([[1.0, 0.5], [-0.5, 1.25], [0.25, -1.0], [0.5, 0.5]])
AWAY: Final = torch.tensor([[0.75, -0.25], [-0.5, 1.0], [-1.0, 0.5], [0.5, 0.5]])
"""Four frames of two channels; in the last one prompt and null agree."""


def guide(kind: GuidanceType, scale: float, interval: tuple[float, float] = (0.0, 1.0)) -> Guide:
    return Guide(Guidance(kind=kind, scale=scale, interval=interval, null=Condition(torch.zeros(1, 1))))


@pytest.mark.parametrize("loudness", [0.1, 1.0, 10.0])
def test_apg_is_the_reference_to_the_bit_step_after_step(loudness: float) -> None:
    """Below and above the norm threshold, with its memory of earlier steps."""
    drawn = torch.Generator().manual_seed(3)
    ours, memory = guide(GuidanceType.APG, 7.0), MomentumBuffer(-0.75)
    for _ in range(4):
        cond, null = (torch.randn(33, 8, generator=drawn) * loudness for _ in range(2))
        wanted = normalized_guidance(
            cond[None],
            null[None],
            guidance_scale=6.0,
            momentum_buffer=memory,
            eta=0.0,
            norm_threshold=2.5,
            use_original_formulation=True,
            norm_dim=(1,),
        )
        assert torch.equal(ours.velocity(cond, null, latents=cond, t=0.5), wanted[0])


def test_apg_remembers_for_one_song_only() -> None:
    first, second = guide(GuidanceType.APG, 7.0), guide(GuidanceType.APG, 7.0)
    first.velocity(TOWARDS, AWAY, latents=LATENTS, t=0.9)
    again = first.velocity(TOWARDS, AWAY, latents=LATENTS, t=0.8)
    fresh = second.velocity(TOWARDS, AWAY, latents=LATENTS, t=0.8)
    assert not torch.equal(again, fresh)


def test_cfg_walks_the_line_through_both_velocities() -> None:
    guided = guide(GuidanceType.CFG, 3.0).velocity(TOWARDS, AWAY, latents=LATENTS, t=0.5)
    assert torch.equal(guided, torch.tensor([[1.5, 2.0], [-0.5, 1.75], [2.75, -4.0], [0.5, 0.5]]))


@pytest.mark.parametrize(
    ("t", "scale", "wanted"),
    [
        # What the models' authors' code gives for these frames; the first turns by the clipped angle.
        (0.8, 7.0, [[1.83354, 0.15783], [0.1348, 2.52595], [1.64404, -0.68579], [0.50003, 0.50003]]),
        (0.8, 1.5, [[1.0768, 0.4887], [-0.47044, 1.36838], [0.89672, -0.96202], [0.5, 0.5]]),
        (0.25, 3.0, [[1.91686, 0.70317], [-0.48529, 1.7496], [1.44266, -0.44574], [0.50001, 0.50001]]),
    ],
)
def test_adg_gives_the_original_codes_numbers(t: float, scale: float, wanted: list[list[float]]) -> None:
    guided = guide(GuidanceType.ADG, scale).velocity(TOWARDS, AWAY, latents=LATENTS, t=t)
    assert guided.dtype == torch.float32
    torch.testing.assert_close(guided, torch.tensor(wanted), atol=1e-5, rtol=0)


def test_adg_of_a_silent_frame_is_a_number() -> None:
    silent = torch.zeros(2, 4)
    guided = guide(GuidanceType.ADG, 7.0).velocity(silent, silent, latents=silent, t=0.5)
    assert torch.equal(guided, silent)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ((0.0, 1.0), (1.0, 0.001), ()),
        ((0.5, 0.9), (0.5, 0.7, 0.9), (0.49, 0.91)),
        ((0.8, 0.8), (0.8,), (0.2,)),
    ],
)
def test_guidance_holds_while_t_is_inside_its_interval(
    interval: tuple[float, float], inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    guided = guide(GuidanceType.CFG, 7.0, interval)
    assert all(guided.holds(t) for t in inside)
    assert not any(guided.holds(t) for t in outside)


@pytest.mark.parametrize("kind", GuidanceType)
def test_a_scale_of_1_asks_for_no_guidance(kind: GuidanceType) -> None:
    assert not guide(kind, 1.0).holds(0.5)
