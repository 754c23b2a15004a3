"""Music that costs little to make: chords that differ by seed, loud and unclipped, in every format."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from tests.providers.runware.faults import OutputKind

CONTENT_TYPES = {"MP3": "audio/mpeg", "WAV": "audio/wav", "FLAC": "audio/flac", "OGG": "audio/ogg"}
_SHARES: dict[str, float] = {"half": 0.5, "double": 2.0, "short": 0.93, "long": 1.07}
_LOOP_FRAMES = 75
_FRAME_SAMPLES = 1152
_LOOP = _LOOP_FRAMES * _FRAME_SAMPLES
"""The chord's period in samples: whole MPEG frames, so that an mp3 file can repeat them."""
_BLOCK = 1 << 16
"""libsndfile's Vorbis encoder overflows its stack when it is given minutes at once."""
_TEXT = b"<html><body>502 Bad Gateway</body></html>"


@lru_cache(maxsize=16)
def make(
    seconds: float,
    seed: int,
    output_format: str,
    rate: int,
    channels: int = 2,
    kbps: int | None = None,
    kind: OutputKind | None = None,
) -> bytes:
    """A whole file; `kind` makes it a bad one."""
    if kind in ("text", "empty"):
        return _TEXT if kind == "text" else b""
    frames = round(seconds * _SHARES.get(kind or "", 1.0) * rate)
    loop = _chord(seed, rate, 1 if kind == "mono" else channels)
    if kind == "silent":
        loop = np.zeros_like(loop)
    elif kind == "clipped":
        loop = np.clip(loop * 20, -1, 1)
    if output_format == "MP3" and kbps is None and rate >= 32_000:
        content = _mp3(loop, frames, rate)
    else:
        content = _encode(loop, frames, output_format, rate, kbps)
    return content[: len(content) // 2] if kind == "truncated" else content


def length_of(content: bytes) -> float:
    """In seconds; ValueError unless it is audio."""
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            return float(file.frames / file.samplerate)
    except soundfile.LibsndfileError as error:
        raise ValueError(str(error)) from None


def _chord(seed: int, rate: int, channels: int) -> npt.NDArray[np.float32]:
    """One period, `[frames, channels]`, with a beat in it."""
    draw = np.random.default_rng(seed)
    root = draw.uniform(110, 330)
    at = np.arange(_LOOP, dtype=np.float32) / _LOOP
    sound = np.zeros(_LOOP, dtype=np.float32)
    for ratio in (1, 1.25, 1.5, 2):
        periods = round(root * ratio * _LOOP / rate)
        sound += np.sin(2 * np.pi * (periods * at + draw.uniform())).astype(np.float32)
    sound *= 0.12 * (1.2 + np.sin(2 * np.pi * 4 * at))
    return np.stack([sound * (1 - 0.1 * channel) for channel in range(channels)], axis=1)


def _encode(
    loop: npt.NDArray[np.float32], frames: int, output_format: str, rate: int, kbps: int | None = None
) -> bytes:
    out = io.BytesIO()
    options: dict[str, Any] = {}
    if output_format == "MP3":
        most, least = (320, 32) if rate >= 32_000 else (160, 8)
        level = min(1.0, max(0.0, (most - (kbps or most)) / (most - least)))
        options = {"bitrate_mode": "CONSTANT", "compression_level": level}
    with soundfile.SoundFile(out, "w", rate, loop.shape[1], format=output_format, **options) as file:
        for start in range(0, frames, _LOOP):
            piece = loop[: min(_LOOP, frames - start)]
            for block in range(0, len(piece), _BLOCK):
                file.write(piece[block : block + _BLOCK])
    return out.getvalue()


def _mp3(loop: npt.NDArray[np.float32], frames: int, rate: int) -> bytes:
    """At 320 kbit/s no frame borrows from the one before: one period's frames can be repeated."""
    encoded = _encode(loop, 3 * _LOOP, "MP3", rate)
    sound = list(_mpeg_frames(encoded))
    period = sound[_LOOP_FRAMES : 2 * _LOOP_FRAMES]
    wanted = -(-frames // _FRAME_SAMPLES)
    whole, rest = divmod(wanted, len(period))
    return b"".join(period) * whole + b"".join(period[:rest])


def _mpeg_frames(content: bytes) -> Any:
    """Each frame of an MPEG 1 layer III file of 320 kbit/s."""
    rates = (44_100, 48_000, 32_000)
    at = 0
    while at + 4 <= len(content):
        rate, padding = rates[content[at + 2] >> 2 & 3], content[at + 2] >> 1 & 1
        size = _FRAME_SAMPLES // 8 * 320_000 // rate + padding
        yield content[at : at + size]
        at += size
