"""Between sound and latents: the Oobleck autoencoder, in chunks that change nothing but the memory needed.

T: latent frames, 25 a second, HOP samples each. D: latent width.
"""

from collections.abc import Iterator
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from diffusers import AutoencoderOobleck
from diffusers.models.autoencoders.autoencoder_oobleck import OobleckDiagonalGaussianDistribution
from numpy.typing import NDArray
from torch.nn.utils import remove_weight_norm

from engine.ace_step.bundle import HOP
from engine.schema import Sound

CHUNK_FRAMES: Final = 512
"""Latent frames of one chunk: 20.48 s."""

DECODER_OVERLAP: Final = 12
"""Latent frames on either side of a chunk; the decoder looks 8.33 frames far."""

ENCODER_OVERLAP: Final = 8
"""The encoder looks 7 frames far."""


class Vae:
    """Encodes and decodes one sound at a time; never tiles, slices or pads by itself.

    Chunks overlap by more than the networks' receptive fields and begin on whole frames, so that the joined
    chunks equal one pass over everything, up to the rounding of convolutions of another length.
    """

    def __init__(self, module: AutoencoderOobleck) -> None:
        self._module: Any = module  # its parts carry no types
        self._heard: WeakKeyDictionary[Sound, tuple[tuple[int, int, int], torch.Tensor]] = WeakKeyDictionary()

    @property
    def device(self) -> torch.device:
        return torch.device(self._module.device)

    def latents(
        self, sound: Sound, *, begin: int, samples: int, seed: int, chunk_frames: int = CHUNK_FRAMES
    ) -> torch.Tensor:
        """Latents of `samples` samples with `sound` from `begin` on, in silence or cut: float32 [T, D].

        Remembered as long as the sound: variations of one song share both. Nobody may write into them.
        """
        place = (begin, samples, seed)
        known = self._heard.get(sound)
        if known is None or known[0] != place:
            heard = np.zeros((2, samples), dtype=np.float32)
            part = sound.samples[:, : samples - begin]
            heard[:, begin : begin + part.shape[1]] = part
            known = place, self.encode(heard, seed=seed, chunk_frames=chunk_frames)
            self._heard[sound] = known
        return known[1]

    @torch.no_grad()
    def encode(
        self, samples: NDArray[np.float32], *, seed: int | None, chunk_frames: int = CHUNK_FRAMES
    ) -> torch.Tensor:
        """Latents of `samples` [2, N], float32 [T, D] with T = ceil(N / HOP); silence fills the last frame.

        With a seed, a draw from the posterior by a generator of its own, as in training; None: its mean.
        """
        frames = -(-samples.shape[1] // HOP)
        padded = np.zeros((2, frames * HOP), dtype=np.float32)
        padded[:, : samples.shape[1]] = samples
        sound = torch.from_numpy(padded)
        parts = []
        for start, end, first, last in _chunks(frames, chunk_frames, ENCODER_OVERLAP):
            window = sound[None, :, first * HOP : last * HOP].to(self.device, self._module.dtype)
            parameters = self._module.encoder(window)[0]
            parts.append(parameters[:, start - first : end - first].float())
        posterior = OobleckDiagonalGaussianDistribution(torch.cat(parts, dim=-1)[None])
        if seed is None:
            latents = posterior.mode()
        else:
            latents = posterior.sample(generator=torch.Generator().manual_seed(seed))
        return latents[0].T.contiguous()

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, *, chunk_frames: int = CHUNK_FRAMES) -> Iterator[torch.Tensor]:
        """Sound of `latents` [T, D], chunk by chunk: float32 [2, n], contiguous, on the module's device.

        Together T * HOP samples. A chunk is computed when it is asked for, and nothing of it is kept.
        """
        channels_first = latents.T[None].to(self.device, self._module.dtype)
        for start, end, first, last in _chunks(latents.shape[0], chunk_frames, DECODER_OVERLAP):
            sound = self._module.decoder(channels_first[..., first:last])[0]
            yield sound[:, (start - first) * HOP : (end - first) * HOP].float().contiguous()


def fold_weight_norm(vae: AutoencoderOobleck) -> AutoencoderOobleck:
    """Replace every normalised weight by its value, in place, and return the module.

    The norm is then not computed again on each call; results keep their bits. The module can no longer be
    trained, nor loaded with weights that are not folded. For loaders, right after loading.
    """
    module: Any = vae
    for part in module.modules():
        if hasattr(part, "weight_g"):
            remove_weight_norm(part)
    module.requires_grad_(requires_grad=False)
    return vae


def _chunks(frames: int, chunk: int, overlap: int) -> Iterator[tuple[int, int, int, int]]:
    """Where chunks start and end, and the first and last frame that have to be seen for them."""
    if chunk < 1:
        raise ValueError(f"a chunk needs at least one frame, not {chunk}")
    for start in range(0, frames, chunk):
        end = min(start + chunk, frames)
        yield start, end, max(0, start - overlap), min(frames, end + overlap)
