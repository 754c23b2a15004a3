"""Copies of tiny checkpoints that a test may spoil."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from engine.ace_step.bundle import Bundle
from engine.ace_step.checkpoint import CheckpointError
from engine.ace_step.checkpoint.loading import load_bundle

MODULES = ("dit", "condition_encoder", "text_encoder", "vae", "audio_tokenizer", "audio_detokenizer")


def copied(source: Path, folder: Path) -> Path:
    """A copy that shares its files with the original: replace files, never write into them."""
    shutil.copytree(source, folder / source.name, copy_function=os.link)
    return folder / source.name


def load(source: str | Path, donor: str | Path | None = None) -> Bundle:
    """As the engine would, on the CPU."""
    return load_bundle(source, name="tiny", device="cpu", dtype=torch.float32, donor=donor)


def refusal(source: str | Path, donor: str | Path | None = None) -> str:
    """What loading says against it."""
    with pytest.raises(CheckpointError) as caught:
        load(source, donor)
    return str(caught.value)


def edit_json(path: Path, **values: Any) -> None:
    """Set members of an object in a file; None removes one."""
    value = json.loads(path.read_text()) | values
    path.unlink()
    path.write_text(json.dumps({name: member for name, member in value.items() if member is not None}))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Read, change and replace one file of weights."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
    change(tensors)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def assert_same(one: Bundle, other: Bundle) -> None:
    """Every number of every module, and what is computed when a module is made."""
    for module in MODULES:
        left, right = getattr(one, module), getattr(other, module)
        assert type(left) is type(right), module
        if left is None:
            continue
        ours, theirs = dict(left.state_dict()), dict(right.state_dict())
        ours.update(left.named_buffers())
        theirs.update(right.named_buffers())
        assert ours.keys() == theirs.keys(), module
        for name, tensor in ours.items():
            assert tensor.dtype == theirs[name].dtype, (module, name)
            assert torch.equal(tensor, theirs[name]), (module, name)
        assert not left.training, module
