"""Music-like samples, one master of them, and the real encoder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from engine import EngineRequest, Finished
from engine.composer.runner import MODEL, ComposerRunner
from gateway.audio import MASTER_SAMPLE_RATE, EncodedFile, Encoder

Samples = npt.NDArray[np.float32]


def _play(frames: int) -> Samples:
    """A melody over a bass with some noise, stereo, 48 kHz, -10 dBFS at its peaks."""
    t = np.arange(frames) / MASTER_SAMPLE_RATE
    pitch = 220 * 2 ** (np.floor(t * 2 % 8) / 12)
    left = 0.2 * np.sin(2 * np.pi * np.cumsum(pitch) / MASTER_SAMPLE_RATE) + 0.1 * np.sin(110 * np.pi * t)
    noise = np.random.default_rng(1).standard_normal((2, frames)) * 0.01
    return (np.stack([left, np.roll(left, 90)]) + noise).astype(np.float32)


@pytest.fixture(scope="session")
def play() -> Callable[[int], Samples]:
    """Makes `[2, frames]` at 48 kHz."""
    return _play


@pytest.fixture(scope="session")
def song() -> Samples:
    """A little over 6 s: no multiple of any codec's frame, so that exact lengths are no accident."""
    return _play(6 * MASTER_SAMPLE_RATE + 17)


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(concurrency=2)


@pytest.fixture
async def master(encoder: Encoder, song: Samples, tmp_path: Path) -> EncodedFile:
    return await encoder.write_master(song, sample_rate=MASTER_SAMPLE_RATE, folder=tmp_path)


@pytest.fixture(scope="session")
def composed() -> Samples:
    """30 s of a song, as the sandbox model makes it."""
    request = EngineRequest(
        id="song", model=MODEL, prompt="pop song", lyrics="", frames=30 * MASTER_SAMPLE_RATE, seed=1
    )
    for event in ComposerRunner(threads=1).run([request], lambda _: True):
        if isinstance(event, Finished):
            return event.result.samples
    raise AssertionError("no song")
