"""A tiny model of its own: laying out weights makes views of parameters; shared models stay as they are."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.ace_step.bundle import Bundle
from engine.ace_step.dit import Attention
from engine.ace_step.fast.attention import Blocks, Segments, Way
from tests.checkpoints.tiny import build_pipeline
from tests.engine.ace_step.conftest import as_bundle

CPU = torch.device("cpu")
Tensors = Callable[..., torch.Tensor]


@pytest.fixture(scope="session", name="bundle")
def _bundle() -> Bundle:
    pipeline = build_pipeline("turbo", seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, parameter in pipeline.vae.named_parameters():
        if name.endswith(("alpha", "beta", "bias")):  # all zero otherwise, and easily forgotten unnoticed
            parameter.data.normal_(0, 0.3, generator=generator)
    return as_bundle(pipeline, "turbo")


@pytest.fixture(name="draw")
def _draw() -> Tensors:
    generator = torch.Generator().manual_seed(5)
    return lambda *size: torch.randn(size, generator=generator)


def flash(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_ends: torch.Tensor,
    key_ends: torch.Tensor,
    most_queries: int,
    most_keys: int,
    dropout: float,
    causal: bool,  # noqa: FBT001
    debug: bool,  # noqa: FBT001
    *,
    scale: float,
    window_size_left: int,
    window_size_right: int,
) -> tuple[torch.Tensor]:
    """What flash attention over segments is defined to do, for machines that do not have it."""
    assert not dropout
    assert not causal
    assert not debug
    assert query_ends.dtype == key_ends.dtype == torch.int32
    mixed = torch.full_like(query, float("nan"))
    share = query.shape[1] // key.shape[1]
    edges = zip(query_ends[:-1], query_ends[1:], key_ends[:-1], key_ends[1:], strict=True)
    for start, end, first, last in edges:
        assert end - start <= most_queries
        assert last - first <= most_keys
        keys = key[first:last].repeat_interleave(share, 1)
        scores = torch.einsum("nhw,mhw->hnm", query[start:end], keys) * scale
        # Windows count from the end of both, like a mask aligned to the lower right corner.
        places = torch.arange(end - start)[:, None] + (last - first) - (end - start)
        apart = torch.arange(last - first) - places
        if window_size_left >= 0:
            scores = scores.masked_fill(apart < -window_size_left, float("-inf"))
        if window_size_right >= 0:
            scores = scores.masked_fill(apart > window_size_right, float("-inf"))
        heard = value[first:last].repeat_interleave(share, 1)
        mixed[start:end] = torch.einsum("hnm,mhw->nhw", scores.softmax(-1), heard)
    return (mixed,)


class Waits(TorchDispatchMode):
    """Notes what a recorded step may not do: bring a value or a size to the host, or take data from it."""

    names = frozenset(
        {
            "item",
            "_local_scalar_dense",
            "is_nonzero",
            "equal",
            "nonzero",
            "masked_select",
            "unique",
            "lift_fresh",
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.steps = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.steps += 1
        name = func.overloadpacket.__name__
        if name in self.names:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def ways(window: int, scale: float) -> list[Way]:
    """Both, the second with the definition in place of the kernel."""
    segments = Segments(device=CPU, window=window, scale=scale)
    segments._flash = flash
    return [Blocks(device=CPU, dtype=torch.float32, window=window, scale=scale), segments]


def defined(
    kind: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *, window: int, scale: float
) -> torch.Tensor:
    """Attention of one row without padding [N, H, W], by a mask of N x N."""
    share = query.shape[1] // key.shape[1]
    mask = None
    if kind is Attention.SLIDING:
        places = torch.arange(len(query))
        mask = (places[:, None] - places).abs() <= window
    mixed = torch.nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1),
        key.repeat_interleave(share, 1).transpose(0, 1),
        value.repeat_interleave(share, 1).transpose(0, 1),
        attn_mask=mask,
        scale=scale,
    )
    return mixed.transpose(0, 1)
