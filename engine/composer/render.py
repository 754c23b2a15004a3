"""From a Score to sound: notes are made once, remembered, and laid into the song a chunk at a time."""

from collections import OrderedDict
from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor

from engine.composer.drumkit import TAKES, render_drum, render_riser
from engine.composer.master import master
from engine.composer.score import Note, Part, Score
from engine.composer.space import HOP, Room
from engine.composer.timbres import TIMBRES
from engine.composer.tone import render_tone
from engine.schema import SAMPLE_RATE

_MEMORY_BYTES = 96 * 2**20
_LENGTH_STEP = 1 / 24
"""Note lengths are rounded to this many seconds, so that remembered notes are met again."""
_RENDER_SHARE = 0.88
_TAIL_SECONDS = 0.3


class Channel(msgspec.Struct, frozen=True):
    """How a part sits in the mix."""

    gain_db: float
    reverb: float
    """Send level, scaled by the style's reverb."""
    pan: float
    duck: float = 0.0
    """How far dance music's kick pushes it down, 0 to 1."""


CHANNELS = {
    Part.DRUMS: Channel(-5.5, 0.10, 0.0),
    Part.BASS: Channel(-5.5, 0.02, 0.0, 0.5),
    Part.CHORDS: Channel(-7.5, 0.35, -0.18, 0.45),
    Part.PAD: Channel(-13.5, 0.55, 0.0, 0.6),
    Part.ARP: Channel(-10.5, 0.4, 0.1, 0.4),
    Part.LEAD: Channel(-3.0, 0.4, 0.08),
    Part.VOICE: Channel(-2.0, 0.38, 0.0),
    Part.COUNTER: Channel(-3.5, 0.45, 0.0),
    Part.EFFECTS: Channel(-8.0, 0.3, 0.0),
}


class _Sounding(msgspec.Struct):
    """A note that has been made and where it lies in the song."""

    wave: Tensor
    start: int
    part: Part
    left: float
    right: float
    echo: float


class SoundMemory:
    """Waveforms of notes already made, by everything that shapes them; the longest unused go first."""

    def __init__(self, score: Score) -> None:
        self._style = score.style
        self._electric = score.style.genre.dance or score.style.genre.groove in {
            "hiphop",
            "eighties",
            "disco",
        }
        self._waves: OrderedDict[tuple[str, int, int, int, str], Tensor] = OrderedDict()
        self._bytes = 0

    def wave(self, note: Note, seconds: float, take: int) -> Tensor:
        """[1 or 2, samples] at the loudness of velocity 1."""
        hard = 1 + (note.velocity > 0.5) + (note.velocity > 0.8)
        if note.part is Part.DRUMS:
            key = (note.instrument, take % TAKES, 0, 0, "")
        else:
            key = (note.instrument, note.pitch, max(1, round(seconds / _LENGTH_STEP)), hard, note.vowel)
        if key in self._waves:
            self._waves.move_to_end(key)
            return self._waves[key]
        wave = self._make(note.part, key)
        self._waves[key] = wave
        self._bytes += wave.nbytes
        while self._bytes > _MEMORY_BYTES and len(self._waves) > 1:
            self._bytes -= self._waves.popitem(last=False)[1].nbytes
        return wave

    def _make(self, part: Part, key: tuple[str, int, int, int, str]) -> Tensor:
        name, pitch, length, hard, vowel = key
        if part is Part.DRUMS:
            return render_drum(name, pitch, electric=self._electric, brightness=self._style.brightness)
        if part is Part.EFFECTS:
            return render_riser(length * _LENGTH_STEP)
        cut = self._style.brightness * (0.7, 1.0, 1.3)[hard - 1]
        return render_tone(name, pitch, length * _LENGTH_STEP, cut=cut, vowel=vowel)


def render(score: Score) -> Iterator[float | Tensor]:
    """Yields progress (0 to 1) after each chunk, and last the song, float32 [2, frames]."""
    style = score.style
    song = torch.zeros(2, score.frames)
    room = Room(reverb=style.reverb, beat_seconds=style.beat_seconds)
    memory = SoundMemory(score)
    pump = _kick_times(score) if style.genre.dance else []
    starts = sorted(((_frame(score, note), note) for note in score.notes), key=lambda pair: pair[0])
    sounding: list[_Sounding] = []
    upcoming = 0
    for start in range(0, score.frames, HOP):
        while upcoming < len(starts) and starts[upcoming][0] < start + HOP:
            frame, note = starts[upcoming]
            sounding.append(_sound(score, memory, note, frame, upcoming))
            upcoming += 1
            if upcoming % 4 == 0:  # so that a cancellation never waits for a whole chunk of long notes
                yield _RENDER_SHARE * (start / score.frames)
        _lay(song, room, sounding, start, style.reverb, pump)
        sounding = [s for s in sounding if s.start + s.wave.shape[1] > start + HOP]
        yield _RENDER_SHARE * min(1.0, (start + HOP) / score.frames)
    fade = min(2.5, 0.18 * score.frames / SAMPLE_RATE)
    for done in master(song, loudness_lufs=style.genre.loudness_lufs, fade_seconds=fade):
        yield _RENDER_SHARE + (1.0 - _RENDER_SHARE) * done
    yield song


def _frame(score: Score, note: Note) -> int:
    return max(0, round((score.seconds(note.start_beat) + note.late_seconds) * SAMPLE_RATE))


def _kick_times(score: Score) -> list[float]:
    return [score.seconds(n.start_beat) + n.late_seconds for n in score.notes if n.instrument == "kick"]


def _sound(score: Score, memory: SoundMemory, note: Note, frame: int, take: int) -> _Sounding:
    channel = CHANNELS[note.part]
    left_over = max(0.05, (score.frames - frame) / SAMPLE_RATE - _TAIL_SECONDS)
    wave = memory.wave(note, min(note.beats * score.style.beat_seconds, left_over), take)
    gain = note.velocity**1.4 * 10.0 ** (channel.gain_db / 20.0)
    place = max(-1.0, min(1.0, channel.pan + note.pan))
    timbre = TIMBRES.get(note.instrument)
    return _Sounding(
        wave=wave,
        start=frame,
        part=note.part,
        left=gain * min(1.0, 1.0 - place) ** 0.5,
        right=gain * min(1.0, 1.0 + place) ** 0.5,
        echo=timbre.echo if timbre and note.part is not Part.CHORDS else 0.0,
    )


def _lay(
    song: Tensor, room: Room, sounding: list[_Sounding], start: int, reverb: float, pump: list[float]
) -> None:
    """Mix what sounds in [start, start + HOP) and add it, with the room's answer, to the song."""
    parts: dict[Part, Tensor] = {}
    echo = torch.zeros(HOP)
    for sound in sounding:
        buffer = parts.setdefault(sound.part, torch.zeros(2, HOP))
        first = max(0, sound.start - start)
        skip = max(0, start - sound.start)
        count = min(HOP - first, sound.wave.shape[1] - skip)
        left, right = sound.wave[0], sound.wave[-1]
        buffer[0, first : first + count].add_(left[skip : skip + count], alpha=sound.left)
        buffer[1, first : first + count].add_(right[skip : skip + count], alpha=sound.right)
        if sound.echo:
            echo[first : first + count].add_(
                left[skip : skip + count], alpha=(sound.left + sound.right) / 2 * sound.echo
            )
    dry, send = torch.zeros(2, HOP), torch.zeros(HOP)
    dip = _pump(pump, start) if pump else None
    for part, buffer in parts.items():
        channel = CHANNELS[part]
        if dip is not None and channel.duck:
            buffer.mul_(1.0 - channel.duck * dip)
        dry += buffer
        send.add_(buffer.sum(0), alpha=channel.reverb * (0.35 + reverb) / 2)
    wet = room.place(dry, send, echo)
    end = min(song.shape[1], start + wet.shape[1])
    song[:, start:end] += wet[:, : end - start]


def _pump(kicks: list[float], start: int) -> Tensor:
    """How far each frame is pushed down, [HOP], 0 to 1: at once, and back in a quarter second."""
    time = (torch.arange(HOP, dtype=torch.float64) + start) / SAMPLE_RATE
    dip = torch.zeros(HOP)
    for kick in kicks:
        since = float(kick)
        if time[0] - 0.5 < since < time[-1]:
            after = (time - since).float()
            dip = torch.maximum(dip, torch.exp(-after / 0.09) * torch.clamp(after / 0.004, 0.0, 1.0))
    return dip
