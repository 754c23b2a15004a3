"""The planner: metadata and audio codes for songs, and songs in words, all through one decoding loop."""

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final

import msgspec
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from engine.ace_step.planner.asks import (
    AUDIO_CODES,
    Description,
    FormatAsk,
    Plan,
    PlanAsk,
    PlanEvent,
    PlanFailed,
    Planned,
    Planning,
    SampleAsk,
    Song,
    UnderstandAsk,
    WriteAsk,
    WriteEvent,
    Written,
)
from engine.ace_step.planner.automaton import CAPTION_TOKENS
from engine.ace_step.planner.decoding import Ended, Line, Stepped, decode
from engine.ace_step.planner.lines import Lines, Thinking, wishes_of
from engine.ace_step.planner.metadata import Metadata, complete, parse_lyrics, parse_thought
from engine.ace_step.planner.prompts import INSTRUMENTAL, Prompts
from engine.ace_step.planner.steps import Advance, StepsPool
from engine.ace_step.planner.vocabulary import Vocabulary
from engine.errors import EngineError, InvalidRequest

LYRIC_TOKENS: Final = 2048
"""The longest lyrics that are written."""

_KEPT_THOUGHTS: Final = 64
_THOUGHT_SHARE: Final = 0.1
"""Of a plan's progress."""

Wanted = Callable[[str], bool]


class Planner:
    """One loaded 5Hz language model; for one thread."""

    def __init__(
        self,
        model: Qwen3ForCausalLM,
        tokenizer: PreTrainedTokenizerBase,
        *,
        static: bool | None = None,
        capture: Callable[[Advance], Advance] | None = None,
        caption_tokens: int = CAPTION_TOKENS,
        lyric_tokens: int = LYRIC_TOKENS,
    ) -> None:
        """`static`, `capture`: see `StepsPool`. The last two bound what is written freely."""
        self._model = model
        self._prompts = Prompts(tokenizer)
        # No released planner says how many codes it has: they all have 64,000.
        codes = getattr(model.config, "audio_codes", AUDIO_CODES)
        self._vocabulary = Vocabulary(tokenizer, model.device, codes=codes)
        self._pool = StepsPool(model, static=static, capture=capture)
        self._lines = Lines(
            self._prompts, self._vocabulary, caption_tokens=caption_tokens, lyric_tokens=lyric_tokens
        )
        self._thoughts: OrderedDict[Thinking, Metadata] = OrderedDict()

    @property
    def cache_bytes_per_token(self) -> int:
        """Keys and values of one token in one row; a guided plan has two rows of up to 4096 tokens."""
        config = self._model.config
        heads = config.num_key_value_heads or config.num_attention_heads
        return 2 * config.num_hidden_layers * heads * config.head_dim * self._model.dtype.itemsize

    def plan(self, asks: Sequence[PlanAsk], *, wanted: Wanted) -> Iterator[PlanEvent]:
        """Planned or PlanFailed for each ask that stays wanted; Planning at every token, of the asks in turn.

        Asks that differ in `seed` alone and share a `plan_seed` share their metadata.
        """
        jobs: list[tuple[PlanAsk, Thinking]] = []
        for ask in asks:
            try:
                jobs.append((ask, self._lines.thinking(ask)))
            except InvalidRequest as error:
                yield PlanFailed(ask.id, error)
        thoughts = yield from self._think(jobs, wanted)
        lines: list[Line] = []
        songs: dict[str, Song] = {}
        for ask, thinking in jobs:
            if (metadata := thoughts.get(thinking)) is None:  # nobody wants it any more
                continue
            try:
                song = songs[ask.id] = complete(metadata, ask.wishes, caption=ask.caption)
                lines.append(self._lines.codes(ask, metadata, seconds=song.duration_s))
            except EngineError as error:
                yield PlanFailed(ask.id, error)
        counts = {line.id: line.room for line in lines}
        for event in decode(self._pool, lines, wanted):
            match event:
                case Stepped(id_, tokens):
                    yield Planning(id_, _THOUGHT_SHARE + (1 - _THOUGHT_SHARE) * tokens / counts[id_])
                case Ended(id_, written):
                    codes = tuple(self._vocabulary.code(token) for token in written)
                    yield Planned(id_, Plan(**msgspec.structs.asdict(songs[id_]), codes=codes))

    def write(self, asks: Sequence[WriteAsk], *, wanted: Wanted) -> Iterator[WriteEvent]:
        """Written or PlanFailed for each ask that stays wanted; Planning at every token, in turn."""
        known = {ask.id: ask for ask in asks}
        lines: list[Line] = []
        for ask in asks:
            try:
                lines.append(self._lines.written(ask))
            except InvalidRequest as error:
                yield PlanFailed(ask.id, error)
        rooms = {line.id: line.room for line in lines}
        for event in decode(self._pool, lines, wanted):
            match event:
                case Stepped(id_, tokens):
                    yield Planning(id_, tokens / rooms[id_])
                case Ended(id_, written):
                    yield self._written(known[id_], written)

    def format_input(self, ask: FormatAsk) -> Description:
        """Caption and lyrics in the form that the models were trained on. Raises EngineError."""
        return self._one(ask)

    def create_sample(self, ask: SampleAsk) -> Description:
        """A whole song in words, from a wish in plain words. Raises EngineError."""
        return self._one(ask)

    def understand(self, ask: UnderstandAsk) -> Description:
        """What audio codes sound like, in words, with their lyrics. Raises EngineError."""
        return self._one(ask)

    def _one(self, ask: WriteAsk) -> Description:
        for event in self.write([ask], wanted=lambda _: True):
            match event:
                case Written(_, description):
                    return description
                case PlanFailed(_, error):
                    raise error
        raise AssertionError("a wanted ask always ends")

    def _think(
        self, jobs: Sequence[tuple[PlanAsk, Thinking]], wanted: Wanted
    ) -> Generator[PlanEvent, None, dict[Thinking, Metadata]]:
        """Phase 1, once for all who share it, or from memory."""
        sharers: dict[Thinking, list[str]] = {}
        for ask, thinking in jobs:
            sharers.setdefault(thinking, []).append(ask.id)
        thoughts = {thinking: self._thoughts[thinking] for thinking in sharers if thinking in self._thoughts}
        fresh = {ids[0]: thinking for thinking, ids in sharers.items() if thinking not in thoughts}
        lines = [self._lines.thought(name, thinking) for name, thinking in fresh.items()]
        rooms = {line.id: line.room for line in lines}

        def who_wants(name: str) -> list[str]:
            return [id_ for id_ in sharers[fresh[name]] if wanted(id_)]

        for event in decode(self._pool, lines, lambda name: bool(who_wants(name))):
            match event:
                case Stepped(name, tokens):
                    for id_ in who_wants(name):
                        yield Planning(id_, _THOUGHT_SHARE * tokens / rooms[name])
                case Ended(name, written):
                    thoughts[fresh[name]] = parse_thought(self._halves(written)[0])
        self._remember(thoughts)
        return thoughts

    def _remember(self, thoughts: dict[Thinking, Metadata]) -> None:
        for thinking, metadata in thoughts.items():
            self._thoughts[thinking] = metadata
            self._thoughts.move_to_end(thinking)
        while len(self._thoughts) > _KEPT_THOUGHTS:
            self._thoughts.popitem(last=False)

    def _written(self, ask: WriteAsk, tokens: list[int]) -> Written | PlanFailed:
        thought, sung = self._halves(tokens)
        caption, lyrics = _said(ask)
        try:
            song = complete(parse_thought(thought), wishes_of(ask), caption=caption)
        except EngineError as error:
            return PlanFailed(ask.id, error)
        lyrics = parse_lyrics(sung) or lyrics
        return Written(ask.id, Description(**msgspec.structs.asdict(song), lyrics=lyrics))

    def _halves(self, tokens: list[int]) -> tuple[str, str]:
        """The thought and what follows it, parted by token: a caption may spell the tags out in letters."""
        end = tokens.index(self._vocabulary.end_of_thought)
        sung = [token for token in tokens[end + 1 :] if token != self._vocabulary.eos]
        return self._prompts.decode(tokens[:end]), self._prompts.decode(sung)


def _said(ask: WriteAsk) -> tuple[str, str]:
    """Caption and lyrics that hold where nothing was written."""
    match ask:
        case FormatAsk():
            return ask.caption, ask.lyrics
        case SampleAsk():
            return ask.query, INSTRUMENTAL if ask.instrumental else ""
        case UnderstandAsk():
            return "", ""
