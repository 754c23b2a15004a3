"""The room: reverb, echo and the low cut, applied to a chunk at a time by FFT.

A chunk of HOP frames gives FFT_SIZE frames of output, which overlap-add into the song; impulse responses are
at most FFT_SIZE - HOP long, so the circular convolution is the linear one.
"""

import math

import torch
from torch import Tensor

from engine.schema import SAMPLE_RATE

HOP = 131_072
FFT_SIZE = 2 * HOP
LONGEST_RESPONSE = FFT_SIZE - HOP
_LOW_CUT_HZ = 32.0


class Room:
    """Transfer functions of one song's space; holds no audio."""

    def __init__(self, *, reverb: float, beat_seconds: float) -> None:
        self._dry = _low_cut()
        self._reverb = torch.fft.rfft(_reverb_response(reverb), n=FFT_SIZE) * self._dry
        self._echo = torch.fft.rfft(_echo_response(beat_seconds), n=FFT_SIZE) * self._dry

    def place(self, dry: Tensor, reverb_send: Tensor, echo_send: Tensor) -> Tensor:
        """[2, HOP], [HOP] and [HOP] become [2, FFT_SIZE], to be added to the song from the chunk on."""
        bins = torch.fft.rfft(dry, n=FFT_SIZE) * self._dry
        bins += torch.fft.rfft(reverb_send, n=FFT_SIZE) * self._reverb
        bins += torch.fft.rfft(echo_send, n=FFT_SIZE) * self._echo
        wet: Tensor = torch.fft.irfft(bins, n=FFT_SIZE)
        return wet


def _low_cut() -> Tensor:
    """Second-order Butterworth high-pass on the FFT's bins: no DC, no rumble."""
    s = 1j * torch.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1) / _LOW_CUT_HZ
    return s * s / (s * s + math.sqrt(2.0) * s + 1.0)


def _reverb_response(amount: float) -> Tensor:
    """[2, samples]: a few reflections, then noise in three bands that decay at their own speeds."""
    fall = 0.7 + 1.7 * amount
    count = min(LONGEST_RESPONSE, int(1.1 * fall * SAMPLE_RATE))
    time = torch.arange(count, dtype=torch.float32) / SAMPLE_RATE
    maker = torch.Generator().manual_seed(20)
    f = torch.linspace(0.0, SAMPLE_RATE / 2, FFT_SIZE // 2 + 1)
    response = torch.zeros(2, count)
    for low, high, share, speed in ((150, 700, 1.0, 1.0), (700, 2800, 0.8, 0.85), (2800, 7500, 0.45, 0.5)):
        bins = torch.fft.rfft(torch.randn(2, FFT_SIZE, generator=maker))
        bins *= torch.rsqrt(1.0 + (low / (f + 1.0)) ** 4) * torch.rsqrt(1.0 + (f / high) ** 4)
        response += share * torch.fft.irfft(bins)[:, :count] * torch.exp(time * (-6.9 / (fall * speed)))
    response += 0.25 * response.flip(0)  # the ears of one room are never quite strangers
    onset = torch.clamp((time - 0.012) / 0.03, 0.0, 1.0)
    response *= onset
    response /= response.square().sum(1, keepdim=True).sqrt()
    for channel, delays in enumerate(((0.0113, 0.0197, 0.0311), (0.0139, 0.0229, 0.0287))):
        for i, delay in enumerate(delays):
            response[channel, int(delay * SAMPLE_RATE)] += 0.28 * 0.75**i
    response[:, -2400:] *= torch.linspace(1.0, 0.0, 2400)
    return response


def _echo_response(beat_seconds: float) -> Tensor:
    """[2, samples]: four repeats left and right in turn, three quarters of a beat apart, each one duller."""
    delay = 0.75 * beat_seconds
    while delay > 0.62:
        delay /= 2
    while delay < 0.2:
        delay *= 1.5
    response = torch.zeros(2, LONGEST_RESPONSE)
    blur = torch.ones(1)
    kernel = torch.hann_window(14, periodic=False)[1:-1]
    kernel /= kernel.sum()
    for i in range(4):
        blur = torch.nn.functional.conv1d(blur.view(1, 1, -1), kernel.view(1, 1, -1), padding=11).flatten()
        start = int((i + 1) * delay * SAMPLE_RATE)
        near, far = (i % 2, 1 - i % 2)
        response[near, start : start + blur.numel()] += 0.6**i * blur
        response[far, start : start + blur.numel()] += 0.25 * 0.6**i * blur
    return response
