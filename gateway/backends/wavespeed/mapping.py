"""From our request to WaveSpeed's: four fields; what else can be said in words stands in the tags."""

from typing import Final

import billing
from gateway.backends.wavespeed.wire import Input
from gateway.generation import SAMPLE_RATE, GenerationRequest
from gateway.routing.wavespeed import MAX_SEED

INSTRUMENTAL: Final = "[instrumental]"

_LANGUAGES: Final = {
    "ar": "Arabic",
    "az": "Azerbaijani",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "ht": "Haitian Creole",
    "hu": "Hungarian",
    "id": "Indonesian",
    "is": "Icelandic",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "la": "Latin",
    "lt": "Lithuanian",
    "ms": "Malay",
    "ne": "Nepali",
    "nl": "Dutch",
    "no": "Norwegian",
    "pa": "Punjabi",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sa": "Sanskrit",
    "sk": "Slovak",
    "sr": "Serbian",
    "sv": "Swedish",
    "sw": "Swahili",
    "ta": "Tamil",
    "te": "Telugu",
    "th": "Thai",
    "tl": "Tagalog",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "yue": "Cantonese",
    "zh": "Mandarin Chinese",
}
_METERS: Final = {2: "2/4", 3: "3/4", 4: "4/4", 6: "6/8"}


def input_of(request: GenerationRequest, index: int) -> Input:
    """What is asked for variation `index`. The seed is always ours, so hardly two inputs are the same."""
    return Input(
        tags=_tags(request),
        lyrics=INSTRUMENTAL if request.instrumental or not request.lyrics.strip() else request.lyrics,
        duration=_number(request.frames / SAMPLE_RATE),
        seed=request.variation_seed(index) % (MAX_SEED + 1),
    )


def price_nano(seconds: float, nano_per_second: int) -> int:
    """What WaveSpeed charges for so much music: by the generated second."""
    frames = round(seconds * SAMPLE_RATE)
    milliseconds = billing.billed_ms(frames=frames, sample_rate=SAMPLE_RATE)
    return billing.cost_nano(duration_ms=milliseconds, nano_per_second=nano_per_second)


def _tags(request: GenerationRequest) -> str:
    words = [request.prompt.strip()]
    if request.bpm is not None:
        words.append(f"{request.bpm} bpm")
    if request.key_scale is not None:
        words.append(request.key_scale)
    if request.time_signature is not None:
        words.append(f"{_METERS[request.time_signature]} time")
    language = _LANGUAGES.get(request.vocal_language or "")
    if language is not None and not request.instrumental:
        words.append(f"{language} vocals")
    return ", ".join(words)


def _number(seconds: float) -> float:
    """Without a decimal point where nothing follows it."""
    return int(seconds) if seconds == int(seconds) else seconds
