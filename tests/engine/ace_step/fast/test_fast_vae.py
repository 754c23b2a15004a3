"""The fast decoder is the same function as the autoencoder's own."""

from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_oobleck import Snake1d

from engine.ace_step.bundle import HOP, Bundle
from engine.ace_step.fast import kernels
from engine.ace_step.fast.fuse import Fuser
from engine.ace_step.fast.vae import FastDecoder, fast_vae, folded
from engine.ace_step.vae import Vae
from tests.engine.ace_step.fast.conftest import Tensors


@pytest.mark.parametrize("frames", [1, 2, 17])
def test_sound_is_that_of_the_autoencoder(frames: int, bundle: Bundle, draw: Tensors) -> None:
    latents = draw(1, 8, frames)
    with torch.no_grad():
        wanted = bundle.vae.decoder(latents)
    got = FastDecoder(bundle.vae.decoder, Fuser(None))(latents)
    assert got.shape == (1, 2, frames * HOP)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_traced_kernels_change_no_sound(bundle: Bundle, draw: Tensors) -> None:
    latents = draw(1, 8, 3)
    plain = FastDecoder(bundle.vae.decoder, Fuser(None))(latents)
    traced = FastDecoder(bundle.vae.decoder, Fuser("eager"))(latents)
    torch.testing.assert_close(traced, plain, rtol=0, atol=1e-6)


def test_chunks_of_the_fast_decoder_join_like_the_others(bundle: Bundle, draw: Tensors) -> None:
    latents = draw(41, 8)
    vae = fast_vae(bundle.vae, FastDecoder(bundle.vae.decoder, Fuser(None)))
    chunks = list(vae.decode(latents, chunk_frames=16))
    assert [chunk.shape[1] for chunk in chunks] == [16 * HOP, 16 * HOP, 9 * HOP]
    with torch.no_grad():
        whole = bundle.vae.decoder(latents.T[None])[0]
    torch.testing.assert_close(torch.cat(chunks, dim=1), whole, rtol=0, atol=1e-5)


def test_encoding_is_the_plain_one(bundle: Bundle, draw: Tensors) -> None:
    sound = (draw(2, 3 * HOP) * 0.2).numpy()
    vae = fast_vae(bundle.vae, FastDecoder(bundle.vae.decoder, Fuser(None)))
    assert torch.equal(vae.encode(sound, seed=None), Vae(bundle.vae).encode(sound, seed=None))


def test_folded_weights_are_those_that_the_norm_computes(bundle: Bundle, draw: Tensors) -> None:
    module: Any = bundle.vae.decoder.conv1
    module(draw(1, 8, 8))  # computes module.weight
    assert torch.equal(folded(module), module.weight)


def test_snake_is_the_autoencoders_activation(draw: Tensors) -> None:
    module: Any = Snake1d(6)
    module.alpha.data.copy_(draw(1, 6, 1))
    module.beta.data.copy_(draw(1, 6, 1))
    sound = draw(2, 6, 50)
    rate, height = module.alpha.exp().flatten(), (module.beta.exp() + 1e-9).reciprocal().flatten()
    bent = kernels.snake(sound.transpose(1, 2), rate, height).transpose(1, 2)
    torch.testing.assert_close(bent, module(sound), rtol=0, atol=1e-6)


@pytest.mark.parametrize("stride", [2, 4, 6, 10])
def test_a_stretch_by_matrix_is_the_transposed_convolution(stride: int, draw: Tensors) -> None:
    convolution = torch.nn.ConvTranspose1d(5, 3, 2 * stride, stride=stride, padding=stride // 2)
    sound = draw(2, 5, 7)
    matrix = convolution.weight.permute(2, 1, 0).flatten(0, 1)
    halves = (sound.transpose(1, 2) @ matrix.T).view(2, 7, 2, stride, 3)
    samples, bent = kernels.stretched_snake(
        halves, convolution.bias, torch.ones(3), torch.zeros(3), stride // 2
    )
    assert torch.equal(samples, bent)
    torch.testing.assert_close(samples.transpose(1, 2), convolution(sound), rtol=0, atol=1e-5)
