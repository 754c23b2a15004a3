"""Ears for the engine's tests: what can be measured on finished audio."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from engine import EngineRequest, EngineResult, Finished
from engine.composer.runner import ComposerRunner

RATE = 48_000
NAMES = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
# Krumhansl and Kessler's probe-tone profiles.
MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
Audio = NDArray[np.float32]


def ask(seconds: float = 10.0, prompt: str = "pop song", **fields: object) -> EngineRequest:
    """A request with everything a test does not care about filled in."""
    values = {
        "id": "r",
        "model": "sandbox",
        "lyrics": "",
        "seed": 1,
        "frames": round(seconds * RATE),
        **fields,
    }
    return EngineRequest(prompt=prompt, **values)  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _sing(request: EngineRequest) -> EngineResult:
    for event in ComposerRunner(threads=1).run([request], lambda _: True):
        if isinstance(event, Finished):
            return event.result
    raise AssertionError("no result")


class Ears:
    """Measurements on samples of shape [2, frames]."""

    @staticmethod
    def onset_strength(samples: Audio) -> tuple[NDArray[np.float64], float]:
        """Rise of the log spectrum, summed over frequency, and its frames per second."""
        hop = 480
        # Longer than two periods of the lowest bass note, which would otherwise flicker.
        spec = _spectrogram(samples.mean(0), 4096, hop)
        rise = np.diff(np.log1p(spec), axis=0)
        flux = np.maximum(rise, 0).sum(1)
        return flux - flux.mean(), RATE / hop

    @classmethod
    def pulse_strength(cls, samples: Audio, bpm: float) -> float:
        """Autocorrelation of the onsets one to four beats apart: high (1 at most) when the beat is `bpm`."""
        flux, rate = cls.onset_strength(samples)
        lags = [k * 60 / bpm * rate for k in (1, 2, 4)]
        correlation = _autocorrelation(flux)
        return float(np.mean([np.interp(lag, np.arange(correlation.size), correlation) for lag in lags]))

    @classmethod
    def tempo(cls, samples: Audio) -> float:
        """Beats per minute (30-300) whose first eight multiples line up best; some metrical level."""
        flux, rate = cls.onset_strength(samples)
        correlation = _autocorrelation(flux)
        grid = np.arange(30, 300, 0.05)
        multiples = np.arange(1, 9)
        lags = multiples[None] * (60 / grid * rate)[:, None]
        strength = np.interp(lags, np.arange(correlation.size), correlation, right=0).mean(1)
        return float(grid[int(np.argmax(strength))])

    @staticmethod
    def key(samples: Audio) -> str:
        """The key whose profile fits the chroma best."""
        spec = _spectrogram(samples.mean(0), 32_768, 16_384)
        freqs = np.fft.rfftfreq(32_768, 1 / RATE)
        use = (freqs > 100) & (freqs < 2000)
        classes = np.round(69 + 12 * np.log2(freqs[use] / 440)).astype(int) % 12
        energy = np.sqrt(spec[:, use]).sum(0)
        chroma = np.bincount(classes, weights=energy, minlength=12)
        fits = {
            f"{NAMES[tonic]} {mode}": np.corrcoef(np.roll(profile, tonic), chroma)[0, 1]
            for tonic in range(12)
            for mode, profile in (("major", MAJOR), ("minor", MINOR))
        }
        return max(fits, key=lambda name: fits[name])

    @staticmethod
    def rms_db(samples: Audio) -> float:
        return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))

    @staticmethod
    def silent_share(samples: Audio) -> float:
        """Part of the song's 50 ms blocks that lie under -60 dBFS."""
        count = samples.shape[1] // 2400
        power = np.square(samples[:, : count * 2400].reshape(2, count, 2400)).mean((0, 2))
        return float(np.mean(power < 1e-6))

    @staticmethod
    def band_share(samples: Audio, low_hz: float, high_hz: float) -> float:
        """Part of the energy between two frequencies."""
        power = _spectrogram(samples.mean(0), 4096, 4096).sum(0)
        freqs = np.fft.rfftfreq(4096, 1 / RATE)
        return float(power[(freqs >= low_hz) & (freqs < high_hz)].sum() / power.sum())

    @staticmethod
    def stereo_correlation(samples: Audio) -> float:
        return float(np.corrcoef(samples[0], samples[1])[0, 1])

    @staticmethod
    def centroid_hz(samples: Audio) -> float:
        magnitude = np.sqrt(_spectrogram(samples.mean(0), 4096, 4096)).sum(0)
        return float((np.fft.rfftfreq(4096, 1 / RATE) * magnitude).sum() / magnitude.sum())


def _spectrogram(mono: NDArray[np.float32], size: int, hop: int) -> NDArray[np.float32]:
    """Power, [frames, bins]."""
    signal = torch.from_numpy(np.ascontiguousarray(mono))
    bins = torch.stft(signal, size, hop, window=torch.hann_window(size), center=False, return_complex=True)
    return bins.abs().square().T.numpy()


def _autocorrelation(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unbiased and normalised: 1 at lag 0."""
    size = 2 * signal.size
    raw = np.fft.irfft(np.abs(np.fft.rfft(signal, size)) ** 2)[: signal.size // 2]
    raw /= np.arange(signal.size, signal.size - raw.size, -1) / signal.size
    return raw / raw[0]


@pytest.fixture(name="ears")
def _ears() -> type[Ears]:
    return Ears


@pytest.fixture(name="ask")
def _ask() -> Callable[..., EngineRequest]:
    return ask


@pytest.fixture(name="render")
def _render() -> Callable[..., Audio]:
    """Render a request (given as `ask`'s arguments) and give its samples."""

    def render(*args: object, **fields: object) -> Audio:
        return _sing(ask(*args, **fields)).samples  # type: ignore[arg-type]

    return render
