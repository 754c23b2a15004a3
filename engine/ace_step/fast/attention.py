"""Attention over padded rows without a mask of N x N: two ways, exact both.

`Segments` hands flash attention the ends of all rows, and it reads nothing beyond them (CUDA, 16 bit).
`Blocks` is plain torch for any device: heads that share keys become one longer query, and in a sliding
layer each block of `window` queries meets three blocks of keys, so that memory grows with N alone.

B: rows, N: tokens, E: tokens of the words, H: heads, G: heads of keys, W: width of a head. The end of a row
is the number of its own tokens; what comes out behind the ends is finite and means nothing.
"""

from typing import Any, Protocol

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it

from engine.ace_step.dit import Attention


class Shape(msgspec.Struct, frozen=True):
    """Sizes of a batch with its padding: rows, tokens, tokens of the words."""

    rows: int
    tokens: int
    words: int
    even_tokens: bool = False
    """No row ends before the others and there is no padding."""
    even_words: bool = False


class Plan(msgspec.Struct, frozen=True, eq=False):
    """Tensors that tell one batch's rows apart; of fixed places, so that a recorded step can read them."""

    tensors: dict[str, torch.Tensor]
    shape: Shape

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class Way(Protocol):
    """A way to attend."""

    name: str
    masks: bool
    """Whether it saves work to know that nothing is padded."""

    def plan(self, shape: Shape) -> Plan:
        """Room for what is read of a batch."""

    def fill(self, plan: Plan, tokens: list[int], words: list[int]) -> None:
        """Write the ends of each row into the plan, in place."""

    def attend(
        self, kind: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan
    ) -> torch.Tensor:
        """Attention of `query` [B, N, H, W] to keys and values [B, N or E, G, W]: [B, N, H, W]."""


class Segments:
    """Flash attention over segments of variable length: each row's own tokens, and its padding by itself.

    Padding attends to padding, so every output is written, and windows count from the same ends for queries
    and keys. For the words, a row's padding is a segment with keys and no queries.
    """

    name = "flash attention over segments"
    masks = False

    def __init__(self, *, device: torch.device, window: int, scale: float) -> None:
        self._device = device
        self._window = window
        self._scale = scale
        # Not every release has a public name for it that takes a window.
        self._flash: Any = torch.ops.aten._flash_attention_forward  # noqa: SLF001

    @staticmethod
    def offered(device: torch.device, dtype: torch.dtype) -> str | None:
        """None if this way can be tried on this device, else why not."""
        if device.type != "cuda":
            return "no CUDA device"
        if dtype not in (torch.float16, torch.bfloat16):
            return f"flash attention has no {dtype}"
        if torch.cuda.get_device_capability(device) < (8, 0):
            return "the device is older than flash attention"
        try:
            schema = str(torch.ops.aten._flash_attention_forward.default._schema)  # noqa: SLF001
        except (AttributeError, RuntimeError):
            return "this torch has no flash attention"
        wanted = ("cum_seq_q", "cum_seq_k", "window_size_left", "window_size_right")
        missing = [name for name in wanted if name not in schema]
        return f"this torch's flash attention has no {missing[0]}" if missing else None

    def plan(self, shape: Shape) -> Plan:
        """See Way."""
        room = {
            name: torch.zeros(2 * shape.rows + 1, dtype=torch.int32, device=self._device)
            for name in ("own", "asking", "words")
        }
        return Plan(room, shape)

    def fill(self, plan: Plan, tokens: list[int], words: list[int]) -> None:
        """See Way."""
        shape = plan.shape
        for name, ends in segment_ends(shape, tokens, words).items():
            plan.tensors[name].copy_(torch.tensor(ends, dtype=torch.int32), non_blocking=True)

    def attend(
        self, kind: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan
    ) -> torch.Tensor:
        """See Way."""
        cross = kind is Attention.CROSS
        ends = plan.tensors
        window = self._window if kind is Attention.SLIDING else -1
        mixed: torch.Tensor = self._flash(
            query.flatten(0, 1),
            key.flatten(0, 1),
            value.flatten(0, 1),
            ends["asking" if cross else "own"],
            ends["words" if cross else "own"],
            plan.shape.tokens,
            plan.shape.words if cross else plan.shape.tokens,
            0.0,
            False,
            False,
            scale=self._scale,
            window_size_left=window,
            window_size_right=window,
        )[0]
        return mixed.view(query.shape)


def segment_ends(shape: Shape, tokens: list[int], words: list[int]) -> dict[str, list[int]]:
    """Where segments end when all rows lie one after the other, with their padding; the first number is 0.

    `own`: tokens and their padding, in turn. `asking` and `words`: all tokens of a row with its own words,
    then no token at all with the padding of the words.
    """
    own, asking, heard = [0], [0], [0]
    for row, (count, known) in enumerate(zip(tokens, words, strict=True)):
        own += [row * shape.tokens + count, (row + 1) * shape.tokens]
        asking += [(row + 1) * shape.tokens] * 2
        heard += [row * shape.words + known, (row + 1) * shape.words]
    return {"own": own, "asking": asking, "words": heard}


class Blocks:
    """Scaled dot-product attention of torch, shaped so that no kernel needs grouped heads beside a mask."""

    name = "torch attention in blocks"
    masks = True

    def __init__(self, *, device: torch.device, dtype: torch.dtype, window: int, scale: float) -> None:
        self._device = device
        self._dtype = dtype
        self._window = window
        self._block = max(1, window)
        self._scale = scale

    def plan(self, shape: Shape) -> Plan:
        """See Way. Masks are added to the scores."""
        blocks = -(-shape.tokens // self._block)
        sizes = {
            "full": (shape.rows, 1, 1, shape.tokens),
            "cross": (shape.rows, 1, 1, shape.words),
            "band": (shape.rows, blocks, self._block, 3 * self._block),
        }
        room = {
            name: torch.zeros(size, dtype=self._dtype, device=self._device) for name, size in sizes.items()
        }
        return Plan(room, shape)

    def fill(self, plan: Plan, tokens: list[int], words: list[int]) -> None:
        """See Way."""
        own, known = self._before(tokens, plan.shape.tokens), self._before(words, plan.shape.words)
        self._write(plan.tensors["full"], own[:, None, None])
        self._write(plan.tensors["cross"], known[:, None, None])
        self._write(plan.tensors["band"], self._band(own))

    def attend(
        self, kind: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: Plan
    ) -> torch.Tensor:
        """See Way."""
        if kind is Attention.SLIDING:
            return self._slide(query, key, value, plan.tensors["band"])
        cross = kind is Attention.CROSS
        even = plan.shape.even_words if cross else plan.shape.even_tokens
        mask = None if even else plan.tensors["cross" if cross else "full"]
        batch, tokens, heads, width = query.shape
        groups = key.shape[2]
        mixed = F.scaled_dot_product_attention(
            # Head g * R + r reads the keys of group g: R heads of a group become one query R times as long.
            query.reshape(batch, tokens, groups, -1, width).permute(0, 2, 3, 1, 4).flatten(2, 3),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=mask,
            scale=self._scale,
        )
        mixed = mixed.reshape(batch, groups, -1, tokens, width).permute(0, 3, 1, 2, 4)
        return mixed.reshape(batch, tokens, heads, width)

    def _slide(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        batch, tokens, heads, width = query.shape
        block, blocks, groups = self._block, mask.shape[1], key.shape[2]
        share = heads // groups
        asked = F.pad(query, (0, 0, 0, 0, 0, blocks * block - tokens))
        asked = asked.view(batch, blocks, block, groups, share, width).permute(0, 1, 3, 4, 2, 5)
        mixed = F.scaled_dot_product_attention(
            asked.reshape(batch * blocks, groups, share * block, width),
            self._neighbours(key, blocks),
            self._neighbours(value, blocks),
            attn_mask=mask.repeat(1, 1, share, 1).view(batch * blocks, 1, share * block, 3 * block),
            scale=self._scale,
        )
        mixed = mixed.view(batch, blocks, groups, share, block, width).permute(0, 1, 4, 2, 3, 5)
        return mixed.reshape(batch, blocks * block, heads, width)[:, :tokens]

    def _neighbours(self, own: torch.Tensor, blocks: int) -> torch.Tensor:
        """[B, N, G, W] as [B * blocks, G, 3 * block, W]: each block between its two neighbours."""
        block = self._block
        room = F.pad(own, (0, 0, 0, 0, block, (blocks + 1) * block - own.shape[1]))
        three = room.unfold(1, 3 * block, block)  # [B, blocks, G, W, 3 * block]
        return three.transpose(3, 4).flatten(0, 1)

    def _before(self, ends: list[int], longest: int) -> torch.Tensor:
        """[B, longest], True in front of each row's end."""
        places = torch.arange(longest, device=self._device)
        return places < torch.tensor(ends, device=self._device)[:, None]

    def _band(self, own: torch.Tensor) -> torch.Tensor:
        """[B, blocks, block, 3 * block], True where seen.

        A token always sees itself: padding would otherwise see nothing, which is no number.
        """
        block, tokens = self._block, own.shape[1]
        blocks = -(-tokens // block)
        inside = F.pad(own, (block, (blocks + 1) * block - tokens))
        inside = inside.unfold(1, 3 * block, block)[:, :, None]
        asking = torch.arange(block, device=self._device)[:, None]
        apart = asking - (torch.arange(3 * block, device=self._device) - block)
        return ((apart.abs() <= self._window) & inside) | (apart == 0)

    def _write(self, mask: torch.Tensor, seen: torch.Tensor) -> None:
        mask.zero_().masked_fill_(~seen, torch.finfo(self._dtype).min)
