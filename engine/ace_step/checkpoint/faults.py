"""What can be wrong with a complete checkpoint, in plain words, before a weight is loaded. Free of torch."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.files import read_bytes
from engine.ace_step.checkpoint.pieces import Checkpoint
from engine.ace_step.checkpoint.silence import read_silence

END_OF_TEXT: Final = "<|endoftext|>"
END_OF_TEXT_ID: Final = 151_643
"""Of END_OF_TEXT in the released vocabulary."""
SAMPLE_RATE: Final = 48_000
SAMPLES_PER_FRAME: Final = 1920
SILENT_FRAMES: Final = 15_000
"""Ten minutes."""
CODES: Final = 64_000
"""Audio codes that the planner's vocabulary has."""

_SFT: Final = re.compile(r"(?<![a-z])sft(?![a-z])")


def faults_of(checkpoint: Checkpoint, label: str = "") -> Iterator[str]:
    """Every reason not to load this; `label` is how the operator calls it, which may tell sft from base."""
    if kind_of(checkpoint, label) is None:
        yield (
            "the transformer's config says neither is_turbo nor a model_version with turbo, base or sft: "
            "add the right one to its config.json"
        )
    try:
        yield from _about_vae(checkpoint.pieces["vae"].config)
        yield from _about_widths({role: piece.config for role, piece in checkpoint.pieces.items()})
    except (TypeError, ValueError) as error:
        yield f"a config.json holds a value of the wrong kind ({error}): take the released one"
    yield from _about_silence(checkpoint)
    yield from _about_tokenizer(checkpoint)


def kind_of(checkpoint: Checkpoint, label: str = "") -> str | None:
    """`turbo`, `base` or `sft`; None if the weights do not say.

    `sft` was trained on from base and may call itself base: a name with sft in it decides.
    """
    config = checkpoint.pieces["transformer"].config
    version = str(config.get("model_version") or "").lower()
    if config.get("is_turbo") or "turbo" in version:
        return "turbo"
    found = next((kind for kind in ("sft", "base") if kind in version), None)
    called = Path(label.partition("+")[0].partition("@")[0])
    names = {
        place.name.lower() for place in (called, checkpoint.folder, checkpoint.pieces["transformer"].folder)
    }
    return "sft" if found == "base" and any(map(_SFT.search, names)) else found


def size_of(checkpoint: Checkpoint) -> str:
    """`2B` or `XL` as released, else `custom`."""
    config = checkpoint.pieces["transformer"].config
    shape = (config.get("hidden_size", 2048), config.get("num_hidden_layers", 24))
    return {(2048, 24): "2B", (2560, 32): "XL"}.get(shape, "custom")


def _about_vae(config: dict[str, Any]) -> Iterator[str]:
    rate = config.get("sampling_rate", 44_100)
    if rate != SAMPLE_RATE:
        yield f"the autoencoder makes sound at {rate} Hz instead of {SAMPLE_RATE}: it is not this model's"
    if config.get("audio_channels", 2) != 2:
        yield f"the autoencoder has {config['audio_channels']} channels instead of 2: it is not this model's"
    strides = config.get("downsampling_ratios") or [2, 4, 4, 8, 8]
    hop = int(np.prod(strides))
    if hop != SAMPLES_PER_FRAME:
        yield (
            f"the autoencoder turns {hop} samples into a frame instead of {SAMPLES_PER_FRAME}: "
            "it is not this model's"
        )
    if any(stride % 2 for stride in strides):
        yield f"the autoencoder has odd strides ({strides}): songs would come out too short"


def _about_widths(configs: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Whether parts from different places belong together."""
    dit, encoder, vae = configs["transformer"], configs["condition_encoder"], configs["vae"]
    latent = dit.get("audio_acoustic_hidden_dim", 64)
    widths = [
        ("the transformer's latents", latent, "the autoencoder's", vae.get("decoder_input_channels", 64)),
        ("the transformer's latents", latent, "the timbre's", encoder.get("timbre_hidden_dim", 64)),
        ("the transformer's input", dit.get("in_channels", 192), "three latents", 3 * latent),
        (
            "the transformer's conditions",
            dit.get("encoder_hidden_size") or dit.get("hidden_size", 2048),
            "the condition encoder's",
            encoder.get("hidden_size", 2048),
        ),
        (
            "the condition encoder's texts",
            encoder.get("text_hidden_dim", 1024),
            "the text encoder's",
            configs["text_encoder"].get("hidden_size"),
        ),
    ]
    for role in ("audio_tokenizer", "audio_token_detokenizer"):
        if role in configs:
            of_tokens = configs[role].get("audio_acoustic_hidden_dim", 64)
            widths.append(("the transformer's latents", latent, f"the {role}'s", of_tokens))
    for left, one, right, other in widths:
        if one != other:
            yield f"{left} are {one} wide and {right} {other}: these parts do not belong together"
    if "audio_tokenizer" in configs:
        levels = configs["audio_tokenizer"].get("fsq_input_levels") or [8, 8, 8, 5, 5, 5]
        if int(np.prod(levels)) != CODES:
            yield f"the audio tokenizer has {int(np.prod(levels))} codes instead of {CODES}"


def _about_silence(checkpoint: Checkpoint) -> Iterator[str]:
    width = checkpoint.pieces["condition_encoder"].config.get("timbre_hidden_dim", 64)
    if checkpoint.silence is not None:
        try:
            bits = read_silence(checkpoint.silence).bits
        except CheckpointError as error:
            yield str(error)
            return
        if bits.shape != (1, width, SILENT_FRAMES):
            yield f"{checkpoint.silence} has the shape {bits.shape} instead of {(1, width, SILENT_FRAMES)}"
    else:
        stored = checkpoint.pieces["condition_encoder"].tensors.get("silence_latent")
        if stored is None:
            yield (
                "the condition encoder lacks silence_latent, and songs would turn into a drone: convert the "
                "model again with its silence_latent.pt, or take the upstream layout"
            )
            return
        bits = np.frombuffer(read_bytes(stored), np.uint32 if stored.dtype == "F32" else np.uint16)
    sign = bits.dtype.type(1 << (bits.itemsize * 8 - 1))
    if not np.any(bits & ~sign):
        yield (
            "silence_latent is all zeros, and songs would turn into a drone: convert the model again with "
            "its silence_latent.pt, or take the upstream layout"
        )


def _about_tokenizer(checkpoint: Checkpoint) -> Iterator[str]:
    path = checkpoint.tokenizer / "tokenizer.json"
    if not path.is_file():
        yield f"{path} is missing; vocab.json and merges.txt alone do not end texts with {END_OF_TEXT}"
        return
    try:
        tokenizer = _tokenizer(path)
    except CheckpointError as error:
        yield str(error)
        return
    end = tokenizer.token_to_id(END_OF_TEXT)
    if end is None:
        yield f"{path} has no token {END_OF_TEXT}: it is not this model's"
    elif tokenizer.encode("x").ids[-1] != end:
        yield f"{path} does not end texts with {END_OF_TEXT} as this model expects: take the released one"
    elif tokenizer.get_vocab_size() > END_OF_TEXT_ID and end != END_OF_TEXT_ID:
        yield f"{path} has {END_OF_TEXT} as {end} instead of {END_OF_TEXT_ID}: it is not this model's"
    known = checkpoint.pieces["text_encoder"].config.get("vocab_size", 0)
    if tokenizer.get_vocab_size() > known:
        yield (
            f"{path} has {tokenizer.get_vocab_size()} tokens and the text encoder knows {known}: "
            "they do not belong together"
        )


def _tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path} cannot be read: {error}") from error
