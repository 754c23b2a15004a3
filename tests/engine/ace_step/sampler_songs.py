"""Songs for the sampler by the oracle's own encoders, and what the oracle makes of the same request."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import torch
from diffusers import AceStepPipeline
from diffusers.pipelines.ace_step.pipeline_ace_step import TASK_INSTRUCTIONS

from engine.ace_step.dit import Dit
from engine.ace_step.sampler import Denoised, denoise
from engine.ace_step.schedule import timesteps
from engine.ace_step.song import Condition, Guidance, Song
from engine.schema import GuidanceType


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request, for both sides."""

    prompt: str = "upbeat indie pop"
    lyrics: str = "[Verse]\nthe night is long"
    frames: int = 60
    seed: int = 1
    steps: int = 4
    shift: float = 3.0
    scale: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    kind: GuidanceType = GuidanceType.APG
    codes: tuple[int, ...] = ()

    @property
    def seconds(self) -> float:
        return self.frames / 25


@torch.no_grad()
def condition(oracle: AceStepPipeline, ask: Ask, *, task: str = "text2music") -> Condition:
    text, text_mask, lyric, lyric_mask = oracle.encode_prompt(
        ask.prompt, ask.lyrics, "cpu", audio_duration=ask.seconds, instruction=TASK_INSTRUCTIONS[task]
    )
    hidden, _ = oracle.condition_encoder(
        text_hidden_states=text,
        text_attention_mask=text_mask,
        lyric_hidden_states=lyric,
        lyric_attention_mask=lyric_mask,
        refer_audio_acoustic_hidden_states_packed=oracle.condition_encoder.silence_latent[:, :750],
        refer_audio_order_mask=torch.zeros(1, dtype=torch.long),
    )
    return Condition(hidden[0])


@torch.no_grad()
def context(oracle: AceStepPipeline, frames: int, codes: Iterable[int] = ()) -> torch.Tensor:
    """[T, 2 D]: silence, or what audio codes stand for, all of it to be generated."""
    source, _ = oracle.prepare_src_latents(
        "cpu", torch.float32, audio_codes=tags(codes), latent_length=frames
    )
    return torch.cat([source[0], torch.ones_like(source[0])], dim=-1)


def tags(codes: Iterable[int]) -> str | None:
    return "".join(f"<|audio_code_{code}|>" for code in codes) or None


def noise(seed: int, frames: int, channels: int = 8) -> torch.Tensor:
    return torch.randn(frames, channels, generator=torch.Generator().manual_seed(seed))


def song(oracle: AceStepPipeline, ask: Ask, name: str = "song", **fields: Any) -> Song:
    own = condition(oracle, ask, task="cover" if ask.codes else "text2music")
    guidance = None
    if ask.scale > 1:
        null = Condition(oracle.condition_encoder.null_condition_emb[0].detach().expand_as(own.hidden))
        guidance = Guidance(kind=ask.kind, scale=ask.scale, interval=ask.interval, null=null)
    values = {
        "id": name,
        "noise": noise(ask.seed, ask.frames),
        "context": context(oracle, ask.frames, ask.codes),
        "condition": own,
        "timesteps": timesteps(ask.steps, ask.shift),
        "guidance": guidance,
    }
    return Song(**(values | fields))


def latents(oracle: AceStepPipeline, ask: Ask, **more: Any) -> torch.Tensor:
    """What the oracle makes of `ask`: [T, D]. Its guidance interval counts the other way round."""
    low, high = ask.interval
    arguments = {
        "audio_duration": ask.seconds,
        "num_inference_steps": ask.steps,
        "guidance_scale": ask.scale,
        "shift": ask.shift,
        "generator": torch.Generator().manual_seed(ask.seed),
        "audio_codes": tags(ask.codes),
        "cfg_interval_start": 1 - high,
        "cfg_interval_end": 1 - low,
    }
    asked = oracle(ask.prompt, ask.lyrics, output_type="latent", return_dict=False, **(arguments | more))
    return asked[0][0]


def render(
    dit: Dit, songs: Iterable[Song], wanted: Callable[[str], bool] = lambda _: True
) -> dict[str, torch.Tensor]:
    """The latents of every song that was finished."""
    events = denoise(dit, list(songs), wanted)
    return {event.id: event.latents for event in events if isinstance(event, Denoised)}


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference; NaN if there is one."""
    return (one - other).abs().max().item()
