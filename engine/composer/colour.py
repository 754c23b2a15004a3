"""A reference's colour: its balance of octaves, put on a song with a gentle filter."""

import torch
from torch import Tensor

from engine.schema import SAMPLE_RATE

_BLOCK = 2**17
_TAPS = 1023
_EDGES_HZ = (0, 63, 125, 250, 500, 1000, 2000, 4000, 8000, 16_000, SAMPLE_RATE // 2)
_MOST_DB = 6.0


def colour(song: Tensor, reference: Tensor) -> Tensor:
    """`song` [2, frames] with the octave balance of `reference` [2, any], at most 6 dB a band."""
    gains_db = (_balance(reference) - _balance(song)).clamp(-_MOST_DB, _MOST_DB)
    return _filtered(song, _response(gains_db))


def _balance(sound: Tensor) -> Tensor:
    """DB of each octave against the whole, [bands]."""
    mono = torch.nn.functional.pad(sound.mean(0), (0, -sound.shape[1] % 8192)).view(-1, 8192)
    power = torch.fft.rfft(mono * torch.hann_window(8192)).abs().square().sum(0)
    hertz = torch.linspace(0, SAMPLE_RATE / 2, power.numel())
    band = torch.bucketize(hertz, torch.tensor(_EDGES_HZ[1:-1], dtype=hertz.dtype))
    octaves = torch.zeros(len(_EDGES_HZ) - 1).index_add_(0, band, power)
    return 10.0 * torch.log10((octaves + 1e-9) / (octaves.sum() + 1e-6))


def _response(gains_db: Tensor) -> Tensor:
    """Linear-phase impulse response through the bands' centres, [_TAPS]."""
    hertz = torch.linspace(0, SAMPLE_RATE / 2, 513)
    band = torch.bucketize(hertz, torch.tensor(_EDGES_HZ[1:-1], dtype=hertz.dtype))
    smooth = torch.nn.functional.avg_pool1d(gains_db[band][None, None], 9, stride=1, padding=4)
    impulse = torch.fft.irfft(10.0 ** (smooth.flatten() / 20.0)).roll(512)
    response: Tensor = impulse[1:] * torch.hann_window(_TAPS, periodic=False)
    return response


def _filtered(song: Tensor, impulse: Tensor) -> Tensor:
    """Overlap-add, delayed by nothing: the filter's own delay is cut off in front."""
    size = 2 * _BLOCK
    spectrum = torch.fft.rfft(impulse, size)
    long = torch.zeros(2, song.shape[1] + _TAPS)
    for start in range(0, song.shape[1], _BLOCK):
        block = song[:, start : start + _BLOCK]
        wave = torch.fft.irfft(torch.fft.rfft(block, size) * spectrum, size)
        count = min(block.shape[1] + _TAPS, long.shape[1] - start)
        long[:, start : start + count] += wave[:, :count]
    delay = _TAPS // 2
    return long[:, delay : delay + song.shape[1]].contiguous()
