"""What the composer hears in a source: tempo, first beat and key, enough to play along."""

import msgspec
import torch
from torch import Tensor

from engine.composer.theory import Key
from engine.schema import SAMPLE_RATE

_RATE = 12_000
_HOP = 240
_ONSETS_PER_SECOND = _RATE / _HOP
_SECONDS = 90
"""Longer sources are judged by their first part."""
_CHROMA_BINS = 16_384
# Krumhansl and Kessler's probe-tone profiles, from the tonic upwards.
_MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
_MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


class Heard(msgspec.Struct, frozen=True):
    """Guesses; music without beat or key gets some, too."""

    bpm: int
    first_beat_seconds: float
    key: Key


def listen(source: Tensor) -> Heard:
    """Listen to `source` [2, frames]."""
    mono = source[:, : _SECONDS * SAMPLE_RATE].mean(0)
    step = SAMPLE_RATE // _RATE
    low = torch.nn.functional.avg_pool1d(mono[None, None], step, ceil_mode=True).flatten()
    low = torch.nn.functional.pad(low, (0, max(0, _CHROMA_BINS - low.numel())))
    flux = _onsets(low)
    bpm = _tempo(flux)
    return Heard(bpm, _first_beat(flux, bpm), _key(low))


def _onsets(signal: Tensor) -> Tensor:
    """How much louder each hop is than the one before, summed over frequency, without its mean."""
    window = torch.hann_window(1024)
    power = torch.stft(signal, 1024, _HOP, window=window, return_complex=True).abs().square()
    rise = torch.log1p(power).diff(dim=1).clamp_(min=0).sum(0)
    return rise - rise.mean()


def _tempo(flux: Tensor) -> int:
    """Beats per minute, 60 to 180, whose multiples the onsets agree with best."""
    size = 2 * flux.numel()
    raw = torch.fft.irfft(torch.fft.rfft(flux, size).abs().square(), size)[: flux.numel()]
    grid = torch.arange(60, 181)
    beats = torch.tensor([1, 2, 4])
    lags = (beats[None] * (60 * _ONSETS_PER_SECOND / grid)[:, None]).round().long()
    strength = raw[lags.clamp(max=raw.numel() - 1)].sum(1)
    # Of tempos that fit alike, the one nearest to walking: 110.
    strength = strength * torch.exp(-0.5 * (torch.log2(grid / 110) / 0.9).square())
    return int(grid[strength.argmax()])


def _first_beat(flux: Tensor, bpm: int) -> float:
    """Where in the first beat's time the onsets lie, in seconds."""
    period = 60 * _ONSETS_PER_SECOND / bpm
    phases = torch.arange(0, period)
    times = phases[:, None] + period * torch.arange(int(flux.numel() / period))[None]
    strength = flux[times.round().long().clamp(max=flux.numel() - 1)].sum(1)
    return float(phases[strength.argmax()]) / _ONSETS_PER_SECOND


def _key(signal: Tensor) -> Key:
    window = torch.hann_window(_CHROMA_BINS)
    bins = torch.stft(signal, _CHROMA_BINS, _CHROMA_BINS // 2, window=window, return_complex=True)
    hertz = torch.linspace(0, _RATE / 2, bins.shape[0])
    use = (hertz > 100) & (hertz < 2000)
    energy = bins.abs()[use].sum(1)
    classes = (69 + 12 * torch.log2(hertz[use] / 440)).round().long() % 12
    chroma = torch.zeros(12).index_add_(0, classes, energy)
    tonics = [(tonic, minor) for tonic in range(12) for minor in (False, True)]
    profiles = torch.stack([torch.tensor(_MINOR if minor else _MAJOR).roll(tonic) for tonic, minor in tonics])
    fits = torch.corrcoef(torch.cat([chroma[None] + 1e-9 * torch.arange(12), profiles]))[0, 1:]
    tonic, minor = tonics[int(fits.nan_to_num(-1.0).argmax())]
    return Key(tonic, minor)
