"""What no engine can be faster than: the arithmetic and the bytes of a song, over what the device can do.

Counted for the released architecture from its configuration: products of matrices, attention, convolutions;
weights read once a step, sound written and read once by each convolution and activation.
"""

import time
from typing import Any, Final

import msgspec
import torch

from engine.ace_step.bundle import HOP, Bundle
from engine.schema import SAMPLE_RATE

WORDS: Final = 512
"""Tokens of text, lyrics and timbre that the count assumes; they are a hundredth of a song."""
_UNITS: Final = 3
_PASSES: Final = 10
"""Of a residual unit over its samples: two convolutions (2 each), an activation (2), a sum with one (4)."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Measured, not read off a data sheet."""

    flops: float
    """Of a large product of matrices, per second."""
    bandwidth: float
    """Bytes per second, read and written, of a large copy."""

    def as_dict(self) -> dict[str, float]:
        """For reports."""
        return {"tflops": self.flops / 1e12, "tb_per_s": self.bandwidth / 1e12}


class Floor:
    """Of one model on one device."""

    def __init__(self, bundle: Bundle, rates: Rates, *, steps: int) -> None:
        self._rates, self._steps = rates, steps
        self._dit: Any = getattr(bundle.dit, "config")  # noqa: B009 - diffusers' configs are untyped
        self._vae: Any = getattr(bundle.vae, "config")  # noqa: B009
        self._patch: int = self._dit.patch_size
        self._size = bundle.dtype.itemsize

    def seconds(self, song: float, batch: int) -> dict[str, float]:
        """Of the transformer's steps, of the decoder, and in all."""
        flops, rate = self.transformer_flops(song) * batch, self._rates.flops
        weights = self.layer_weights() * self._dit.num_hidden_layers * self._size
        step = max(flops / rate, weights / self._rates.bandwidth)
        sound, moved = self.decoder(song)
        decoder = batch * max(sound / rate, moved / self._rates.bandwidth)
        return {
            "transformer": self._steps * step,
            "decoder": decoder,
            "total": self._steps * step + decoder,
            "tflop": self._steps * flops / 1e12 + batch * sound / 1e12,
        }

    def layer_weights(self) -> float:
        """Of one layer, words' keys and values included."""
        return self._on_tokens() + self._on_words()

    def transformer_flops(self, song: float) -> float:
        """Of one step of one song."""
        config = self._dit
        tokens = -(-round(song * SAMPLE_RATE) // (HOP * self._patch))
        width = config.num_attention_heads * config.head_dim
        sliding = min(tokens, 2 * config.sliding_window + 1)
        half = config.num_hidden_layers / 2
        seen = half * (tokens + sliding) + config.num_hidden_layers * WORDS
        return 2.0 * tokens * config.num_hidden_layers * self._on_tokens() + 4.0 * tokens * width * seen

    def decoder(self, song: float) -> tuple[float, float]:
        """FLOP and bytes for one song."""
        config = self._vae
        frames = song * SAMPLE_RATE / HOP
        width = config.decoder_channels
        multiples = [1, *config.channel_multiples]
        entry = width * multiples[-1]
        flops = 2.0 * frames * 7 * config.decoder_input_channels * entry
        moved = frames * (config.decoder_input_channels + 3 * entry)
        for index, stride in enumerate(reversed(config.downsampling_ratios)):
            into, out = width * multiples[-1 - index], width * multiples[-2 - index]
            flops += 2.0 * frames * stride * 2 * into * out
            moved += frames * into
            frames *= stride
            flops += _UNITS * 2.0 * frames * (7 + 1) * out * out
            moved += frames * out * (3 + _UNITS * _PASSES)
        flops += 2.0 * frames * 7 * width * config.audio_channels
        moved += frames * (width + config.audio_channels)
        return flops, moved * self._size

    def explanation(self) -> str:
        """The formulas."""
        rates = self._rates.as_dict()
        return "\n".join(
            (
                f"floor, at {rates['tflops']:.3g} TFLOP/s and {rates['tb_per_s']:.3g} TB/s (measured now):",
                f"  transformer = {self._steps} * max(FLOP / rate, bytes of the layers' weights / bandwidth)",
                "    FLOP = 2 N * weights that meet a token",
                "         + 4 N * width of all heads * tokens that one token sees",
                "  decoder = max(FLOP of the convolutions / rate,",
                "                bytes of each convolution and activation / bandwidth)",
                "  text, lyrics and timbre are left out",
            )
        )

    def _on_tokens(self) -> float:
        config = self._dit
        heads, groups = config.num_attention_heads, config.num_key_value_heads
        attention = config.hidden_size * config.head_dim * (2 * heads + 2 * groups)
        cross = config.hidden_size * config.head_dim * 2 * heads
        return float(attention + cross + 3 * config.hidden_size * config.intermediate_size)

    def _on_words(self) -> float:
        config = self._dit
        return float(2 * config.hidden_size * config.head_dim * config.num_key_value_heads)


def measure_rates(device: torch.device, dtype: torch.dtype) -> Rates:
    """On random data: a product of zeros is faster than one of music."""
    on_gpu = device.type == "cuda"
    side, copied = (8192, 2**31) if on_gpu else (384, 2**22)
    left, right = torch.randn(2, side, side, device=device).to(dtype).unbind(0)
    source = torch.empty(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _fastest(lambda: torch.mm(left, right), device)
    copy = _fastest(lambda: target.copy_(source), device)
    return Rates(flops=2 * side**3 / product, bandwidth=2 * copied / copy)


def _fastest(work: Any, device: torch.device) -> float:
    """Seconds of one of ten, the average of the best of three rounds."""
    best = float("inf")
    for _ in range(4):
        _wait(device)
        began = time.perf_counter()
        for _ in range(10):
            work()
        _wait(device)
        best = min(best, (time.perf_counter() - began) / 10)
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
