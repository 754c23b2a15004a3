"""The small steps between matrix products, each one a function that a compiler can make one kernel of.

In plain torch they are what the model itself does, with the same roundings: normalise in float32, come back
to the weights' type, scale there. B: rows, N: tokens, H: heads, G: heads of keys, W: width of a head.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

_HALVES = (torch.float16, torch.bfloat16)


def split(x: torch.Tensor, *sizes: int) -> torch.Tensor:
    """The last dimension as several."""
    return x.view(*x.shape[:-1], *sizes)


def rms(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Root mean square normalisation (arXiv 1910.07467) over the last dimension."""
    variance = x.float().pow(2).mean(-1, keepdim=True)
    normal = x * torch.rsqrt(variance + eps)
    return (normal.to(weight.dtype) if weight.dtype in _HALVES else normal) * weight


def modulated(
    x: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor, eps: float
) -> torch.Tensor:
    """Normalise, then scale and shift as the time says; `scale` already contains its 1."""
    return (rms(x, weight, eps) * scale + shift).type_as(x)


def gated_then_normal(
    x: torch.Tensor, change: torch.Tensor, gate: torch.Tensor, weight: torch.Tensor, eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a gated change; give the sum and, for the next sublayer, its normal form."""
    moved = (x + change * gate).type_as(x)
    return moved, rms(moved, weight, eps).type_as(x)


def added_then_modulated(
    x: torch.Tensor,
    change: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a change; give the sum and, for the next sublayer, its modulated form."""
    moved = x + change
    return moved, modulated(moved, weight, scale, shift, eps)


def gated_then_modulated(
    x: torch.Tensor,
    change: torch.Tensor,
    gate: torch.Tensor,
    weight: torch.Tensor,
    scale: torch.Tensor,
    shift: torch.Tensor,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a gated change; give the sum and, for the next layer, its modulated form."""
    moved = (x + change * gate).type_as(x)
    return moved, modulated(moved, weight, scale, shift, eps)


def turned(
    heads: torch.Tensor, weight: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, eps: float
) -> torch.Tensor:
    """Normalise [B, N, H, W] head by head and turn it by its place (arXiv 2104.09864); angles are [N, W]."""
    normal = rms(heads, weight, eps)
    first, second = normal.chunk(2, dim=-1)
    crossed = torch.cat([-second, first], dim=-1)
    return (normal.float() * cos[:, None] + crossed.float() * sin[:, None]).to(normal.dtype)


def swiglu(joined: torch.Tensor) -> torch.Tensor:
    """SiLU of the first half times the second (arXiv 2002.05202)."""
    gate, up = joined.chunk(2, dim=-1)
    return F.silu(gate) * up


def snake(x: torch.Tensor, rate: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """Snake: x + height * sin(rate * x)^2 (arXiv 2006.08195), in float32; [..., channels]."""
    wide = x.float()
    return (wide + height * torch.sin(rate * wide).pow(2)).to(x.dtype)


def biased_snake(
    x: torch.Tensor, bias: torch.Tensor, rate: torch.Tensor, height: torch.Tensor
) -> torch.Tensor:
    """The snake of a convolution whose bias is still missing."""
    return snake(x + bias, rate, height)


def summed_snake(
    x: torch.Tensor, change: torch.Tensor, bias: torch.Tensor, rate: torch.Tensor, height: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add a change with its bias; give the sum and its snake."""
    moved = x + (change + bias)
    return moved, snake(moved, rate, height)


def stretched_snake(
    halves: torch.Tensor, bias: torch.Tensor, rate: torch.Tensor, height: torch.Tensor, crop: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Finish a transposed convolution whose kernel is two strides long, and take its snake.

    `halves` is [B, T, 2, stride, channels]: what each frame gives to its own stride and to the next one's.
    Gives [B, T * stride, channels] twice, without the `crop` samples that lie beyond either end.
    """
    frames, stride = halves.shape[1], halves.shape[3]
    own = F.pad(halves[:, :, 0], (0, 0, 0, 0, 0, 1))
    late = F.pad(halves[:, :, 1], (0, 0, 0, 0, 1, 0))
    samples = (own + late).flatten(1, 2)[:, crop : crop + (frames + 1) * stride - 2 * crop] + bias
    return samples, snake(samples, rate, height)
