"""The tiny checkpoints in the upstream layout: one file for transformer, encoder and audio tokenizers."""

import json
import re
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import AceStepPipeline
from safetensors.torch import save_file

from tests.checkpoints.tiny import build_pipeline

_RENAMES: Final = (
    (re.compile(r"(attn\.)to_([qkv])\."), r"\1\2_proj."),
    (re.compile(r"(attn\.)to_out\.0\."), r"\1o_proj."),
    (re.compile(r"(attn\.)norm_([qk])\."), r"\1\2_norm."),
    (re.compile(r"^proj_(in|out)_conv\."), r"proj_\1.1."),
)


def write_upstream(
    folder: Path, variant: str = "turbo", *, seed: int = 0, shards: int = 1, bundle: bool = True
) -> Path:
    """Write the weights of `build_pipeline` as upstream releases them, and return the model's own folder.

    `bundle=False`: without autoencoder and text encoder, as the base and sft models are released.
    """
    pipeline = build_pipeline(variant, seed=seed)
    model = folder / f"acestep-v15-{variant}"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(_config(pipeline), indent=2))
    _write_weights(model, _tensors(pipeline), shards)
    silence = pipeline.condition_encoder.silence_latent
    torch.save(silence.transpose(1, 2).contiguous(), model / "silence_latent.pt")
    if bundle:
        pipeline.vae.save_pretrained(folder / "vae")
        pipeline.text_encoder.save_pretrained(folder / "Qwen3-Embedding-0.6B")
        pipeline.tokenizer.save_pretrained(folder / "Qwen3-Embedding-0.6B")
    return model


def _tensors(pipeline: AceStepPipeline) -> dict[str, torch.Tensor]:
    modules = {
        "decoder": pipeline.transformer,
        "encoder": pipeline.condition_encoder,
        "tokenizer": pipeline.audio_tokenizer,
        "detokenizer": pipeline.audio_token_detokenizer,
    }
    tensors = {
        f"{prefix}.{_renamed(name)}": tensor
        for prefix, module in modules.items()
        for name, tensor in module.state_dict().items()
    }
    tensors["null_condition_emb"] = tensors.pop("encoder.null_condition_emb")
    del tensors["encoder.silence_latent"]
    return tensors


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _write_weights(folder: Path, tensors: dict[str, torch.Tensor], shards: int) -> None:
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    where = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = names[shard::shards]
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
        where.update(dict.fromkeys(part, file))
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _config(pipeline: AceStepPipeline) -> dict[str, Any]:
    dit, encoder = pipeline.transformer.config, pipeline.condition_encoder.config
    tokens = pipeline.audio_tokenizer.config
    sizes = "hidden_size intermediate_size num_attention_heads num_key_value_heads".split()
    shared = "head_dim rms_norm_eps rope_theta sliding_window attention_bias attention_dropout".split()
    own = "num_hidden_layers in_channels patch_size audio_acoustic_hidden_dim is_turbo model_version".split()
    texts = "text_hidden_dim timbre_hidden_dim num_lyric_encoder_hidden_layers".split()
    layers = pipeline.transformer.layer_types
    return {
        "architectures": ["AceStepConditionGenerationModel"],
        "model_type": "acestep",
        **{name: dit[name] for name in (*sizes, *shared, *own)},
        **{f"encoder_{name}": encoder[name] for name in sizes},
        **{name: encoder[name] for name in (*texts, "num_timbre_encoder_hidden_layers")},
        "layer_types": list(layers),
        "use_sliding_window": True,
        "pool_window_size": tokens["pool_window_size"],
        "num_attention_pooler_hidden_layers": tokens["num_attention_pooler_hidden_layers"],
        "fsq_dim": tokens["fsq_dim"],
        "fsq_input_levels": [8, 8, 8, 5, 5, 5],
        "fsq_input_num_quantizers": tokens["fsq_input_num_quantizers"],
    }
