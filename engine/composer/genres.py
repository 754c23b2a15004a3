"""How each kind of music is usually played: one row per genre."""

# ruff: noqa: E501 - a table reads better wide than long

import msgspec


class Genre(msgspec.Struct, frozen=True, kw_only=True):
    """How one kind of music is usually played. Instruments are listed as alternatives to draw from."""

    name: str
    bpm: tuple[int, int] = (90, 124)
    minor: float = 0.3
    """Chance of a minor key."""
    time_signature: int = 4
    drums: bool = True
    groove: str = "pop"
    """A row of `groove.GROOVES`."""
    comp: str = "eighths"
    """How the chord instrument plays: a rule of `accompany.COMPS`."""
    bassline: str = "eighths"
    """A rule of `accompany.BASSLINES`."""
    harmony: str = "pop"
    """A row of `harmony.PROGRESSIONS`."""
    chords: tuple[str, ...] = ("piano", "acoustic_guitar", "epiano")
    lead: tuple[str, ...] = ("square_lead", "flute", "electric_guitar", "bells")
    pad: tuple[str, ...] = ("warm_pad", "strings")
    bass: tuple[str, ...] = ("finger_bass",)
    arp: tuple[str, ...] = ("pluck", "acoustic_guitar")
    swing: float = 0.0
    """How late the second half of a beat's half comes, as a part of it; 0.33 is triplet swing."""
    loose_seconds: float = 0.006
    """Standard deviation of human timing."""
    brightness: float = 1.0
    reverb: float = 0.4
    loudness_lufs: float = -13.5
    dance: bool = False
    """Builds and drops, pumping pads, a four-bar sense of form."""


_ROWS = (
    Genre(name="pop", bpm=(96, 124)),
    Genre(
        name="rock", bpm=(104, 144), groove="rock", comp="power", chords=("power_guitar",), harmony="rock",
        lead=("electric_guitar", "saw_lead"), pad=("organ",), arp=("electric_guitar",), reverb=0.3, minor=0.4,
        loudness_lufs=-12.5,
    ),
    Genre(
        name="metal", bpm=(120, 176), groove="metal", comp="chug", chords=("power_guitar",), harmony="dark",
        lead=("saw_lead",), pad=("choir",), arp=(), reverb=0.25, minor=0.95, bassline="chug", loudness_lufs=-12.5,
    ),
    Genre(
        name="lofi", bpm=(70, 88), groove="lofi", comp="ballad", chords=("epiano",), harmony="jazz", swing=0.2,
        lead=("vibes", "piano", "electric_guitar"), pad=("warm_pad",), arp=("nylon_guitar",), brightness=0.72,
        bass=("upright_bass", "sub_bass"), bassline="held", loose_seconds=0.011, minor=0.5, loudness_lufs=-15.0,
    ),
    Genre(
        name="hiphop", bpm=(82, 98), groove="hiphop", comp="stab", chords=("epiano", "piano"), harmony="dark",
        lead=("bells", "flute", "strings"), bass=("sub_bass",), bassline="kick", swing=0.14, minor=0.8, reverb=0.3,
    ),
    Genre(
        name="trap", bpm=(130, 150), groove="trap", comp="held", chords=("bells", "piano"), harmony="dark",
        lead=("flute", "bells", "square_lead"), bass=("sub_bass",), bassline="kick", minor=0.9, reverb=0.45,
        loose_seconds=0.003, dance=True,
    ),
    Genre(
        name="house", bpm=(120, 127), groove="house", comp="stab", chords=("piano", "organ", "supersaw"),
        lead=("pluck", "saw_lead"), arp=("pluck",), bassline="offbeat", minor=0.5, harmony="dance", dance=True, loose_seconds=0.002, loudness_lufs=-12.5, bass=("synth_bass",),
    ),
    Genre(
        name="techno", bpm=(126, 138), groove="techno", comp="stab", chords=("pluck", "supersaw"), harmony="drone",
        lead=("square_lead", "pluck"), arp=("pluck",), bassline="rolling", minor=0.95, dance=True, loose_seconds=0.002, loudness_lufs=-12.5, bass=("synth_bass",), brightness=0.85,
    ),
    Genre(
        name="trance", bpm=(130, 140), groove="techno", comp="held", chords=("supersaw",), harmony="dance",
        lead=("saw_lead", "supersaw"), arp=("pluck",), bassline="offbeat", minor=0.8, dance=True, loose_seconds=0.002, loudness_lufs=-12.5, bass=("synth_bass",), reverb=0.6,
    ),
    Genre(
        name="drum_and_bass", bpm=(168, 176), groove="breaks", comp="held", chords=("epiano", "warm_pad"),
        lead=("square_lead", "flute"), arp=("pluck",), bassline="held", minor=0.8, harmony="dance", dance=True, loose_seconds=0.002, loudness_lufs=-12.5, bass=("synth_bass",),
    ),
    Genre(
        name="synthwave", bpm=(84, 112), groove="eighties", comp="held", chords=("supersaw", "warm_pad"),
        lead=("saw_lead",), arp=("pluck",), bassline="rolling", minor=0.75, harmony="dance", reverb=0.6,
        bass=("synth_bass",), loose_seconds=0.002, dance=True,
    ),
    Genre(
        name="ambient", bpm=(60, 84), drums=False, groove="sparse", comp="held", chords=("warm_pad", "epiano"),
        lead=("bells", "flute", "vibes"), pad=("choir", "strings", "warm_pad"), bass=("sub_bass",), arp=("harp", "bells"),
        bassline="held", harmony="modal", reverb=0.95, brightness=0.8, loudness_lufs=-15.0, loose_seconds=0.008,
    ),
    Genre(
        name="jazz", bpm=(104, 152), groove="jazz", comp="charleston", chords=("piano", "electric_guitar"),
        lead=("sax", "trumpet", "vibes"), pad=(), bass=("upright_bass",), arp=(), bassline="walking", swing=0.3,
        harmony="jazz", loose_seconds=0.009, brightness=0.9, loudness_lufs=-14.5,
    ),
    Genre(
        name="blues", bpm=(72, 112), groove="shuffle", comp="eighths", chords=("electric_guitar", "piano"),
        lead=("harmonica", "electric_guitar", "sax"), pad=("organ",), bassline="walking", swing=0.3, harmony="blues",
        arp=(), minor=0.15, loudness_lufs=-15.0,
    ),
    Genre(
        name="classical", bpm=(72, 112), drums=False, groove="sparse", comp="arpeggio", chords=("piano", "harp"),
        lead=("violin", "flute", "clarinet"), pad=("strings",), bass=("cello",), arp=("harp",), bassline="held",
        harmony="classical", reverb=0.65, brightness=0.92, loudness_lufs=-15.0, loose_seconds=0.006,
    ),
    Genre(
        name="cinematic", bpm=(76, 108), groove="cinematic", comp="ostinato", chords=("strings",), harmony="epic",
        lead=("brass", "violin", "choir"), pad=("choir", "strings"), bass=("cello",), arp=("strings",), bassline="held",
        minor=0.8, reverb=0.75, loudness_lufs=-14.5,
    ),
    Genre(
        name="folk", bpm=(84, 116), groove="folk", comp="strum", chords=("acoustic_guitar",), harmony="folk",
        lead=("flute", "violin", "harmonica", "accordion"), pad=("strings",), bass=("upright_bass",), arp=("nylon_guitar",),
        bassline="rootfifth", minor=0.2, loudness_lufs=-15.0, loose_seconds=0.009,
    ),
    Genre(
        name="country", bpm=(96, 128), groove="train", comp="strum", chords=("acoustic_guitar",), harmony="folk",
        lead=("electric_guitar", "violin", "harmonica"), pad=("organ",), arp=("acoustic_guitar",), bassline="rootfifth",
        minor=0.05,
    ),
    Genre(
        name="waltz", bpm=(96, 160), time_signature=3, drums=False, groove="folk", comp="waltz", harmony="classical",
        chords=("piano", "accordion"), lead=("violin", "accordion", "clarinet"), pad=("strings",), bass=("upright_bass",),
        arp=("harp",), bassline="held", reverb=0.55, loudness_lufs=-14.5, loose_seconds=0.006,
    ),
    Genre(
        name="reggae", bpm=(70, 92), groove="reggae", comp="skank", chords=("electric_guitar", "organ"), harmony="folk",
        lead=("brass", "harmonica", "organ"), pad=("organ",), arp=(), bassline="dub", swing=0.12, minor=0.4,
    ),
    Genre(
        name="funk", bpm=(98, 116), groove="funk", comp="funk", chords=("electric_guitar", "epiano"), harmony="funk",
        lead=("brass", "sax", "square_lead"), arp=(), bassline="funk", minor=0.6, reverb=0.25, swing=0.06,
    ),
    Genre(
        name="disco", bpm=(112, 124), groove="disco", comp="funk", chords=("electric_guitar", "piano"), harmony="dance",
        lead=("strings", "brass"), pad=("strings",), bassline="octaves", minor=0.6, arp=("pluck",),
    ),
    Genre(
        name="soul", bpm=(66, 96), groove="soul", comp="ballad", chords=("epiano", "organ"), harmony="jazz",
        lead=("sax", "trumpet", "electric_guitar"), bassline="dub", swing=0.12, minor=0.35, loose_seconds=0.006,
    ),
    Genre(
        name="latin", bpm=(112, 140), groove="bossa", comp="bossa", chords=("nylon_guitar", "piano"), harmony="jazz",
        lead=("flute", "trumpet", "accordion"), pad=("strings",), bass=("upright_bass",), bassline="rootfifth", minor=0.5,
        arp=("nylon_guitar",), loudness_lufs=-15.0,
    ),
    Genre(
        name="chiptune", bpm=(120, 160), groove="eighties", comp="arpeggio", chords=("square_lead",), harmony="pop",
        lead=("square_lead",), pad=(), bass=("synth_bass",), arp=("pluck",), bassline="octaves", loose_seconds=0.0,
        reverb=0.2,
    ),
    Genre(
        name="ballad", bpm=(62, 80), groove="soul", comp="ballad", chords=("piano",), lead=("violin", "flute"), pad=("strings",),
        bassline="held", reverb=0.6, loudness_lufs=-15.0, loose_seconds=0.006,
    ),
)  # fmt: skip
GENRES = {row.name: row for row in _ROWS}
DEFAULT_GENRE = "pop"
