"""A loaded checkpoint: the modules of one model, on their device, ready to render."""

from typing import Final

import msgspec
import torch
from diffusers import AceStepTransformer1DModel, AutoencoderOobleck
from diffusers.pipelines.ace_step.modeling_ace_step import (
    AceStepAudioTokenDetokenizer,
    AceStepAudioTokenizer,
    AceStepConditionEncoder,
)
from transformers import PreTrainedModel, PreTrainedTokenizerBase

HOP: Final = 1920
"""Samples per latent frame: 25 latent frames a second at 48 kHz."""


class Bundle(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Everything that rendering needs. The modules are in eval mode and never trained."""

    name: str
    """Public name of the model."""
    kind: str
    """`turbo`, `base` or `sft`: what the weights say that they are."""
    dit: AceStepTransformer1DModel
    condition_encoder: AceStepConditionEncoder
    text_encoder: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vae: AutoencoderOobleck
    audio_tokenizer: AceStepAudioTokenizer | None
    """None, like the next: the checkpoint has none, and covers and audio codes cannot be rendered."""
    audio_detokenizer: AceStepAudioTokenDetokenizer | None
    device: torch.device
    dtype: torch.dtype
    """Of the transformer and the encoders."""
    channels: int
    """Width of a latent frame; 64 in the released models."""
