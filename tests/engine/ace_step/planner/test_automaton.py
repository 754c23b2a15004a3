"""Whatever the scores are, what is written can be read and lies in its range."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from engine.ace_step.planner.asks import KEYS, LANGUAGES, Wishes
from engine.ace_step.planner.automaton import Automaton, Codes, Lyrics, thought
from engine.ace_step.planner.metadata import complete, parse_thought
from engine.ace_step.planner.vocabulary import Vocabulary
from tests.checkpoints.tiny_planner import CODES

WISHES = st.builds(
    Wishes,
    bpm=st.none() | st.integers(30, 300),
    key_scale=st.none() | st.sampled_from(KEYS),
    time_signature=st.none() | st.sampled_from((2, 3, 4, 6)),
    vocal_language=st.none() | st.sampled_from(LANGUAGES),
    duration_s=st.none() | st.floats(1, 600),
)


def write(automaton: Automaton, vocabulary: Vocabulary, seed: int) -> list[int]:
    """Take any allowed token; often one that ends a line, so that captions end in every way there is."""
    rng = random.Random(seed)
    tokens: list[int] = []
    while (choice := automaton.choice) is not None:
        ids = choice.ids.tolist()
        ends = [token for token in ids if token in vocabulary.line_ends]
        tokens.append(rng.choice(ends if ends and rng.random() < 0.3 else ids))
        automaton.advance(tokens[-1])
    return tokens


@settings(max_examples=80, deadline=None)
@given(wishes=WISHES, seed=st.integers(0, 2**32), limit=st.none() | st.integers(1, 40))
def test_any_scores_give_a_plan_that_can_be_read(
    vocabulary: Vocabulary,
    tokenizer: PreTrainedTokenizerFast,
    wishes: Wishes,
    seed: int,
    limit: int | None,
) -> None:
    parts = thought(vocabulary, wishes, seconds=(20, 90), caption_tokens=limit)
    tokens = write(Automaton(parts), vocabulary, seed)
    text = tokenizer.decode(tokens)
    assert text.startswith("<think>\nbpm: ")
    assert text.endswith("\n</think>")
    assert "`" not in text
    assert "<|audio_code" not in text
    metadata = parse_thought(text)
    if limit is None:
        assert metadata.caption is None
    song = complete(metadata, wishes, caption="mine")
    assert 30 <= song.bpm <= 300
    assert song.key_scale in KEYS
    assert song.key_scale.isascii()
    assert song.time_signature in (2, 3, 4, 6)
    assert song.language in LANGUAGES
    assert song.caption
    assert wishes.bpm in (None, metadata.bpm)
    assert wishes.time_signature in (None, metadata.timesignature)
    assert wishes.vocal_language in (None, "unknown", metadata.language)
    assert wishes.key_scale is None or metadata.keyscale == song.key_scale
    if wishes.duration_s is None:
        assert 20 <= song.duration_s <= 90
    else:
        assert (metadata.duration, song.duration_s) == (int(wishes.duration_s), wishes.duration_s)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_captions_stay_within_their_tokens(
    vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    parts = thought(vocabulary, Wishes(), seconds=(10, 600), caption_tokens=9)
    tokens = write(Automaton(parts), vocabulary, seed)
    so_far = [tokenizer.decode(tokens[:count]) for count in range(len(tokens) + 1)]
    caption = [text for text in so_far[1:] if "caption:" in text and "\nd" not in text]
    # The name's last token, nine tokens, and a line feed where the last of them did not bring one.
    assert 1 < len(caption) <= 1 + 9 + 1
    lines = caption[-1].partition("caption:")[2].rstrip("\n").split("\n")
    assert all(line.startswith(" ") for line in lines)


def test_a_number_ends_only_where_it_may(vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerFast) -> None:
    automaton = Automaton(thought(vocabulary, Wishes(), seconds=(10, 12), caption_tokens=None))

    def allowed() -> set[str]:
        assert automaton.choice is not None
        return set(tokenizer.batch_decode([[token] for token in automaton.choice.ids.tolist()]))

    def take(text: str) -> None:
        for token in tokenizer.encode(text):
            automaton.advance(token)

    take("<think>\nbpm: ")
    assert allowed() == set("3456789") | {"1", "2"}
    take("3")
    assert allowed() == set("0123456789")  # 3 is too slow: 30-39, or 300
    take("0")
    assert allowed() == {"\n", "0"}
    take("\nduration: 1")
    assert allowed() == {"0", "1", "2"}
    take("2")
    assert allowed() == {"\n"}
    take("\nkeyscale: C")
    assert {"#", " major"} < allowed()
    assert "\n" not in allowed()


def test_the_next_fields_name_ends_a_caption_only_where_a_line_begins(
    vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerFast
) -> None:
    automaton = Automaton(thought(vocabulary, Wishes(), seconds=(10, 600), caption_tokens=20))

    def take(*texts: str) -> None:
        for token in (token for text in texts for token in tokenizer.encode(text)):
            assert automaton.choice is not None
            assert token in automaton.choice.ids
            automaton.advance(token)

    take("<think>\nbpm: 90\ncaption:", " A", "duration", ":", " of", "\n", " ", " duration")
    assert automaton.choice is vocabulary.caption
    take(".\n", "duration: 30\n")
    assert automaton.choice is not None
    assert automaton.choice.only == tokenizer.encode("keyscale")[0]


def test_exactly_so_many_codes_are_written(vocabulary: Vocabulary) -> None:
    tokens = write(Automaton([Codes(vocabulary, count=17)]), vocabulary, 5)
    assert len(tokens) == 17
    assert all(0 <= token - vocabulary.first_code < CODES for token in tokens)
    assert vocabulary.code(vocabulary.first_code + 63_999) == 63_999
    assert Automaton([Codes(vocabulary, count=0)]).choice is None


@pytest.mark.parametrize("seed", range(5))
def test_lyrics_follow_the_thought_and_hold_no_codes(
    vocabulary: Vocabulary, tokenizer: PreTrainedTokenizerFast, seed: int
) -> None:
    parts = thought(vocabulary, Wishes(), seconds=(10, 600), caption_tokens=5)
    automaton = Automaton([*parts, Lyrics(vocabulary, limit=30)])
    tokens = write(automaton, vocabulary, seed)
    lyrics = tokens[tokens.index(vocabulary.end_of_thought) + 1 :]
    assert lyrics.index(vocabulary.eos) == len(lyrics) - 1 <= 30
    assert "<|" not in tokenizer.decode(lyrics[:-1])


def test_the_language_is_the_likeliest_one(vocabulary: Vocabulary) -> None:
    assert vocabulary.tree(("language: en\n", "language: de\n"), greedy=True).choice.greedy
