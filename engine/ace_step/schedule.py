"""When the steps of a song happen: t falls from 1 (noise) to 0 (music)."""

import torch


def timesteps(steps: int, shift: float) -> tuple[float, ...]:
    """`steps` falling times from 1 on, each exact in float32; the last step ends at 0, which is left out.

    t' = shift * t / (1 + (shift - 1) * t) on an even grid: above 1, `shift` spends more of the steps where
    there is still much noise (arXiv 2403.03206). For 8 steps and shift 1, 2 or 3 these are the times that the
    turbo models were distilled on.
    """
    if steps < 1 or shift <= 0:
        raise ValueError(f"steps must be at least 1 and shift above 0, not {steps} and {shift}")
    times = torch.linspace(1.0, 0.0, steps + 1, dtype=torch.float32)
    if shift != 1.0:
        times = shift * times / (1 + (shift - 1) * times)
    return tuple(times[:-1].tolist())
