"""The two texts that a model reads, in the words it was trained on. Free of torch."""

from collections.abc import Callable
from typing import Final

import msgspec

from engine.errors import InvalidRequest
from engine.schema import SAMPLE_RATE, EngineRequest, Task

MAX_TEXT_TOKENS: Final = 256
MAX_LYRIC_TOKENS: Final = 2048
"""Both with the tokens that end a text."""

INSTRUMENTAL: Final = "[Instrumental]"
"""What stands where lyrics would."""

_TEXT: Final = "# Instruction\n{instruction}\n\n# Caption\n{caption}\n\n# Metas\n{metas}<|endoftext|>\n"
_LYRICS: Final = "# Languages\n{language}\n\n# Lyric\n{lyrics}<|endoftext|>"
_INSTRUCTIONS: Final = {
    Task.TEXT2MUSIC: "Fill the audio semantic mask based on the given conditions:",
    Task.COVER: "Generate audio semantic tokens based on the given conditions:",
    Task.REPAINT: "Repaint the mask area based on the given conditions:",
}
_LAST_LATIN: Final = 0x24F
"""End of Latin Extended-B: what lies above is not written in Latin letters."""


class Prompt(msgspec.Struct, frozen=True):
    """Both texts of one song, each within its limit of tokens."""

    text: str
    lyrics: str


def prompt_of(request: EngineRequest, *, task: Task, count_tokens: Callable[[str], int]) -> Prompt:
    """The texts of `request` under the instruction of `task`, which differs from its own in some steps.

    A caption that is too long loses its tail, so that tempo, key and length, which stand behind it, never do.
    Lyrics that are too long are refused: nobody would miss a last verse before the song is paid for.
    """
    instruction = instruction_of(task, track_name=request.track_name, track_classes=request.track_classes)
    metas = metas_of(request)
    return Prompt(
        text=_text(instruction, request.prompt, metas, count_tokens),
        lyrics=_lyrics(request, count_tokens),
    )


def negative_prompt_of(request: EngineRequest, *, task: Task, count_tokens: Callable[[str], int]) -> Prompt:
    """The texts to pull away from: what is not wanted, as an instrumental of the same length.

    Without words and tempo of its own, the negative branch leaves both to the guidance, as the null does.
    """
    instruction = instruction_of(task, track_name=request.track_name, track_classes=request.track_classes)
    metas = _metas(bpm=None, time_signature=None, key_scale=None, seconds=request.frames // SAMPLE_RATE)
    return Prompt(
        text=_text(instruction, request.negative_prompt or "", metas, count_tokens),
        lyrics=_LYRICS.format(language="unknown", lyrics=INSTRUMENTAL),
    )


def instruction_of(task: Task, *, track_name: str | None = None, track_classes: tuple[str, ...] = ()) -> str:
    """The sentence that tells the tasks apart."""
    if task is Task.EXTRACT:
        return f"Extract the {track_name.upper()} track from the audio:" if track_name else _EXTRACT_ANY
    if task is Task.LEGO:
        named = f"Generate the {(track_name or '').upper()} track based on the audio context:"
        return named if track_name else _LEGO_ANY
    if task is Task.COMPLETE:
        wanted = " | ".join(name.upper() for name in track_classes)
        return f"Complete the input track with {wanted}:" if wanted else _COMPLETE_ANY
    return _INSTRUCTIONS[task]


_EXTRACT_ANY: Final = "Extract the track from the audio:"
_LEGO_ANY: Final = "Generate the track based on the audio context:"
_COMPLETE_ANY: Final = "Complete the input track:"


def metas_of(request: EngineRequest) -> str:
    """Tempo, time signature, key and length as lines; what is not said is `N/A`."""
    return _metas(
        bpm=request.bpm,
        time_signature=request.time_signature,
        key_scale=request.key_scale,
        seconds=request.frames // SAMPLE_RATE,
    )


def language_of(request: EngineRequest) -> str:
    """The code above the lyrics.

    `unknown` is what the models learned for songs without words and for languages left to them; lyrics in
    Latin letters without a language count as English, as everywhere in this family.
    """
    if request.vocal_language is not None:
        return request.vocal_language
    if is_instrumental(request):
        return "unknown"
    latin = all(ord(letter) <= _LAST_LATIN for letter in request.lyrics if letter.isalpha())
    return "en" if latin else "unknown"


def is_instrumental(request: EngineRequest) -> bool:
    """Whether nothing is to be sung."""
    return request.instrumental or not request.lyrics.strip()


def _metas(*, bpm: int | None, time_signature: int | None, key_scale: str | None, seconds: int) -> str:
    return (
        f"- bpm: {'N/A' if bpm is None else bpm}\n"
        f"- timesignature: {'N/A' if time_signature is None else time_signature}\n"
        f"- keyscale: {key_scale or 'N/A'}\n"
        f"- duration: {seconds} seconds\n"
    )


def _text(instruction: str, caption: str, metas: str, count_tokens: Callable[[str], int]) -> str:
    def filled(caption: str) -> str:
        return _TEXT.format(instruction=instruction, caption=caption, metas=metas)

    def fits(caption: str) -> bool:
        return count_tokens(filled(caption)) <= MAX_TEXT_TOKENS

    return filled(caption if fits(caption) else _head(caption, fits))


def _head(caption: str, fits: Callable[[str], bool]) -> str:
    """The longest beginning of `caption` that fits, up to the end of a word where there is one."""
    if not fits(""):
        raise InvalidRequest("track_classes: too many for what the model reads")
    low, high = 0, len(caption)  # `low` characters fit, `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(caption[:middle]) else (low, middle)
    head = caption[:low]
    words = head if caption[low].isspace() else head.rpartition(" ")[0]
    return words.rstrip() if words and fits(words.rstrip()) else head


def _lyrics(request: EngineRequest, count_tokens: Callable[[str], int]) -> str:
    lyrics = INSTRUMENTAL if is_instrumental(request) else request.lyrics
    filled = _LYRICS.format(language=language_of(request), lyrics=lyrics)
    count = count_tokens(filled)
    if count > MAX_LYRIC_TOKENS:
        raise InvalidRequest(
            f"lyrics: these are {count} tokens and the model reads {MAX_LYRIC_TOKENS}: leave a part out"
        )
    return filled
