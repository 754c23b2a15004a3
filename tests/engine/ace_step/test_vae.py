"""Chunks change nothing, noise is seeded, no sample is lost, and folding keeps every bit."""

import copy
import itertools

import numpy as np
import pytest
import torch
from diffusers import AceStepPipeline, AutoencoderOobleck

from engine.ace_step.bundle import HOP
from engine.ace_step.vae import DECODER_OVERLAP, Vae, fold_weight_norm

FRAMES = 61


@pytest.fixture(scope="module", name="module")
def _module(turbo: AceStepPipeline) -> AutoencoderOobleck:
    return turbo.vae


@pytest.fixture(scope="module", name="sound")
def _sound() -> np.ndarray:
    noise = np.random.default_rng(5).standard_normal((2, FRAMES * HOP), dtype=np.float32)
    return noise * np.float32(0.2)


@pytest.fixture(scope="module", name="latents")
def _latents() -> torch.Tensor:
    return torch.randn(FRAMES, 8, generator=torch.Generator().manual_seed(6))


def whole_decode(module: AutoencoderOobleck, latents: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return module.decode(latents.T[None]).sample[0]


def whole_encode(module: AutoencoderOobleck, sound: np.ndarray) -> torch.Tensor:
    with torch.no_grad():
        return module.encode(torch.from_numpy(sound)[None]).latent_dist.mode()[0].T


@pytest.mark.parametrize("chunk", [16, 60, 61, 512])
def test_chunked_decode_equals_whole_decode(
    module: AutoencoderOobleck, latents: torch.Tensor, chunk: int
) -> None:
    """Pitfall 3: without chunks a long song is one huge convolution."""
    parts = list(Vae(module).decode(latents, chunk_frames=chunk))
    assert len(parts) == -(-FRAMES // chunk)
    assert all(part.shape[1] == chunk * HOP for part in parts[:-1])
    torch.testing.assert_close(torch.cat(parts, dim=1), whole_decode(module, latents), atol=1e-6, rtol=0)


def test_the_overlap_is_more_than_the_decoder_hears(
    module: AutoencoderOobleck, latents: torch.Tensor
) -> None:
    changed = latents.clone()
    changed[FRAMES // 2] += 1
    moved = (whole_decode(module, changed) - whole_decode(module, latents)).abs().amax(0).nonzero().flatten()
    reach = max(FRAMES // 2 - int(moved.min()) / HOP, (int(moved.max()) + 1) / HOP - FRAMES // 2 - 1)
    assert 8 < reach < DECODER_OVERLAP


def test_decoding_computes_a_chunk_when_it_is_asked_for(
    module: AutoencoderOobleck, latents: torch.Tensor
) -> None:
    calls = []
    hook = module.decoder.register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[-1]))
    try:
        chunks = Vae(module).decode(latents, chunk_frames=20)
        next(chunks)
        assert calls == [20 + DECODER_OVERLAP]
    finally:
        hook.remove()


@pytest.mark.parametrize("chunk", [16, 60, 512])
def test_chunked_encode_equals_whole_encode(
    module: AutoencoderOobleck, sound: np.ndarray, chunk: int
) -> None:
    chunked = Vae(module).encode(sound, seed=None, chunk_frames=chunk)
    torch.testing.assert_close(chunked, whole_encode(module, sound), atol=1e-5, rtol=0)


@pytest.mark.parametrize("samples", [1, 11, HOP - 1, HOP, HOP + 1, 3 * HOP + 5])
def test_a_sound_of_any_length_keeps_its_last_part_frame(
    module: AutoencoderOobleck, sound: np.ndarray, samples: int
) -> None:
    """Pitfall 10: the plain encoder refuses a few samples and drops what is less than a frame."""
    frames = -(-samples // HOP)
    latents = Vae(module).encode(sound[:, :samples], seed=None)
    assert latents.shape == (frames, 8)
    padded = np.zeros((2, frames * HOP), dtype=np.float32)
    padded[:, :samples] = sound[:, :samples]
    torch.testing.assert_close(latents, whole_encode(module, padded), atol=1e-6, rtol=0)


def test_a_seeded_draw_is_the_pipelines_and_leaves_the_global_generator_alone(
    module: AutoencoderOobleck, sound: np.ndarray
) -> None:
    """Pitfall 4: drawn from the global generator, the same call gives another song each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        with torch.no_grad():
            theirs = module.encode(torch.from_numpy(sound)[None]).latent_dist.sample()[0].T
        before = torch.get_rng_state()
        ours = Vae(module).encode(sound, seed=3)
        torch.rand(1)
        again = Vae(module).encode(sound, seed=3)
        assert torch.equal(torch.get_rng_state(), _after_one_draw(before))
    assert torch.equal(ours, theirs)
    assert torch.equal(again, ours)


def test_chunks_do_not_change_what_is_drawn(module: AutoencoderOobleck, sound: np.ndarray) -> None:
    vae = Vae(module)
    drawn = [vae.encode(sound, seed=3, chunk_frames=chunk) for chunk in (20, 512)]
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-5, rtol=0)


def test_other_seeds_draw_otherwise(module: AutoencoderOobleck, sound: np.ndarray) -> None:
    vae = Vae(module)
    drawn = [vae.encode(sound[:, :HOP], seed=seed) for seed in (1, 2, None)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(drawn, 2))


def test_tiling_switched_on_elsewhere_changes_nothing(
    module: AutoencoderOobleck, latents: torch.Tensor
) -> None:
    other = copy.deepcopy(module)
    other.enable_tiling()
    other.tile_latent_min_length, other.tile_latent_overlap = 16, 1
    ours = torch.cat(list(Vae(other).decode(latents)), dim=1)
    assert torch.equal(ours, whole_decode(module, latents))


def test_folded_weight_norm_keeps_every_bit(
    module: AutoencoderOobleck, latents: torch.Tensor, sound: np.ndarray
) -> None:
    folded = fold_weight_norm(copy.deepcopy(module))
    assert not any("weight_g" in name for name, _ in folded.named_parameters())
    assert torch.equal(whole_decode(folded, latents), whole_decode(module, latents))
    assert torch.equal(whole_encode(folded, sound), whole_encode(module, sound))
    assert fold_weight_norm(folded) is folded
    assert any("weight_g" in name for name, _ in module.named_parameters())


def test_a_chunk_of_nothing_is_refused(module: AutoencoderOobleck, latents: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        next(Vae(module).decode(latents, chunk_frames=0))


def _after_one_draw(state: torch.Tensor) -> torch.Tensor:
    torch.set_rng_state(state)
    torch.rand(1)
    return torch.get_rng_state()
