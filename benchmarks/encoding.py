"""Seconds from samples to verified, hashed files, and what a plain ffmpeg command takes for the same song.

The plain command has ffmpeg's defaults: it reads nothing back, and its Ogg is free, not managed.
"""

import asyncio
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine import EngineRequest, Finished
from engine.composer.runner import MODEL, ComposerRunner
from gateway.audio import (
    MASTER_SAMPLE_RATE,
    AudioFormat,
    AudioSettings,
    Encoder,
    Encoding,
    resolve_encoding,
)
from gateway.audio.ffmpeg import find_ffmpeg, run_ffmpeg

SONG_SECONDS = 240
PLAIN_FLAC = ("-sample_fmt", "s32")
ORDERS = (
    (AudioFormat.WAV, None, ()),
    (AudioFormat.MP3, AudioSettings(bitrate=320), ("-b:a", "320k")),
    (AudioFormat.MP3, AudioSettings(bitrate=320, sample_rate=44_100), ("-b:a", "320k", "-ar", "44100")),
    (AudioFormat.OGG, AudioSettings(bitrate=192), ("-c:a", "libvorbis", "-b:a", "192k")),
)

Made = TypeVar("Made")


async def main() -> None:
    """One encode at a time, nothing repeated: the figures are for ratios, not for records."""
    samples = compose()
    encoder = Encoder()
    sys.stdout.write(f"{f'{SONG_SECONDS} s of music':30}{'wall':>10}{'CPU':>10}{'real time':>11}")
    sys.stdout.write(f"{'plain wall':>14}{'CPU':>10}{'ratio':>8}{'size':>11}\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        raw = folder / "song.f32"
        samples.T.astype("<f4").tofile(raw)
        took, master = await timed(
            encoder.write_master(samples, sample_rate=MASTER_SAMPLE_RATE, folder=folder)
        )
        reading = ("-f", "f32le", "-ar", str(MASTER_SAMPLE_RATE), "-ac", "2", "-i", str(raw))
        plain, _ = await timed(ffmpeg(*reading, *PLAIN_FLAC, str(folder / "plain.flac")))
        report("flac, 24 bit (the master)", took, plain, master.size_bytes)
        for audio_format, settings, options in ORDERS:
            encoding = resolve_encoding(audio_format, settings)
            took, made = await timed(encoder.encode(master, encoding, folder=folder))
            target = str(folder / f"plain.{audio_format}")
            plain, _ = await timed(ffmpeg("-i", str(master.path), *options, target))
            report(name_of(encoding), took, plain, made.size_bytes)


def compose() -> npt.NDArray[np.float32]:
    """A song of the sandbox model: encoders are faster with plain tones, slower with noise."""
    frames = SONG_SECONDS * MASTER_SAMPLE_RATE
    request = EngineRequest(id="song", model=MODEL, prompt="pop song", lyrics="", frames=frames, seed=1)
    for event in ComposerRunner(threads=1).run([request], lambda _: True):
        if isinstance(event, Finished):
            return event.result.samples
    raise AssertionError("no song")


class Took(NamedTuple):
    """Seconds on the clock, and of all cores together, which tell more on a busy machine."""

    wall: float
    cpu: float


async def timed(work: Awaitable[Made]) -> tuple[Took, Made]:
    began, busy = time.perf_counter(), cpu_seconds()
    made = await work
    return Took(time.perf_counter() - began, cpu_seconds() - busy), made


def cpu_seconds() -> float:
    """Of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


async def ffmpeg(*arguments: str) -> None:
    await run_ffmpeg(find_ffmpeg(), arguments, timeout_seconds=300)


def name_of(encoding: Encoding) -> str:
    detail = f"{encoding.bitrate_kbps} kbit/s" if encoding.bitrate_kbps else f"{encoding.bits_per_sample} bit"
    return f"{encoding.format}, {detail}, {encoding.sample_rate} Hz"


def report(name: str, took: Took, plain: Took, size_bytes: int) -> None:
    row = f"{name:30}{took.wall:>8.2f} s{took.cpu:>8.2f} s{SONG_SECONDS / took.wall:>10.0f}x"
    ratio = took.wall / plain.wall
    sys.stdout.write(
        f"{row}{plain.wall:>12.2f} s{plain.cpu:>8.2f} s{ratio:>8.2f}{size_bytes / 1e6:>8.1f} MB\n"
    )


if __name__ == "__main__":
    asyncio.run(main())
