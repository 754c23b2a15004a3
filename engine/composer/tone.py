"""Pitched notes in torch: one waveform cycle per note, read at its pitch with linear interpolation.

Reading a table costs the same for any number of harmonics, so a rich chord is as cheap as a sine.
"""

import math
import zlib
from collections.abc import Callable

import torch
from torch import Tensor

from engine.composer.timbres import FORMANTS, TIMBRES, Timbre
from engine.schema import SAMPLE_RATE

TABLE = 4096
NOTE_RMS = 0.1
MAX_NOTE_SECONDS = 20.0
_HIGHEST_HZ = 15_000.0
_MOST_HARMONICS = 120
_DRAWBARS = {1: 0.9, 2: 1.0, 3: 0.7, 4: 0.5, 6: 0.25, 8: 0.3}


def render_tone(name: str, pitch: int, seconds: float, *, cut: float, vowel: str) -> Tensor:
    """One note, float32 [1 or 2 channels, samples]; `cut` scales the brightness (1 = as designed)."""
    timbre = TIMBRES[name]
    hz = 440.0 * 2.0 ** ((pitch - 69) / 12)
    count = max(64, int(min(seconds + timbre.release, MAX_NOTE_SECONDS) * SAMPLE_RATE))
    time = torch.arange(count, dtype=torch.float32) / SAMPLE_RATE
    if timbre.modes:
        wave = _ring(timbre, hz, time, cut)
    else:
        wave = _read_cycles(timbre, hz, time, cut, vowel or "a", zlib.crc32(f"{name} {pitch}".encode()))
    if timbre.breath:
        wave = wave + timbre.breath * _breath(count, hz)
    level = 10.0 ** (timbre.gain_db / 20.0)
    return wave.mul_(_envelope(timbre, hz, time).mul_(level))


def _envelope(timbre: Timbre, hz: float, time: Tensor) -> Tensor:
    """[samples]: attack, decay or sustain, then a release that ends at exactly zero."""
    attack = torch.clamp(time / timbre.attack, max=1.0)
    level = attack * attack * (3.0 - 2.0 * attack)
    if timbre.decay:
        fall = timbre.decay * (262.0 / max(hz, 60.0)) ** 0.6
        level = level * torch.exp(time * (-6.9 / fall))
    elif not timbre.modes:
        level = level * (timbre.sustain + (1.0 - timbre.sustain) * torch.exp(-4.0 * time))
    left = (time[-1] - time) / timbre.release
    tail = torch.clamp(left, max=1.0)
    return level.mul(tail.square())


def _ring(timbre: Timbre, hz: float, time: Tensor, cut: float) -> Tensor:
    """Struck bars and tines: a handful of modes, each with its own decay. [1, samples]."""
    wave = torch.zeros_like(time)
    loud = 0.0
    for ratio, level, fall in timbre.modes:
        if hz * ratio < _HIGHEST_HZ:
            amplitude = level * (cut if ratio > 1 else 1.0)
            fade = torch.exp(time * (-6.9 / fall * (hz / 330.0) ** 0.4))
            wave += amplitude * fade * torch.sin(time.double().mul_(2 * math.pi * hz * ratio).float())
            loud += amplitude * amplitude / 2
    return (wave * (NOTE_RMS / math.sqrt(loud))).unsqueeze(0)


def _read_cycles(timbre: Timbre, hz: float, time: Tensor, cut: float, vowel: str, salt: int) -> Tensor:
    """[channels, samples] from the bright and the dark cycle, `unison` detuned readers to each channel."""
    base = hz / 2 if timbre.shape == "power" else hz
    bright = cycle(timbre, base, timbre.bright_hz * cut, vowel)
    channels = 2 if timbre.stereo else 1
    tables = bright.unsqueeze(0)
    mix = None
    if timbre.dark_hz != timbre.bright_hz:
        tables = torch.stack([bright, cycle(timbre, base, timbre.dark_hz * cut, vowel)])
        mix = torch.exp(time / -timbre.dark_seconds)
    warp = _vibrato(timbre, time)
    out = torch.zeros(channels, time.numel())
    readers = channels * timbre.unison
    for i in range(readers):
        cents = timbre.detune_cents * (2.0 * i / (readers - 1) - 1.0) if readers > 1 else 0.0
        offset = ((salt >> (5 * i)) % 32) / 32 if readers > 1 else 0.0
        phase = (warp * (base * 2.0 ** (cents / 1200.0)) + offset) % 1.0
        out[i % channels] += _lookup(tables, phase.float(), mix)
    return out / math.sqrt(timbre.unison)


def _vibrato(timbre: Timbre, time: Tensor) -> Tensor:
    """Time bent by a vibrato that sets in after a third of a second, float64 seconds [samples]."""
    exact = time.double()
    if not timbre.vibrato_cents:
        return exact
    depth = (2.0 ** (timbre.vibrato_cents / 1200.0) - 1.0) / (2 * math.pi * timbre.vibrato_hz)
    onset = torch.clamp((time - 0.18) / 0.35, 0.0, 1.0)
    return exact.sub((onset * torch.cos(2 * math.pi * timbre.vibrato_hz * time)).double(), alpha=depth)


def _lookup(tables: Tensor, phase: Tensor, mix: Tensor | None) -> Tensor:
    """Linear interpolation in tables [1 or 2, TABLE + 1]; `mix` is the share of the first."""
    place = phase * TABLE
    index = place.long().clamp_(max=TABLE - 1)
    part = place - index
    if mix is not None and tables.shape[0] == 2:
        low = torch.lerp(tables[1][index], tables[0][index], mix)
        high = torch.lerp(tables[1][index + 1], tables[0][index + 1], mix)
        return torch.lerp(low, high, part)
    table = tables[0]
    return torch.lerp(table[index], table[index + 1], part)


def cycle(timbre: Timbre, hz: float, cut_hz: float, vowel: str) -> Tensor:
    """One period [TABLE + 1] of the timbre at `hz`: band-limited, low-passed, of even loudness."""
    count = max(1, min(_MOST_HARMONICS, int(_HIGHEST_HZ / hz)))
    number = torch.arange(1, count + 1, dtype=torch.float32)
    level = _harmonics(timbre.shape, number, hz, vowel)
    # Spread phases keep the crest low; the same ones for every table, so that cross-fades never cancel.
    spread = 2.4 * number * number / 7.0 if timbre.shape not in {"pluck", "triangle", "power"} else 0 * number
    bins = torch.zeros(TABLE // 2 + 1, dtype=torch.complex64)
    bins[1 : count + 1] = torch.polar(level, spread)
    if timbre.drive:
        wave = torch.fft.irfft(bins, n=TABLE)
        wave = torch.tanh(wave * ((0.5 + timbre.drive) / wave.abs().max()))
        bins = torch.fft.rfft(wave)
        bins[0] = 0
        bins[count + 1 :] = 0
    pitch = number * hz
    cut_hz = max(cut_hz, 1.3 * hz * (2 if timbre.shape == "power" else 1))
    bins[1 : count + 1] *= torch.rsqrt(1.0 + (pitch / cut_hz) ** 4)
    power = (bins[1 : count + 1].abs() ** 2 * _audibility(pitch)).sum() * 2.0 / TABLE**2
    wave = torch.fft.irfft(bins, n=TABLE) * (NOTE_RMS / float(power) ** 0.5)
    return torch.cat([wave, wave[:1]])


def _harmonics(shape: str, number: Tensor, hz: float, vowel: str) -> Tensor:
    """Levels of the harmonics 1, 2, 3... before filtering."""
    if shape == "voice":
        return _formants(number * hz, vowel) / number**0.7
    return _SHAPES[shape](number, hz)


def _reed(number: Tensor, hz: float) -> Tensor:
    tube = torch.rsqrt(1.0 + ((number * hz - 900.0) / 900.0) ** 2)
    return (0.55 + 0.45 * (number % 2)) / number**0.75 * tube


def _pluck(number: Tensor, _hz: float) -> Tensor:
    """A string plucked at 0.137 of its length lacks the harmonics that have a node there."""
    return (torch.sin(math.pi * 0.137 * number).abs() + 0.03) / number**1.15


def _organ(number: Tensor, _hz: float) -> Tensor:
    return torch.tensor([_DRAWBARS.get(int(n), 0.0) for n in number])


def _power(number: Tensor, _hz: float) -> Tensor:
    """Root, fifth and octave as saws over a cycle of half the root's frequency."""
    voices = [(number % ratio == 0) * ratio / number for ratio in (2, 3, 4)]
    return torch.stack(voices).mean(0)


_SHAPES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "saw": lambda number, _: 1.0 / number,
    "square": lambda number, _: (0.06 + 0.94 * (number % 2)) / number,
    "triangle": lambda number, _: (number % 2) / number**2 + 0.02 / number,
    "hollow": lambda number, _: (1.0 - 0.45 * (number == 2)) / number**1.9,
    "reed": _reed,
    "pluck": _pluck,
    "organ": _organ,
    "power": _power,
}


def _formants(hz: Tensor, vowel: str) -> Tensor:
    """Gain of the mouth at each frequency: four resonances above a floor."""
    peaks = [level / torch.sqrt(1.0 + ((hz - f) / (60.0 + 0.07 * f)) ** 2) for f, level in FORMANTS[vowel]]
    return torch.stack(peaks).sum(0).add(0.02)


def _audibility(hz: Tensor) -> Tensor:
    """Rough weight of loudness by frequency: less in the bass, more around 3 kHz."""
    bass = hz**2 / (hz**2 + 150.0**2)
    treble: Tensor = hz**2 / (hz**2 + 2000.0**2)
    return treble.add(1.0).mul(bass + 0.45)


def _breath(count: int, hz: float) -> Tensor:
    """Air around the note [1, samples]: noise between an octave above the pitch and 6 kHz."""
    maker = torch.Generator().manual_seed(int(hz))
    noise = torch.randn(TABLE * 4, generator=maker)
    bins = torch.fft.rfft(noise)
    f = torch.linspace(0.0, SAMPLE_RATE / 2, bins.numel())
    bins *= torch.sigmoid((f - 1.5 * hz) / 200.0) * torch.sigmoid((5000.0 - f) / 700.0)
    loop: Tensor = torch.fft.irfft(bins)
    loop *= NOTE_RMS / loop.square().mean().sqrt()
    return loop.repeat(-(-count // loop.numel()))[:count].unsqueeze(0)
