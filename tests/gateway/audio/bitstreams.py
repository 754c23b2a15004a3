"""What the bits of MP3 and Ogg files say, read by their standards and without the product's readers."""

import struct
from typing import NamedTuple

VERSIONS = {3: "MPEG-1", 2: "MPEG-2", 0: "MPEG-2.5"}
MODES = ("stereo", "joint stereo", "dual channel", "mono")
RATES = {
    "MPEG-1": (44_100, 48_000, 32_000),
    "MPEG-2": (22_050, 24_000, 16_000),
    "MPEG-2.5": (11_025, 12_000, 8_000),
}
KBPS = {
    "MPEG-1": (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    "MPEG-2": (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    "MPEG-2.5": (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}


class MpegHeader(NamedTuple):
    version: str
    kbps: int
    sample_rate: int
    mode: str


class VorbisStream(NamedTuple):
    """Bitrates in kbit/s over the length of the sound; `stream` leaves only the three header packets out."""

    frames: int
    sample_rate: int
    channels: int
    lowest: int
    nominal: int
    highest: int
    packets: float
    stream: float
    file: float


def mpeg_headers(data: bytes) -> list[MpegHeader]:
    """Of every frame of the file, which must consist of layer III frames alone."""
    headers, place = [], 0
    while place < len(data):
        bits = int.from_bytes(data[place : place + 4], "big")
        assert bits >> 21 == 0x7FF, "no sync word where a frame must start"
        assert bits >> 17 & 3 == 1, "not layer III"
        version = VERSIONS[bits >> 19 & 3]
        kbps, rate = KBPS[version][(bits >> 12 & 15) - 1], RATES[version][bits >> 10 & 3]
        headers.append(MpegHeader(version, kbps, rate, MODES[bits >> 6 & 3]))
        place += (144_000 if version == "MPEG-1" else 72_000) * kbps // rate + (bits >> 9 & 1)
    assert place == len(data), "the last frame is cut short"
    return headers


def vorbis_stream(data: bytes) -> VorbisStream:
    """Of a file with one logical stream; pages without a position hold the headers."""
    place = frames = packet_bytes = stream_bytes = 0
    channels, rate, *bounds = struct.unpack("<BIiii", data[39:56])
    while place < len(data):
        assert data[place : place + 4] == b"OggS"
        (position,) = struct.unpack("<q", data[place + 6 : place + 14])
        segments = data[place + 26]
        body = sum(data[place + 27 : place + 27 + segments])
        if position:
            frames, packet_bytes = position, packet_bytes + body
            stream_bytes += 27 + segments + body
        place += 27 + segments + body
    assert place == len(data)
    highest, nominal, lowest = (bound // 1000 for bound in bounds)
    averages = (size * 8 * rate / frames / 1000 for size in (packet_bytes, stream_bytes, len(data)))
    return VorbisStream(frames, rate, channels, lowest, nominal, highest, *averages)
