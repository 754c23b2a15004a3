"""The diffusion transformer over a batch of songs that differ in length, words and time.

The weights and their modules are those of diffusers' AceStepTransformer1DModel; the way through them is
ours, because that model has no masks. Alone, a song gets the bits of the model's own forward pass (float32);
in a padded batch it differs by rounding only.

B: rows, T: latent frames (25 a second), N: tokens (patches of 2 frames), E: tokens of text, lyrics and
timbre, D: latent width, H: heads, G: heads of keys and values, W: width of a head.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeVar, cast

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from diffusers import AceStepTransformer1DModel
from torch.nn.utils.rnn import pad_sequence

from engine.ace_step.song import Condition

MemoryT = TypeVar("MemoryT")
BatchT = TypeVar("BatchT")


class Denoiser(Protocol[MemoryT, BatchT]):
    """What the sampler needs of a transformer; `Dit` is the exact one, others may be faster."""

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""

    def memory(self, condition: Condition) -> MemoryT:
        """What every step reads of one song's words, computed once."""

    def batch(self, contexts: Sequence[torch.Tensor], memories: Sequence[MemoryT]) -> BatchT:
        """Everything about these rows that does not change from step to step; contexts are [T, 2 D] each."""

    def velocity(self, batch: BatchT, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Velocity at `latents` [B, T, D] float32 and the rows' own times `t` [B]: [B, T, D] float32.

        T is that of the longest context; whatever stands in the frames behind a row's end changes nothing,
        and what comes back there means nothing.
        """


class Attention(StrEnum):
    """Who looks at whom; the first two are named as in the model's configuration."""

    SLIDING = "sliding_attention"
    FULL = "full_attention"
    CROSS = "cross_attention"


class Memory(msgspec.Struct, frozen=True, eq=False):
    """Keys and values of one song's words in every layer: [layers, E, G, W] each."""

    keys: torch.Tensor
    values: torch.Tensor


class Batch(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Rows of one forward pass, padded behind their ends. A mask is None where nothing has to be hidden."""

    context: torch.Tensor
    """[B, T, 2 D], zeros behind the ends."""
    frames: tuple[int, ...]
    """Of each row, without padding."""
    keys: torch.Tensor
    """[layers, B, E, G, W], like the values: `Memory` of every row."""
    values: torch.Tensor
    padding: torch.Tensor | None
    """[B, T, 1], bool: True behind a row's end."""
    masks: dict[Attention, torch.Tensor | None]
    """Added to the scores: 0 where a token is seen, the lowest number where it is not."""
    rope: tuple[torch.Tensor, torch.Tensor]
    """Cosines and sines, [N, W]."""
    still: tuple[torch.Tensor, torch.Tensor]
    """Time embedding of `t - r`, which is always 0 here: [B, width] and [B, 6, width]."""


class Dit:
    """The exact forward pass, in plain torch. To replace a kernel, override `attend`."""

    def __init__(self, model: AceStepTransformer1DModel) -> None:
        self.model = cast(Any, model)  # its modules carry no types
        self.layers = list(self.model.layers)
        self.kinds = [Attention(kind) for kind in self.model.layer_types]

    @property
    def device(self) -> torch.device:
        return torch.device(self.model.proj_in_conv.weight.device)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.proj_in_conv.weight.dtype
        return dtype

    @torch.no_grad()
    def memory(self, condition: Condition) -> Memory:
        """Project a condition once for all steps: [layers, E, G, W] of keys and of values."""
        hidden = self.model.condition_embedder(condition.hidden[None].to(self.device, self.dtype))
        keys, values = [], []
        for layer in self.layers:
            cross = layer.cross_attn
            keys.append(cross.norm_k(_heads(cross.to_k(hidden), cross.kv_heads))[0])
            values.append(_heads(cross.to_v(hidden), cross.kv_heads)[0])
        return Memory(torch.stack(keys), torch.stack(values))

    @torch.no_grad()
    def batch(self, contexts: Sequence[torch.Tensor], memories: Sequence[Memory]) -> Batch:
        """Pad rows to the longest and make their masks; see Denoiser."""
        frames = [len(context) for context in contexts]
        tokens = [-(-count // self.model.patch_size) for count in frames]
        words = [memory.keys.shape[1] for memory in memories]
        own = [context.to(self.device, self.dtype) for context in contexts]
        zeros = torch.zeros(len(frames), device=self.device, dtype=self.dtype)
        return Batch(
            context=pad_sequence(own, batch_first=True),
            frames=tuple(frames),
            keys=_stack([memory.keys for memory in memories]),
            values=_stack([memory.values for memory in memories]),
            padding=None if _even(frames) else ~self._inside(frames)[:, :, None],
            masks={
                Attention.FULL: self._hide(self._self_mask(tokens)),
                Attention.SLIDING: self._hide(self._band_mask(tokens)),
                Attention.CROSS: self._hide(None if _even(words) else self._inside(words)[:, None, None]),
            },
            rope=self._rope(max(tokens)),
            still=self.model.time_embed_r(zeros),
        )

    @torch.no_grad()
    def velocity(self, batch: Batch, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """See Denoiser."""
        moved, modulation = self.model.time_embed(t.to(self.dtype))
        moved, modulation = moved + batch.still[0], modulation + batch.still[1]
        hidden = self._patch(batch, latents)
        for index in range(len(self.layers)):
            hidden = self._layer(index, hidden, modulation, batch)
        return self._unpatch(hidden, moved)[:, : latents.shape[1]].float()

    def attend(
        self, kind: Attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """Attention of `query` [B, N, H, W] to keys and values [B, N or E, G, W]: [B, N, H, W]."""
        mixed = F.scaled_dot_product_attention(
            query.transpose(1, 2),
            key.transpose(1, 2),
            value.transpose(1, 2),
            attn_mask=batch.masks[kind],
            scale=self.model.head_dim**-0.5,
            enable_gqa=query.shape[2] != key.shape[2],
        )
        return mixed.transpose(1, 2)

    def _patch(self, batch: Batch, latents: torch.Tensor) -> torch.Tensor:
        """Two frames of context and latents become one token. An odd row ends in half a patch of zeros."""
        latents = latents.to(self.dtype)
        if batch.padding is not None:
            # Filled, not multiplied: whatever stands there, NaN too, must be gone before frames are mixed.
            latents = latents.masked_fill(batch.padding, 0.0)
        joined = torch.cat([batch.context, latents], dim=-1)
        joined = F.pad(joined, (0, 0, 0, -joined.shape[1] % self.model.patch_size))
        tokens: torch.Tensor = self.model.proj_in_conv(joined.transpose(1, 2)).transpose(1, 2)
        return tokens

    def _layer(
        self, index: int, hidden: torch.Tensor, modulation: torch.Tensor, batch: Batch
    ) -> torch.Tensor:
        """Self-attention, cross-attention, feed-forward; time shifts, scales and gates all but the second."""
        layer = self.layers[index]
        shift, scale, gate, shift_ff, scale_ff, gate_ff = (layer.scale_shift_table + modulation).chunk(
            6, dim=1
        )
        seen = layer.self_attn_norm(hidden) * (1 + scale) + shift
        hidden = (hidden + self._look_around(index, seen.type_as(hidden), batch) * gate).type_as(hidden)
        seen = layer.cross_attn_norm(hidden).type_as(hidden)
        hidden = hidden + self._look_up(index, seen, batch)
        seen = layer.mlp_norm(hidden) * (1 + scale_ff) + shift_ff
        result: torch.Tensor = (hidden + layer.mlp(seen.type_as(hidden)) * gate_ff).type_as(hidden)
        return result

    def _look_around(self, index: int, seen: torch.Tensor, batch: Batch) -> torch.Tensor:
        own = self.layers[index].self_attn
        query = _rotate(own.norm_q(_heads(own.to_q(seen), own.heads)), batch.rope)
        key = _rotate(own.norm_k(_heads(own.to_k(seen), own.kv_heads)), batch.rope)
        value = _heads(own.to_v(seen), own.kv_heads)
        mixed: torch.Tensor = own.to_out[0](
            self.attend(self.kinds[index], query, key, value, batch).flatten(2)
        )
        return mixed

    def _look_up(self, index: int, seen: torch.Tensor, batch: Batch) -> torch.Tensor:
        cross = self.layers[index].cross_attn
        query = cross.norm_q(_heads(cross.to_q(seen), cross.heads))
        mixed = self.attend(Attention.CROSS, query, batch.keys[index], batch.values[index], batch)
        read: torch.Tensor = cross.to_out[0](mixed.flatten(2))
        return read

    def _unpatch(self, hidden: torch.Tensor, moved: torch.Tensor) -> torch.Tensor:
        shift, scale = (self.model.scale_shift_table + moved[:, None]).chunk(2, dim=1)
        hidden = (self.model.norm_out(hidden) * (1 + scale) + shift).type_as(hidden)
        frames: torch.Tensor = self.model.proj_out_conv(hidden.transpose(1, 2)).transpose(1, 2)
        return frames

    def _inside(self, lengths: Sequence[int]) -> torch.Tensor:
        """[B, longest], bool: True up to each row's end."""
        ends = torch.tensor(lengths, device=self.device)
        inside: torch.Tensor = torch.arange(max(lengths), device=self.device) < ends[:, None]
        return inside

    def _self_mask(self, tokens: Sequence[int]) -> torch.Tensor | None:
        """[B, 1, 1, N], True where seen: everything of the row's own."""
        return None if _even(tokens) else self._inside(tokens)[:, None, None]

    def _band_mask(self, tokens: Sequence[int]) -> torch.Tensor:
        """[1 or B, 1, N, N], True where seen: neighbours of the row's own, and always oneself.

        A token of padding would otherwise see nothing, which is no number.
        """
        places = torch.arange(max(tokens), dtype=torch.int16, device=self.device)  # 7,500 at most, squared
        apart = (places[:, None] - places).abs()
        band: torch.Tensor = (apart <= self.model.config.sliding_window)[None, None]
        own = self._self_mask(tokens)
        return band if own is None else (band & own) | (apart == 0)

    def _hide(self, seen: torch.Tensor | None) -> torch.Tensor | None:
        """The additive mask."""
        if seen is None:
            return None
        mask = torch.full(seen.shape, torch.finfo(self.dtype).min, dtype=self.dtype, device=self.device)
        return mask.masked_fill_(seen, 0.0)

    def _rope(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rotary position embedding (arXiv 2104.09864); a head's first half pairs with its second."""
        width = self.model.head_dim
        even = torch.arange(0, width, 2, dtype=torch.float32, device=self.device)
        places = torch.arange(tokens, dtype=torch.float32, device=self.device)
        angles = torch.outer(places, 1.0 / self.model.rope_theta ** (even / width)).repeat(1, 2)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


def _heads(joined: torch.Tensor, heads: int) -> torch.Tensor:
    return joined.view(*joined.shape[:-1], heads, -1)


def _rotate(x: torch.Tensor, rope: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn [B, N, H, W] by the angles of each place."""
    cos, sin = (part[:, None] for part in rope)
    first, second = x.chunk(2, dim=-1)
    return (x.float() * cos + torch.cat([-second, first], dim=-1).float() * sin).to(x.dtype)


def _stack(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """[layers, E, G, W] of every row, as [layers, B, longest E, G, W] with zeros behind the ends."""
    if len(rows) == 1:
        return rows[0][:, None]
    longest = max(row.shape[1] for row in rows)
    return torch.stack([F.pad(row, (0, 0, 0, 0, 0, longest - row.shape[1])) for row in rows], dim=1)


def _even(lengths: Sequence[int]) -> bool:
    return len(set(lengths)) == 1
