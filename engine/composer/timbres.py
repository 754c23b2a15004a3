"""What each instrument sounds like, as numbers for `tone`; drums are in `drumkit`."""

# ruff: noqa: E501 - a table reads better wide than long

import msgspec


class Timbre(msgspec.Struct, frozen=True, kw_only=True):
    """One instrument. A note is one cycle of a waveform read at its pitch, fading from a bright to a dark version.

    Instruments that are struck and not in tune with themselves have `modes` instead.
    """

    shape: str = "saw"
    """Harmonics: saw, square, triangle, hollow, pluck, organ, voice, reed, power."""
    bright_hz: float = 4000.0
    """Low-pass of the attack."""
    dark_hz: float = 2000.0
    """Low-pass of the sustain."""
    dark_seconds: float = 0.3
    """How fast the brightness falls (negative: how fast it opens)."""
    attack: float = 0.01
    """Seconds."""
    decay: float = 0.0
    """Seconds to fall by 60 dB at middle C, shorter above; 0: sustained."""
    sustain: float = 0.8
    """Level of a sustained note after its attack."""
    release: float = 0.12
    """Seconds."""
    unison: int = 1
    """Voices per channel."""
    detune_cents: float = 0.0
    stereo: bool = False
    vibrato_cents: float = 0.0
    vibrato_hz: float = 5.3
    breath: float = 0.0
    """Noise, relative to the tone."""
    drive: float = 0.0
    """Saturation of the waveform before filtering."""
    modes: tuple[tuple[float, float, float], ...] = ()
    """Frequency ratio, level, seconds to fall by 60 dB."""
    gain_db: float = 0.0
    echo: float = 0.0
    """How much goes to the echo."""


TIMBRES: dict[str, Timbre] = {
    "piano": Timbre(shape="pluck", bright_hz=3600, dark_hz=900, dark_seconds=0.5, attack=0.003, decay=5.0, release=0.25, unison=2, detune_cents=0.8, stereo=True, gain_db=3.0),
    "epiano": Timbre(modes=((1, 1, 5.0), (2, 0.22, 3.0), (3, 0.10, 2.0), (4, 0.05, 1.4), (7.02, 0.05, 0.25), (13.9, 0.035, 0.12)), attack=0.003, release=0.2, gain_db=2.5, echo=0.05),
    "organ": Timbre(shape="organ", bright_hz=4200, dark_hz=4200, attack=0.012, sustain=1.0, release=0.06, vibrato_cents=6, vibrato_hz=6.4, stereo=True, detune_cents=2.0, gain_db=-3.0),
    "accordion": Timbre(shape="reed", bright_hz=3800, dark_hz=3200, attack=0.05, sustain=0.9, release=0.09, unison=2, detune_cents=7, gain_db=-2.5),
    "harmonica": Timbre(shape="reed", bright_hz=3600, dark_hz=2800, attack=0.04, sustain=0.85, release=0.08, vibrato_cents=22, breath=0.03),
    "acoustic_guitar": Timbre(shape="pluck", bright_hz=5200, dark_hz=1100, dark_seconds=0.16, attack=0.002, decay=2.8, release=0.18, gain_db=3.5),
    "nylon_guitar": Timbre(shape="pluck", bright_hz=2600, dark_hz=800, dark_seconds=0.2, attack=0.003, decay=2.4, release=0.16, gain_db=4.0),
    "electric_guitar": Timbre(shape="pluck", bright_hz=3400, dark_hz=1700, dark_seconds=0.35, attack=0.003, decay=4.0, release=0.12, drive=1.2, vibrato_cents=5, gain_db=1.0, echo=0.12),
    "power_guitar": Timbre(shape="power", bright_hz=3400, dark_hz=2500, dark_seconds=0.5, attack=0.004, decay=9.0, release=0.06, drive=6.0, stereo=True, unison=1, detune_cents=9, gain_db=3.0),
    "strings": Timbre(shape="saw", bright_hz=2600, dark_hz=2200, attack=0.075, sustain=0.9, release=0.3, unison=2, detune_cents=9, stereo=True, vibrato_cents=5, gain_db=-1.0),
    "violin": Timbre(shape="saw", bright_hz=3400, dark_hz=2900, attack=0.045, sustain=0.9, release=0.14, vibrato_cents=15, vibrato_hz=5.8, breath=0.015),
    "cello": Timbre(shape="saw", bright_hz=1500, dark_hz=1100, attack=0.07, sustain=0.9, release=0.18, vibrato_cents=14, breath=0.01),
    "choir": Timbre(shape="voice", bright_hz=3000, dark_hz=2500, attack=0.18, sustain=0.95, release=0.4, unison=2, detune_cents=13, stereo=True, vibrato_cents=14, breath=0.03, gain_db=-1.0),
    "voice": Timbre(shape="voice", bright_hz=3800, dark_hz=3300, attack=0.045, sustain=0.9, release=0.11, vibrato_cents=24, vibrato_hz=5.5, breath=0.03, gain_db=1.5, echo=0.10),
    "warm_pad": Timbre(shape="saw", bright_hz=700, dark_hz=1300, dark_seconds=1.2, attack=0.22, sustain=0.95, release=0.6, unison=2, detune_cents=9, stereo=True),
    "supersaw": Timbre(shape="saw", bright_hz=4600, dark_hz=2600, dark_seconds=0.4, attack=0.008, sustain=0.85, release=0.14, unison=3, detune_cents=16, stereo=True, gain_db=-1.5),
    "saw_lead": Timbre(shape="saw", bright_hz=4600, dark_hz=3000, attack=0.008, sustain=0.85, release=0.1, unison=2, detune_cents=8, vibrato_cents=12, gain_db=-0.5, echo=0.22),
    "square_lead": Timbre(shape="square", bright_hz=4200, dark_hz=2600, attack=0.006, sustain=0.8, release=0.08, vibrato_cents=12, gain_db=-1.0, echo=0.2),
    "pluck": Timbre(shape="saw", bright_hz=5200, dark_hz=500, dark_seconds=0.09, attack=0.002, decay=1.1, release=0.08, unison=2, detune_cents=6, stereo=True, gain_db=3.0, echo=0.25),
    "flute": Timbre(shape="hollow", bright_hz=2600, dark_hz=2200, attack=0.05, sustain=0.95, release=0.1, vibrato_cents=14, breath=0.06, gain_db=1.0, echo=0.08),
    "clarinet": Timbre(shape="square", bright_hz=2200, dark_hz=1900, attack=0.04, sustain=0.95, release=0.09, vibrato_cents=6, breath=0.02),
    "sax": Timbre(shape="reed", bright_hz=2800, dark_hz=2300, attack=0.035, sustain=0.9, release=0.1, vibrato_cents=20, breath=0.04, drive=0.8),
    "trumpet": Timbre(shape="reed", bright_hz=1400, dark_hz=3200, dark_seconds=0.06, attack=0.03, sustain=0.9, release=0.08, vibrato_cents=12),
    "brass": Timbre(shape="saw", bright_hz=900, dark_hz=2600, dark_seconds=0.08, attack=0.035, sustain=0.9, release=0.12, unison=2, detune_cents=7, stereo=True, vibrato_cents=6),
    "bells": Timbre(modes=((1, 1, 3.2), (2.0, 0.35, 2.0), (4.01, 0.22, 0.9), (6.1, 0.06, 0.3), (8.05, 0.05, 0.2)), attack=0.002, release=0.5, gain_db=1.5, echo=0.2),
    "vibes": Timbre(modes=((1, 1, 4.0), (3.98, 0.16, 1.2), (9.9, 0.04, 0.25)), attack=0.003, release=0.4, gain_db=2.0, echo=0.1),
    "marimba": Timbre(modes=((1, 1, 1.1), (3.92, 0.25, 0.35), (9.24, 0.08, 0.12)), attack=0.002, release=0.2, gain_db=4.0),
    "harp": Timbre(shape="pluck", bright_hz=2800, dark_hz=700, dark_seconds=0.25, attack=0.003, decay=3.2, release=0.5, gain_db=4.0),
    "finger_bass": Timbre(shape="pluck", bright_hz=1300, dark_hz=350, dark_seconds=0.2, attack=0.006, decay=5.0, release=0.08, gain_db=2.0),
    "upright_bass": Timbre(shape="pluck", bright_hz=900, dark_hz=260, dark_seconds=0.12, attack=0.008, decay=3.2, release=0.1, gain_db=3.0),
    "synth_bass": Timbre(shape="saw", bright_hz=1500, dark_hz=320, dark_seconds=0.12, attack=0.004, sustain=0.85, release=0.05, drive=0.8, gain_db=-2.0),
    "sub_bass": Timbre(shape="triangle", bright_hz=700, dark_hz=320, dark_seconds=0.25, attack=0.006, decay=9.0, release=0.1, drive=2.2, gain_db=-1.0),
}  # fmt: skip

# Four formants in Hz with their levels, for an adult singing voice (values as given in phonetics textbooks).
FORMANTS: dict[str, tuple[tuple[float, float], ...]] = {
    "a": ((780, 1.0), (1180, 0.5), (2700, 0.20), (3500, 0.10)),
    "e": ((460, 1.0), (1850, 0.35), (2550, 0.20), (3500, 0.10)),
    "i": ((320, 1.0), (2150, 0.25), (2900, 0.20), (3500, 0.10)),
    "o": ((480, 1.0), (830, 0.5), (2600, 0.12), (3400, 0.07)),
    "u": ((350, 1.0), (720, 0.35), (2500, 0.08), (3300, 0.05)),
}
