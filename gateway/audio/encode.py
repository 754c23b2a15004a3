"""Samples in, files out: one lossless master per song, every delivery format made from it.

The work happens in ffmpeg child processes: they cannot block the event loop, can be killed, and their
crash is not ours. The same input gives the same bytes with the same ffmpeg.
"""

import asyncio
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.audio.errors import EncodeFailed
from gateway.audio.ffmpeg import find_ffmpeg, run_ffmpeg
from gateway.audio.formats import (
    CONTENT_TYPES,
    MASTER,
    MASTER_CHANNELS,
    AudioFormat,
    Encoding,
    resolve_encoding,
)
from gateway.audio.headers import AudioFacts, read_facts
from gateway.audio.mp3 import finish_mp3

MAX_SECONDS = 900
"""Longest audio encoded: 1.5 times the longest song on offer, which bounds files, memory and time."""
_BLOCK_FRAMES = 16_384
"""Interleaved on the event loop in well under a millisecond."""
_RESAMPLER_SLACK_FRAMES = 64
_OGG_PAGE_KBIT = 32
"""The usual 4 kB; at 8 kbit/s the page heads of ffmpeg's own one page a second cost 2.7 % of the bitrate."""
_HASH_BYTES = 1 << 20
_SAME_BYTES = ("-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact")
"""No dates, no encoder versions, no random stream ids."""


class EncodedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A finished file and what was read back from it. Its folder's owner deletes it."""

    path: Path
    format: AudioFormat
    content_type: str
    frames: int
    sample_rate: int
    channels: int
    sha256: str
    size_bytes: int

    @property
    def duration_seconds(self) -> float:
        return self.frames / self.sample_rate


class Encoder:
    """Makes audio files, at most `concurrency` at a time; waiting for a turn is not counted as time.

    Every method raises EncodeFailed, and leaves no file behind when it does or when it is cancelled.
    """

    def __init__(
        self,
        *,
        executable: Path | None = None,
        concurrency: int | None = None,
        timeout_seconds: float = 300,
    ) -> None:
        """Defaults: the bundled ffmpeg, one encode per CPU; a 600 s Ogg takes half a minute of one."""
        self._executable = executable or find_ffmpeg()
        self._turns = asyncio.Semaphore(concurrency or os.cpu_count() or 1)
        self._timeout_seconds = timeout_seconds

    async def write_master(
        self, samples: npt.NDArray[np.float32], *, sample_rate: int, folder: Path
    ) -> EncodedFile:
        """Keep float samples `[1 or 2, frames]` as 24-bit FLAC, 48 kHz stereo, resampled where they are not.

        Values beyond +-1 are clipped; they must be finite numbers (`check_quality`).
        """
        channels, frames = samples.shape
        if channels not in {1, MASTER_CHANNELS} or not 0 < frames <= MAX_SECONDS * sample_rate:
            raise EncodeFailed(f"cannot encode {frames} frames of {channels} channels at {sample_rate} Hz")
        source = AudioFacts(frames=frames, sample_rate=sample_rate, channels=MASTER_CHANNELS)
        arguments = ["-f", "f32le", "-ar", str(sample_rate), "-ac", str(MASTER_CHANNELS), "-i", "pipe:0"]
        stereo = np.broadcast_to(samples, (MASTER_CHANNELS, frames))
        return await self._make(source, arguments, MASTER, folder=folder, blocks=_interleaved(stereo))

    async def encode(self, master: EncodedFile, encoding: Encoding, *, folder: Path) -> EncodedFile:
        """Make a delivery file from a master; FLAC is the master itself, not a copy."""
        if encoding == MASTER:
            return master
        source = AudioFacts(frames=master.frames, sample_rate=master.sample_rate, channels=master.channels)
        arguments = ["-f", str(master.format), "-i", f"file:{master.path}"]
        return await self._make(source, arguments, encoding, folder=folder)

    async def probe(self, folder: Path) -> None:
        """Prove that every format can be made here, with a tenth of a second of silence each."""
        silence = np.zeros((MASTER_CHANNELS, MASTER.sample_rate // 10), dtype=np.float32)
        with ExitStack() as cleanup:
            master = await self.write_master(silence, sample_rate=MASTER.sample_rate, folder=folder)
            cleanup.callback(master.path.unlink, missing_ok=True)
            for audio_format in (AudioFormat.WAV, AudioFormat.MP3, AudioFormat.OGG):
                encoding = resolve_encoding(audio_format, None)
                made = await self.encode(master, encoding, folder=folder)
                cleanup.callback(made.path.unlink, missing_ok=True)

    async def _make(
        self,
        source: AudioFacts,
        arguments: list[str],
        encoding: Encoding,
        *,
        folder: Path,
        blocks: Iterable[bytes] = (),
    ) -> EncodedFile:
        path = _fresh_path(folder, encoding.format)
        frames = _frames_at(source, encoding.sample_rate)
        command = [*arguments, *_SAME_BYTES, "-af", _filters(source, encoding, frames), *_codec(encoding)]
        with ExitStack() as cleanup:
            cleanup.callback(path.unlink, missing_ok=True)
            async with self._turns:
                await run_ffmpeg(
                    self._executable,
                    [*command, f"file:{path}"],
                    timeout_seconds=self._timeout_seconds,
                    blocks=blocks,
                )
            made = await asyncio.to_thread(_finish, path, encoding, frames)
            cleanup.pop_all()
        return made


def _fresh_path(folder: Path, audio_format: AudioFormat) -> Path:
    return folder.absolute() / f"{secrets.token_hex(8)}.{audio_format}"


def _interleaved(samples: npt.NDArray[np.float32]) -> Iterator[bytes]:
    """Little-endian float32 frames, block by block, so that the song is never held a second time."""
    for start in range(0, samples.shape[1], _BLOCK_FRAMES):
        block = samples[:, start : start + _BLOCK_FRAMES]
        yield block.T.astype("<f4", copy=False).tobytes()


def _frames_at(source: AudioFacts, sample_rate: int) -> int:
    """The source's length at another rate, half a frame rounded up."""
    return (2 * source.frames * sample_rate + source.sample_rate) // (2 * source.sample_rate)


def _filters(source: AudioFacts, encoding: Encoding, frames: int) -> str:
    """Mix down, resample, dither, and cut to the exact length, which resamplers miss by a frame or two."""
    steps = []
    if encoding.channels < source.channels:
        steps.append("pan=mono|c0=0.5*c0+0.5*c1")
    if encoding.sample_rate != source.sample_rate:
        steps.append(f"aresample={encoding.sample_rate}:resampler=soxr:precision=24")
        # A short pad only: a truncated master must come out short and be refused, not filled with silence.
        steps += [f"apad=pad_len={_RESAMPLER_SLACK_FRAMES}", f"atrim=end_sample={frames}"]
    if encoding.bits_per_sample == 16:
        steps.append("aresample=osf=s16:dither_method=triangular")
    return ",".join(steps) or "anull"


def _codec(encoding: Encoding) -> list[str]:
    match encoding.format:
        case AudioFormat.FLAC:
            depth = str(encoding.bits_per_sample)
            return ["-c:a", "flac", "-sample_fmt", "s32", "-bits_per_raw_sample", depth]
        case AudioFormat.WAV:
            return ["-c:a", f"pcm_s{encoding.bits_per_sample}le"]
        case AudioFormat.MP3 | AudioFormat.OGG:
            assert encoding.bitrate_kbps is not None  # noqa: S101 - both are lossy
            return _lossy_codec(encoding.format, encoding.bitrate_kbps)


def _lossy_codec(audio_format: AudioFormat, kbps: int) -> list[str]:
    """Constant bitrate for MP3 (LAME's default), managed for Vorbis: nominal, lowest and highest agree."""
    rate = f"{kbps}k"
    if audio_format is AudioFormat.MP3:
        return ["-c:a", "libmp3lame", "-b:a", rate, "-id3v2_version", "0"]
    managed = ["-c:a", "libvorbis", "-b:a", rate, "-minrate", rate, "-maxrate", rate]
    page_seconds = max(1, _OGG_PAGE_KBIT // kbps)
    return [*managed, "-page_duration", str(page_seconds * 1_000_000)]


def _finish(path: Path, encoding: Encoding, frames: int) -> EncodedFile:
    """Read a made file back; EncodeFailed where it is not what was ordered."""
    try:
        if encoding.format is AudioFormat.MP3:
            finish_mp3(path, frames)
        facts = read_facts(path, encoding.format)
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_HASH_BYTES):
                digest.update(chunk)
            size = file.tell()
    except OSError as error:
        raise EncodeFailed(f"the {encoding.format} file cannot be read back: {error.strerror}") from error
    ordered = AudioFacts(
        frames=frames,
        sample_rate=encoding.sample_rate,
        channels=encoding.channels,
        bitrate_kbps=encoding.bitrate_kbps,
    )
    if facts != ordered:
        raise EncodeFailed(f"the {encoding.format} file is {facts} instead of {ordered}")
    return EncodedFile(
        path=path,
        format=encoding.format,
        content_type=CONTENT_TYPES[encoding.format],
        frames=facts.frames,
        sample_rate=facts.sample_rate,
        channels=facts.channels,
        sha256=digest.hexdigest(),
        size_bytes=size,
    )
