"""Length, rate, channels and bitrate as the stored file tells them itself: what is billed is what is on disk.

Small readers of the four containers we deliver, on purpose not from the family that wrote the file. WAV, MP3
and Ogg are walked to their end, so a file cut short is an error; FLAC tells its length in its head, which the
encoder fills in only after the last frame.
"""

import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.audio.errors import EncodeFailed
from gateway.audio.formats import AudioFormat
from gateway.audio.mp3 import read_mp3


class AudioFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A file's length in frames (samples per channel) after decoding, and how they are kept."""

    frames: int
    sample_rate: int
    channels: int
    bitrate_kbps: int | None = None
    """None: lossless, or not held at one bitrate."""


def read_facts(path: Path, audio_format: AudioFormat) -> AudioFacts:
    """Read a whole file's facts; EncodeFailed when it is no complete file of that format."""
    with path.open("rb") as file:
        try:
            return _READERS[audio_format](file)
        except (struct.error, IndexError, ZeroDivisionError) as error:
            raise EncodeFailed(f"no complete {audio_format} file: {error!r}") from error


def _read_flac(file: BinaryIO) -> AudioFacts:
    """RFC 9639: the STREAMINFO block comes first; 20 bits rate, 3 channels - 1, 5 depth - 1, 36 frames."""
    start = file.read(42)
    if len(start) < 42 or start[:4] != b"fLaC" or start[4] & 0x7F:
        raise EncodeFailed("no flac file")
    (packed,) = struct.unpack(">Q", start[18:26])
    frames = packed & 0xF_FFFF_FFFF
    if frames == 0:
        raise EncodeFailed("the flac file does not tell its length")
    return AudioFacts(frames=frames, sample_rate=packed >> 44, channels=(packed >> 41 & 7) + 1)


def _read_wav(file: BinaryIO) -> AudioFacts:
    """RIFF chunks: `fmt ` has the channels, rate and bytes per frame, `data` the rest."""
    if file.read(4) != b"RIFF" or file.read(8)[4:] != b"WAVE":
        raise EncodeFailed("no wav file")
    layout: tuple[int, int, int] | None = None
    while True:
        name, size = struct.unpack("<4sI", file.read(8))
        if name == b"fmt ":
            _, channels, rate, _, frame_bytes = struct.unpack("<HHIIH", file.read(size)[:14])
            layout = channels, rate, frame_bytes
        elif name == b"data" and layout is not None:
            channels, rate, frame_bytes = layout
            if _bytes_left(file) < size:
                raise EncodeFailed("the wav file is cut short")
            return AudioFacts(frames=size // frame_bytes, sample_rate=rate, channels=channels)
        else:
            file.seek(size + size % 2, 1)


def _read_ogg(file: BinaryIO) -> AudioFacts:
    """RFC 3533 pages: the last granule position is the length, the first page identifies Vorbis."""
    layout: list[int] | None = None
    granule, last = 0, False
    while head := file.read(27):
        capture, flags, position, segments = struct.unpack("<4sxBq12xB", head)
        if capture != b"OggS":
            raise EncodeFailed("no ogg page where one must be")
        size = sum(file.read(segments))
        if _bytes_left(file) < size:
            raise EncodeFailed("the ogg file is cut short")
        body = file.read(size)
        if layout is None:
            kind, *layout = struct.unpack("<7s4xBIiii", body[:28])
            if kind != b"\x01vorbis":
                raise EncodeFailed("no vorbis in the ogg file")
        granule, last = max(granule, position), bool(flags & 4)
    if layout is None or not last:
        raise EncodeFailed("the ogg file does not end")
    channels, rate, highest, nominal, lowest = layout
    managed = highest == nominal == lowest
    return AudioFacts(
        frames=granule,
        sample_rate=rate,
        channels=channels,
        bitrate_kbps=nominal // 1000 if managed else None,
    )


def _read_mp3(file: BinaryIO) -> AudioFacts:
    """Samples of all frames but the Info frame, less what its tag tells players to drop at both ends."""
    tag, frames = read_mp3(file)
    bitrates = {frame.bitrate_kbps for frame in frames}
    return AudioFacts(
        frames=sum(frame.samples for frame in frames) - tag.delay - tag.padding,
        sample_rate=frames[0].sample_rate,
        channels=frames[0].channels,
        bitrate_kbps=bitrates.pop() if len(bitrates) == 1 else None,
    )


def _bytes_left(file: BinaryIO) -> int:
    here = file.tell()
    end = file.seek(0, 2)
    file.seek(here)
    return end - here


_READERS = {
    AudioFormat.FLAC: _read_flac,
    AudioFormat.WAV: _read_wav,
    AudioFormat.MP3: _read_mp3,
    AudioFormat.OGG: _read_ogg,
}
