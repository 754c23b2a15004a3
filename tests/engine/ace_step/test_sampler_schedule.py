"""When steps happen: the published tables, and the oracle's bits for everything between them."""

from itertools import pairwise

import pytest
import torch
from diffusers import AceStepPipeline

from engine.ace_step.schedule import timesteps

TURBO = {
    1.0: (1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125),
    2.0: (1, 0.9333, 0.8571, 0.7692, 0.6667, 0.5455, 0.4, 0.2222),
    3.0: (1, 0.9545, 0.9, 0.8333, 0.75, 0.6429, 0.5, 0.3),
}
"""What the turbo models were distilled on, as published, to four digits."""


@pytest.mark.parametrize("shift", TURBO)
def test_turbo_models_get_the_published_times(shift: float) -> None:
    assert timesteps(8, shift) == pytest.approx(TURBO[shift], abs=5e-5)


@pytest.mark.parametrize("shift", [0.1, 1.0, 2.0, 3.0, 3.7, 10.0])
@pytest.mark.parametrize("steps", [1, 2, 8, 20, 50, 300])
def test_times_are_the_oracles_to_the_bit(turbo: AceStepPipeline, steps: int, shift: float) -> None:
    wanted = turbo._get_timestep_schedule(steps, shift, device="cpu", dtype=torch.float32)
    turbo.scheduler.set_timesteps(sigmas=wanted.tolist(), device="cpu")
    ours = timesteps(steps, shift)
    assert [*ours, 0.0] == turbo.scheduler.sigmas.tolist()
    assert len(ours) == steps


def test_times_fall_from_1_and_stay_above_0() -> None:
    times = timesteps(300, 10.0)
    assert times[0] == 1.0
    assert all(a > b > 0 for a, b in pairwise(times))


@pytest.mark.parametrize(("steps", "shift"), [(0, 3.0), (-1, 3.0), (8, 0.0), (8, -1.0)])
def test_steps_and_shift_must_be_positive(steps: int, shift: float) -> None:
    with pytest.raises(ValueError, match="steps must be at least 1 and shift above 0"):
        timesteps(steps, shift)
