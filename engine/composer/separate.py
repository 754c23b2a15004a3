"""Taking one track out of a mix by where it lies: in frequency, in the stereo image, in time."""

from collections.abc import Iterator

import msgspec
import torch
from torch import Tensor

from engine.schema import SAMPLE_RATE

_WINDOW = 4096
_HOP = 1024
_BLOCK = 2**19
_OVERLAP = 2**15
_LEAK = 0.03
"""So much of everything stays: a mix without the track is not answered with silence."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a kind of track is found."""

    low_hz: float
    high_hz: float
    beats: bool = False
    """Short and wide in frequency, rather than long and narrow."""
    centre: float = 0.5
    """1: only what both channels share; 0: only what they do not; 0.5: either."""


PLACES = {
    "vocals": Place(low_hz=150, high_hz=8000, centre=1.0),
    "backing_vocals": Place(low_hz=200, high_hz=8000, centre=0.0),
    "drums": Place(low_hz=30, high_hz=18_000, beats=True),
    "percussion": Place(low_hz=300, high_hz=18_000, beats=True),
    "fx": Place(low_hz=2000, high_hz=18_000, beats=True, centre=0.0),
    "bass": Place(low_hz=30, high_hz=220),
    "guitar": Place(low_hz=100, high_hz=5000, centre=0.2),
    "keyboard": Place(low_hz=100, high_hz=5000),
    "strings": Place(low_hz=200, high_hz=9000, centre=0.2),
    "synth": Place(low_hz=100, high_hz=12_000, centre=0.2),
    "brass": Place(low_hz=150, high_hz=7000),
    "woodwinds": Place(low_hz=250, high_hz=7000),
}


def extract(source: Tensor, track: str) -> Iterator[float | Tensor]:
    """Yields progress (0 to 1) after each block of about ten seconds, and last the track [2, frames]."""
    place = PLACES[track]
    frames = source.shape[1]
    found = torch.zeros_like(source)
    for start in range(0, frames, _BLOCK - _OVERLAP):
        block = source[:, start : start + _BLOCK]
        fade = torch.ones(block.shape[1])
        ramp = torch.linspace(0.0, 1.0, _OVERLAP)
        if start:
            fade[:_OVERLAP] = ramp[: fade.numel()]
        if start + _BLOCK < frames:
            fade[-_OVERLAP:] = 1.0 - ramp
        found[:, start : start + _BLOCK] += _masked(block, place) * fade
        yield min(1.0, (start + _BLOCK) / frames)
        if start + _BLOCK >= frames:
            break
    yield found


def _masked(block: Tensor, place: Place) -> Tensor:
    window = torch.hann_window(_WINDOW)
    padded = torch.nn.functional.pad(block, (0, max(0, _WINDOW - block.shape[1])))
    bins = torch.stft(padded, _WINDOW, _HOP, window=window, return_complex=True)
    power = bins.abs().square()
    mask = _band(place) * _texture(power.sum(0), beats=place.beats) * _image(bins, place.centre)
    mask = _LEAK + (1.0 - _LEAK) * mask
    return torch.istft(bins * mask, _WINDOW, _HOP, window=window, length=padded.shape[1])[:, : block.shape[1]]


def _band(place: Place) -> Tensor:
    """Soft edges, [bins, 1]."""
    hertz = torch.linspace(0, SAMPLE_RATE / 2, _WINDOW // 2 + 1)[:, None]
    above = torch.sigmoid((hertz - place.low_hz) / (0.15 * place.low_hz))
    below = torch.sigmoid((place.high_hz - hertz) / (0.15 * place.high_hz))
    return above * below


def _texture(power: Tensor, *, beats: bool) -> Tensor:
    """Share of what is smooth in time, or in frequency, in each bin (Fitzgerald 2010, with means)."""
    image = power[None, None]
    long = torch.nn.functional.avg_pool2d(image, (1, 17), stride=1, padding=(0, 8))[0, 0]
    wide = torch.nn.functional.avg_pool2d(image, (17, 1), stride=1, padding=(8, 0))[0, 0]
    wanted, other = (wide, long) if beats else (long, wide)
    return wanted.square() / (wanted.square() + other.square() + 1e-12)


def _image(bins: Tensor, centre: float) -> Tensor:
    if centre == 0.5:
        return torch.ones(())
    both, apart = (bins[0] + bins[1]).abs().square(), (bins[0] - bins[1]).abs().square()
    shared = both / (both + apart + 1e-12)
    return centre * shared + (1.0 - centre) * (1.0 - shared)
