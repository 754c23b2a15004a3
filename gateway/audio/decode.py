"""Strangers' audio files become samples, in a child process that can do no harm.

The child is ffmpeg with one demuxer, audio decoders only, one open file and one pipe: it can open neither
other files nor sockets. It is bounded in memory, CPU time and wall time, and it yields to everybody else.
What comes out of its pipe is counted, so a small file cannot become a large one.
"""

import asyncio
import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from gateway.audio.containers import ACCEPTED, HEAD_BYTES, Container, sniff
from gateway.audio.errors import DecodeFailed, EncodeFailed, InputTooLong, InputUnreadable, UnknownContainer
from gateway.audio.ffmpeg import find_ffmpeg

SAMPLE_RATE: Final = 48_000
"""Hz of everything that is decoded."""
CHANNELS: Final = 2
MAX_SECONDS: Final = 600
"""As long as the longest song."""
MIN_SECONDS: Final = 0.1
MAX_SOURCE_CHANNELS: Final = 8
"""Layouts of more have no agreed way to be mixed to stereo."""
MAX_SOURCE_RATE: Final = 768_000
"""As fast as any converter is; a header that says 2 GHz would buy ten seconds of work on a filter."""
MAX_PEAK: Final = 256.0
"""48 dB above full scale: a float file beyond it holds something else than sound."""

_MEMORY_KIB: Final = 1024 * 1024
"""Of address space; 250 MB are used."""
_CPU_SECONDS: Final = 120
"""600 s of the slowest codec take a tenth of it."""
_FRAME_BYTES: Final = 4 * CHANNELS
_BLOCK_BYTES: Final = 1 << 20
_COMPLAINT_BYTES: Final = 2_000
_PROBE_SECONDS: Final = "0.05"
_WAV_HEAD: Final = struct.Struct("<4s4x4s4s4x2xHI")
_NICENESS: Final = 10
_DECODERS: Final = (
    "pcm_u8,pcm_s8,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,"
    "pcm_f64le,pcm_f64be,pcm_mulaw,pcm_alaw,adpcm_ms,adpcm_ima_wav,flac,mp3float,mp3,vorbis,opus,libopus,"
    "aac,alac"
)
# Limits are set before ffmpeg is there to break them. No file may be written, no core dumped.
# Linux shares the CPU among sessions and looks at niceness only inside them, hence the autogroup.
_BOUNDED: Final = (
    'ulimit -c 0; ulimit -f 0; ulimit -v "$1" 2>/dev/null; ulimit -t "$2"; '
    f"{{ echo {_NICENESS} > /proc/self/autogroup; }} 2>/dev/null; "
    f'shift 2; exec nice -n {_NICENESS} "$@"'
)
# One arena: otherwise each thread of the child reserves 64 MB of the address space that is counted.
_ENVIRON: Final = {"MALLOC_ARENA_MAX": "1"}

_INPUT: Final = (
    "-nostdin", "-hide_banner", "-loglevel", "error", "-threads", "1", "-filter_threads", "1",
    "-codec_whitelist", _DECODERS, "-protocol_whitelist", "fd", "-max_error_rate", "0.1",
)  # fmt: skip
_FIRST_SOUND: Final = ("-map", "0:a:0", "-vn", "-sn", "-dn", "-map_metadata", "-1")

Samples = npt.NDArray[np.float32]
Product = TypeVar("Product")


class SoundFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A decoded file: its length at SAMPLE_RATE, and what it was before."""

    frames: int
    container: Container
    sample_rate: int
    channels: int


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file whose first sound was decoded."""

    path: Path
    container: Container
    sample_rate: int
    channels: int


class Decoder:
    """Decodes files, at most `concurrency` at a time; waiting for a turn is not counted as time.

    The same file gives the same samples, with the same ffmpeg. Every method raises InputUnreadable, with
    words for whoever brought the file, and DecodeFailed.
    """

    def __init__(self, *, concurrency: int | None = None, timeout_seconds: float = 240) -> None:
        """By default half of the CPUs: whoever answers requests keeps the others."""
        self._turns = asyncio.Semaphore(concurrency or max(1, (os.cpu_count() or 1) // 2))
        self._timeout_seconds = timeout_seconds

    async def measure(self, path: Path) -> SoundFacts:
        """Decode all of it without keeping it: its exact length, and proof that it can be decoded."""
        async with self._turns:
            source = await self._probe(path)
            frames = await self._decode(source, _count)
        return SoundFacts(
            frames=_long_enough(frames),
            container=source.container,
            sample_rate=source.sample_rate,
            channels=source.channels,
        )

    async def decode(self, path: Path) -> Samples:
        """`[2, frames]` at SAMPLE_RATE: mono on both channels, more than two mixed down."""
        async with self._turns:
            samples = await self._decode(await self._probe(path), _keep)
        _long_enough(samples.shape[1])
        return samples

    async def _probe(self, path: Path) -> _Source:
        container = await asyncio.to_thread(_sniff_file, path)
        output = ["-t", _PROBE_SECONDS, "-c:a", "pcm_f32le", "-bitexact", "-f", "wav", "pipe:1"]
        head = await self._run(path, container, output, _read_wav_head)
        if head is None:
            raise InputUnreadable("there is no sound in the file")
        sample_rate, channels = head
        if channels > MAX_SOURCE_CHANNELS:
            raise InputUnreadable(
                f"the file has {channels} channels; at most {MAX_SOURCE_CHANNELS} can be mixed"
            )
        if sample_rate > MAX_SOURCE_RATE:
            raise InputUnreadable(
                f"the file has {sample_rate} samples a second; at most {MAX_SOURCE_RATE} are read"
            )
        return _Source(path=path, container=container, sample_rate=sample_rate, channels=channels)

    async def _decode(self, source: _Source, consume: Callable[[FileIO], Product]) -> Product:
        output = ["-af", _filters(source), "-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]
        return await self._run(source.path, source.container, output, consume)

    async def _run(
        self, path: Path, container: Container, output: list[str], consume: Callable[[FileIO], Product]
    ) -> Product:
        """What `consume` makes, in a thread, of the child's output. The child is dead afterwards."""
        arguments = [*_INPUT, "-f", container.demuxer, "-i", "fd:", *_FIRST_SOUND, *output]
        with path.open("rb", buffering=0) as file, _pipe() as (reader, writer):
            process = await _start([str(_find_ffmpeg()), *arguments], file, writer)
            consuming = asyncio.get_running_loop().run_in_executor(None, consume, reader)
            complaining = asyncio.create_task(_last_words(process))
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    made = await asyncio.shield(consuming)
                    code = await process.wait()
            except TimeoutError:
                raise InputUnreadable("the file takes too long to decode") from None
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
                # With it ends what it writes to; until the thread has seen that, the pipe stays open.
                await asyncio.gather(consuming, complaining, return_exceptions=True)
        _check_end(code, complaining.result())
        return made


def check_container(head: bytes) -> Container:
    """The kind of a file that begins like this; raises UnknownContainer."""
    container = sniff(head)
    if container is None:
        raise UnknownContainer(f"this is no audio file of a kind that is taken: {ACCEPTED}")
    return container


def _sniff_file(path: Path) -> Container:
    with path.open("rb") as file:
        return check_container(file.read(HEAD_BYTES))


def _filters(source: _Source) -> str:
    """Resampled as masters are. ffmpeg's own way from mono to stereo would be 3 dB softer."""
    mix = "pan=stereo|c0=c0|c1=c0," if source.channels == 1 else ""
    return f"{mix}aresample={SAMPLE_RATE}:resampler=soxr:precision=24:ochl=stereo:rematrix_maxval=1"


def _find_ffmpeg() -> Path:
    try:
        return find_ffmpeg()
    except EncodeFailed as error:
        raise DecodeFailed(str(error)) from error


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[FileIO, FileIO]]:
    read, write = os.pipe()
    with FileIO(read, "rb") as reader, FileIO(write, "wb") as writer:
        yield reader, writer


async def _start(command: list[str], file: FileIO, writer: FileIO) -> asyncio.subprocess.Process:
    """It holds the only writing end when this returns, so that its end is the end of the pipe."""
    bounded = ["/bin/sh", "-c", _BOUNDED, "sh", str(_MEMORY_KIB), str(_CPU_SECONDS), *command]
    try:
        return await asyncio.create_subprocess_exec(
            *bounded, stdin=file, stdout=writer, stderr=asyncio.subprocess.PIPE,
            env=_ENVIRON, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise DecodeFailed(f"the decoder does not start: {error.strerror}") from error
    finally:
        writer.close()


async def _last_words(process: asyncio.subprocess.Process) -> bytes:
    """The end of what it complains about; the rest is read and dropped, so that it never blocks on us."""
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    kept = b""
    while chunk := await process.stderr.read(_COMPLAINT_BYTES):
        kept = (kept + chunk)[-_COMPLAINT_BYTES:]
    return kept


def _check_end(code: int, complaint: bytes) -> None:
    if code in {126, 127}:  # the shell's: there is no such program
        raise DecodeFailed(f"the decoder does not start: {complaint.decode(errors='replace').strip()}")
    if code < 0 or b"Cannot allocate memory" in complaint:
        raise InputUnreadable("the file takes more time or memory to decode than is allowed")
    if code != 0:
        raise InputUnreadable("the file is damaged, or has no sound of a kind that is taken")


def _long_enough(frames: int) -> int:
    if frames < MIN_SECONDS * SAMPLE_RATE:
        raise InputUnreadable(
            f"the file has {frames / SAMPLE_RATE:.3f} s of sound; at least {MIN_SECONDS:g} s are needed"
        )
    return frames


def _read_wav_head(reader: FileIO) -> tuple[int, int] | None:
    """Sample rate and channels; None if nothing came."""
    head = bytearray()
    while chunk := reader.read(_BLOCK_BYTES):
        head += chunk[: _WAV_HEAD.size]
    if len(head) < _WAV_HEAD.size:
        return None
    riff, wave, fmt, channels, sample_rate = _WAV_HEAD.unpack_from(head)
    if (riff, wave, fmt) != (b"RIFF", b"WAVE", b"fmt "):
        raise DecodeFailed("the decoder wrote no WAV")
    return sample_rate, channels


def _count(reader: FileIO) -> int:
    """Frames, none of them kept."""
    return sum(len(block) for block in _blocks(reader))


def _keep(reader: FileIO) -> Samples:
    """`[2, frames]`"""
    blocks = [np.ascontiguousarray(block.T) for block in _blocks(reader)]
    return np.concatenate(blocks, axis=1) if blocks else np.empty((CHANNELS, 0), dtype=np.float32)


def _blocks(reader: FileIO) -> Iterator[Samples]:
    """Views `[frames, 2]` that hold until the next one; InputUnreadable for what is too much, or no sound."""
    buffer = memoryview(bytearray(_BLOCK_BYTES))
    frames = 0
    while filled := _fill(reader, buffer):
        block = np.frombuffer(buffer[: filled - filled % _FRAME_BYTES], "<f4").reshape(-1, CHANNELS)
        frames += len(block)
        if frames > MAX_SECONDS * SAMPLE_RATE:
            raise InputTooLong(f"the sound is longer than {MAX_SECONDS} s")
        # Written so that it also holds for what is no number.
        if len(block) and not np.abs(block).max() <= MAX_PEAK:
            raise InputUnreadable("the file has samples that are no finite numbers, or far beyond full scale")
        yield block


def _fill(reader: FileIO, buffer: memoryview) -> int:
    """Read until it is full or nothing more comes."""
    filled = 0
    while filled < len(buffer) and (size := reader.readinto(buffer[filled:])):
        filled += size
    return filled
