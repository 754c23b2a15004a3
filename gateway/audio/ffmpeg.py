"""One run of ffmpeg as a child process: fed, bounded in time, killed when its task is cancelled."""

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path

import imageio_ffmpeg

from gateway.audio.errors import EncodeFailed

_COMPLAINT_BYTES = 2_000


def find_ffmpeg() -> Path:
    """The binary that came with imageio-ffmpeg, else one of the system's; EncodeFailed when there is none."""
    try:
        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise EncodeFailed(
            "no ffmpeg: there is none in imageio-ffmpeg for this platform nor on PATH"
        ) from error


async def run_ffmpeg(
    executable: Path, arguments: Sequence[str], *, timeout_seconds: float, blocks: Iterable[bytes] = ()
) -> None:
    """Run to the end, `blocks` on its standard input.

    Raises:
        EncodeFailed: it could not start, returned non-zero, or took too long. It is dead by then, as
            it is after a cancellation.
    """
    try:
        # Its own session: Ctrl-C reaches us alone, and we decide whether a running encode ends.
        # No environment: the child is third-party code and needs none of our secrets.
        process = await asyncio.create_subprocess_exec(
            executable, "-nostdin", "-xerror", "-hide_banner", "-loglevel", "error", "-y", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
            env={}, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise EncodeFailed(f"ffmpeg does not start: {error.strerror}") from error
    try:
        async with asyncio.timeout(timeout_seconds):
            _, complaint = await asyncio.gather(_feed(process, blocks), _last_words(process))
            code = await process.wait()
    except TimeoutError:
        raise EncodeFailed(f"ffmpeg took more than {timeout_seconds:g} s") from None
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    if code != 0:
        raise EncodeFailed(f"ffmpeg failed with {code}: {complaint}")


async def _feed(process: asyncio.subprocess.Process, blocks: Iterable[bytes]) -> None:
    assert process.stdin is not None  # noqa: S101 - a pipe was asked for
    try:
        for block in blocks:
            process.stdin.write(block)
            await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return  # it died; its return code and last words say why
    finally:
        process.stdin.close()


async def _last_words(process: asyncio.subprocess.Process) -> str:
    """The end of what it complains about; the rest is read and dropped, so that it never blocks on us."""
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    kept = b""
    while chunk := await process.stderr.read(_COMPLAINT_BYTES):
        kept = (kept + chunk)[-_COMPLAINT_BYTES:]
    return kept.decode(errors="replace").strip()
