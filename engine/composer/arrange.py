"""From a request to a Score: who plays in which section, and how it all ends."""

import msgspec

from engine.composer.accompany import Voicings, arp, comp, pad, voice_chords
from engine.composer.bassline import bass
from engine.composer.form import plan_form
from engine.composer.groove import drum
from engine.composer.harmony import write_chords
from engine.composer.melody import Tune, center_of, chord_at, is_harmonized, sing
from engine.composer.score import ChordSpan, Note, Part, Score, Section, SectionKind
from engine.composer.style import Style, read_style
from engine.composer.theory import low_pitch
from engine.schema import SAMPLE_RATE, EngineRequest

K = SectionKind
_UNTUNED = {K.BUILD, K.BREAK}
_NO_BASS = {K.BREAK, K.INTRO}


class Harmony(msgspec.Struct, frozen=True, kw_only=True):
    """The chords of a song and how they are voiced, in two registers."""

    chords: tuple[ChordSpan, ...]
    middle: Voicings
    high: Voicings


def compose(request: EngineRequest) -> Score:
    """Write the song; pure and quick (milliseconds a minute), the same for the same request."""
    style = read_style(request)
    sections, end_beat = plan_form(style, request.lyrics, request.frames)
    chords = write_chords(style, sections, end_beat, request.seed)
    harmony = Harmony(
        chords=chords,
        middle=voice_chords(chords, low=52, high=72),
        high=voice_chords(chords, low=55, high=76),
    )
    notes: list[Note] = []
    for section in sections:
        notes += _section(style, section, harmony, request.seed)
    notes += drum(style, sections, end_beat, request.seed)
    notes += _ending(style, harmony, end_beat, request.frames / SAMPLE_RATE)
    return Score(
        style=style,
        frames=request.frames,
        sections=sections,
        chords=chords,
        notes=tuple(sorted(notes, key=lambda note: note.start_beat)),
        end_beat=end_beat,
    )


def _section(style: Style, section: Section, harmony: Harmony, seed: int) -> list[Note]:
    """Every layer that this section's energy calls for."""
    energy = section.energy
    notes: list[Note] = []
    chords, middle = harmony.chords, harmony.middle
    lonely = not style.drums and not style.pad and not style.bass
    if style.chords:
        notes += comp(style, section, chords, middle, seed)
    if style.bass and (energy >= 0.4 and section.kind not in _NO_BASS):
        notes += bass(style, section, chords, seed)
    if style.pad and (energy >= 0.6 or section.kind in {K.BREAK, K.BRIDGE, K.INTRO} or _is_washed(style)):
        notes += pad(style, section, chords, harmony.high)
    if style.arp and (
        energy >= 0.8 or section.kind is K.INSTRUMENTAL or (_is_washed(style) and energy > 0.4)
    ):
        notes += arp(style, section, chords, middle, seed)
    if lonely and energy >= 0.8:
        notes += arp(msgspec.structs.replace(style, arp=style.chords), section, chords, middle, seed)
    return notes + _melodies(style, section, chords, seed) + _sweeps(style, section)


def _is_washed(style: Style) -> bool:
    """Music without drums lives from its long notes."""
    return not style.drums


def _melodies(style: Style, section: Section, chords: tuple[ChordSpan, ...], seed: int) -> list[Note]:
    """The voice where there are words, the lead instrument elsewhere, and a second voice in choruses."""
    loud = 0.6 + 0.32 * section.energy
    sung = style.voice and bool(section.lines)
    if sung:
        tune = Tune(part=Part.VOICE, instrument="voice", center=59 if style.male else 67, velocity=loud)
    elif section.kind in _UNTUNED or (section.kind in {K.INTRO, K.OUTRO} and section.energy < 0.3):
        return []
    else:
        tune = Tune(part=Part.LEAD, instrument=style.lead, center=center_of(style.lead), velocity=loud)
    notes = sing(style, section, chords, tune, seed)
    if section.kind in {K.INTRO, K.OUTRO} and not sung:
        # Thin sections only hint at the tune: its long and strong notes.
        two_bars = 2 * style.beats_per_bar
        notes = [
            n for n in notes if n.start_beat % 1 < 1e-6 and n.start_beat % two_bars < style.beats_per_bar
        ]
    if is_harmonized(section):
        notes += [_third_below(chords, note) for note in notes]
    return notes


def _third_below(chords: tuple[ChordSpan, ...], note: Note) -> Note:
    """A second voice: the nearest tone of the chord at least a third under the tune."""
    tones = chord_at(chords, note.start_beat).chord.tones
    pitch = next((p for p in range(note.pitch - 3, note.pitch - 10, -1) if p % 12 in tones), note.pitch - 12)
    return Note(
        part=Part.COUNTER,
        instrument=note.instrument,
        start_beat=note.start_beat,
        beats=note.beats,
        velocity=0.55 * note.velocity,
        pitch=pitch,
        vowel=note.vowel,
        pan=0.45,
        late_seconds=note.late_seconds + 0.012,
    )


def _sweeps(style: Style, section: Section) -> list[Note]:
    """Dance music announces its drops with rising noise."""
    if section.kind is not K.BUILD or not style.genre.dance:
        return []
    beats = min(section.beats, 8.0 / style.beat_seconds)
    start = section.end_beat - beats
    return [Note(part=Part.EFFECTS, instrument="riser", start_beat=start, beats=beats, velocity=0.6)]


def _ending(style: Style, harmony: Harmony, end_beat: float, seconds: float) -> list[Note]:
    """The last chord: everybody strikes it once and lets it ring until the song's end."""
    final = harmony.chords[-1]
    beats = max(0.1, (seconds - style.lead_in_seconds) / style.beat_seconds - end_beat)
    notes: list[Note] = []
    layers = [(Part.CHORDS, style.chords, harmony.middle, 0.75), (Part.PAD, style.pad, harmony.high, 0.6)]
    for part, instrument, voicings, velocity in layers:
        if instrument:
            pitches = voicings[final.start_beat]
            pitches = (low_pitch(final.chord.root, 40),) if instrument == "power_guitar" else pitches
            notes += [
                _final(part, instrument, end_beat, beats, velocity, p, i) for i, p in enumerate(pitches)
            ]
    if style.bass:
        notes.append(_final(Part.BASS, style.bass, end_beat, beats, 0.75, low_pitch(final.chord.root, 28), 0))
    if not style.voice:
        pitch = style.key.pitch(0, center_of(style.lead))
        notes.append(
            _final(Part.LEAD, style.lead, end_beat, min(beats, 3 / style.beat_seconds), 0.7, pitch, 1)
        )
    return notes


def _final(
    part: Part, instrument: str, beat: float, beats: float, velocity: float, pitch: int, i: int
) -> Note:
    return Note(
        part=part,
        instrument=instrument,
        start_beat=beat,
        beats=beats,
        velocity=velocity,
        pitch=pitch,
        late_seconds=0.018 * i if part is Part.CHORDS else 0.0,
    )
