"""One song on its way through the sampler: plain data between conditioning, sampler and decoder.

T: latent frames, 25 a second. D: latent width, 64 as released. E: tokens that the transformer reads.
"""

import msgspec
import torch

from engine.schema import GuidanceType


class Condition(msgspec.Struct, frozen=True, eq=False):
    """What the transformer reads of text, lyrics and timbre, packed without padding: [E, width]."""

    hidden: torch.Tensor


class Guidance(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """How hard to pull away from `null`, while t lies inside `interval`."""

    kind: GuidanceType
    scale: float
    interval: tuple[float, float]
    null: Condition
    """As long as the song's own condition unless it is a negative prompt's."""


class Switch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """From step number `step` on (0-based) these hold: how covers let go of their source."""

    step: int
    condition: Condition
    context: torch.Tensor


class Injection(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A repaint's source, put back (noised to the step's t) outside the window after each early step."""

    source: torch.Tensor
    """[T, D]: clean latents."""
    keep: torch.Tensor
    """[T], bool: frames that belong to the source."""
    steps: int


class Song(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything that the sampler needs of one request."""

    id: str
    noise: torch.Tensor
    """[T, D], float32: drawn on the CPU from the song's own generator, so that neighbours change nothing."""
    start: torch.Tensor | None = None
    """[T, D]: latents of the first step if it does not begin with pure noise."""
    context: torch.Tensor
    """[T, 2 D]: source latents and the mask of what is to be generated."""
    condition: Condition
    timesteps: tuple[float, ...]
    """Falling, in (0, 1]; the last step ends at 0."""
    guidance: Guidance | None = None
    sde_seed: int | None = None
    """None: ODE."""
    switch: Switch | None = None
    injection: Injection | None = None

    @property
    def frames(self) -> int:
        """T."""
        return int(self.context.shape[0])
