"""Constrained decoding: which tokens may come next, for one sequence.

A sequence is a list of parts; each hands out the choice for the next token and is told what was taken. Trees
and tables are shared and never change; the only state of a sequence is its place in them.
"""

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from engine.ace_step.planner.asks import KEYS, LANGUAGES, MAX_BPM, MIN_BPM, TIME_SIGNATURES, Wishes
from engine.ace_step.planner.vocabulary import END_OF_THOUGHT, THINK, Choice, Node, Vocabulary

CAPTION_TOKENS: Final = 512
"""The longest caption that is written."""


class Part(Protocol):
    """One stretch of a sequence, at some place of it."""

    @property
    def choice(self) -> Choice | None:
        """What may come next; None: the part is complete."""

    def advance(self, token: int) -> None:
        """`token`, one of the choice, came next."""


class Listed:
    """One of a list of texts."""

    def __init__(self, tree: Node) -> None:
        self._place = tree

    @property
    def choice(self) -> Choice | None:
        return self._place.choice

    def advance(self, token: int) -> None:
        self._place = self._place.children[token]


class Caption:
    """Free text over indented lines, and the field after it: its name is what ends the caption."""

    def __init__(self, vocabulary: Vocabulary, *, limit: int, next_field: Node) -> None:
        self._vocabulary = vocabulary
        self._left = limit
        self._next = next_field
        self._choice: Choice | None = vocabulary.opening
        self._left_behind = False
        self._at_line_start = False

    @property
    def choice(self) -> Choice | None:
        return self._choice

    def advance(self, token: int) -> None:
        if self._left_behind or (self._at_line_start and token in self._next.children):
            self._left_behind = True
            self._next = self._next.children[token]
            self._choice = self._next.choice
            return
        self._left -= 1
        self._at_line_start = token in self._vocabulary.line_ends
        if self._at_line_start:
            more = self._left > 0
            self._choice = self._vocabulary.line_start(self._next) if more else self._next.choice
        else:
            self._choice = self._vocabulary.caption if self._left > 0 else self._vocabulary.line_feed


class Lyrics:
    """Free text until the end of the turn."""

    def __init__(self, vocabulary: Vocabulary, *, limit: int) -> None:
        self._vocabulary = vocabulary
        self._left = limit
        self._ended = False

    @property
    def choice(self) -> Choice | None:
        if self._ended:
            return None
        return self._vocabulary.lyrics if self._left > 0 else self._vocabulary.eos_only

    def advance(self, token: int) -> None:
        self._left -= 1
        self._ended = token == self._vocabulary.eos


class Codes:
    """Exactly `count` audio codes: the end of the turn is masked before, and would be forced after them."""

    def __init__(self, vocabulary: Vocabulary, *, count: int) -> None:
        self._codes = vocabulary.codes
        self._left = count

    @property
    def choice(self) -> Choice | None:
        return self._codes if self._left > 0 else None

    def advance(self, token: int) -> None:  # noqa: ARG002 - one code is like another
        self._left -= 1


class Automaton:
    """The parts of one sequence, one after the other."""

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts: Iterator[Part] = iter(parts)
        self._part: Part | None = next(self._parts, None)
        self._skip_complete()

    @property
    def choice(self) -> Choice | None:
        """What may come next; None: the sequence is complete."""
        return self._part.choice if self._part else None

    def advance(self, token: int) -> None:
        """`token`, one of the choice, came next."""
        if self._part:
            self._part.advance(token)
            self._skip_complete()

    def _skip_complete(self) -> None:
        while self._part and self._part.choice is None:
            self._part = next(self._parts, None)


def thought(
    vocabulary: Vocabulary,
    wishes: Wishes,
    *,
    seconds: tuple[int, int],
    caption_tokens: int | None,
) -> list[Part]:
    """`<think>`, the fields in their order, `</think>`. What is wished for is written as wished.

    `seconds`: bounds of an open duration. `caption_tokens`: the longest caption; None: the field is left out.
    """
    tree = vocabulary.tree
    low, high = seconds
    wished_s = None if wishes.duration_s is None else int(wishes.duration_s)
    duration = tree(_field("duration", wished_s, range(low, high + 1)))
    parts: list[Part] = [
        Listed(tree((f"{THINK}\n",))),
        Listed(tree(_field("bpm", wishes.bpm, range(MIN_BPM, MAX_BPM + 1)))),
    ]
    if caption_tokens is None:
        parts.append(Listed(duration))
    else:
        parts.append(Listed(tree(("caption:",))))
        parts.append(Caption(vocabulary, limit=caption_tokens, next_field=duration))
    return [
        *parts,
        Listed(tree(_field("keyscale", wishes.key_scale, KEYS))),
        Listed(tree(_field("language", wishes.language, LANGUAGES), greedy=True)),
        Listed(tree(_field("timesignature", wishes.time_signature, TIME_SIGNATURES))),
        Listed(tree((END_OF_THOUGHT,))),
    ]


def _field(name: str, wished: int | str | None, values: Sequence[int | str]) -> tuple[str, ...]:
    return tuple(f"{name}: {value}\n" for value in (values if wished is None else (wished,)))
