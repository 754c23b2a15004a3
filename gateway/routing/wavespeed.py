"""What WaveSpeed can make of a request: new songs only, from a prompt, lyrics, a length and a seed."""

from collections.abc import Iterator
from typing import Final

from engine import Task
from gateway.audio import AudioFormat
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.routing.judgement import Judgement, Objection

MAX_SEED: Final = 2**31 - 1
_SECONDS: Final[dict[str, tuple[float, float]]] = {
    "wavespeed-ai/ace-step": (5.0, 240.0),
    "wavespeed-ai/ace-step-1.5": (5.0, 240.0),
}
_USUAL_SECONDS: Final = (5.0, 240.0)
"""Of a model that an operator added to the catalog."""
_LOSSY: Final = frozenset({AudioFormat.MP3, AudioFormat.OGG})
_UNHEARD: Final = (
    "num_inference_steps",
    "guidance_scale",
    "shift",
    "negative_prompt",
    "cfg_interval_start",
    "cfg_interval_end",
    "guidance_type",
    "infer_method",
    "timesteps",
)
_IN_WORDS: Final = ("bpm", "key_scale", "time_signature", "vocal_language")
_NO_LANGUAGE: Final = "unknown"


def judge(request: GenerationRequest, model_name: str) -> Judgement:
    """Of a request for that model of WaveSpeed's: what it cannot express, and what it would let go."""
    objections = [
        *_about_audio(request),
        *_about_prompt(request),
        *_about_length(request, model_name),
        *_about_seed(request),
    ]
    if request.strict:
        objections += [
            Objection(param=field, message=f"has no {field}", suggestion="leave it out")
            for field in (*_unheard(request), *_in_words(request))
        ]
        return Judgement(objections=tuple(objections), warnings=tuple(_about_format(request)))
    return Judgement(
        objections=tuple(objections),
        warnings=(
            *(f"{field} has no effect at wavespeed and was ignored" for field in _unheard(request)),
            *(f"{field} is told to wavespeed as words in the prompt" for field in _in_words(request)),
            *_about_format(request),
        ),
    )


def _about_audio(request: GenerationRequest) -> Iterator[Objection]:
    if request.task is not Task.TEXT2MUSIC:
        yield Objection(param="task", message=f"has no task {request.task}", suggestion=str(Task.TEXT2MUSIC))
    for param in ("source_audio", "reference_audio"):
        if getattr(request, param) is not None:
            yield Objection(param=param, message=f"takes no {param}", suggestion="leave it out")


def _about_prompt(request: GenerationRequest) -> Iterator[Objection]:
    if not request.prompt.strip():
        yield Objection(param="prompt", message="needs a prompt", suggestion="lo-fi hip hop")


def _about_length(request: GenerationRequest, model_name: str) -> Iterator[Objection]:
    low, high = _SECONDS.get(model_name, _USUAL_SECONDS)
    seconds = request.frames / SAMPLE_RATE
    if request.open_length:
        yield Objection(
            param="audio_duration",
            message="cannot choose the length of a song by itself",
            suggestion=f"{min(max(seconds, low), high):g}",
        )
    elif not low <= seconds <= high:
        yield Objection(
            param="audio_duration",
            message=f"makes {low:g} to {high:g} seconds",
            suggestion=f"{low if seconds < low else high:g}",
        )


def _about_seed(request: GenerationRequest) -> Iterator[Objection]:
    if request.seed > MAX_SEED:  # taken modulo, it would be another seed
        yield Objection(param="seed", message=f"takes seeds up to {MAX_SEED} only", suggestion=str(MAX_SEED))


def _about_format(request: GenerationRequest) -> Iterator[str]:
    if request.format not in _LOSSY:
        yield f"wavespeed chooses its own format, as a rule MP3: as {request.format} it sounds no better"


def _unheard(request: GenerationRequest) -> list[str]:
    fields = [field for field in _UNHEARD if getattr(request, field) not in (None, ())]
    return [*fields, "thinking"] if request.thinking else fields


def _in_words(request: GenerationRequest) -> list[str]:
    """Of a song without vocals, and of an unknown language, nothing has to be told."""
    fields = [field for field in _IN_WORDS if getattr(request, field) is not None]
    if request.instrumental or request.vocal_language == _NO_LANGUAGE:
        fields = [field for field in fields if field != "vocal_language"]
    return fields
