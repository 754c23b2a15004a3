"""How the velocity towards the prompt and the one without it become one.

All tensors are one song's own frames, [T, D]: padding never reaches a norm or an angle.
"""

from typing import Final

import torch

from engine.ace_step.song import Guidance
from engine.schema import GuidanceType

MOMENTUM: Final = -0.75
NORM_THRESHOLD: Final = 2.5
ANGLE_CLIP: Final = 3.14 / 6
"""Radians: 30 degrees, with the models' authors' own pi."""

_TIME: Final = 0
_CHANNELS: Final = 1
_LEAST_WEIGHT: Final = 1e-3
_FLAT: Final = 1e-3
"""Sine of an angle below which two predictions count as parallel."""


class Guide:
    """Guides one song; remembers its earlier steps where the method wants it."""

    def __init__(self, guidance: Guidance) -> None:
        self.null = guidance.null
        self._guidance = guidance
        self._average: torch.Tensor | None = None

    def holds(self, t: float) -> bool:
        """Whether the step that begins at t is guided; a scale up to 1 asks for nothing."""
        low, high = self._guidance.interval
        return self._guidance.scale > 1 and low <= t <= high

    def velocity(
        self, conditioned: torch.Tensor, null: torch.Tensor, *, latents: torch.Tensor, t: float
    ) -> torch.Tensor:
        """The guided velocity at `latents`, which stand at time t."""
        scale = self._guidance.scale
        match self._guidance.kind:
            case GuidanceType.APG:
                gap = conditioned - null
                self._average = gap if self._average is None else gap + MOMENTUM * self._average
                return projected(conditioned, self._average, scale)
            case GuidanceType.ADG:
                return angled(conditioned, null, latents=latents, t=t, scale=scale)
            case GuidanceType.CFG:
                return null + scale * (conditioned - null)


def projected(conditioned: torch.Tensor, gap: torch.Tensor, scale: float) -> torch.Tensor:
    """Adaptive projected guidance (arXiv 2410.02416) along time, one norm for each channel.

    v = v_c + (scale - 1) * g, where g is `gap`, shortened to NORM_THRESHOLD, less its part parallel to v_c
    (eta 0). `gap` is the running sum of v_c - v_null with MOMENTUM.
    """
    norm = gap.norm(p=2, dim=_TIME, keepdim=True)
    gap = gap * torch.minimum(torch.ones_like(gap), NORM_THRESHOLD / norm)
    # In double precision, like the reference: what remains may be small beside what is taken away.
    whole, axis = _precise(gap), torch.nn.functional.normalize(_precise(conditioned), dim=_TIME)
    across = whole - (whole * axis).sum(dim=_TIME, keepdim=True) * axis
    return conditioned + (scale - 1.0) * across.to(conditioned)


def angled(
    conditioned: torch.Tensor, null: torch.Tensor, *, latents: torch.Tensor, t: float, scale: float
) -> torch.Tensor:
    """Angle-based guidance (arXiv 2506.11039) as ACE-Step 1.5 does it, frame by frame over the channels.

    With the clean frames that both velocities predict, x_c = x - t v_c and x_u = x - t v_u, the angle theta
    between them, w = scale - 1 + 0.001 and theta' = min(w theta, ANGLE_CLIP):
    x' = cos(theta') x_c + sin(theta') / sin(theta) p, where p is the part of x_c - x_u perpendicular to x_u
    (w p where theta is as good as 0), and v = (x - x') / t. It turns a frame and hardly lengthens it.
    """
    weight = max(scale - 1.0, 0.0) + _LEAST_WEIGHT
    here = _precise(latents)
    towards, away = here - t * _precise(conditioned), here - t * _precise(null)
    theta = _angle(towards, away)
    turned = (weight * theta).clamp(-ANGLE_CLIP, ANGLE_CLIP)
    gap = towards - away
    along = (gap * away).sum(_CHANNELS, keepdim=True) / (away.square().sum(_CHANNELS, keepdim=True) + 1e-8)
    across = gap - along * away
    share = torch.where(theta.sin() > _FLAT, turned.sin() / theta.sin(), weight)
    return ((here - turned.cos() * towards - share * across) / t).to(latents)


def _precise(x: torch.Tensor) -> torch.Tensor:
    """In float64, which Apple's GPUs lack."""
    return (x.cpu() if x.device.type == "mps" else x).double()


def _angle(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Radians between the frames, [T, 1]."""
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=_CHANNELS, eps=1e-8)
    return cosine.clamp(-1.0 + 1e-6, 1.0 - 1e-6).acos().unsqueeze(_CHANNELS)
