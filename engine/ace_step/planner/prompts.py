"""What the language model reads: the strings it was trained on, through the checkpoint's own template."""

import re
from typing import Final

from transformers import PreTrainedTokenizerBase

from engine.ace_step.planner.metadata import Metadata, as_yaml, code_text

GENERATE: Final = "Generate audio semantic tokens based on the given conditions:"
UNDERSTAND: Final = "Understand the given musical conditions and describe the audio semantics accordingly:"
EXPAND: Final = "Expand the user's input into a more detailed and specific musical description:"
FORMAT: Final = "Format the user's input into a more detailed and specific musical description:"
NO_INPUT: Final = "NO USER INPUT"
INSTRUMENTAL: Final = "[Instrumental]"


class Prompts:
    """Renders prompts as text.

    Names of tokens inside a text are taken out, or a caption could end its own turn.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        names = {token.content for token in tokenizer.added_tokens_decoder.values()}
        others = sorted(
            (name for name in names if not name.startswith("<|audio_code_")), key=len, reverse=True
        )
        self._tokens = re.compile("|".join([r"<\|audio_code_\d*\|>", *map(re.escape, others)]))

    def thought(self, caption: str, lyrics: str) -> str:
        """Phase 1: what the metadata is written after."""
        return self._open(GENERATE, self._song(caption, lyrics))

    def unconditional_thought(self, lyrics: str, negative_prompt: str | None) -> str:
        """Phase 1 without the caption, or with a negative one in its place."""
        negative = self._negative(negative_prompt)
        user = self._song(negative, lyrics) if negative else f"# Lyric\n{self._plain(lyrics)}\n"
        return self._open(GENERATE, user)

    def codes(self, caption: str, lyrics: str, metadata: Metadata) -> str:
        """Phase 2: what the audio codes are written after.

        The template ends the assistant's turn, and the codes follow that end: so the model was trained.
        """
        return self._answered(self._song(caption, lyrics), self._plain(as_yaml(metadata)))

    def unconditional_codes(self, caption: str, lyrics: str, negative_prompt: str | None) -> str:
        """Phase 2 with an empty thought."""
        return self._answered(self._song(self._negative(negative_prompt) or caption, lyrics), "")

    def understand(self, codes: tuple[int, ...]) -> str:
        """Audio codes to describe."""
        return self._open(UNDERSTAND, code_text(codes))

    def expand(self, query: str, *, instrumental: bool) -> str:
        """A wish to invent a song from."""
        wish = self._plain(query).strip() or NO_INPUT
        return self._open(EXPAND, f"{wish}\n\ninstrumental: {'true' if instrumental else 'false'}")

    def format(self, caption: str, lyrics: str) -> str:
        """Caption and lyrics to bring into form."""
        return self._open(FORMAT, f"# Caption\n{self._plain(caption)}\n\n# Lyric\n{self._plain(lyrics)}")

    def encode(self, prompt: str) -> list[int]:
        """Token ids; the template has placed every special token already."""
        return list(self._tokenizer.encode(prompt, add_special_tokens=False))

    def decode(self, tokens: list[int]) -> str:
        """Text, tags included."""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=False))

    def _open(self, instruction: str, user: str) -> str:
        return self._render(instruction, user, None)

    def _answered(self, user: str, thought: str) -> str:
        return self._render(GENERATE, user, f"<think>\n{thought}\n</think>")

    def _render(self, instruction: str, user: str, answer: str | None) -> str:
        turns = [
            {"role": "system", "content": f"# Instruction\n{instruction}\n\n"},
            {"role": "user", "content": user},
        ]
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        rendered = self._tokenizer.apply_chat_template(
            turns, tokenize=False, add_generation_prompt=answer is None
        )
        return str(rendered)

    def _song(self, caption: str, lyrics: str) -> str:
        return f"# Caption\n{self._plain(caption)}\n\n# Lyric\n{self._plain(lyrics)}\n"

    def _negative(self, negative_prompt: str | None) -> str:
        text = self._plain(negative_prompt or "")
        return "" if text.strip() in ("", NO_INPUT) else text

    def _plain(self, text: str) -> str:
        # Not by nothing: what is left and right of a name may be another's beginning and end.
        return self._tokens.sub(" ", text)
