"""The decoder of the autoencoder with few passes over memory: samples in rows, channels side by side.

Memory limits a decoder as much as arithmetic does. So weight norm is folded; biases wait for the activation
behind them and become part of its kernel, as do the residual sums; convolutions of one sample and those that
stretch time are matrix products; the others see channels last, as tensor cores do. Activations are computed
in float32 whatever the weights are.

T: latent frames, D: latent width.
"""

from typing import Any, Final, cast

import msgspec
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from diffusers import AutoencoderOobleck

from engine.ace_step.fast import kernels
from engine.ace_step.fast.fuse import Fuser
from engine.ace_step.vae import Vae

_TENSOR_CORE_WIDTH: Final = 8
"""Output channels that a convolution must have to run on tensor cores."""


class Conv(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A convolution without its bias: [B, T, in] to [B, T, out]."""

    weight: torch.Tensor
    """[out, in, 1, kernel], channels last."""
    out: int
    dilation: int
    padding: int

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve along time."""
        # Rows of channels, seen as an image of height 1, are exactly what torch calls channels last.
        image = x.transpose(1, 2).unsqueeze(2)
        result = F.conv2d(image, self.weight, padding=(0, self.padding), dilation=(1, self.dilation))
        return result.squeeze(2).transpose(1, 2)[..., : self.out]


class Wave(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Parameters of a snake, [channels], float32."""

    rate: torch.Tensor
    height: torch.Tensor


class Unit(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A residual unit: snake, wide convolution, snake, convolution of one sample, sum."""

    wide: Conv
    wide_bias: torch.Tensor
    wave: Wave
    """The second snake; the first belongs to whatever computes the input."""
    narrow: torch.Tensor
    """[out, in]."""
    narrow_bias: torch.Tensor


class Stage(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """One stretch of time with its residual units."""

    stretch: torch.Tensor
    """[2 * stride * out, in]: what each frame gives to its own stride and to the next one's."""
    stretch_bias: torch.Tensor
    stride: int
    crop: int
    """Samples that the transposed convolution leaves out at either end."""
    waves: tuple[Wave, ...]
    """The first snake of each unit, and the one behind the last."""
    units: tuple[Unit, ...]


class FastDecoder:
    """The same function as the decoder of an AutoencoderOobleck: [1, D, T] to [1, 2, T * HOP]."""

    def __init__(self, decoder: Any, fuser: Fuser) -> None:
        self._biased_snake = fuser(kernels.biased_snake)
        self._summed_snake = fuser(kernels.summed_snake)
        self._stretched_snake = fuser(kernels.stretched_snake)
        with torch.inference_mode():
            self._first, self._first_bias = _conv(decoder.conv1), _bias(decoder.conv1)
            self._first_wave = _wave(decoder.block[0].snake1)
            following = [block.snake1 for block in decoder.block[1:]] + [decoder.snake1]
            self._stages = tuple(
                _stage(block, after) for block, after in zip(decoder.block, following, strict=True)
            )
            self._last = _conv(decoder.conv2)
            self._last_bias = None if decoder.conv2.bias is None else decoder.conv2.bias.detach()

    @torch.inference_mode()
    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """Decode; like the module itself."""
        rows = latents.transpose(1, 2).contiguous()
        wave = self._first_wave
        bent = self._biased_snake(self._first(rows), self._first_bias, wave.rate, wave.height)
        for stage in self._stages:
            bent = self._run(stage, bent)
        sound = self._last(bent)
        if self._last_bias is not None:
            sound = sound + self._last_bias
        return sound.transpose(1, 2)

    def _run(self, stage: Stage, bent: torch.Tensor) -> torch.Tensor:
        """[B, T, in], already through a snake, to [B, T * stride, out], also through one."""
        halves = kernels.split(F.linear(bent, stage.stretch), 2, stage.stride, -1)
        wave, *others = stage.waves
        samples, bent = self._stretched_snake(halves, stage.stretch_bias, wave.rate, wave.height, stage.crop)
        for unit, after in zip(stage.units, others, strict=True):
            bent = self._biased_snake(unit.wide(bent), unit.wide_bias, unit.wave.rate, unit.wave.height)
            change = F.linear(bent, unit.narrow)
            samples, bent = self._summed_snake(samples, change, unit.narrow_bias, after.rate, after.height)
        return bent


class FastAutoencoder:
    """An autoencoder whose decoder is a fast one; for `Vae`, which cuts sound into chunks."""

    def __init__(self, module: AutoencoderOobleck, decoder: FastDecoder) -> None:
        self._module = cast("Any", module)  # its parts carry no types
        self.encoder = self._module.encoder
        self.decoder = decoder

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return torch.device(self._module.device)

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        dtype: torch.dtype = self._module.dtype
        return dtype


def fast_vae(module: AutoencoderOobleck, decoder: FastDecoder) -> Vae:
    """Encodes like any Vae, decodes with `decoder`."""
    stand_in: Any = FastAutoencoder(module, decoder)
    return Vae(stand_in)


def folded(module: Any) -> torch.Tensor:
    """A convolution's weight; of a normalised one the value that it computes anew on each call."""
    if hasattr(module, "weight_g"):
        return torch._weight_norm(module.weight_v, module.weight_g, 0).detach()  # noqa: SLF001 - bit for bit
    weight: torch.Tensor = module.weight.detach()
    return weight


def _stage(block: Any, after: Any) -> Stage:
    units = (block.res_unit1, block.res_unit2, block.res_unit3)
    stretch = block.conv_t1
    stride, kernel, crop = stretch.stride[0], stretch.kernel_size[0], stretch.padding[0]
    if kernel != 2 * stride or stride % 2:
        raise ValueError(f"a stretch by {stride} with a kernel of {kernel} is not what this decoder can do")
    weight = folded(stretch)  # [in, out, kernel]
    return Stage(
        stretch=weight.permute(2, 1, 0).flatten(0, 1).contiguous(),
        stretch_bias=_bias(stretch),
        stride=stride,
        crop=crop,
        waves=tuple(_wave(part) for part in (*(unit.snake1 for unit in units), after)),
        units=tuple(_unit(unit) for unit in units),
    )


def _unit(unit: Any) -> Unit:
    return Unit(
        wide=_conv(unit.conv1),
        wide_bias=_bias(unit.conv1),
        wave=_wave(unit.snake2),
        narrow=folded(unit.conv2).squeeze(-1).contiguous(),
        narrow_bias=_bias(unit.conv2),
    )


def _conv(module: Any) -> Conv:
    weight = folded(module)
    out = len(weight)
    if weight.is_cuda and out % _TENSOR_CORE_WIDTH:
        weight = F.pad(weight, (0, 0, 0, 0, 0, -out % _TENSOR_CORE_WIDTH))
    image = weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
    return Conv(weight=image, out=out, dilation=module.dilation[0], padding=module.padding[0])


def _bias(module: Any) -> torch.Tensor:
    bias: torch.Tensor = module.bias.detach()
    return bias


def _wave(module: Any) -> Wave:
    rate, height = module.alpha.detach().float().flatten(), module.beta.detach().float().flatten()
    if module.logscale:
        rate, height = rate.exp(), height.exp()
    return Wave(rate=rate, height=(height + 1e-9).reciprocal())
