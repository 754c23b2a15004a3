"""The last step: fade, even loudness, and a limiter that sees the whole song. In place, chunk by chunk."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from engine.schema import SAMPLE_RATE

CEILING = 10.0 ** (-1.0 / 20.0)
_BLOCK = 64
_REACH = 24
"""Blocks on each side over which the limiter's gain bends: 32 ms."""
_LOUDNESS_FRAMES = 19_200
_CHUNK = _LOUDNESS_FRAMES * 20
_MOST_GAIN = 30.0


def master(song: Tensor, *, loudness_lufs: float, fade_seconds: float) -> Iterator[float]:
    """Finish `song` [2, frames] in place; yields how much is done, 0 to 1."""
    _fade(song, fade_seconds)
    powers, peaks = [], []
    starts = range(0, song.shape[1], _CHUNK)
    for start in starts:
        chunk = song[:, start : start + _CHUNK]
        powers.append(_loudness_powers(chunk))
        peaks.append(_block_peaks(chunk))
        yield 0.5 * (start + chunk.shape[1]) / song.shape[1]
    power, peak = torch.cat(powers), torch.cat(peaks)
    make_up = min(_MOST_GAIN, 10.0 ** ((loudness_lufs - integrated_lufs(power)) / 20.0))
    for _ in range(2):
        make_up = _corrected(make_up, power, peak, loudness_lufs)
        yield 0.5
    gains = _limited(peak * make_up).mul_(make_up)
    yield 0.5
    for start in starts:
        chunk = song[:, start : start + _CHUNK]
        chunk *= _per_frame(gains, start // _BLOCK, chunk.shape[1])
        chunk.clamp_(-CEILING, CEILING)
        yield 0.5 + 0.5 * (start + chunk.shape[1]) / song.shape[1]


def _fade(song: Tensor, seconds: float) -> None:
    """A raised cosine that reaches zero at the last frame; a few milliseconds at the start."""
    count = min(song.shape[1], max(2, int(seconds * SAMPLE_RATE)))
    song[:, -count:] *= 0.5 + 0.5 * torch.cos(torch.linspace(0.0, math.pi, count))
    song[:, -1] = 0.0
    start = min(song.shape[1], 240)
    song[:, :start] *= torch.linspace(0.0, 1.0, start)


def _loudness_powers(chunk: Tensor) -> Tensor:
    """Weighted power of each 0.4 s block, after ITU-R BS.1770 with its filters' curves approximated."""
    count = -(-chunk.shape[1] // _LOUDNESS_FRAMES)
    padded = torch.nn.functional.pad(chunk, (0, count * _LOUDNESS_FRAMES - chunk.shape[1]))
    bins = torch.fft.rfft(padded.view(2, count, _LOUDNESS_FRAMES))
    f = torch.linspace(0.0, SAMPLE_RATE / 2, bins.shape[-1])
    weight = (1.0 + 1.51 * f**4 / (f**4 + 1680.0**4)) * f**4 / (f**4 + 38.0**4)
    power: Tensor = bins.real.square() + bins.imag.square()
    return power.mul_(weight).sum((0, 2)).mul_(2.0 / _LOUDNESS_FRAMES**2)


def _block_peaks(chunk: Tensor) -> Tensor:
    count = -(-chunk.shape[1] // _BLOCK)
    padded = torch.nn.functional.pad(chunk, (0, count * _BLOCK - chunk.shape[1]))
    low, high = torch.aminmax(padded.view(2, count, _BLOCK), dim=2)
    return torch.maximum(high, -low).amax(0)


def integrated_lufs(powers: Tensor) -> float:
    """Gated loudness: blocks above -70 LUFS, then those within 10 LU of their mean."""
    loud = powers[powers > 10.0 ** ((-70.0 + 0.691) / 10.0)]
    if loud.numel() == 0:
        return -70.0
    loud = loud[loud > loud.mean() * 0.1]
    return -0.691 + 10.0 * math.log10(float(loud.mean()))


def _corrected(make_up: float, powers: Tensor, peaks: Tensor, target_lufs: float) -> float:
    """The make-up gain, raised by what the limiter takes away from the loudness with it."""
    gains = _limited(peaks * make_up)
    per_power = _LOUDNESS_FRAMES // _BLOCK
    whole = torch.nn.functional.pad(gains, (0, powers.numel() * per_power - gains.numel()), value=1.0)
    after = powers * (make_up * make_up) * whole.view(-1, per_power).square().mean(1)
    # Chasing the target for ever would flatten the music: at most 2 dB more each time.
    missing_db = target_lufs - integrated_lufs(after)
    return min(_MOST_GAIN, make_up * math.pow(10.0, min(2.0, missing_db) / 20.0))


def _limited(peaks: Tensor) -> Tensor:
    """The smoothest gain that holds every peak under the ceiling.

    The smallest gain within reach is taken first; a weighted mean over one block less of such minima, and any
    line between neighbouring means, can then never exceed what a block allows.
    """
    allowed = torch.clamp(CEILING / peaks.clamp(min=1e-9), max=1.0).view(1, 1, -1)
    reach = _REACH + 1
    lowest = -torch.nn.functional.max_pool1d(-allowed, 2 * reach + 1, stride=1, padding=reach)
    window = torch.hann_window(2 * _REACH + 3, periodic=False)[1:-1]
    window /= window.sum()
    edges = torch.nn.functional.pad(lowest, (_REACH, _REACH), mode="replicate")
    return torch.nn.functional.conv1d(edges, window.view(1, 1, -1)).flatten()


def _per_frame(gains: Tensor, first: int, frames: int) -> Tensor:
    """Lines between the centres of the blocks from `first` on, [frames]."""
    count = -(-frames // _BLOCK)
    index = torch.arange(first - 1, first + count + 1).clamp(0, gains.numel() - 1)
    near = gains[index]
    slope = torch.linspace(0.5 / _BLOCK, 1.0 - 0.5 / _BLOCK, _BLOCK)
    lines = torch.lerp(near[:-1, None], near[1:, None], slope).flatten()
    return lines[_BLOCK // 2 : _BLOCK // 2 + frames]
