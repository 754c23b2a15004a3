"""Sound that a request brings, and how long the result is: known, or at most the model's longest."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

import engine
from engine import Task
from gateway.catalog import Model
from gateway.dialects.native.validation_values import Notes, checked_text, plain, those_that_can, within
from gateway.errors import FileGone, InvalidRequest, UnsupportedParameter
from gateway.generation import SAMPLE_RATE, AudioInput
from gateway.outbound import BadUrl, check_url

MAX_REFERENCE_CHARACTERS: Final = 2_048
"""Of a file id or URL."""
UPLOAD: Final = "upload with POST /v1/files"

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
"""No file id has a colon."""

FindFile = Callable[[str], Awaitable[AudioInput | None]]
"""An uploaded file by its id, as far as the caller may see it."""


class Usable(msgspec.Struct, frozen=True):
    """A model that the caller could name instead, and what its routes here leave of it."""

    id: str
    tasks: tuple[Task, ...]
    takes_reference: bool


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What the installation has, and the caller."""

    planner: bool
    """Whether songs can be planned by a language model."""
    ports: frozenset[int] | None
    """Of URLs that are fetched from; None: any."""
    find_file: FindFile
    models: tuple[Usable, ...] = ()
    """Those that can be used here: who is refused by one of them is told of the others."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a request says about sound and length, checked but for what is in its files."""

    task: Task
    source: str | None
    reference: str | None
    seconds: float | None
    start: float | None
    end: float | None
    thinking: bool


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """Fields of a GenerationRequest that follow from the sound it brings."""

    frames: int
    open_length: bool = False
    source_audio: AudioInput | None = None
    reference_audio: AudioInput | None = None


async def check_audio(wanted: Wanted, model: Model, notes: Notes, context: Context) -> Shape:
    """Raises InvalidRequest, UnsupportedParameter or FileGone, naming the field."""
    if wanted.reference is not None and model.engine is None:
        others = [other.id for other in context.models if other.takes_reference]
        raise UnsupportedParameter(
            f"{model.id} takes no reference_audio{those_that_can(others)}",
            param="reference_audio",
            suggestion="leave it out",
        )
    named = {"source_audio": wanted.source, "reference_audio": wanted.reference}
    for name, value in named.items():
        if value is not None:
            _check_name(name, value, context.ports)
    if wanted.task is not Task.TEXT2MUSIC and wanted.seconds is not None:
        notes.add("audio_duration", "beside source_audio, audio_duration has no effect")
    length = _length(wanted, model) if wanted.source is None else None
    found = {
        name: await _find(name, value, context.find_file)
        for name, value in named.items()
        if value is not None
    }
    source = found.get("source_audio")
    if length is None and source is not None:
        length = _edited_length(wanted, source, model)
    if length is None:
        raise AssertionError("every task but text2music has a source")
    return msgspec.structs.replace(length, source_audio=source, reference_audio=found.get("reference_audio"))


def _check_name(name: str, value: str, ports: frozenset[int] | None) -> None:
    checked_text(name, value, MAX_REFERENCE_CHARACTERS)
    if not value.strip():
        raise InvalidRequest(f"{name} is empty: send a file id or a URL", param=name, suggestion=UPLOAD)
    if _URL.match(value):
        try:
            check_url(value, ports=ports)
        except BadUrl as error:
            raise InvalidRequest(f"{name}: {error}", param=name, suggestion=UPLOAD) from error


async def _find(name: str, value: str, find_file: FindFile) -> AudioInput:
    if _URL.match(value):
        return AudioInput(url=value)
    found = await find_file(value)
    if found is None:
        raise FileGone(
            f"{name}: there is no file {value[:100]!r}, or it has expired", param=name, suggestion=UPLOAD
        )
    return found


def _length(wanted: Wanted, model: Model) -> Shape:
    """Of a new song."""
    low, high, default = model.duration_seconds
    if wanted.thinking and wanted.seconds is None:
        return _at_most(model)
    seconds = within("audio_duration", default if wanted.seconds is None else wanted.seconds, low, high)
    return Shape(frames=round((default if seconds is None else seconds) * SAMPLE_RATE))


def _edited_length(wanted: Wanted, source: AudioInput, model: Model) -> Shape:
    """It follows the source; a repaint may grow at both ends."""
    start, end = wanted.start, wanted.end
    known = source.frames or 0
    frames = engine.output_frames(wanted.task, source_frames=known, start=start, end=end)
    low, high = (round(seconds * SAMPLE_RATE) for seconds in model.duration_seconds[:2])
    if source.frames is None:
        if frames > high:  # however short the source is
            raise _wrong_length(wanted, known, frames, model)
        return _at_most(model)
    _check_start(known, start or 0.0, grows=frames > known)
    if not low <= frames <= high:
        raise _wrong_length(wanted, known, frames, model)
    return Shape(frames=frames)


def _at_most(model: Model) -> Shape:
    return Shape(frames=round(model.duration_seconds[1] * SAMPLE_RATE), open_length=True)


def _check_start(source_frames: int, start: float, *, grows: bool) -> None:
    """A window of a repaint begins within the source, or at its end if it grows there."""
    first, seconds = round(start * SAMPLE_RATE), source_frames / SAMPLE_RATE
    if first > source_frames or (first == source_frames and not grows):
        raise InvalidRequest(
            f"repainting_start lies behind the end of the source, which has {seconds:.3f} s",
            param="repainting_start",
            suggestion=plain(int(seconds * 1000) / 1000 if grows else 0.0),
        )


def _wrong_length(wanted: Wanted, source_frames: int, frames: int, model: Model) -> InvalidRequest:
    """Naming the field that can mend it."""
    low, high = model.duration_seconds[:2]
    room = high - source_frames / SAMPLE_RATE
    bounds = f"{model.id} makes {plain(low)} to {plain(high)} s"
    told = f"the result would have {frames / SAMPLE_RATE:.3f} s, and {bounds}"
    before, after = -(wanted.start or 0.0), (wanted.end or 0.0) - source_frames / SAMPLE_RATE
    if room < 0 or frames < low * SAMPLE_RATE:
        return InvalidRequest(
            f"source_audio has {source_frames / SAMPLE_RATE:.3f} s, and {bounds}",
            param="source_audio",
            suggestion=f"{plain(low)} to {plain(high)} s",
        )
    if before > after:
        most = _floor(room - max(after, 0.0))
        return InvalidRequest(told, param="repainting_start", suggestion=plain(-max(most, 0.0)))
    most = _floor(high - max(before, 0.0))
    return InvalidRequest(told, param="repainting_end", suggestion=plain(most))


def _floor(seconds: float) -> float:
    """To milliseconds, so that a suggestion is short and holds."""
    return int(seconds * 1000) / 1000
