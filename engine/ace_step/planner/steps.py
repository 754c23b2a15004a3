"""The language model's forward passes over one left-padded batch, behind one small interface.

R: rows, each one branch of one sequence. V: vocabulary. Every row sees its own tokens only, at positions
counted from its own first token, so that what a row gives does not depend on the rows beside it.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import torch
from transformers import DynamicCache, Qwen3ForCausalLM, StaticCache

_CHUNK: Final = 512
"""Prompt tokens read at a time: bounds the mask, [R, chunk, length]."""
_LENGTH_STEP: Final = 512
_ROUNDING: Final = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Relative. Two right ways through a deep network are a few hundredths apart in bfloat16; a stale graph or a
shifted cache is near 1."""
_PROMPTS: Final = ([1, 2, 3, 4, 5], [6, 7])
_TOKENS: Final = (3, 4, 5)

_log = logging.getLogger(__name__)


class Steps(Protocol):
    """One batch on its way."""

    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Read the prompts, one a row; the scores of what comes next: [R, V]."""

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        """Read one more token in each row that goes on; the scores of what comes next: [R, V]."""

    def keep(self, rows: Sequence[int]) -> None:
        """Only these rows (counted among those that go on) go on."""


class DynamicSteps:
    """A cache that grows with the batch and shrinks with its rows."""

    def __init__(self, model: Qwen3ForCausalLM) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)
        self._seen = torch.empty(0, 0, dtype=torch.bool, device=model.device)
        self._positions = torch.empty(0, 1, dtype=torch.long, device=model.device)

    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        ids, self._seen = _padded(prompts, self._model.device)
        scores, self._positions = _read_prompts(self._model, self._cache, ids, self._seen, ids.shape[1])
        return scores

    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        ids = torch.tensor(tokens, device=self._model.device)[:, None]
        self._positions = self._positions + 1
        self._seen = torch.nn.functional.pad(self._seen, (0, 1), value=True)
        mask = self._seen[:, None, None, :]
        return _forward(self._model, self._cache, ids, self._positions, mask)

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, device=self._model.device)
        self._cache.batch_select_indices(index)
        self._seen = self._seen[index]
        self._positions = self._positions[index]


Advance = Callable[[], torch.Tensor]


class StaticSteps:
    """Fixed buffers for `rows` rows of `length` tokens, so that a step can be captured as a CUDA graph.

    `capture` turns the step, which reads and writes these buffers only, into something faster that does the
    same. Rows that do not go on are computed along and passed over. Can be used again after another prefill.
    Always in inference mode, whatever the caller's: what was made in it can be written in no other.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        *,
        rows: int,
        length: int,
        capture: Callable[[Advance], Advance] | None = None,
    ) -> None:
        self.rows = rows
        self.length = length
        self._model = model
        self._cache = StaticCache(config=model.config, max_cache_len=length)
        device = model.device
        self._ids = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._positions = torch.zeros(rows, 1, dtype=torch.long, device=device)
        self._seen = torch.zeros(rows, length, dtype=torch.bool, device=device)
        self._place = torch.zeros(1, dtype=torch.long, device=device)
        self._going: torch.Tensor = torch.arange(rows, device=device)
        self._capture = capture
        self._advance: Advance | None = None

    @torch.inference_mode()
    def prefill(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        if self._cache.is_initialized:
            self._cache.reset()  # type: ignore[no-untyped-call]
        device = self._model.device
        # A row that is nobody's reads one token again and again.
        ids, seen = _padded([*prompts, *([[0]] * (self.rows - len(prompts)))], device)
        read = ids.shape[1]
        scores, positions = _read_prompts(self._model, self._cache, ids, seen, self.length)
        self._seen.fill_(value=False)
        self._seen[:, :read] = seen
        self._positions.copy_(positions)
        self._place.fill_(read - 1)
        self._going = torch.arange(len(prompts), device=device)
        return scores[self._going]

    @torch.inference_mode()
    def step(self, tokens: Sequence[int]) -> torch.Tensor:
        self._ids[self._going, 0] = torch.tensor(tokens, device=self._model.device)
        if self._advance is None:
            self._advance = self._capture(self._forward) if self._capture else self._forward
        return self._advance()[self._going]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        self._going = self._going[torch.tensor(rows, device=self._model.device)]

    def _forward(self) -> torch.Tensor:
        """The step itself: no allocation that outlives it, no branch, nothing read back."""
        self._place.add_(1)
        self._positions.add_(1)
        self._seen.index_fill_(1, self._place, value=True)
        return _forward(self._model, self._cache, self._ids, self._positions, self._seen[:, None, None, :])


class StepsPool:
    """Hands out what runs a batch: on CUDA static buffers in buckets, of which the last is kept.

    Only if they say what a growing cache says: that is tried once, on a few tokens, before the first batch.
    """

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        *,
        static: bool | None = None,
        capture: Callable[[Advance], Advance] | None = None,
    ) -> None:
        self._model = model
        self._static = model.device.type == "cuda" if static is None else static
        self._capture = capture
        self._idle: StaticSteps | None = None
        self._tried = False

    def take(self, *, rows: int, length: int) -> Steps:
        """Something for `rows` rows of at most `length` tokens, prompt included."""
        if self._static and not self._tried:
            self._tried = True
            self._static = _agrees(self._model, self._capture)
        if not self._static:
            return DynamicSteps(self._model)
        rows = 1 << (rows - 1).bit_length()
        length = -(-length // _LENGTH_STEP) * _LENGTH_STEP
        idle, self._idle = self._idle, None
        if idle and idle.rows == rows and idle.length >= length:
            return idle
        del idle  # its memory, before the next one takes its own
        return StaticSteps(self._model, rows=rows, length=length, capture=self._capture)

    def give_back(self, steps: Steps) -> None:
        """The batch is over."""
        if isinstance(steps, StaticSteps):
            self._idle = steps


@torch.inference_mode()
def _agrees(model: Qwen3ForCausalLM, capture: Callable[[Advance], Advance] | None) -> bool:
    """Whether fixed buffers, recorded or not, give the scores of a growing cache."""
    fixed = StaticSteps(model, rows=len(_PROMPTS), length=_LENGTH_STEP, capture=capture)
    scores = []
    for steps in (DynamicSteps(model), fixed):
        steps.prefill(_PROMPTS)
        scores.append([steps.step([token, token + 1]).float().clone() for token in _TOKENS][-1])
    difference = float((scores[1] - scores[0]).norm() / scores[0].norm())
    trusted = difference <= _ROUNDING.get(model.dtype, 0.0)  # false for NaN
    if not trusted:
        _log.warning("planner: fixed buffers are off, they differ by %.2g", difference)
    return trusted


def _padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts flushed right: ids [R, P], and where they are real."""
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    seen = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        seen[row, longest - len(prompt) :] = True
    return ids.to(device), seen.to(device)


def _read_prompts(
    model: Qwen3ForCausalLM, cache: Any, ids: torch.Tensor, seen: torch.Tensor, length: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores after the last token, [R, V], and its positions, [R, 1]. `length`: keys that the cache shows."""
    positions = (seen.cumsum(-1) - 1).clamp_min(0)
    growing = length == ids.shape[1]
    scores = torch.empty(0)
    for start in range(0, ids.shape[1], _CHUNK):
        end = min(start + _CHUNK, ids.shape[1])
        keys = end if growing else length
        query = torch.arange(start, end, device=ids.device)[:, None]
        key = torch.arange(keys, device=ids.device)
        real = torch.nn.functional.pad(seen[:, : min(keys, ids.shape[1])], (0, max(0, keys - ids.shape[1])))
        # A pad sees itself: a row of a softmax must not be empty.
        mask = ((key <= query) & real[:, None, :]) | (key == query)
        scores = _forward(model, cache, ids[:, start:end], positions[:, start:end], mask[:, None])
    return scores, positions[:, -1:]


@torch.no_grad()
def _forward(
    model: Qwen3ForCausalLM, cache: Any, ids: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    output = model(
        input_ids=ids,
        # As a dict, a mask is taken as it is. [R, 1, queries, keys].
        attention_mask={"full_attention": mask},
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    scores: torch.Tensor = output.logits[:, -1]
    return scores
