"""Text, lyrics and timbre as the transformer reads them, one song at a time.

Songs are never encoded together: neither text encoder nor cross-attention masks padding, so a neighbour's
length would change the result. E: tokens. W: width of the condition encoder.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from engine.ace_step.bundle import Bundle
from engine.ace_step.prompt import Prompt
from engine.ace_step.song import Condition
from engine.ace_step.vae import CHUNK_FRAMES, Vae
from engine.schema import SAMPLE_RATE, Sound

CACHE_BYTES: Final = 64 * 2**20
"""Of each of the three caches: at least eight of the longest lyrics, thousands of timbres."""

REFERENCE_SEED: Final = 0x7ED1
"""One for all songs: variations share a timbre, and a timbre heard before is in the cache."""

_PART_SAMPLES: Final = 10 * SAMPLE_RATE
_PARTS: Final = 3
_REFERENCE_FRAMES: Final = 750
"""30 s of latents, of silence too."""


class Conditioner:
    """Encodes prompts for one bundle and remembers the latest; not for more than one thread at a time."""

    def __init__(self, bundle: Bundle, *, cache_bytes: int = CACHE_BYTES) -> None:
        self._bundle = bundle
        self._encoder: Any = bundle.condition_encoder  # its parts carry no types
        self._tokenizer: Any = bundle.tokenizer
        self._texts = TensorCache(cache_bytes)
        self._lyrics = TensorCache(cache_bytes)
        self._timbres = TensorCache(cache_bytes)
        self._silence: torch.Tensor | None = None

    def count_tokens(self, text: str) -> int:
        """With the tokens that end a text."""
        return len(self._tokenizer(text).input_ids)

    @torch.no_grad()
    def condition(
        self, prompt: Prompt, reference: Sound | None = None, *, chunk_frames: int = CHUNK_FRAMES
    ) -> Condition:
        """Lyrics, timbre and text in the order in which the models were trained to read them: [E, W].

        `chunk_frames`: how much of the reference is encoded at once.
        """
        parts = (
            self._lyrics.get(prompt.lyrics, lambda: self._encode_lyrics(prompt.lyrics)),
            self._timbre(reference, chunk_frames),
            self._texts.get(prompt.text, lambda: self._encode_text(prompt.text)),
        )
        return Condition(torch.cat(parts))

    def null(self, condition: Condition) -> Condition:
        """What guidance takes for no condition at all: one learned token, as often as `condition` has any."""
        token: torch.Tensor = self._encoder.null_condition_emb.detach()[0]
        return Condition(token.to(condition.hidden).expand_as(condition.hidden))

    def _encode_text(self, text: str) -> torch.Tensor:
        tokens = self._tokens(text)
        hidden = self._bundle.text_encoder(input_ids=tokens).last_hidden_state
        projected: torch.Tensor = self._encoder.text_projector(hidden.to(self._bundle.dtype))
        return projected[0]

    def _encode_lyrics(self, lyrics: str) -> torch.Tensor:
        """The text encoder lends its token embeddings only; the lyric encoder does the reading."""
        tokens = self._tokens(lyrics)
        embeddings: Any = self._bundle.text_encoder.get_input_embeddings()
        encoded: torch.Tensor = self._encoder.lyric_encoder(
            inputs_embeds=embeddings(tokens).to(self._bundle.dtype),
            attention_mask=torch.ones_like(tokens, dtype=torch.bool),
        )
        return encoded[0]

    def _tokens(self, text: str) -> torch.Tensor:
        return torch.tensor([self._tokenizer(text).input_ids], device=self._bundle.device)

    def _timbre(self, reference: Sound | None, chunk_frames: int) -> torch.Tensor:
        """[1, W]. A silent reference says no more than none; literal zeros would make the model drone."""
        if reference is None or not reference.samples.any():
            if self._silence is None:
                self._silence = self._encode_timbre(self._encoder.silence_latent[0, :_REFERENCE_FRAMES])
            return self._silence
        windows = reference_windows(reference.samples)
        digest = hashlib.blake2b(windows.data, digest_size=32).digest()
        return self._timbres.get(digest, lambda: self._encode_timbre(self._heard(windows, chunk_frames)))

    def _heard(self, windows: NDArray[np.float32], chunk_frames: int) -> torch.Tensor:
        return Vae(self._bundle.vae).encode(windows, seed=REFERENCE_SEED, chunk_frames=chunk_frames)

    def _encode_timbre(self, latents: torch.Tensor) -> torch.Tensor:
        bundle = self._bundle
        alone = torch.zeros(1, dtype=torch.long, device=bundle.device)
        encoded: torch.Tensor = self._encoder.timbre_encoder(
            latents[None].to(bundle.device, bundle.dtype), alone
        )[0]
        return encoded[0]


def reference_windows(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first ten seconds, the ten after the first third and the last ten of `samples` [2, N]: [2, 30 s].

    Shorter sounds are repeated until they have 30 s. Always the same windows, so that a song can be repeated.
    """
    needed = _PARTS * _PART_SAMPLES
    short = samples.shape[1] < needed
    repeated = np.tile(samples, (1, -(-needed // samples.shape[1]))) if short else samples
    third = repeated.shape[1] // _PARTS
    starts = (0, third, repeated.shape[1] - _PART_SAMPLES)
    return np.ascontiguousarray(
        np.concatenate([repeated[:, start : start + _PART_SAMPLES] for start in starts], axis=1)
    )


class TensorCache:
    """The latest used tensors, up to a number of bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._tensors: OrderedDict[Hashable, torch.Tensor] = OrderedDict()

    @property
    def used_bytes(self) -> int:
        return self._bytes

    def get(self, key: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """The tensor under `key`, made if it is not there; nobody may write into it."""
        if key in self._tensors:
            self._tensors.move_to_end(key)
            return self._tensors[key]
        tensor = make().clone()  # a view would keep all of its storage alive
        self._tensors[key] = tensor
        self._bytes += tensor.nbytes
        while self._bytes > self._most_bytes:
            _, oldest = self._tensors.popitem(last=False)
            self._bytes -= oldest.nbytes
        return tensor
