"""The decoding loop: any number of sequences, with and without an unconditional branch, in one batch."""

from collections.abc import Callable, Iterator, Sequence

import msgspec
import torch

from engine.ace_step.planner.asks import Sampling
from engine.ace_step.planner.automaton import Automaton
from engine.ace_step.planner.drawing import Dice, draw
from engine.ace_step.planner.steps import Steps, StepsPool


class Stepped(msgspec.Struct, frozen=True, tag=True):
    """One sequence has so many tokens."""

    id: str
    tokens: int


class Ended(msgspec.Struct, frozen=True, tag=True):
    """One sequence is complete."""

    id: str
    tokens: list[int]


class Line:
    """One sequence while it is being written."""

    def __init__(
        self,
        *,
        id: str,  # noqa: A002
        prompt: list[int],
        unconditional: list[int] | None,
        automaton: Automaton,
        sampling: Sampling,
        seed: int,
        room: int,
    ) -> None:
        self.id = id
        self.prompt = prompt
        self.unconditional = unconditional
        self.automaton = automaton
        self.sampling = sampling
        self.dice = Dice(seed)
        self.room = room
        """The most tokens that may be written."""
        self.tokens: list[int] = []

    def take(self, token: int) -> None:
        """`token` came next, in both branches."""
        self.tokens.append(token)
        self.automaton.advance(token)

    @property
    def is_complete(self) -> bool:
        """Whether nothing may come next."""
        return self.automaton.choice is None


def decode(
    pool: StepsPool, lines: Sequence[Line], wanted: Callable[[str], bool]
) -> Iterator[Stepped | Ended]:
    """Write every line to its end; yields at every token, of the lines in turn.

    Lines that are complete, or not wanted any more, leave the batch; the others do not notice.
    """
    going = [line for line in lines if wanted(line.id) and not line.is_complete]
    if not going:
        return
    prompts = _rows(going)
    length = max(len(row) for row in prompts) + max(line.room for line in going)
    steps = pool.take(rows=len(prompts), length=length)
    try:
        yield from _write(steps, going, wanted)
    finally:
        pool.give_back(steps)


def _write(steps: Steps, going: list[Line], wanted: Callable[[str], bool]) -> Iterator[Stepped | Ended]:
    scores = steps.prefill(_rows(going))
    turn = 0
    while True:
        choices = [choice for line in going if (choice := line.automaton.choice)]
        tokens = draw(
            _guided(scores, going),
            choices,
            [line.sampling for line in going],
            [[*line.prompt, *line.tokens] if line.sampling.repetition_penalty != 1 else [] for line in going],
            [line.dice for line in going],
        )
        for line, token in zip(going, tokens, strict=True):
            line.take(token)
        for line in going:
            if line.is_complete:
                yield Ended(line.id, line.tokens)
        stay = [not line.is_complete and wanted(line.id) for line in going]
        if not any(stay):
            return
        if not all(stay):
            steps.keep(_rows_that_stay(going, stay))
            going = [line for line, stays in zip(going, stay, strict=True) if stays]
        turn += 1
        spoken = going[turn % len(going)]
        yield Stepped(spoken.id, len(spoken.tokens))
        newest = [line.tokens[-1] for line in going]
        branches = [line.tokens[-1] for line in going if line.unconditional is not None]
        scores = steps.step([*newest, *branches])


def _rows(lines: Sequence[Line]) -> list[list[int]]:
    """The conditional branches, then those unconditional ones that there are."""
    return [
        *(line.prompt for line in lines),
        *(line.unconditional for line in lines if line.unconditional is not None),
    ]


def _rows_that_stay(lines: Sequence[Line], stay: Sequence[bool]) -> list[int]:
    branches = [stays for line, stays in zip(lines, stay, strict=True) if line.unconditional is not None]
    return [row for row, stays in enumerate([*stay, *branches]) if stays]


def _guided(scores: torch.Tensor, lines: Sequence[Line]) -> torch.Tensor:
    """One row of scores for each line, float32: classifier-free guidance (arXiv 2207.12598)."""
    count = len(lines)
    scores = scores.float()
    conditional = scores[:count]
    if len(scores) == count:
        return conditional
    unconditional = scores[count:]
    if len(unconditional) != count:
        rows, branch = [], count
        for row, line in enumerate(lines):
            rows.append(row if line.unconditional is None else branch)
            branch += line.unconditional is not None
        unconditional = scores[torch.tensor(rows, device=scores.device)]
    scale = torch.tensor([[line.sampling.guidance_scale] for line in lines], device=scores.device)
    return unconditional + scale * (conditional - unconditional)
