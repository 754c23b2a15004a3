"""Audio codes of recorded music: what `UnderstandAsk` is made of."""

import torch

from engine.ace_step.bundle import Bundle
from engine.errors import NotLoaded


@torch.no_grad()
def codes_of(bundle: Bundle, latents: torch.Tensor) -> tuple[int, ...]:
    """Five codes a second of `latents` [T, D], each in 0-63999; a last one that is not full ends in silence.

    Raises NotLoaded if the checkpoint has no audio tokenizer.
    """
    tokenizer = bundle.audio_tokenizer
    if tokenizer is None:
        raise NotLoaded(
            f"{bundle.name}: this checkpoint has no audio tokenizer, and no donor of one was named"
        )
    silence: torch.Tensor = bundle.condition_encoder.silence_latent
    batch = latents[None].to(device=bundle.device, dtype=bundle.dtype)
    _, codes = tokenizer.tokenize(batch, silence_latent=silence)
    return tuple(int(code) for code in codes.flatten().tolist())
