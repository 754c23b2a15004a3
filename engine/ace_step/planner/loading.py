"""From a folder to a planner, with everything checked that would otherwise be heard much later."""

import contextlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen3ForCausalLM
from transformers.utils import logging

from engine.ace_step.checkpoint import local_folder
from engine.ace_step.planner.planner import Planner
from engine.ace_step.planner.steps import Advance
from engine.ace_step.planner.vocabulary import END_OF_TURN
from engine.errors import NotLoaded


def load_planner(
    source: str | Path,
    *,
    device: torch.device | str,
    dtype: torch.dtype,
    capture: Callable[[Advance], Advance] | None = None,
) -> Planner:
    """Load the 5Hz language model of a folder, or of a hub repository that was downloaded before.

    Only safetensors are read, and no code of the checkpoint is run. `capture`: see `StaticSteps`. Raises
    NotLoaded, in plain words.
    """
    folder = local_folder(source)
    with _translated(folder), _without_progress_bars():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        _check_tokenizer(tokenizer, folder)
        # Declared without the second value that this option adds.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    model = _checked_model(loaded[0], tokenizer, loaded[1]["missing_keys"], folder)
    # It is in eval mode already. The model's own `to` hides the types of its arguments.
    torch.nn.Module.to(model.requires_grad_(requires_grad=False), device)
    return Planner(model, tokenizer, capture=capture)


@contextlib.contextmanager
def _translated(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotLoaded(f"planner: {folder} cannot be read: {reason}") from error


def _check_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    if not tokenizer.chat_template:
        raise NotLoaded(f"planner: the tokenizer of {folder} has no chat template")
    if tokenizer.eos_token != END_OF_TURN:
        raise NotLoaded(f"planner: texts of {folder} end with {tokenizer.eos_token}, not with {END_OF_TURN}")


def _checked_model(
    model: object, tokenizer: PreTrainedTokenizerBase, missing: Collection[str], folder: Path
) -> Qwen3ForCausalLM:
    if not isinstance(model, Qwen3ForCausalLM):
        raise NotLoaded(f"planner: {folder} holds a {type(model).__name__}, not a Qwen3ForCausalLM")
    if missing:
        raise NotLoaded(f"planner: the weights of {folder} lack {', '.join(sorted(missing))[:200]}")
    if set(model.config.layer_types or ()) != {"full_attention"}:
        raise NotLoaded(
            f"planner: {folder} has layers with windowed attention, which no released planner has"
        )
    if model.config.vocab_size < len(tokenizer):
        raise NotLoaded(
            f"planner: {folder} has {len(tokenizer)} tokens and only {model.config.vocab_size} embeddings"
        )
    return model


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
