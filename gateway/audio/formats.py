"""Which audio files can be ordered: formats, their settings, and the tables that say what is legal.

The tables follow what the encoders make exactly. LAME snaps any other bitrate to a neighbour without a
word, and Vorbis refuses outside its managed range, so a wish is checked here and never passed on in hope.
"""

import functools
from bisect import bisect
from enum import StrEnum

import msgspec

from gateway.audio.errors import UnsupportedEncoding


class AudioFormat(StrEnum):
    FLAC = "flac"
    WAV = "wav"
    MP3 = "mp3"
    OGG = "ogg"


CONTENT_TYPES = {
    AudioFormat.FLAC: "audio/flac",
    AudioFormat.WAV: "audio/wav",
    AudioFormat.MP3: "audio/mpeg",
    AudioFormat.OGG: "audio/ogg",
}

MASTER_SAMPLE_RATE = 48_000
MASTER_CHANNELS = 2
MASTER_BITS = 24

_MP3_LOW = (8, 16, 24, 32, 40, 48, 56, 64)
_MP3_MIDDLE = (*_MP3_LOW, 80, 96, 112, 128, 144, 160)
_MP3_HIGH = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)

MP3_BITRATES_KBPS: dict[int, tuple[int, ...]] = {
    8_000: _MP3_LOW,
    11_025: _MP3_LOW,
    12_000: _MP3_LOW,
    16_000: _MP3_MIDDLE,
    22_050: _MP3_MIDDLE,
    24_000: _MP3_MIDDLE,
    32_000: _MP3_HIGH,
    44_100: _MP3_HIGH,
    48_000: _MP3_HIGH,
}
"""Constant bitrates by sample rate; the same for one and two channels."""

OGG_BITRATES_KBPS: dict[int, dict[int, tuple[int, int]]] = {
    8_000: {1: (8, 40), 2: (16, 80)},
    12_000: {1: (16, 48), 2: (16, 96)},
    16_000: {1: (16, 96), 2: (24, 192)},
    24_000: {1: (16, 80), 2: (32, 160)},
    48_000: {1: (32, 224), 2: (48, 256)},
}
"""Lowest and highest bitrate by sample rate and channels; every whole number between them is legal."""

_DEFAULT_KBPS_PER_CHANNEL = {AudioFormat.MP3: 96, AudioFormat.OGG: 80}


class AudioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The client's wishes for a lossy file; None leaves the choice to us."""

    bitrate: int | None = None
    """kbit/s"""
    channels: int | None = None
    sample_rate: int | None = None
    """Hz"""


class Encoding(msgspec.Struct, frozen=True, kw_only=True):
    """One file to make, nothing left open."""

    format: AudioFormat
    sample_rate: int
    channels: int
    bitrate_kbps: int | None
    """None: lossless."""
    bits_per_sample: int | None
    """None: lossy."""


MASTER = Encoding(
    format=AudioFormat.FLAC,
    sample_rate=MASTER_SAMPLE_RATE,
    channels=MASTER_CHANNELS,
    bitrate_kbps=None,
    bits_per_sample=MASTER_BITS,
)
# 16 bits, although the master has 24: above 16 a WAV header must be WAVE_FORMAT_EXTENSIBLE, which simple
# readers refuse (Python's own `wave` before 3.12). Whoever wants each bit takes FLAC, whoever takes WAV wants
# it to play.
_WAV = msgspec.structs.replace(MASTER, format=AudioFormat.WAV, bits_per_sample=16)


@functools.lru_cache(maxsize=512)
def resolve_encoding(audio_format: AudioFormat, settings: AudioSettings | None) -> Encoding:
    """The file that these wishes order.

    Raises:
        UnsupportedEncoding: it cannot be made; names the field and the nearest values that can.
    """
    wishes = settings or AudioSettings()
    if audio_format in {AudioFormat.FLAC, AudioFormat.WAV}:
        if wishes != AudioSettings():
            message = f"audio_settings goes with mp3 and ogg; {audio_format} is always 48000 Hz stereo"
            raise UnsupportedEncoding("audio_settings", message)
        return MASTER if audio_format is AudioFormat.FLAC else _WAV
    rates = tuple(MP3_BITRATES_KBPS if audio_format is AudioFormat.MP3 else OGG_BITRATES_KBPS)
    rate = _one_of("sample_rate", wishes.sample_rate, rates, MASTER_SAMPLE_RATE, f"{audio_format} in Hz")
    channels = _one_of("channels", wishes.channels, (1, 2), MASTER_CHANNELS, f"{audio_format}")
    return Encoding(
        format=audio_format,
        sample_rate=rate,
        channels=channels,
        bitrate_kbps=_bitrate(audio_format, rate, channels, wishes.bitrate),
        bits_per_sample=None,
    )


def legal_bitrates_kbps(audio_format: AudioFormat, *, sample_rate: int, channels: int) -> tuple[int, ...]:
    """Every legal bitrate of a lossy format, ascending; KeyError for a rate or channels that it has not."""
    if audio_format is AudioFormat.MP3:
        return MP3_BITRATES_KBPS[sample_rate]
    low, high = OGG_BITRATES_KBPS[sample_rate][channels]
    return tuple(range(low, high + 1))


def _bitrate(audio_format: AudioFormat, sample_rate: int, channels: int, wish: int | None) -> int:
    legal = legal_bitrates_kbps(audio_format, sample_rate=sample_rate, channels=channels)
    wanted = _DEFAULT_KBPS_PER_CHANNEL[audio_format] * channels
    default = max((kbps for kbps in legal if kbps <= wanted), default=legal[0])
    kind = f"{audio_format} at {sample_rate} Hz with {channels} channel{'s'[: channels - 1]} in kbit/s"
    return _one_of("bitrate", wish, legal, default, kind)


def _one_of(field: str, wish: int | None, legal: tuple[int, ...], default: int, kind: str) -> int:
    if wish is None:
        return default
    if wish in legal:
        return wish
    whole_range = len(legal) > 2 and legal == tuple(range(legal[0], legal[-1] + 1))
    nearest = _nearest(wish, legal, whole_range=whole_range)
    choice = f"{legal[0]} to {legal[-1]}" if whole_range else ", ".join(map(str, legal))
    hint = " or ".join(map(str, nearest))
    message = f"audio_settings.{field}={wish} is not offered for {kind}: {choice}. Nearest: {hint}"
    raise UnsupportedEncoding(f"audio_settings.{field}", message, nearest)


def _nearest(wish: int, legal: tuple[int, ...], *, whole_range: bool) -> tuple[int, ...]:
    """The neighbours on both sides; beyond an end the last two, of a range of all whole numbers the end."""
    if whole_range:
        return (min(max(wish, legal[0]), legal[-1]),)
    place = min(max(bisect(legal, wish), 1), len(legal) - 1)
    return legal[place - 1 : place + 1]
