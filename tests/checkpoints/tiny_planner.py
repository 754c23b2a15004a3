"""A tiny 5Hz language model: random Qwen3 weights behind a ChatML tokenizer with audio codes.

Widths are a few dozen; what decides token ids is as released: Qwen's pre-tokenizer (every digit alone, line
feeds glued to punctuation), `<think>` and `</think>` as single tokens, audio codes as one run of added
tokens, more embedding rows than tokens, and a chat template that wraps the last assistant turn in a thought.
All 64,000 codes take seconds to load, so that there are fewer unless asked for.
"""

from pathlib import Path
from typing import Final

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

CODES: Final = 1000
ALL_CODES: Final = 64_000
END_OF_TEXT: Final = "<|endoftext|>"
END_OF_TURN: Final = "<|im_end|>"

_SPARE_ROWS: Final = 61
_SPLIT: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEMPLATE: Final = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message.role + '\n' -}}"
    "{%- if message.role == 'assistant' -%}"
    "{%- set parts = message.content.split('</think>') -%}"
    "{%- if loop.last -%}"
    "{{- '<think>\n' + parts[0].split('<think>')[-1].strip('\n') + '\n</think>\n\n' -}}"
    "{%- endif -%}"
    "{{- parts[-1].lstrip('\n') -}}"
    "{%- else -%}"
    "{{- message.content -}}"
    "{%- endif -%}"
    "{{- '<|im_end|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}"
)
_CORPUS: Final = (
    "# Instruction\nGenerate audio semantic tokens based on the given conditions:\n\n"
    "# Caption\nupbeat indie pop, bright guitars, male vocal, slow piano ballad.\n\n# Lyric\n[Verse]\nthe "
    "night is long, and I am on my way home again\n[Chorus]\nsinging to the moon above the city lights!\n"
    "instrumental: true instrumental: false NO USER INPUT [Instrumental]\n"
    "Understand the given musical conditions and describe the audio semantics accordingly:\n\n"
    "bpm: \ncaption: A warm,\n  analog synth.\nduration: \nkeyscale: C major\nkeyscale: F# minor\n"
    "keyscale: Bb major\nlanguage: en\nlanguage: yue\nlanguage: unknown\ntimesignature: "
)


def build_planner_tokenizer(codes: int = CODES) -> PreTrainedTokenizerFast:
    """ChatML over byte-level BPE, trained on the spot; `codes`: how many audio codes it knows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_CORPUS], trainer)
    tokenizer.add_special_tokens([END_OF_TEXT, "<|im_start|>", END_OF_TURN])
    tokenizer.add_tokens([AddedToken(word, normalized=False) for word in ("<think>", "</think>")])
    tokenizer.add_tokens([AddedToken(f"<|audio_code_{code}|>", normalized=False) for code in range(codes)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TURN,
        pad_token=END_OF_TEXT,
        chat_template=_TEMPLATE,
    )


def build_planner_model(
    tokenizer: PreTrainedTokenizerFast, *, seed: int = 0, codes: int = CODES
) -> Qwen3ForCausalLM:
    """Random weights, in float32; `codes` as for the tokenizer."""
    config = Qwen3Config(
        vocab_size=len(tokenizer) + _SPARE_ROWS,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        audio_codes=codes,
        # Wide enough that what was read decides what is written.
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).eval()


def save_planner(folder: Path, *, seed: int = 0, codes: int = CODES) -> Path:
    """Write the released layout (config, safetensors, tokenizer with template) to `folder`, and return it."""
    tokenizer = build_planner_tokenizer(codes)
    tokenizer.save_pretrained(folder)
    build_planner_model(tokenizer, seed=seed, codes=codes).save_pretrained(folder)
    return folder
