"""Songs for outputs, made once for each process, and what a vendor's file may be instead of one."""

import io
from functools import lru_cache

import numpy as np
import soundfile

from tests.providers.wavespeed.faults import Outputs

RATE = 48_000
HUGE_BYTES = 100_000_000
TYPES = {"MP3": "audio/mpeg", "WAV": "audio/wav", "FLAC": "audio/flac"}
TEXT = b"This file is no audio, whatever its type says.\n" * 40
PAGE = b"<!doctype html><html><body><h1>File expired</h1></body></html>"
_CHORDS = ((1, 5 / 4, 3 / 2), (1, 6 / 5, 3 / 2), (1, 4 / 3, 3 / 2), (1, 5 / 4, 15 / 8))


def output(seconds: float, seed: int, outputs: Outputs | None) -> tuple[bytes, str]:
    """The file and its media type, of a prediction of that length and seed."""
    kind = outputs.kind if outputs else ""
    if kind == "text":
        return TEXT, TYPES["MP3"]
    if kind == "page":
        return PAGE, "text/html"
    factor = {"half": 0.5, "double": 2.0, "short": outputs.share if outputs else 1.0}.get(kind, 1.0)
    form = kind.upper() if kind in ("wav", "flac") else "MP3"
    sound = song(seconds * factor, seed, kind if kind in ("silent", "clipped") else "", form)
    if kind == "truncated":
        sound = sound[: len(sound) * 6 // 10]
    return sound, TYPES[form]


@lru_cache(maxsize=64)
def song(seconds: float, seed: int, spoiled: str = "", form: str = "MP3") -> bytes:
    """A chord that swells, in stereo; which one is up to the seed."""
    frames = round(seconds * RATE)
    samples = np.zeros((frames, 2), np.float32) if spoiled == "silent" else _chord(frames, seed)
    if spoiled == "clipped":
        samples = np.clip(samples * 100, -1, 1)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=form)
    return file.getvalue()


def _chord(frames: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    root, beat = random.uniform(110, 440), random.uniform(0.5, 3)
    steps = _CHORDS[random.integers(len(_CHORDS))]
    turn = np.arange(frames, dtype=np.float32) * np.float32(2 * np.pi / RATE)
    swell = 0.7 + 0.3 * np.sin(turn * np.float32(beat))
    sides = [
        sum(np.sin(turn * np.float32(root * step) + np.float32(shift)) for step in steps) * swell
        for shift in (0, 0.6)
    ]
    return np.stack(sides, axis=1).astype(np.float32) * np.float32(0.2)
