"""Orders of lossy files, two decoders that hear them, and what is proved of each file."""

import asyncio
import math
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from gateway.audio import (
    MASTER_SAMPLE_RATE,
    AudioFormat,
    AudioSettings,
    EncodedFile,
    Encoder,
    Encoding,
    resolve_encoding,
)
from gateway.audio.ffmpeg import find_ffmpeg, run_ffmpeg
from tests.gateway.audio.bitstreams import mpeg_headers, vorbis_stream

Samples = npt.NDArray[np.float32]

LARGER_TAG_FRAME = {
    (11_025, 8),
    (12_000, 8),
    (16_000, 8),
    (22_050, 8),
    (22_050, 16),
    (24_000, 8),
    (24_000, 16),
}
"""Rates and kbit/s whose MP3 frames are smaller than the smallest tag that tells the length."""


def lossy(audio_format: AudioFormat, rate: int, channels: int, kbps: int) -> Encoding:
    return resolve_encoding(audio_format, AudioSettings(bitrate=kbps, channels=channels, sample_rate=rate))


def heard(made: EncodedFile) -> Samples:
    """`[channels, frames]` as libsndfile hears it, with libmpg123 and libvorbis."""
    samples, rate = soundfile.read(made.path, dtype="float32", always_2d=True)
    assert rate == made.sample_rate
    return samples.T


async def heard_by_ffmpeg(made: EncodedFile) -> Samples:
    """`[channels, frames]` as ffmpeg hears it."""
    raw = made.path.with_suffix(".f32")
    await run_ffmpeg(find_ffmpeg(), ["-i", str(made.path), "-f", "f32le", str(raw)], timeout_seconds=30)
    samples = np.fromfile(raw, "<f4").reshape(-1, made.channels).T
    raw.unlink()
    return samples


async def prove_all(
    encoder: Encoder,
    master: EncodedFile,
    encodings: Iterable[Encoding],
    folder: Path,
    *,
    by_ffmpeg_too: bool = False,
) -> None:
    """Make every file, prove it, and forget it."""

    async def prove(encoding: Encoding) -> None:
        made = await encoder.encode(master, encoding, folder=folder)
        await asyncio.to_thread(prove_one, made, encoding, master)
        if by_ffmpeg_too:
            assert (await heard_by_ffmpeg(made)).shape == (made.channels, made.frames), encoding
        made.path.unlink()

    async with asyncio.TaskGroup() as tasks:
        for encoding in encodings:
            tasks.create_task(prove(encoding))


def prove_one(made: EncodedFile, encoding: Encoding, master: EncodedFile) -> None:
    """Rate, channels, bitrate of each frame or of the whole stream, and the length to the sample."""
    if encoding.format is AudioFormat.MP3:
        _prove_constant_bitrate(made, encoding)
    else:
        _prove_managed_bitrate(made, encoding)
    exact = Fraction(master.frames * encoding.sample_rate, MASTER_SAMPLE_RATE)
    assert made.frames == math.floor(exact + Fraction(1, 2))
    assert heard(made).shape == (encoding.channels, made.frames), encoding


def _prove_constant_bitrate(made: EncodedFile, encoding: Encoding) -> None:
    first, *others = mpeg_headers(made.path.read_bytes())
    version = {0: "MPEG-2.5", 1: "MPEG-2", 2: "MPEG-1"}[
        (encoding.sample_rate > 12_000) + (encoding.sample_rate > 24_000)
    ]
    for header in others:
        assert header[:3] == (version, encoding.bitrate_kbps, encoding.sample_rate)
    assert {header.mode for header in others} <= (
        {"mono"} if made.channels == 1 else {"stereo", "joint stereo"}
    )
    assert first[:3:2] == others[0][:3:2]
    if (encoding.sample_rate, encoding.bitrate_kbps) in LARGER_TAG_FRAME:
        assert first.kbps > others[0].kbps
    else:
        assert first.kbps == others[0].kbps


def _prove_managed_bitrate(made: EncodedFile, encoding: Encoding) -> None:
    kbps, stream = encoding.bitrate_kbps, vorbis_stream(made.path.read_bytes())
    assert kbps is not None
    assert (stream.frames, stream.sample_rate, stream.channels) == (
        made.frames,
        encoding.sample_rate,
        encoding.channels,
    )
    assert stream.lowest == stream.nominal == stream.highest == kbps
    if made.duration_seconds >= 30:
        assert abs(stream.packets / kbps - 1) < 0.01, (encoding, stream)
        assert abs(stream.stream / kbps - 1) < 0.05, (encoding, stream)
        assert kbps < 32 or abs(stream.file / kbps - 1) < 0.05, (encoding, stream)
