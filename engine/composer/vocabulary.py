"""The words of a prompt and what they stand for: genres, moods, instruments. Patterns match lower case."""

# ruff: noqa: E501 - a table reads better wide than long

import msgspec

GENRE_WORDS = {
    "lofi": r"lo-?fi|lo fi|chillhop|chill ?beats?|study beats?",
    "trap": r"trap|drill|phonk",
    "hiphop": r"hip[ -]?hop|rap|boom[ -]?bap",
    "drum_and_bass": r"drum (?:and|&|n|'n'?) bass|dnb|d&b|jungle|breakcore",
    "metal": r"(?:\w+ )?metal|djent|metalcore|hardcore",
    "rock": r"(?:\w+ )?rock|punk|grunge|indie|rock ?n ?roll|britpop|shoegaze",
    "techno": r"techno|industrial|electro|minimal|acid",
    "trance": r"trance|psytrance|hardstyle|eurodance|rave",
    "house": r"(?:deep |tech |tropical )?house|edm|garage|dance|electronic|club|future bass|dubstep",
    "synthwave": r"synth-?wave|retro-?wave|vaporwave|outrun|synth-?pop|80s|new wave|darkwave",
    "ambient": r"ambient|drone|new age|meditation|meditative|soundscape|atmospheric|spa",
    "jazz": r"(?:\w+ )?jazz|swing|bebop|big band|ragtime|lounge",
    "blues": r"blues|bluesy",
    "waltz": r"waltz|musette",
    "classical": r"classical|baroque|romantic era|orchestra|orchestral|sonata|chamber|string quartet|nocturne|piano solo|solo piano",
    "cinematic": r"cinematic|film score|soundtrack|epic|trailer|score",
    "country": r"country|bluegrass|americana|western",
    "folk": r"folk|celtic|irish|singer-songwriter|acoustic|shanty|medieval|campfire|indie folk",
    "reggae": r"reggae|dub|ska|dancehall|reggaeton",
    "disco": r"disco|nu-disco|french house",
    "funk": r"funk|funky",
    "soul": r"soul|r ?& ?b|rnb|motown|neo-?soul|gospel",
    "latin": r"latin|bossa(?: nova)?|samba|salsa|tango|mambo|flamenco|mariachi|cumbia|bolero|calypso|afrobeat",
    "chiptune": r"chip-?tune|8-?bit|video game|arcade|nes",
    "ballad": r"ballad|lullaby|love song|torch song",
    "pop": r"(?:\w+-?)?pop|jingle|anthem|hyperpop",
}


class Mood(msgspec.Struct, frozen=True, kw_only=True):
    """How a word of feeling bends a genre; every number is added to the genre's own."""

    words: str
    minor: float = 0.0
    energy: float = 0.0
    tempo: float = 0.0
    """In parts of the genre's range of tempos."""
    brightness: float = 0.0
    reverb: float = 0.0


MOODS = (
    Mood(words="happy|joyful|cheerful|uplifting|sunny|fun|playful|bright|positive|festive", minor=-0.8, tempo=0.2, brightness=0.1),
    Mood(words="sad|melanchol\\w*|heartbreak\\w*|sorrow\\w*|lonely|mournful|wistful|tragic", minor=0.8, energy=-0.1, tempo=-0.3, brightness=-0.1),
    Mood(words="dark|ominous|scary|horror|sinister|gothic|brooding|menacing|tense", minor=0.9, brightness=-0.2),
    Mood(words="calm|peaceful|relax\\w*|gentle|soft|quiet|soothing|mellow|chill|tender|sleep\\w*", energy=-0.2, tempo=-0.3, brightness=-0.12),
    Mood(words="energetic|upbeat|driving|powerful|intense|hype|aggressive|fast|exciting|party", energy=0.15, tempo=0.35, brightness=0.08),
    Mood(words="epic|heroic|triumphant|majestic|grand|anthemic|massive", energy=0.15, reverb=0.2),
    Mood(words="dreamy|ethereal|floating|hazy|nostalgic|spacey|cosmic|magical", energy=-0.08, reverb=0.3, brightness=-0.05),
    Mood(words="romantic|warm|intimate|cozy|sensual", brightness=-0.1, energy=-0.05, minor=-0.1),
    Mood(words="angry|furious|raw|brutal", minor=0.6, energy=0.2, brightness=0.1),
    Mood(words="mysterious|eerie|haunting|mystic\\w*", minor=0.7, reverb=0.2, energy=-0.05),
)  # fmt: skip


class Instrument(msgspec.Struct, frozen=True):
    """The words for an instrument and the roles it can take."""

    words: str
    roles: tuple[str, ...]


_KEYS = ("chords", "lead", "arp")
_SOLO = ("lead",)
INSTRUMENT_WORDS = {
    "epiano": Instrument(r"electric piano|e-?piano|rhodes|wurlitzer|keys|keyboards?", ("chords", "lead")),
    "piano": Instrument(r"(?<!electric )piano|pianos", _KEYS),
    "nylon_guitar": Instrument(r"nylon guitar|classical guitar|spanish guitar|ukulele|lute", _KEYS),
    "power_guitar": Instrument(r"distorted guitars?|distortion|power chords|heavy guitars?|overdriven guitars?", ("chords",)),
    "electric_guitar": Instrument(r"electric guitars?|clean guitar|guitar solo", _KEYS),
    "acoustic_guitar": Instrument(r"(?<!electric )(?<!distorted )(?<!heavy )guitars?|banjo|mandolin", _KEYS),
    "strings": Instrument(r"strings?(?: section)?|orchestra|string quartet|violins", ("pad", "chords", "lead")),
    "violin": Instrument(r"violin|fiddle|viola", _SOLO),
    "cello": Instrument(r"cello|cellos", ("lead", "bass")),
    "choir": Instrument(r"choir|choral|chants?", ("pad",)),
    "warm_pad": Instrument(r"pads?|atmospheres?|synth pads?", ("pad", "chords")),
    "supersaw": Instrument(r"supersaws?|super saws?", ("chords", "lead")),
    "saw_lead": Instrument(r"synths?|synthesi[sz]ers?|synth leads?|lead synth|analog(?:ue)?", ("lead", "chords")),
    "square_lead": Instrument(r"square (?:wave|lead)|chip lead", _SOLO),
    "pluck": Instrument(r"plucks?|arp|arps|arpeggios?|arpeggiator|sequencer", ("arp", "lead")),
    "organ": Instrument(r"organ|hammond|b3", ("chords", "pad", "lead")),
    "accordion": Instrument(r"accordion|bandoneon|concertina", ("lead", "chords")),
    "harmonica": Instrument(r"harmonica", _SOLO),
    "flute": Instrument(r"flutes?|recorder|pan ?pipes?|whistle|shakuhachi|ocarina", _SOLO),
    "clarinet": Instrument(r"clarinet|oboe|woodwinds?|bassoon", _SOLO),
    "sax": Instrument(r"sax|saxophones?", _SOLO),
    "trumpet": Instrument(r"trumpets?|cornet|flugelhorn", _SOLO),
    "brass": Instrument(r"brass|horns?|trombones?|tuba|fanfare", ("lead", "chords")),
    "bells": Instrument(r"bells?|glockenspiel|music box|celesta|chimes?|kalimba|toy piano", ("lead", "arp")),
    "vibes": Instrument(r"vibes|vibraphone", ("lead", "arp", "chords")),
    "marimba": Instrument(r"marimba|xylophone|balafon", ("arp", "lead")),
    "harp": Instrument(r"harp|koto|sitar|dulcimer", ("arp", "lead", "chords")),
    "upright_bass": Instrument(r"double bass|upright bass|contrabass|acoustic bass", ("bass",)),
    "sub_bass": Instrument(r"808s?|sub[ -]?bass", ("bass",)),
    "synth_bass": Instrument(r"synth bass|acid bass|reese|wobble bass", ("bass",)),
    "finger_bass": Instrument(
        r"bass guitar|electric bass|slap bass|(?<!double )(?<!upright )(?<!sub )(?<!synth )(?<!and )(?<!n )(?<!& )bass", ("bass",)
    ),
}  # fmt: skip
