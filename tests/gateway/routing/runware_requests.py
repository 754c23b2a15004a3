"""Requests as Runware sees them: what it expresses, what it lets go, what it cannot do."""

from typing import Any

from engine import GuidanceType, InferMethod, Task
from gateway.audio import AudioFormat, AudioSettings
from gateway.generation import SAMPLE_RATE, AudioInput, GenerationRequest, ResponseFormat

TURBO, BASE = "runware:ace-step@v1.5-xl-turbo", "runware:ace-step@v1.5-xl-base"
SECONDS = SAMPLE_RATE
SOURCE = AudioInput(file_id="f" * 32, frames=200 * SECONDS)
COVER: dict[str, Any] = {"task": Task.COVER, "source_audio": SOURCE, "frames": 200 * SECONDS}
REPAINT: dict[str, Any] = COVER | {"task": Task.REPAINT}


def request(**fields: Any) -> GenerationRequest:
    return GenerationRequest(**{"prompt": "calm piano", "frames": 60 * SECONDS, "seed": 7} | fields)


EXPRESSED: list[tuple[str, dict[str, Any]]] = [
    (BASE, {}),
    (BASE, {"prompt": "ab"}),
    (BASE, {"prompt": "a" * 3000}),
    (BASE, {"frames": 30 * SECONDS}),
    (BASE, {"frames": 300 * SECONDS}),
    (BASE, {"seed": 2**31 - 1}),
    (BASE, {"seed": 2**31 - 1, "n": 4}),
    (BASE, {"seed": 2**31 - 5, "n": 8}),
    (BASE, {"n": 8}),
    (BASE, {"lyrics": "la"}),
    (BASE, {"lyrics": "a" * 3000}),
    (BASE, {"lyrics": "a" * 4000, "instrumental": True}),
    (BASE, {"num_inference_steps": 1}),
    (BASE, {"num_inference_steps": 300}),
    (TURBO, {"num_inference_steps": 20}),
    (TURBO, {"guidance_scale": 1.0}),
    (BASE, {"guidance_scale": 1.0}),
    (BASE, {"guidance_scale": 30.0}),
    (BASE, {"negative_prompt": "drums"}),
    (BASE, {"negative_prompt": "drums", "guidance_scale": 1.01}),
    (BASE, {"bpm": 30, "key_scale": "Bb minor", "time_signature": 6, "vocal_language": "yue"}),
    (BASE, {"format": AudioFormat.OGG, "audio_settings": AudioSettings(bitrate=64)}),
    (BASE, {"response_format": ResponseFormat.B64_JSON, "return_base64": True}),
    (BASE, {"webhook_url": "https://a.example/", "upload_url": "https://b.example/", "ttl": 60}),
    (BASE, {"cfg_interval_start": 0.1, "cfg_interval_end": 0.9}),
    (BASE, {"guidance_type": GuidanceType.APG}),
    (BASE, {"guidance_type": GuidanceType.CFG}),
    (BASE, {"infer_method": InferMethod.ODE}),
    (BASE, COVER),
    (TURBO, COVER | {"cover_strength": 0.4, "cover_noise_strength": 0.5}),
    (BASE, COVER | {"source_audio": AudioInput(url="https://a.example/"), "open_length": True}),
    (BASE, COVER | {"frames": 5 * SECONDS, "source_audio": AudioInput(file_id="f", frames=5 * SECONDS)}),
    (TURBO, REPAINT | {"repainting_start": -100.0, "repainting_end": 100.0, "frames": 300 * SECONDS}),
    (BASE, REPAINT | {"repainting_end": 300.0, "frames": 300 * SECONDS}),
]
LET_GO: list[tuple[str, dict[str, Any]]] = [
    (BASE, {"shift": 3.0}),
    (BASE, {"timesteps": (1.0, 0.5)}),
    (BASE, {"infer_method": InferMethod.SDE}),
    (BASE, {"guidance_type": GuidanceType.ADG}),
    (BASE, {"thinking": True}),
    (BASE, {"guidance_scale": 0.5}),
    (BASE, {"num_inference_steps": 301}),
    (BASE, {"negative_prompt": "drums", "guidance_scale": 1.0}),
    (TURBO, {"num_inference_steps": 21}),
    (TURBO, {"guidance_scale": 7.0}),
    (TURBO, {"guidance_type": GuidanceType.APG}),
    (TURBO, {"cfg_interval_start": 0.1}),
    (TURBO, {"cfg_interval_end": 0.9}),
    (TURBO, {"negative_prompt": "drums"}),
]
REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("task", "extract", {"task": Task.EXTRACT, "source_audio": SOURCE, "track_name": "drums"}),
    ("task", "lego", {"task": Task.LEGO, "source_audio": SOURCE, "track_name": "drums"}),
    ("task", "complete", {"task": Task.COMPLETE, "source_audio": SOURCE, "track_classes": ("drums",)}),
    ("prompt", "2 to 3000", {"prompt": "a"}),
    ("prompt", "2 to 3000", {"prompt": "a" * 3001}),
    ("lyrics", "3000", {"lyrics": "a" * 3001}),
    ("seed", "2147483647", {"seed": 2**31}),
    ("seed", "2147483647", {"seed": 2**31 - 4, "n": 8}),
    ("audio_duration", "300", {"frames": 300 * SECONDS + 1}),
    ("audio_duration", "decide", {"thinking": True, "open_length": True}),
    ("negative_prompt", "2 to 3000", {"negative_prompt": "a" * 3001}),
    ("reference_audio", "reference_audio", {"reference_audio": SOURCE}),
    ("reference_audio", "reference_audio", COVER | {"reference_audio": SOURCE}),
    ("source_audio", "300", COVER | {"source_audio": AudioInput(file_id="f", frames=300 * SECONDS + 1)}),
    ("repainting_start", "-300", REPAINT | {"repainting_start": -300.5}),
    ("repainting_end", "300", REPAINT | {"repainting_end": 301.0}),
    ("repainting_start", "300", REPAINT | {"repainting_start": -150.0, "frames": 350 * SECONDS}),
    ("repainting_end", "300", REPAINT | {"repainting_start": -20.0, "repainting_end": 290.0,
                                         "frames": 310 * SECONDS}),
]  # fmt: skip


def named(case: tuple[Any, ...]) -> str:
    return " ".join([str(part)[-8:] for part in case[:-1]] + [str(key) for key in case[-1]])[:80]
