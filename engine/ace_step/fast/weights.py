"""Weights laid side by side, so that one matrix product does the work of several.

Each group is copied once, and the model's own parameters become views of the copy: the plain path still runs,
and the memory is that of the model.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import torch
from torch import nn


class LayerWeights(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One layer; matrices are [out, in] as in torch."""

    qkv: torch.Tensor
    """Queries, keys and values of self-attention."""
    qkv_bias: torch.Tensor | None
    query_norm: torch.Tensor
    key_norm: torch.Tensor
    out: torch.Tensor
    out_bias: torch.Tensor | None
    cross_query: torch.Tensor
    cross_query_bias: torch.Tensor | None
    cross_query_norm: torch.Tensor
    cross_out: torch.Tensor
    cross_out_bias: torch.Tensor | None
    gate_up: torch.Tensor
    """SwiGLU: the gate, then what it lets through."""
    down: torch.Tensor
    self_norm: torch.Tensor
    cross_norm: torch.Tensor
    ff_norm: torch.Tensor


class ModelWeights(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A whole transformer. L: layers."""

    layers: tuple[LayerWeights, ...]
    tables: torch.Tensor
    """[L, 1, 6, width]: what is added to the time's shifts, scales and gates."""
    last_table: torch.Tensor
    """[1, 2, width]."""
    cross_kv: torch.Tensor
    """[L * 2 * G * W, width]: keys and values of the words, of all layers."""
    cross_kv_bias: torch.Tensor | None
    cross_key_norms: torch.Tensor
    """[L, W]."""
    patch: torch.Tensor
    """[width, frames of a patch * channels]: the patch convolution as a matrix."""
    patch_bias: torch.Tensor | None
    unpatch: torch.Tensor
    """[frames of a patch * D, width]."""
    unpatch_bias: torch.Tensor | None
    last_norm: torch.Tensor


@torch.inference_mode(mode=False)
@torch.no_grad()
def lay_out(model: Any) -> ModelWeights:
    """The weights of an AceStepTransformer1DModel. Laying out twice copies no matrix twice."""
    layers = list(model.layers)
    pairs = [linear for layer in layers for linear in (layer.cross_attn.to_k, layer.cross_attn.to_v)]
    cross_kv, cross_kv_bias = side_by_side(pairs)
    return ModelWeights(
        layers=tuple(_layer(layer) for layer in layers),
        tables=torch.stack([layer.scale_shift_table.detach() for layer in layers]),
        last_table=model.scale_shift_table.detach(),
        cross_kv=cross_kv,
        cross_kv_bias=cross_kv_bias,
        cross_key_norms=torch.stack([layer.cross_attn.norm_k.weight.detach() for layer in layers]),
        patch=model.proj_in_conv.weight.detach().transpose(1, 2).flatten(1).contiguous(),
        patch_bias=_bias(model.proj_in_conv),
        unpatch=model.proj_out_conv.weight.detach().permute(2, 1, 0).flatten(0, 1).contiguous(),
        unpatch_bias=_bias(model.proj_out_conv),
        last_norm=model.norm_out.weight.detach(),
    )


def _layer(layer: Any) -> LayerWeights:
    own, cross, feed = layer.self_attn, layer.cross_attn, layer.mlp
    qkv, qkv_bias = side_by_side([own.to_q, own.to_k, own.to_v])
    gate_up, _ = side_by_side([feed.gate_proj, feed.up_proj])
    return LayerWeights(
        qkv=qkv,
        qkv_bias=qkv_bias,
        query_norm=own.norm_q.weight.detach(),
        key_norm=own.norm_k.weight.detach(),
        out=own.to_out[0].weight.detach(),
        out_bias=_bias(own.to_out[0]),
        cross_query=cross.to_q.weight.detach(),
        cross_query_bias=_bias(cross.to_q),
        cross_query_norm=cross.norm_q.weight.detach(),
        cross_out=cross.to_out[0].weight.detach(),
        cross_out_bias=_bias(cross.to_out[0]),
        gate_up=gate_up,
        down=feed.down_proj.weight.detach(),
        self_norm=layer.self_attn_norm.weight.detach(),
        cross_norm=layer.cross_attn_norm.weight.detach(),
        ff_norm=layer.mlp_norm.weight.detach(),
    )


def side_by_side(linears: Sequence[nn.Linear]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """One matrix (and bias) of several linear maps with the same input; theirs become views of it."""
    weight = _joined([linear.weight for linear in linears])
    end = 0
    for linear in linears:
        start, end = end, end + linear.out_features
        linear.weight = nn.Parameter(weight[start:end], requires_grad=False)
    biases = [bias for bias in map(_bias, linears) if bias is not None]
    return weight, torch.cat(biases) if biases else None


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Stacked by rows; without a copy if they already lie in this order in one piece of memory."""
    first, rows = parts[0], sum(len(part) for part in parts)
    place = first.data_ptr()
    for part in parts:
        shares = part.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        if not shares or part.data_ptr() != place or not part.is_contiguous():
            return torch.cat([part.detach() for part in parts])
        place += part.nbytes
    return first.detach().as_strided((rows, first.shape[1]), first.stride(), first.storage_offset())


def _bias(module: Any) -> torch.Tensor | None:
    return None if module.bias is None else module.bias.detach()
