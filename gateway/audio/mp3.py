"""MPEG layer III frames, and the Info tag that tells players a file's exact length."""

import struct
from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.audio.errors import EncodeFailed

_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_GAP_OFFSET = 141
"""From "Info" to the 3 bytes of delay and padding, as LAME lays the tag out."""
_CRC_OFFSET = 154
_MAX_GAP = 0xFFF


class Mp3Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What one frame header says; `samples` per channel, `size` in bytes with the header."""

    sample_rate: int
    channels: int
    bitrate_kbps: int
    samples: int
    size: int


class InfoTag(msgspec.Struct, frozen=True, kw_only=True):
    """Samples per channel to drop at the start and at the end, and where "Info" stands in the file."""

    delay: int
    padding: int
    offset: int


def read_mp3(file: BinaryIO) -> tuple[InfoTag, list[Mp3Frame]]:
    """The tag and every frame of sound, in order; EncodeFailed unless all is whole frames."""
    frames: list[Mp3Frame] = []
    tag: InfoTag | None = None
    while head := file.read(4):
        frame = _parse_header(head)
        body = file.read(frame.size - 4)
        if len(body) < frame.size - 4:
            raise EncodeFailed("the mp3 file is cut short")
        if tag is None:
            tag = _parse_tag(head + body)
        else:
            frames.append(frame)
    if tag is None or not frames:
        raise EncodeFailed("no sound in the mp3 file")
    return tag, frames


def set_mp3_length(path: Path, frames: int) -> None:
    """Make the tag's padding say `frames`, exactly.

    ffmpeg caps the padding at one MPEG frame and the decoder's delay (1,681 samples), while LAME may append
    more: 1 in 25 lengths would come out up to 47 samples too long. Only such a correction is made.
    """
    with path.open("r+b") as file:
        tag, sound = read_mp3(file)
        samples = sum(frame.samples for frame in sound)
        padding = samples - tag.delay - frames
        if abs(padding - tag.padding) >= sound[0].samples or not 0 <= padding <= _MAX_GAP:
            found = samples - tag.delay - tag.padding
            raise EncodeFailed(f"the mp3 file has {found} frames instead of {frames}")
        file.seek(0)
        start = bytearray(file.read(tag.offset + _CRC_OFFSET))
        gap = tag.offset + _GAP_OFFSET
        start[gap : gap + 3] = (tag.delay << 12 | padding).to_bytes(3, "big")
        file.seek(0)
        file.write(start + _crc16(start).to_bytes(2, "big"))


def _parse_header(head: bytes) -> Mp3Frame:
    """ISO 11172-3, 2.4.1.3: 11 bits of sync, version, layer, bitrate and rate by index, padding, mode."""
    (header,) = struct.unpack(">I", head)
    version, bitrate_index, rate_index = header >> 19 & 3, header >> 12 & 15, header >> 10 & 3
    # Index 0 is "free format", the last index of each is reserved, as is version 1.
    legal = bitrate_index not in {0, 15} and rate_index != 3 and version != 1
    if not legal or header >> 21 != 0x7FF or header >> 17 & 3 != 1:
        raise EncodeFailed("no mp3 frame where one must be")
    kbps = (_MPEG1_KBPS if version == 3 else _MPEG2_KBPS)[bitrate_index]
    rate = _MPEG_RATES[version][rate_index]
    samples = 1152 if version == 3 else 576
    return Mp3Frame(
        sample_rate=rate,
        channels=1 if header >> 6 & 3 == 3 else 2,
        bitrate_kbps=kbps,
        samples=samples,
        size=samples // 8 * kbps * 1000 // rate + (header >> 9 & 1),
    )


def _parse_tag(frame: bytes) -> InfoTag:
    """The first frame is silent and holds the tag behind its side information."""
    offset = frame.find(b"Info")
    if offset < 0 or len(frame) < offset + _CRC_OFFSET + 2:
        raise EncodeFailed("the mp3 file has no Info tag, so its exact length is unknown")
    gap = int.from_bytes(frame[offset + _GAP_OFFSET : offset + _GAP_OFFSET + 3], "big")
    return InfoTag(delay=gap >> 12, padding=gap & _MAX_GAP, offset=offset)


def _crc16(data: bytearray) -> int:
    """CRC-16/ARC of the tag's frame up to the checksum itself."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc
