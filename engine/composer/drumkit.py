"""Drums and noises in torch: short recordings made once per song, three takes of each."""

import math
import zlib

import torch
from torch import Tensor

from engine.schema import SAMPLE_RATE

TAKES = 3
_METAL = (2.0, 3.16, 4.16, 5.43, 6.79, 8.21)


def render_drum(name: str, take: int, *, electric: bool, brightness: float) -> Tensor:
    """One stroke, float32 [1, samples]; `take` varies the noise, `electric` chooses the drum machine."""
    maker = torch.Generator().manual_seed(zlib.crc32(f"{name} {take % TAKES}".encode()))
    if name == "kick":
        wave = _kick(maker, electric=electric)
    elif name in _TOMS:
        wave = _tom(*_TOMS[name], maker)
    elif name == "snare":
        wave = _snare(maker, electric=electric, brightness=brightness)
    elif name == "clap":
        wave = _clap(maker, brightness)
    elif name == "rim":
        wave = _rim()
    else:
        low, high, attack, fall, metal, level = _NOISES[name]
        wave = level * _cymbal(maker, (low, high * brightness), attack, fall, metal)
    return _faded(wave).unsqueeze(0)


# Start Hz, end Hz, seconds to fall by 60 dB, level.
_TOMS = {"tom_high": (210.0, 140.0, 0.5, 0.55), "tom_low": (135.0, 82.0, 0.75, 0.65)}
# Band in Hz, attack and 60 dB fall in seconds, share of metallic partials, level.
_NOISES = {
    "hat": (6500.0, 11500.0, 0.001, 0.13, 0.35, 0.16),
    "open_hat": (6000.0, 11000.0, 0.001, 0.7, 0.35, 0.15),
    "ride": (3200.0, 9500.0, 0.001, 1.6, 0.6, 0.14),
    "crash": (2600.0, 10500.0, 0.002, 2.8, 0.3, 0.26),
    "shaker": (4500.0, 9500.0, 0.018, 0.14, 0.0, 0.16),
    "tambourine": (5500.0, 11000.0, 0.003, 0.3, 0.5, 0.17),
    "brush": (1500.0, 6500.0, 0.02, 0.3, 0.0, 0.17),
}


def _time(seconds: float) -> Tensor:
    return torch.arange(int(seconds * SAMPLE_RATE), dtype=torch.float32) / SAMPLE_RATE


def _fall(time: Tensor, seconds: float) -> Tensor:
    """Exponential, 60 dB in `seconds`."""
    return torch.exp(time * (-6.9 / seconds))


def _faded(wave: Tensor) -> Tensor:
    """No click at the end: the last 8 ms go to zero."""
    count = min(384, wave.numel())
    wave[-count:] *= torch.linspace(1.0, 0.0, count)
    return wave


def _sweep(time: Tensor, start_hz: float, end_hz: float, seconds: float) -> Tensor:
    """A sine whose frequency falls exponentially; phase is the integral in closed form."""
    fallen = seconds * (1.0 - torch.exp(-time / seconds))
    return torch.sin(2 * math.pi * (end_hz * time + (start_hz - end_hz) * fallen))


def _band(maker: torch.Generator, count: int, low_hz: float, high_hz: float) -> Tensor:
    """Noise between two frequencies, RMS 1."""
    size = 1 << (count - 1).bit_length()
    bins = torch.fft.rfft(torch.randn(size, generator=maker))
    f = torch.linspace(0.0, SAMPLE_RATE / 2, bins.numel())
    bins *= torch.rsqrt(1.0 + (low_hz / (f + 1.0)) ** 8) * torch.rsqrt(1.0 + (f / high_hz) ** 8)
    noise: Tensor = torch.fft.irfft(bins)[:count]
    return noise.div(noise.square().mean().sqrt())


def _kick(maker: torch.Generator, *, electric: bool) -> Tensor:
    time = _time(0.5 if electric else 0.36)
    body = _sweep(time, 230.0 if electric else 160.0, 47.0 if electric else 56.0, 0.028)
    body = torch.tanh(1.6 * body) * _fall(time, 0.55 if electric else 0.38)
    click = _band(maker, time.numel(), 1200.0, 4500.0) * _fall(time, 0.018)
    return (0.72 if electric else 0.8) * body * torch.clamp(time / 0.001, max=1.0) + 0.09 * click


def _tom(start_hz: float, end_hz: float, seconds: float, level: float, maker: torch.Generator) -> Tensor:
    time = _time(seconds)
    skin = _band(maker, time.numel(), 300.0, 2500.0) * _fall(time, 0.08)
    return level * (_sweep(time, start_hz, end_hz, 0.09) * _fall(time, seconds) + 0.1 * skin)


def _snare(maker: torch.Generator, *, electric: bool, brightness: float) -> Tensor:
    time = _time(0.34)
    skin = _sweep(time, 260.0, 182.0, 0.02) + 0.5 * _sweep(time, 420.0, 331.0, 0.02)
    wires = _band(maker, time.numel(), 1100.0, 7500.0 * brightness) * _fall(time, 0.3 if electric else 0.24)
    return 0.34 * skin * _fall(time, 0.16) + 0.15 * wires * torch.clamp(time / 0.001, max=1.0)


def _clap(maker: torch.Generator, brightness: float) -> Tensor:
    time = _time(0.32)
    hands = torch.zeros_like(time)
    for start, weight in ((0.0, 0.7), (0.010, 0.8), (0.021, 1.0)):
        hands += (
            weight
            * (time >= start)
            * torch.exp(-(time - start).clamp(min=0.0) * (260.0 if start < 0.02 else 26.0))
        )
    return 0.17 * hands * _band(maker, time.numel(), 800.0, 4800.0 * brightness)


def _rim() -> Tensor:
    time = _time(0.1)
    wood = torch.sin(2 * math.pi * 1720.0 * time) + 0.6 * torch.sin(2 * math.pi * 2510.0 * time)
    return 0.2 * wood * _fall(time, 0.06) * torch.clamp(time / 0.0006, max=1.0)


def _cymbal(
    maker: torch.Generator, band: tuple[float, float], attack: float, fall: float, metal: float
) -> Tensor:
    time = _time(attack + fall)
    noise = _band(maker, time.numel(), *band)
    ring = torch.stack([torch.sin(2 * math.pi * 1000.0 * r * time + r) for r in _METAL]).sum(0) / 1.8
    wave = (1.0 - metal) * noise + metal * ring
    rise = torch.clamp(time / attack, max=1.0)
    return wave * rise * (0.7 * _fall(time, fall * 0.45) + 0.3 * _fall(time, fall))


def render_riser(seconds: float) -> Tensor:
    """Noise that climbs from dull to bright and swells, float32 [2, samples]; a different one in each ear."""
    time = _time(seconds)
    channels: list[Tensor] = []
    for side in range(2):
        maker = torch.Generator().manual_seed(90 + side)
        place = time / seconds
        low = _band(maker, time.numel(), 250.0, 900.0) * (1.0 - place)
        high = _band(maker, time.numel(), 1500.0, 6000.0) * place * place
        channels.append(_faded(0.1 * (low + high) * place))
    return torch.stack(channels)
