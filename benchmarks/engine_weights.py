"""Models without a checkpoint: XL-turbo of the released sizes on a GPU, or tiny ones on a CPU."""

import warnings
from typing import Any, Final

import torch
from diffusers import (
    AceStepPipeline,
    AceStepTransformer1DModel,
    AutoencoderOobleck,
    FlowMatchEulerDiscreteScheduler,
)
from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder
from transformers import Qwen3Config, Qwen3Model

from tests.checkpoints import tiny

PARAMETERS: Final = {
    "transformer": 4_168_897_088,
    "condition_encoder": 608_369_664,
    "text_encoder": 595_776_512,
    "vae": 168_695_426,
}
"""Of the released XL-turbo and its encoders."""
PEAK: Final = 0.3


def tiny_pipeline() -> AceStepPipeline:
    """The tests' own, float32 on the CPU."""
    return tiny.build_pipeline("turbo")


def xl_pipeline(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> AceStepPipeline:
    """Random weights of the released sizes, made on `device` in `dtype`; no audio tokenizers, as released."""
    before = torch.get_default_dtype()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        warnings.simplefilter("ignore", FutureWarning)  # of a deprecated function in the autoencoder
        torch.set_default_dtype(dtype)
        try:
            with torch.device(device):
                modules = xl_modules()
        finally:
            torch.set_default_dtype(before)
    for name, module in modules.items():
        module.eval().requires_grad_(requires_grad=False)
        count = sum(parameter.numel() for parameter in module.parameters())
        assert count == PARAMETERS[name], f"{name} has {count} parameters"
    modules["condition_encoder"].silence_latent.normal_(0, 0.3)
    _be_heard(modules["vae"])
    return AceStepPipeline(
        **modules,
        tokenizer=tiny_pipeline().tokenizer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        audio_tokenizer=None,
        audio_token_detokenizer=None,
    )


def xl_modules() -> dict[str, Any]:
    """On the device and in the type that are torch's defaults."""
    return {
        "transformer": AceStepTransformer1DModel(
            hidden_size=2560,
            intermediate_size=9728,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
            head_dim=128,
            encoder_hidden_size=2048,
            is_turbo=True,
            model_version="turbo",
        ),
        "condition_encoder": AceStepConditionEncoder(),
        "text_encoder": Qwen3Model(
            Qwen3Config(
                vocab_size=151_669,
                hidden_size=1024,
                intermediate_size=3072,
                num_hidden_layers=28,
                num_attention_heads=16,
                num_key_value_heads=8,
                head_dim=128,
                max_position_embeddings=32_768,
            )
        ),
        "vae": AutoencoderOobleck(
            encoder_hidden_size=128,
            downsampling_ratios=[2, 4, 4, 6, 10],
            channel_multiples=[1, 2, 4, 8, 16],
            decoder_channels=128,
            decoder_input_channels=64,
            audio_channels=2,
            sampling_rate=48_000,
        ),
    }


@torch.no_grad()
def _be_heard(vae: Any) -> None:
    """Random weights whisper, and the engine refuses silence: bring the last layer to a level of music."""
    for name, parameter in vae.named_parameters():
        if name.endswith(("alpha", "beta")):
            parameter.normal_(0, 0.1)
    latents = torch.randn(1, 64, 16, device=vae.device, dtype=vae.dtype)
    last = vae.decoder.conv2
    last.weight_g.mul_(PEAK / vae.decoder(latents).abs().max().clamp(min=1e-30))
