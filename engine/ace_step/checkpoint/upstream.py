"""The upstream layout's names and config, said in those of the diffusers modules. Free of torch."""

import re
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.files import Stored, listed

_ROLES: Final = {
    "decoder": "transformer",
    "encoder": "condition_encoder",
    "tokenizer": "audio_tokenizer",
    "detokenizer": "audio_token_detokenizer",
}
_RENAMES: Final = (
    (re.compile(r"(^|\.)([qkv])_proj\."), r"\1to_\2."),
    (re.compile(r"(^|\.)o_proj\."), r"\1to_out.0."),
    (re.compile(r"(^|\.)([qk])_norm\."), r"\1norm_\2."),
    # The patches' convolutions stand second in a sequence whose other members only turn axes.
    (re.compile(r"^proj_(in|out)\.1\."), r"proj_\1_conv."),
)
_SHARED: Final = "head_dim attention_bias attention_dropout rms_norm_eps sliding_window rope_theta".split()
_SIZES: Final = "hidden_size intermediate_size num_attention_heads num_key_value_heads".split()


class Part(msgspec.Struct, frozen=True, eq=False):
    """One module's share of the one file."""

    config: dict[str, Any]
    tensors: dict[str, Stored]


def is_upstream_config(config: dict[str, Any]) -> bool:
    """Whether this is the config of the one file."""
    return {"num_lyric_encoder_hidden_layers", "num_timbre_encoder_hidden_layers", "in_channels"} <= set(
        config
    )


def split(folder: Path, config: dict[str, Any], tensors: dict[str, Stored]) -> dict[str, Part]:
    """Tell the modules apart; those without any tensor are left out."""
    parts: dict[str, dict[str, Stored]] = {role: {} for role in _ROLES.values()}
    strange = []
    for name, stored in tensors.items():
        prefix, _, rest = name.partition(".")
        if name == "null_condition_emb":
            parts["condition_encoder"][name] = stored
        elif prefix in _ROLES and rest:
            parts[_ROLES[prefix]][_renamed(rest)] = stored
        else:
            strange.append(name)
    if strange:
        raise CheckpointError(f"{folder} has tensors that no ACE-Step 1.5 module knows: {listed(strange)}")
    try:
        configs = _configs(config)
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{folder / 'config.json'} lacks {error}") from error
    return {role: Part(configs[role], own) for role, own in parts.items() if own}


def _renamed(name: str) -> str:
    for pattern, replacement in _RENAMES:
        name = pattern.sub(replacement, name)
    return name


def _configs(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Encoders of XL models are narrower than the transformer and have `encoder_...` sizes of their own."""
    rope_theta = config.get("rope_theta") or (config.get("rope_parameters") or {}).get("rope_theta")
    shared = {name: config[name] for name in _SHARED if name in config}
    if rope_theta is not None:
        shared["rope_theta"] = rope_theta
    encoder = shared | {name: config.get(f"encoder_{name}", config[name]) for name in _SIZES}
    layer_types = config.get("layer_types")
    pool = {
        "num_attention_pooler_hidden_layers": config["num_attention_pooler_hidden_layers"],
        "pool_window_size": config["pool_window_size"],
        "audio_acoustic_hidden_dim": config["audio_acoustic_hidden_dim"],
    }
    pool["layer_types"] = layer_types and layer_types[: pool["num_attention_pooler_hidden_layers"]]
    lyric_layers = config["num_lyric_encoder_hidden_layers"]
    return {
        "transformer": {
            **shared,
            **{name: config[name] for name in (*_SIZES, "num_hidden_layers", "in_channels", "patch_size")},
            "audio_acoustic_hidden_dim": config["audio_acoustic_hidden_dim"],
            "layer_types": layer_types,
            "encoder_hidden_size": encoder["hidden_size"],
            "is_turbo": bool(config.get("is_turbo", False)),
            "model_version": config.get("model_version"),
        },
        "condition_encoder": {
            **encoder,
            "text_hidden_dim": config["text_hidden_dim"],
            "timbre_hidden_dim": config["timbre_hidden_dim"],
            "num_lyric_encoder_hidden_layers": lyric_layers,
            "num_timbre_encoder_hidden_layers": config["num_timbre_encoder_hidden_layers"],
            "layer_types": layer_types and layer_types[:lyric_layers],
        },
        "audio_tokenizer": {
            **encoder,
            **pool,
            "fsq_dim": config["fsq_dim"],
            "fsq_input_levels": config["fsq_input_levels"],
            "fsq_input_num_quantizers": config["fsq_input_num_quantizers"],
        },
        "audio_token_detokenizer": encoder | pool,
    }
