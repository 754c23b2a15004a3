"""The transformer for GPUs: the same function as `engine.ace_step.dit.Dit`, in far fewer and larger kernels.

Batches are padded to buckets of 128 tokens, which the attention never reads, so that one recorded CUDA graph
serves every length of its bucket. Weights that meet the same input are one matrix, the small steps between
matrix products one kernel each, the words' keys and values computed once per song for all layers.

B: rows, T: latent frames, N: tokens, E: tokens of the words, D: latent width, L: layers, H: heads,
G: heads of keys and values, W: width of a head.
"""

import weakref
from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from diffusers import AceStepTransformer1DModel

from engine.ace_step.dit import Attention, Memory
from engine.ace_step.fast import kernels
from engine.ace_step.fast.attention import Plan, Shape, Way
from engine.ace_step.fast.fuse import Fuser
from engine.ace_step.fast.graphs import GraphedStep, Recorder, Shelf
from engine.ace_step.fast.weights import LayerWeights, ModelWeights, lay_out
from engine.ace_step.song import Condition

TOKENS: Final = 128
"""Of a bucket: lengths are padded to multiples of it."""
MOST_BUCKETS: Final = 24
MOST_BYTES: Final = 6 << 30
"""Of all buckets' fixed tensors together; the words' keys and values are most of it."""


class Room(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The tensors of one bucket, which never move: what a recorded step reads."""

    context: torch.Tensor
    """[B, T, 2 D], zeros behind the ends."""
    latents: torch.Tensor
    """[B, T, D]."""
    padding: torch.Tensor
    """[B, T, 1], bool: True behind a row's end."""
    t: torch.Tensor
    """[B]."""
    keys: torch.Tensor
    """[L, B, E, G, W], like the values."""
    values: torch.Tensor
    plan: Plan
    rope: tuple[torch.Tensor, torch.Tensor]
    """Cosines and sines, [N, W]."""

    @property
    def shape(self) -> Shape:
        """Of the bucket."""
        return self.plan.shape


class FastBatch(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """Rows of a forward pass, not yet in their bucket's room."""

    contexts: tuple[torch.Tensor, ...]
    memories: tuple[Memory, ...]
    frames: tuple[int, ...]
    shape: Shape


class Bucket(msgspec.Struct, eq=False):
    """One room, the step that reads it, and the batch that is in it now, as long as anybody wants it."""

    room: Room
    step: GraphedStep
    batch: weakref.ref[FastBatch] | None = None


class FastDit:
    """See engine.ace_step.dit.Denoiser. Not for several threads at once: a bucket has one room."""

    def __init__(
        self,
        model: AceStepTransformer1DModel,
        *,
        way: Way,
        fuser: Fuser,
        recorder: Recorder,
        bucket: int = TOKENS,
    ) -> None:
        self._model = cast("Any", model)  # its layers carry no types
        self._way = way
        self._recorder = recorder
        self._bucket = bucket
        self._patch_size: int = self._model.patch_size
        self._kinds = [Attention(kind) for kind in self._model.layer_types]
        self._buckets: Shelf[Bucket] = Shelf(most=MOST_BUCKETS, most_bytes=MOST_BYTES)
        self._fused = Fused(fuser)
        self._weights: ModelWeights = lay_out(model)
        self._eps: float = self._model.config.rms_norm_eps
        own = self._model.layers[0].self_attn
        self._heads, self._groups, self._width = own.heads, own.kv_heads, own.head_dim
        with torch.inference_mode():
            # Shift, scale, gate, shift, scale, gate: both scales are used with 1 added.
            self._ones = torch.tensor([0, 1, 0, 0, 1, 0], device=self.device, dtype=self.dtype)[:, None]
            self._still = self._model.time_embed_r(torch.zeros(1, device=self.device, dtype=self.dtype))

    @property
    def device(self) -> torch.device:
        """Where latents are expected."""
        return torch.device(self._model.proj_in_conv.weight.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self._model.proj_in_conv.weight.dtype
        return dtype

    @property
    def buckets(self) -> int:
        """How many there are now."""
        return len(self._buckets)

    @property
    def held_bytes(self) -> int:
        """What all buckets keep between batches; `forget` gives it back."""
        return self._buckets.nbytes

    def forget(self) -> None:
        """Give the memory of all buckets and graphs back."""
        self._buckets.clear()

    @torch.inference_mode()
    def memory(self, condition: Condition) -> Memory:
        """Keys and values of a song's words in every layer, from one matrix product: [L, E, G, W] each."""
        hidden = self._model.condition_embedder(condition.hidden.to(self.device, self.dtype))
        both = F.linear(hidden, self._weights.cross_kv, self._weights.cross_kv_bias)
        both = kernels.split(both, len(self._kinds), 2, self._groups, self._width)
        keys, values = both.permute(2, 1, 0, 3, 4).unbind(0)
        norms = self._weights.cross_key_norms[:, None, None]
        return Memory(kernels.rms(keys, norms, self._eps).contiguous(), values.contiguous())

    @torch.inference_mode()
    def batch(self, contexts: Sequence[torch.Tensor], memories: Sequence[Memory]) -> FastBatch:
        """See Denoiser."""
        frames = tuple(len(context) for context in contexts)
        tokens = [-(-count // self._patch_size) for count in frames]
        words = [memory.keys.shape[1] for memory in memories]
        shape = Shape(len(frames), self._padded(tokens), self._padded(words))
        if self._way.masks:
            shape = msgspec.structs.replace(
                shape,
                even_tokens=set(tokens) == {shape.tokens},
                even_words=set(words) == {shape.words},
            )
        own = tuple(context.to(self.device, self.dtype) for context in contexts)
        return FastBatch(contexts=own, memories=tuple(memories), frames=frames, shape=shape)

    @torch.inference_mode()
    def velocity(self, batch: FastBatch, latents: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """See Denoiser."""
        bucket = self._buckets.take(batch.shape, self._nbytes(batch.shape), lambda: self._make(batch.shape))
        room = bucket.room
        if bucket.batch is None or bucket.batch() is not batch:
            self._move_in(room, batch)
            bucket.batch = weakref.ref(batch)
        room.latents[:, : latents.shape[1]].copy_(latents)
        room.t.copy_(t)
        # A copy: the next step overwrites what a graph gives.
        return bucket.step()[:, : latents.shape[1]].to(torch.float32, copy=True)

    def _padded(self, lengths: Sequence[int]) -> int:
        return max(1, -(-max(lengths) // self._bucket)) * self._bucket

    def _nbytes(self, shape: Shape) -> int:
        """Of a room, without the plan: roughly what evicting its bucket gives back."""
        channels: int = self._model.config.in_channels
        words = 2 * len(self._kinds) * shape.words * self._groups * self._width
        nbytes: int = shape.rows * (words + shape.tokens * self._patch_size * channels) * self.dtype.itemsize
        return nbytes

    def _make(self, shape: Shape) -> Bucket:
        room = self._room(shape)
        return Bucket(room=room, step=GraphedStep(lambda: self.forward(room), self._recorder))

    def _room(self, shape: Shape) -> Room:
        rows, frames = shape.rows, shape.tokens * self._patch_size
        width: int = self._model.config.audio_acoustic_hidden_dim
        words = (len(self._kinds), rows, shape.words, self._groups, self._width)

        def zeros(*size: int, dtype: torch.dtype = self.dtype) -> torch.Tensor:
            return torch.zeros(size, dtype=dtype, device=self.device)

        return Room(
            context=zeros(rows, frames, self._model.config.in_channels - width),
            latents=zeros(rows, frames, width),
            padding=zeros(rows, frames, 1, dtype=torch.bool),
            t=zeros(rows),
            keys=zeros(*words),
            values=zeros(*words),
            plan=self._way.plan(shape),
            rope=self._rope(shape.tokens),
        )

    def _move_in(self, room: Room, batch: FastBatch) -> None:
        """Write a batch into the room, and zeros behind its ends."""
        room.context.zero_()
        for row, (context, memory) in enumerate(zip(batch.contexts, batch.memories, strict=True)):
            room.context[row, : len(context)] = context
            known = memory.keys.shape[1]
            for fixed, own in ((room.keys, memory.keys), (room.values, memory.values)):
                fixed[:, row, :known] = own
                fixed[:, row, known:] = 0.0
        ends = torch.tensor(batch.frames, device=self.device)[:, None, None]
        places = torch.arange(room.padding.shape[1], device=self.device)[None, :, None]
        room.padding.copy_(places >= ends)
        tokens = [-(-count // self._patch_size) for count in batch.frames]
        self._way.fill(room.plan, tokens, [memory.keys.shape[1] for memory in batch.memories])

    def forward(self, room: Room) -> torch.Tensor:
        """The velocity [B, T, D] of what is in the room, in the weights' type: the step that is recorded."""
        weights = self._weights
        moved, modulation = self._model.time_embed(room.t)
        moved, modulation = moved + self._still[0], modulation + self._still[1]
        by_layer = weights.tables + modulation + self._ones
        hidden, change, gate = self._patch(room), None, None
        for index, layer in enumerate(weights.layers):
            shift, scale, own_gate, ff_shift, ff_scale, ff_gate = by_layer[index].chunk(6, dim=1)
            if change is None or gate is None:
                seen = self._fused.modulated(hidden, layer.self_norm, scale, shift, self._eps)
            else:
                hidden, seen = self._fused.gated_then_modulated(
                    hidden, change, gate, layer.self_norm, scale, shift, self._eps
                )
            hidden, seen = self._fused.gated_then_normal(
                hidden, self._look_around(index, layer, seen, room), own_gate, layer.cross_norm, self._eps
            )
            hidden, seen = self._fused.added_then_modulated(
                hidden,
                self._look_up(index, layer, seen, room),
                layer.ff_norm,
                ff_scale,
                ff_shift,
                self._eps,
            )
            change = F.linear(self._fused.swiglu(F.linear(seen, layer.gate_up)), layer.down)
            gate = ff_gate
        return self._unpatch(hidden, change, gate, moved, room)

    def _patch(self, room: Room) -> torch.Tensor:
        latents = room.latents.masked_fill(room.padding, 0.0)
        joined = torch.cat([room.context, latents], dim=-1)
        patches = joined.view(joined.shape[0], room.shape.tokens, -1)
        return F.linear(patches, self._weights.patch, self._weights.patch_bias)

    def _unpatch(
        self,
        hidden: torch.Tensor,
        change: torch.Tensor | None,
        gate: torch.Tensor | None,
        moved: torch.Tensor,
        room: Room,
    ) -> torch.Tensor:
        shift, scale = (self._weights.last_table + moved[:, None]).chunk(2, dim=1)
        norm = self._weights.last_norm
        if change is None or gate is None:
            seen = self._fused.modulated(hidden, norm, 1 + scale, shift, self._eps)
        else:
            _, seen = self._fused.gated_then_modulated(
                hidden, change, gate, norm, 1 + scale, shift, self._eps
            )
        patches = F.linear(seen, self._weights.unpatch)
        frames = patches.view(len(patches), -1, room.latents.shape[2])
        return frames if self._weights.unpatch_bias is None else frames + self._weights.unpatch_bias

    def _look_around(self, index: int, layer: LayerWeights, seen: torch.Tensor, room: Room) -> torch.Tensor:
        heads, groups = self._heads, self._groups
        joined = kernels.split(F.linear(seen, layer.qkv, layer.qkv_bias), -1, self._width)
        query, key = joined[:, :, :heads], joined[:, :, heads : heads + groups]
        value = joined[:, :, heads + groups :]
        cos, sin = room.rope
        mixed = self._way.attend(
            self._kinds[index],
            self._fused.turned(query, layer.query_norm, cos, sin, self._eps),
            self._fused.turned(key, layer.key_norm, cos, sin, self._eps),
            value,
            room.plan,
        )
        return F.linear(mixed.flatten(2), layer.out, layer.out_bias)

    def _look_up(self, index: int, layer: LayerWeights, seen: torch.Tensor, room: Room) -> torch.Tensor:
        asked = kernels.split(F.linear(seen, layer.cross_query, layer.cross_query_bias), -1, self._width)
        query = self._fused.rms(asked, layer.cross_query_norm, self._eps)
        mixed = self._way.attend(Attention.CROSS, query, room.keys[index], room.values[index], room.plan)
        return F.linear(mixed.flatten(2), layer.cross_out, layer.cross_out_bias)

    def _rope(self, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
        """As in the plain transformer: a head's first half pairs with its second."""
        even = torch.arange(0, self._width, 2, dtype=torch.float32, device=self.device)
        places = torch.arange(tokens, dtype=torch.float32, device=self.device)
        angles = torch.outer(places, 1.0 / self._model.rope_theta ** (even / self._width)).repeat(1, 2)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)


class Fused:
    """The kernels between matrix products, compiled where that is possible."""

    def __init__(self, fuser: Fuser) -> None:
        self.rms = fuser(kernels.rms)
        self.modulated = fuser(kernels.modulated)
        self.gated_then_normal = fuser(kernels.gated_then_normal)
        self.added_then_modulated = fuser(kernels.added_then_modulated)
        self.gated_then_modulated = fuser(kernels.gated_then_modulated)
        self.turned = fuser(kernels.turned)
        self.swiglu = fuser(kernels.swiglu)
