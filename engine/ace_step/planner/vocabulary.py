"""What each token of the vocabulary may be used for: tables built once for a tokenizer, then only read."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

import torch
from transformers import PreTrainedTokenizerBase

from engine.ace_step.planner.asks import AUDIO_CODES
from engine.errors import NotLoaded

THINK: Final = "<think>"
END_OF_THOUGHT: Final = "</think>"
END_OF_TURN: Final = "<|im_end|>"

_KEPT_TREES: Final = 256
_LINE_FEED: Final = 0x0A
_SPACE: Final = 0x20
_DELETE: Final = 0x7F
_BACKTICK: Final = 0x60


class Choice:
    """The tokens of which one must come next: shared, never changed."""

    def __init__(self, tokens: Iterable[int], device: torch.device, *, greedy: bool = False) -> None:
        listed = sorted(set(tokens))
        self.only = listed[0] if len(listed) == 1 else None
        """The token, when there is but one."""
        self.greedy = greedy
        """Take the likeliest, whatever the sampling says."""
        self.ids = torch.tensor(listed, dtype=torch.long, device=device)
        """[k], rising."""


class Node:
    """A place in a prefix tree of texts; without children: the end of one."""

    def __init__(self, children: dict[int, "Node"], device: torch.device, *, greedy: bool) -> None:
        self.children = children
        self.choice = Choice(children, device, greedy=greedy) if children else None


class Vocabulary:
    """The tables of one tokenizer, on the device of the scores. Raises NotLoaded if it is not a planner's.

    `codes`: size of the code book.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, device: torch.device, *, codes: int = AUDIO_CODES
    ) -> None:
        self._tokenizer = tokenizer
        self._device = device
        known = tokenizer.get_vocab()
        self.eos = _single(known, END_OF_TURN)
        _single(known, THINK)
        self.end_of_thought = _single(known, END_OF_THOUGHT)
        self.first_code = _first_code(known, codes)
        added = set(tokenizer.added_tokens_decoder)
        texts = {token: _bytes(name) for name, token in known.items() if token not in added}
        self.line_ends = frozenset(token for token, text in texts.items() if text.endswith(b"\n"))
        words = [token for token, text in texts.items() if _is_prose(text)]
        lines = [token for token, text in texts.items() if _is_prose(text, many_lines=True)]
        self._indents = [
            token for token in words if texts[token][0] == _SPACE and token not in self.line_ends
        ]
        self.opening = self._choice(token for token in self._indents if texts[token].strip())
        """How a caption begins: a space and something to see."""
        self.caption = self._choice(words)
        """What a caption is made of: any text; a line feed only at a token's end."""
        self.lyrics = self._choice([*lines, self.eos])
        self.eos_only = self._choice([self.eos])
        self.line_feed = self._choice(self._encode("\n"))
        self.codes = self._choice(range(self.first_code, self.first_code + codes))
        # Not on the methods themselves: such a cache would outlive this vocabulary, and keep it.
        self._known_tree = lru_cache(maxsize=_KEPT_TREES)(self._tree)
        self._known_line_start = lru_cache(maxsize=_KEPT_TREES)(self._line_start)
        if self.line_feed.only is None:
            raise NotLoaded("the planner's tokenizer has no token for a line feed")

    def code(self, token: int) -> int:
        """The audio code that a token stands for, 0-63999."""
        return min(max(token - self.first_code, 0), AUDIO_CODES - 1)

    def tree(self, texts: tuple[str, ...], *, greedy: bool = False) -> Node:
        """The prefix tree of `texts` as the tokenizer really cuts them."""
        return self._known_tree(texts, greedy)

    def line_start(self, next_field: Node) -> Choice:
        """After a caption's line feed: an indent, which goes on with it, or the next field."""
        return self._known_line_start(frozenset(next_field.children))

    def _tree(self, texts: tuple[str, ...], greedy: bool) -> Node:  # noqa: FBT001 - as the cache calls it
        return self._node([self._encode(text) for text in texts], greedy=greedy)

    def _line_start(self, names: frozenset[int]) -> Choice:
        return self._choice([*self._indents, *names])

    def _node(self, texts: Sequence[Sequence[int]], *, greedy: bool) -> Node:
        tails: dict[int, list[Sequence[int]]] = {}
        for text in texts:
            if text:
                tails.setdefault(text[0], []).append(text[1:])
        children = {token: self._node(rest, greedy=greedy) for token, rest in tails.items()}
        return Node(children, self._device, greedy=greedy)

    def _choice(self, tokens: Iterable[int]) -> Choice:
        return Choice(tokens, self._device)

    def _encode(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))


def _single(known: dict[str, int], name: str) -> int:
    if name not in known:
        raise NotLoaded(f"the planner's tokenizer has no token {name}")
    return known[name]


def _first_code(known: dict[str, int], codes: int) -> int:
    first = _single(known, "<|audio_code_0|>")
    for code in range(codes):
        if known.get(f"<|audio_code_{code}|>") != first + code:
            raise NotLoaded(f"the planner's tokenizer lacks audio code {code}, or has it out of order")
    return first


def _is_prose(text: bytes, *, many_lines: bool = False) -> bool:
    """Free text: no backtick, no control character but line feeds; of these one at the end, or many."""
    controls = any((byte < _SPACE and byte != _LINE_FEED) or byte == _DELETE for byte in text)
    line_feeds_fit = many_lines or b"\n" not in text[:-1]
    return bool(text) and _BACKTICK not in text and not controls and line_feeds_fit


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE writes printable Latin-1 as itself and the other bytes as characters from 256 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(printable)]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTES: Final = _byte_of_character()


def _bytes(name: str) -> bytes:
    """Empty for a name that byte-level BPE cannot have written."""
    try:
        return bytes(_BYTES[character] for character in name)
    except KeyError:
        return b""
