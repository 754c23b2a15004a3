"""MPEG layer III frames, and the Info tag that tells players a file's exact length."""

from pathlib import Path
from typing import BinaryIO

import msgspec

from gateway.audio.errors import EncodeFailed

_MPEG1_KBPS = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG2_KBPS = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_INFO_PARTS = ((1, 4), (2, 4), (4, 100), (8, 4))
"""Flags of the Info tag and the bytes that each adds: frames, size, seek table, quality; then LAME's part."""
_HAS_FRAMES = 1
_LAME_BYTES = 36
_LAME_NAME = b"LAME3.100"
"""The version of this layout. Some readers (mutagen, MPD) take the exact length from no other name."""
_GAP_OFFSET = 21
"""From the start of LAME's part to 3 bytes of delay and padding."""
_LENGTH_OFFSET = 28
_CRC_OFFSET = 34
_MAX_GAP = 0xFFF


class Mp3Frame(msgspec.Struct, frozen=True, kw_only=True):
    """What one frame header says; `samples` per channel, `size` in bytes with the header."""

    sample_rate: int
    channels: int
    bitrate_kbps: int
    samples: int
    size: int


class InfoTag(msgspec.Struct, frozen=True, kw_only=True):
    """Samples per channel to drop at the start and at the end, and where the tag is in the first frame."""

    delay: int
    padding: int
    offset: int
    lame_offset: int
    frame_size: int


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


def finish_mp3(path: Path, frames: int) -> None:
    """Make the tag say `frames`, exactly, in a frame of the same bitrate as all others.

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
        first = bytearray(file.read(tag.frame_size))
        gap = tag.lame_offset + _GAP_OFFSET
        first[gap : gap + 3] = (tag.delay << 12 | padding).to_bytes(3, "big")
        first[tag.lame_offset : tag.lame_offset + len(_LAME_NAME)] = _LAME_NAME
        first, lame_offset = _at_bitrate(first, tag, sound[0].bitrate_kbps)
        crc = lame_offset + _CRC_OFFSET
        first[crc : crc + 2] = _crc16(first[:crc]).to_bytes(2, "big")
        shrunk = len(first) < tag.frame_size
        rest = file.read() if shrunk else b""
        file.seek(0)
        file.write(first + rest)
        if shrunk:
            file.truncate()


def _at_bitrate(first: bytearray, tag: InfoTag, kbps: int) -> tuple[bytearray, int]:
    """The tag's frame at the bitrate of the sound, so that all headers agree, and the offset of LAME's part.

    ffmpeg gives the tag a frame of a higher bitrate where its 156 bytes need one. Without seek table, size
    and quality, which a constant bitrate makes needless, they fit; except at 8 kbit/s from 11025 Hz and at
    16 kbit/s from 22050 Hz. There the larger frame stays, because without a tag the length is unknown.
    """
    header = int.from_bytes(first[:4], "big")
    index = (_MPEG1_KBPS if header >> 19 & 3 == 3 else _MPEG2_KBPS).index(kbps)
    head = (header & ~0xF000 | index << 12).to_bytes(4, "big")
    size = _parse_header(head).size
    frame_count = first[tag.offset + 8 : tag.offset + 12]
    small = bytearray(head + first[4 : tag.offset + 4] + _HAS_FRAMES.to_bytes(4, "big") + frame_count)
    lame_offset = len(small)
    if size == len(first) or lame_offset + _LAME_BYTES > size:
        return first, tag.lame_offset
    lame = first[tag.lame_offset : tag.lame_offset + _LAME_BYTES]
    length = int.from_bytes(lame[_LENGTH_OFFSET : _LENGTH_OFFSET + 4], "big") + size - len(first)
    lame[_LENGTH_OFFSET : _LENGTH_OFFSET + 4] = length.to_bytes(4, "big")
    return (small + lame).ljust(size, b"\0"), lame_offset


def _parse_header(head: bytes) -> Mp3Frame:
    """ISO 11172-3, 2.4.1.3: 11 bits of sync, version, layer, bitrate and rate by index, padding, mode."""
    header = int.from_bytes(head, "big")
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
    if offset < 0 or len(frame) < offset + 8 + _LAME_BYTES:
        raise EncodeFailed("the mp3 file has no Info tag, so its exact length is unknown")
    flags = int.from_bytes(frame[offset + 4 : offset + 8], "big")
    lame_offset = offset + 8 + sum(size for flag, size in _INFO_PARTS if flags & flag)
    if not flags & _HAS_FRAMES or len(frame) < lame_offset + _LAME_BYTES:
        raise EncodeFailed("the mp3 file's Info tag is not whole")
    gap = int.from_bytes(frame[lame_offset + _GAP_OFFSET : lame_offset + _GAP_OFFSET + 3], "big")
    return InfoTag(
        delay=gap >> 12,
        padding=gap & _MAX_GAP,
        offset=offset,
        lame_offset=lame_offset,
        frame_size=len(frame),
    )


def _crc16(data: bytearray) -> int:
    """CRC-16/ARC of the tag's frame up to the checksum itself."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc
