"""The body of `POST /v1/audio/generations`: our own fields, their aliases, and what is ignored."""

from typing import Any

import msgspec

from gateway.audio import AudioSettings


class AudioSettingsBody(AudioSettings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For mp3 and ogg: `bitrate` in kbit/s, `channels` 1 or 2, `sample_rate` in Hz."""


class ProviderBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which backends may serve a request, by their names."""

    order: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    allow_fallbacks: bool | None = None


class GenerationBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to compose, and how to deliver it. null is the same as absent."""

    model: str
    prompt: str | None = None
    lyrics: str | None = None
    audio_duration: float | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    shift: float | None = None
    negative_prompt: str | None = None
    seed: int | None = None
    format: str | None = None
    response_format: str | None = None
    return_base64: bool | None = None
    audio_settings: AudioSettingsBody | None = None
    bpm: int | None = None
    key_scale: str | None = None
    time_signature: int | None = None
    vocal_language: str | None = None
    instrumental: bool | None = None
    task: str | None = None
    source_audio: str | None = None
    reference_audio: str | None = None
    repainting_start: float | None = None
    repainting_end: float | None = None
    cover_strength: float | None = None
    cover_noise_strength: float | None = None
    track_name: str | None = None
    track_classes: tuple[str, ...] | None = None
    cfg_interval_start: float | None = None
    cfg_interval_end: float | None = None
    guidance_type: str | None = None
    infer_method: str | None = None
    timesteps: tuple[float, ...] | None = None
    thinking: bool | None = None
    n: int | None = None
    strict: bool | None = None
    metadata: dict[str, str] | None = None
    provider: str | ProviderBody | None = None
    webhook_url: str | None = None
    upload_url: str | None = None
    ttl: int | None = None
    max_cost_usd: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """Text or number, as it was written: a float between us and the client would change it."""

    input: str | None = None
    duration: float | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    output_format: str | None = None

    user: Any = None
    stream: Any = None
    disable_formatting: Any = None
    raw: Any = None
    passthrough: Any = None
    raw_response: Any = None


ALIASES = {
    "input": "prompt",
    "duration": "audio_duration",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "output_format": "format",
}
"""Other spellings that clients of this field use, and the name that they stand for."""
