"""Tiny ACE-Step 1.5 checkpoints: random weights in the released diffusers layout, about 1 MB each.

Widths are a few dozen; what decides lengths and shapes is as released: hop 1920 at 48 kHz, patches of 2,
alternating attention, FSQ levels, 15,000 silent frames, a tokenizer that ends texts with `<|endoftext|>`.
"""

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

VARIANTS: Final = ("turbo", "base", "sft")
END_OF_TEXT: Final = "<|endoftext|>"

_LATENT: Final = 8
_HEAD: Final = 8
_CORPUS: Final = (
    "# Instruction Fill the audio semantic mask based on the given conditions: Repaint the mask area "
    "Generate audio semantic tokens Extract the VOCALS track from the audio: "
    "Complete the input track with DRUMS | BASS: # Caption "
    "upbeat indie pop, bright guitars, warm analog synth, male vocal, slow piano ballad # Metas - bpm: 120 "
    "- timesignature: 4 - keyscale: C major - duration: 30 seconds # Languages en # Lyric [Verse] [Chorus] "
    "the night is long and I am on my way home again, singing to the moon above the city lights"
)


def build_pipeline(variant: str = "turbo", *, seed: int = 0, tokenizers: bool = True) -> AceStepPipeline:
    """The oracle itself, on random weights; `tokenizers=False`: without audio tokenizers, as released."""
    with torch.random.fork_rng(devices=[]), _quiet():
        torch.manual_seed(seed)
        modules: dict[str, Any] = {
            "vae": _vae(),
            "text_encoder": _text_encoder(),
            "tokenizer": _text_tokenizer(),
            "transformer": _transformer(variant),
            "condition_encoder": _condition_encoder(),
            "scheduler": FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
            "audio_tokenizer": _audio_tokenizer() if tokenizers else None,
            "audio_token_detokenizer": _audio_detokenizer() if tokenizers else None,
        }
        return AceStepPipeline(**modules)


def write_checkpoint(folder: Path, variant: str = "turbo", *, seed: int = 0, tokenizers: bool = True) -> Path:
    """Write the diffusers layout to `folder`, and return it."""
    pipeline = build_pipeline(variant, seed=seed, tokenizers=tokenizers)
    pipeline.save_pretrained(folder, safe_serialization=True)
    index = folder / "model_index.json"
    listed = json.loads(index.read_text())
    # The released index names the class by its older alias.
    listed["tokenizer"] = ["transformers", "Qwen2TokenizerFast"]
    index.write_text(json.dumps(listed, indent=2))
    return folder


def _vae() -> AutoencoderOobleck:
    vae = AutoencoderOobleck(
        encoder_hidden_size=2 * _LATENT,
        downsampling_ratios=[2, 4, 4, 6, 10],
        channel_multiples=[1, 1, 1, 1, 1],
        decoder_channels=6,
        decoder_input_channels=_LATENT,
        audio_channels=2,
        sampling_rate=48_000,
    )
    # Filters that sum to zero let no constant through: real models have no DC offset, random ones have.
    last = vae.decoder.conv2.weight_v
    with torch.no_grad():
        last -= last.mean(dim=2, keepdim=True)
    return vae.eval()


def _transformer(variant: str) -> AceStepTransformer1DModel:
    """Wider than its condition encoder, like the XL ones, so that the projection between them is used."""
    return AceStepTransformer1DModel(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=_HEAD,
        in_channels=3 * _LATENT,
        audio_acoustic_hidden_dim=_LATENT,
        sliding_window=16,
        encoder_hidden_size=24,
        is_turbo=variant == "turbo",
        model_version=variant,
    ).eval()


def _condition_encoder() -> AceStepConditionEncoder:
    encoder = AceStepConditionEncoder(
        hidden_size=24,
        intermediate_size=32,
        text_hidden_dim=16,
        timbre_hidden_dim=_LATENT,
        num_lyric_encoder_hidden_layers=2,
        num_timbre_encoder_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=_HEAD,
        sliding_window=16,
    )
    encoder.silence_latent.copy_(torch.randn_like(encoder.silence_latent) * 0.3)
    return encoder.eval()


def _audio_tokenizer() -> AceStepAudioTokenizer:
    return AceStepAudioTokenizer(**_POOLER, fsq_dim=24).eval()


def _audio_detokenizer() -> AceStepAudioTokenDetokenizer:
    return AceStepAudioTokenDetokenizer(**_POOLER).eval()


_POOLER: Final[dict[str, Any]] = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "audio_acoustic_hidden_dim": _LATENT,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": _HEAD,
    "sliding_window": 16,
}


def _text_encoder() -> Qwen3Model:
    config = Qwen3Config(
        vocab_size=_text_tokenizer().vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=_HEAD,
        max_position_embeddings=4096,
    )
    return Qwen3Model(config).eval()


def _text_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE like Qwen's, trained on the spot, with its post-processor that ends every text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[END_OF_TEXT, "<|im_start|>", "<|im_end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, pad_token=END_OF_TEXT, padding_side="right"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The autoencoder still uses a function of torch that is called deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
