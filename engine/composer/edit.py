"""The editing tasks, by rule: the composer plays along with a source, around it, or takes it apart."""

from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor

from engine.composer.arrange import compose
from engine.composer.colour import colour
from engine.composer.listen import Heard, listen
from engine.composer.master import CEILING
from engine.composer.render import render
from engine.composer.score import Part, Score
from engine.composer.separate import extract
from engine.schema import SAMPLE_RATE, EngineRequest, Sound, Task

_CROSS_FADE = round(0.4 * SAMPLE_RATE)
"""As long as ten latent frames of the models."""
_FOLLOW_SECONDS = 0.5
_MOST_FOLLOWING = 4.0
"""A cover is made at most so much louder, or softer, than it was played."""

_PLAYERS: dict[str, tuple[frozenset[Part], str]] = {
    "vocals": (frozenset({Part.VOICE, Part.LEAD}), ""),
    "backing_vocals": (frozenset({Part.COUNTER, Part.PAD}), "choir"),
    "drums": (frozenset({Part.DRUMS}), "drums"),
    "percussion": (frozenset({Part.DRUMS}), "percussion"),
    "bass": (frozenset({Part.BASS}), "bass"),
    "guitar": (frozenset({Part.CHORDS, Part.LEAD}), "guitar"),
    "keyboard": (frozenset({Part.CHORDS}), "piano"),
    "strings": (frozenset({Part.PAD, Part.LEAD}), "strings"),
    "synth": (frozenset({Part.ARP, Part.PAD}), "synth"),
    "fx": (frozenset({Part.EFFECTS, Part.ARP}), "synth arpeggio"),
    "brass": (frozenset({Part.LEAD, Part.COUNTER}), "trumpet"),
    "woodwinds": (frozenset({Part.LEAD, Part.COUNTER}), "flute"),
}
"""Which parts play a track, and the word that brings its instrument into the cast."""
_MISSING = ("drums", "bass", "keyboard")
"""What `complete` adds when no track is named."""


def perform(request: EngineRequest) -> Iterator[float | Tensor]:
    """Yields progress (0 to 1), and last the song, float32 [2, frames]."""
    task = request.task
    if task is Task.TEXT2MUSIC or request.source is None:
        steps = render(compose(request))
    else:
        source = torch.from_numpy(request.source.samples)
        match task:
            case Task.COVER:
                steps = _cover(request, source)
            case Task.REPAINT:
                steps = _repaint(request, source)
            case Task.EXTRACT:
                steps = _extract(request, source)
            case _:
                steps = _add(request, source)
    yield from _coloured(steps, request.reference)


def _cover(request: EngineRequest, source: Tensor) -> Iterator[float | Tensor]:
    """A new song in the source's tempo and key that swells where the source swells."""
    for step in render(_along(request, listen(source))):
        if isinstance(step, float):
            yield step
            continue
        strength = 1.0 if request.cover_strength is None else request.cover_strength
        follow = _loudness(source) / source.square().mean().sqrt().clamp(min=1e-4)
        own = _loudness(step) / step.square().mean().sqrt().clamp(min=1e-4)
        gain = (follow / own.clamp(min=1e-4)).clamp(1 / _MOST_FOLLOWING, _MOST_FOLLOWING) ** strength
        kept = request.cover_noise_strength or 0.0
        yield _fitted((1.0 - kept) * step * gain + kept * source)


def _repaint(request: EngineRequest, source: Tensor) -> Iterator[float | Tensor]:
    """The window anew, everything else bit for bit; before and after the source the song grows."""
    start = round((request.repainting_start or 0.0) * SAMPLE_RATE)
    before = max(0, -start)
    end = source.shape[1] if request.repainting_end is None else round(request.repainting_end * SAMPLE_RATE)
    first, last = start + before, min(end + before, request.frames)
    old = torch.zeros(2, request.frames)
    old[:, before : before + source.shape[1]] = source
    for step in render(_along(request, listen(source))):
        if isinstance(step, float):
            yield step
            continue
        new = step * (_level(source) / _level(step))
        mask = torch.zeros(request.frames)
        mask[first:last] = 1.0
        # The ramps lie inside the window, and only where the source goes on beyond it.
        ramp = torch.linspace(0.0, 1.0, min(_CROSS_FADE, (last - first) // 2) + 2)[1:-1]
        if first > before:
            mask[first : first + ramp.numel()] = ramp
        if last < before + source.shape[1]:
            mask[last - ramp.numel() : last] = ramp.flip(0)
        song = torch.where(mask > 0, old * (1.0 - mask) + new * mask, old)
        yield song.clamp_(-1.0, 1.0)


def _extract(request: EngineRequest, source: Tensor) -> Iterator[float | Tensor]:
    for step in extract(source, request.track_name or "vocals"):
        yield step if isinstance(step, float) else _fitted(step)


def _add(request: EngineRequest, source: Tensor) -> Iterator[float | Tensor]:
    """New tracks that fit the source: alone (lego), or together with it (complete)."""
    alone = request.task is Task.LEGO
    tracks = (request.track_name or "vocals",) if alone else request.track_classes or _MISSING
    words = [word for word in (_PLAYERS[track][1] for track in tracks) if word]
    asked = msgspec.structs.replace(request, prompt=", ".join([*words, request.prompt]))
    score = _along(asked, listen(source))
    parts = frozenset[Part]().union(*(_PLAYERS[track][0] for track in tracks))
    for step in render(_only(score, parts)):
        if isinstance(step, float) or alone:
            yield step
        else:
            yield _fitted(source + step * (0.8 * _level(source) / _level(step)))


def _along(request: EngineRequest, heard: Heard) -> Score:
    """A score in the source's tempo, beat and key, wherever the request says nothing else."""
    key_scale = heard.key.name if request.key_scale is None else request.key_scale
    asked = msgspec.structs.replace(request, bpm=request.bpm or heard.bpm, key_scale=key_scale)
    score = compose(asked)
    if request.bpm is not None:
        return score
    style = msgspec.structs.replace(score.style, lead_in_seconds=heard.first_beat_seconds)
    return msgspec.structs.replace(score, style=style)


def _only(score: Score, parts: frozenset[Part]) -> Score:
    """The notes of these parts; where they have nothing to play, the chords or the melody stand in."""
    for wanted in (parts, {Part.CHORDS, Part.PAD}, {Part.LEAD, Part.VOICE}):
        notes = tuple(note for note in score.notes if note.part in wanted)
        if notes:
            return msgspec.structs.replace(score, notes=notes)
    return score


def _coloured(steps: Iterator[float | Tensor], reference: Sound | None) -> Iterator[float | Tensor]:
    for step in steps:
        if isinstance(step, float) or reference is None:
            yield step
        else:
            yield _fitted(colour(step, torch.from_numpy(reference.samples)))


def _loudness(song: Tensor) -> Tensor:
    """Root mean square over half seconds, drawn out to every frame, [frames]."""
    block = round(_FOLLOW_SECONDS * SAMPLE_RATE)
    power = torch.nn.functional.avg_pool1d(song.square().mean(0)[None, None], block, ceil_mode=True)
    rms = torch.nn.functional.interpolate(power.sqrt(), size=song.shape[1], mode="linear")
    return rms.flatten()


def _level(song: Tensor) -> float:
    return max(1e-4, float(song.square().mean().sqrt()))


def _fitted(song: Tensor) -> Tensor:
    """Never above the ceiling; what is soft stays soft."""
    peak = float(song.abs().amax())
    return song * (CEILING / peak) if peak > CEILING else song
