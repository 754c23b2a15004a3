"""From scores to tokens. Rows that choose among the same tokens are drawn together; each has its own dice."""

from collections.abc import Sequence

import torch

from engine.ace_step.planner.asks import Sampling
from engine.ace_step.planner.vocabulary import Choice


class Dice:
    """One uniform number for each drawn token, from a generator on the CPU.

    So a seed means the same on every device, and neither neighbours nor forced tokens change the draws.
    """

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def throw(self) -> float:
        """In [0, 1)."""
        return float(torch.rand((), generator=self._generator, dtype=torch.float64))


def draw(
    scores: torch.Tensor,
    choices: Sequence[Choice],
    samplings: Sequence[Sampling],
    seen: Sequence[Sequence[int]],
    dice: Sequence[Dice],
) -> list[int]:
    """One token for each row of `scores` [n, V], float32.

    `seen`: what each row has read and written, for its repetition penalty.
    """
    tokens = [choice.only for choice in choices]
    groups: dict[int, list[int]] = {}
    for row, choice in enumerate(choices):
        if choice.only is None:
            groups.setdefault(id(choice), []).append(row)
    drawn: list[tuple[list[int], torch.Tensor]] = []
    for rows in groups.values():
        choice = choices[rows[0]]
        block = _penalized(scores[rows], [samplings[row] for row in rows], [seen[row] for row in rows])
        settings = [samplings[row] for row in rows]
        throws = [0.0 if choice.greedy else dice[row].throw() for row in rows]
        places = _places(block[:, choice.ids], settings, throws, greedy=choice.greedy)
        drawn.append((rows, choice.ids[places]))
    for rows, picked in drawn:
        for row, token in zip(rows, picked.tolist(), strict=True):
            tokens[row] = token
    return [token for token in tokens if token is not None]


def _penalized(
    scores: torch.Tensor, samplings: Sequence[Sampling], seen: Sequence[Sequence[int]]
) -> torch.Tensor:
    """Scores of what was seen, pushed down (arXiv 1909.05858, section 4.1)."""
    if all(sampling.repetition_penalty == 1 for sampling in samplings):
        return scores
    scores = scores.clone()
    for row, (sampling, tokens) in enumerate(zip(samplings, seen, strict=True)):
        ids = torch.tensor(sorted(set(tokens)), dtype=torch.long, device=scores.device)
        penalty = sampling.repetition_penalty
        old = scores[row, ids]
        scores[row, ids] = torch.where(old > 0, old / penalty, old * penalty)
    return scores


def _places(
    scores: torch.Tensor, samplings: Sequence[Sampling], throws: Sequence[float], *, greedy: bool
) -> torch.Tensor:
    """Column of the drawn token in each row of `scores` [r, k], by inversion of the distribution function."""
    best = scores.argmax(-1)
    if greedy or all(sampling.temperature == 0 for sampling in samplings):
        return best
    settings = [
        (sampling.top_k or scores.shape[-1], sampling.top_p, sampling.temperature, throw)
        for sampling, throw in zip(samplings, throws, strict=True)
    ]
    columns = torch.tensor(settings, dtype=torch.float32, device=scores.device)[:, :, None]
    top_k, top_p, heat, throw = columns.unbind(1)
    ranked, order = scores.sort(dim=-1, descending=True, stable=True)
    rank = torch.arange(ranked.shape[-1], device=scores.device)
    ranked = ranked.masked_fill(rank >= top_k, -torch.inf)
    chances = ranked.softmax(-1)
    # A token stays while what is likelier than it does not yet fill top_p: the first one always stays.
    ranked = ranked.masked_fill(chances.cumsum(-1) - chances >= top_p, -torch.inf)
    reach = (ranked / heat.clamp_min(1e-6)).softmax(-1).cumsum(-1)
    kept = torch.isfinite(ranked).sum(-1, keepdim=True)
    place = (reach <= throw * reach[:, -1:]).sum(-1, keepdim=True).minimum(kept - 1)
    return torch.where(heat[:, 0] > 0, order.gather(-1, place)[:, 0], best)
