"""From an ask to the sequences that answer it: prompts, constraints and how much fits into the context."""

from typing import Final

import msgspec

from engine.ace_step.planner.asks import (
    CODES_PER_SECOND,
    MAX_SECONDS,
    MIN_SECONDS,
    FormatAsk,
    PlanAsk,
    SampleAsk,
    Sampling,
    UnderstandAsk,
    Wishes,
    WriteAsk,
)
from engine.ace_step.planner.automaton import Automaton, Codes, Lyrics, thought
from engine.ace_step.planner.decoding import Line
from engine.ace_step.planner.metadata import Metadata
from engine.ace_step.planner.prompts import INSTRUMENTAL, Prompts
from engine.ace_step.planner.vocabulary import Vocabulary
from engine.errors import InvalidRequest

CONTEXT_TOKENS: Final = 4096
"""Prompt and answer together: no longer text was ever trained on."""
FIELD_TOKENS: Final = 160
"""More than a thought without its caption takes."""

_CAPTION_FLOOR: Final = 64
_LYRIC_FLOOR: Final = 128
_RENDERING: Final = 1.25
"""A caption as YAML, with indents and quotes, is at most so much longer than it was written."""
_CODE_SALT: Final = 0x5DEECE66
"""So that the dice of the codes are not those of the metadata."""


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that phase 1 depends on: equal thinking, equal metadata."""

    caption: str
    lyrics: str
    negative_prompt: str | None
    wishes: Wishes
    seconds: tuple[int, int]
    """Bounds of an open duration."""
    caption_tokens: int | None
    """None: the caller's caption stays."""
    seed: int
    sampling: Sampling


class Lines:
    """Makes lines for one model; `caption_tokens` and `lyric_tokens` bound what is written freely."""

    def __init__(
        self, prompts: Prompts, vocabulary: Vocabulary, *, caption_tokens: int, lyric_tokens: int
    ) -> None:
        self._prompts = prompts
        self._vocabulary = vocabulary
        self._caption_tokens = caption_tokens
        self._lyric_tokens = lyric_tokens

    def thinking(self, ask: PlanAsk) -> Thinking:
        """Phase 1 of `ask`. Raises InvalidRequest if text and music do not fit into the context together.

        A long text shortens the caption, and the longest length that the planner may choose.
        """
        lyrics = sung(ask)
        branches = self._thought_prompts(ask.caption, lyrics, ask.negative_prompt)
        read = max(map(len, branches))
        free = CONTEXT_TOKENS - read - FIELD_TOKENS
        ideal = round(self._caption_tokens * _RENDERING) if ask.write_caption else 0
        least = min(ideal, round(_CAPTION_FLOOR * _RENDERING))
        shortest_s, longest_s = float(ask.min_seconds), float(ask.max_seconds)
        if ask.wishes.duration_s is not None:
            shortest_s = longest_s = ask.wishes.duration_s
        if code_count(shortest_s) > free - least:
            raise InvalidRequest(
                f"lyrics: the planner holds {CONTEXT_TOKENS} tokens; caption and lyrics take {read} of them, "
                f"and {shortest_s:g} s of music do not fit beside them"
            )
        longest_s = max(shortest_s, min(longest_s, (free - ideal) // CODES_PER_SECOND))
        spare = int((free - code_count(longest_s)) / _RENDERING)
        return Thinking(
            caption=ask.caption,
            lyrics=lyrics,
            negative_prompt=ask.negative_prompt,
            wishes=ask.wishes,
            seconds=(ask.min_seconds, max(ask.min_seconds, int(longest_s))),
            caption_tokens=min(self._caption_tokens, spare) if ask.write_caption else None,
            seed=ask.seed if ask.plan_seed is None else ask.plan_seed,
            sampling=ask.sampling,
        )

    def thought(self, line_id: str, thinking: Thinking) -> Line:
        """Phase 1."""
        prompt, unconditional = self._thought_prompts(
            thinking.caption, thinking.lyrics, thinking.negative_prompt
        )
        parts = thought(
            self._vocabulary,
            thinking.wishes,
            seconds=thinking.seconds,
            caption_tokens=thinking.caption_tokens,
        )
        return Line(
            id=line_id,
            prompt=prompt,
            unconditional=None if thinking.sampling.guidance_scale == 1 else unconditional,
            automaton=Automaton(parts),
            sampling=thinking.sampling,
            seed=thinking.seed,
            room=FIELD_TOKENS + (thinking.caption_tokens or 0),
        )

    def codes(self, ask: PlanAsk, metadata: Metadata, *, seconds: float) -> Line:
        """Phase 2. Raises InvalidRequest if the caption came out too long for so much music."""
        prompts, lyrics = self._prompts, sung(ask)
        prompt = prompts.encode(prompts.codes(ask.caption, lyrics, metadata))
        unconditional = prompts.encode(prompts.unconditional_codes(ask.caption, lyrics, ask.negative_prompt))
        count = code_count(seconds)
        read = max(len(prompt), len(unconditional))
        if read + count > CONTEXT_TOKENS:
            raise InvalidRequest(
                f"lyrics: the planner holds {CONTEXT_TOKENS} tokens, not {read} of text and {count} of music"
            )
        return Line(
            id=ask.id,
            prompt=prompt,
            unconditional=None if ask.sampling.guidance_scale == 1 else unconditional,
            automaton=Automaton([Codes(self._vocabulary, count=count)]),
            sampling=ask.sampling,
            seed=ask.seed ^ _CODE_SALT,
            room=count,
        )

    def written(self, ask: WriteAsk) -> Line:
        """A song in words. Raises InvalidRequest if what is to be read leaves too little to write in."""
        prompts = self._prompts
        match ask:
            case FormatAsk():
                text = prompts.format(ask.caption, ask.lyrics)
            case SampleAsk():
                text = prompts.expand(ask.query, instrumental=ask.instrumental)
            case UnderstandAsk():
                text = prompts.understand(ask.codes)
        prompt = prompts.encode(text)
        free = CONTEXT_TOKENS - len(prompt) - FIELD_TOKENS - self._caption_tokens
        if free < min(self._lyric_tokens, _LYRIC_FLOOR):
            field = "codes" if isinstance(ask, UnderstandAsk) else "lyrics"
            raise InvalidRequest(
                f"{field}: the planner holds {CONTEXT_TOKENS} tokens, and {len(prompt)} to read leave too "
                "few to write"
            )
        lyric_tokens = min(self._lyric_tokens, free)
        parts = thought(
            self._vocabulary,
            wishes_of(ask),
            seconds=(MIN_SECONDS, MAX_SECONDS),
            caption_tokens=self._caption_tokens,
        )
        return Line(
            id=ask.id,
            prompt=prompt,
            unconditional=None,
            automaton=Automaton([*parts, Lyrics(self._vocabulary, limit=lyric_tokens)]),
            sampling=ask.sampling,
            seed=ask.seed,
            room=FIELD_TOKENS + self._caption_tokens + lyric_tokens,
        )

    def _thought_prompts(
        self, caption: str, lyrics: str, negative_prompt: str | None
    ) -> tuple[list[int], list[int]]:
        prompts = self._prompts
        return (
            prompts.encode(prompts.thought(caption, lyrics)),
            prompts.encode(prompts.unconditional_thought(lyrics, negative_prompt)),
        )


def sung(ask: PlanAsk) -> str:
    """The lyrics as the model reads them."""
    return INSTRUMENTAL if ask.instrumental else ask.lyrics


def wishes_of(ask: WriteAsk) -> Wishes:
    """What the caller insists on."""
    return Wishes() if isinstance(ask, UnderstandAsk) else ask.wishes


def code_count(seconds: float) -> int:
    """Whole codes inside so much music; what is left over is shorter than a code."""
    return int(round(seconds * CODES_PER_SECOND, 6))
