"""Which file holds which module, in either layout, under the names of the diffusers layout. Free of torch.

The diffusers layout has one folder per module. The upstream layout has one file for transformer, condition
encoder and audio tokenizers (`decoder.`, `encoder.`, `tokenizer.`, `detokenizer.`), and keeps autoencoder and
text encoder beside that folder.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.files import Stored, listed, read_json, weights_in
from engine.ace_step.checkpoint.upstream import is_upstream_config, split

REQUIRED: Final = ("transformer", "condition_encoder", "vae", "text_encoder")
OPTIONAL: Final = ("audio_tokenizer", "audio_token_detokenizer")
_OWN: Final = frozenset({"transformer", "condition_encoder"})
"""What makes the model; never taken from a donor."""

_UPSTREAM_FOLDERS: Final = {
    "vae": ("vae",),
    "text_encoder": ("Qwen3-Embedding-0.6B", "text_encoder"),
    "tokenizer": ("Qwen3-Embedding-0.6B", "tokenizer", "text_encoder"),
}
_WHAT: Final = {
    "vae": "audio autoencoder (vae/)",
    "text_encoder": "text encoder (text_encoder/ or Qwen3-Embedding-0.6B/)",
    "tokenizer": "text tokenizer (tokenizer/ or Qwen3-Embedding-0.6B/)",
    "transformer": "transformer",
    "condition_encoder": "condition encoder",
}


class Piece(msgspec.Struct, frozen=True, eq=False):
    """One module: how to build it and where its numbers are."""

    role: str
    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Stored]
    """By the names of the diffusers (or transformers) module."""


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """All modules of one model, donors included."""

    folder: Path
    layout: str
    """`diffusers` or `upstream`."""
    pieces: dict[str, Piece]
    tokenizer: Path
    silence: Path | None
    """The file with the latents of silence; None: a tensor of the condition encoder."""


class _Source:
    """One folder, surveyed; weights are looked at when they are asked for."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CheckpointError(f"there is no folder {folder}")
        self.folder: Final = folder
        self.layout: Final = _layout(folder)
        self.dit: Final = _dit_folder(folder) if self.layout == "upstream" else None
        self._split: dict[str, Piece] | None = None

    def piece(self, role: str) -> Piece | None:
        if self.layout == "upstream" and role in {*_OWN, *OPTIONAL}:
            return self._of_the_one_file(role)
        home = self.place(role)
        if home is None or not (home / "config.json").is_file():
            return None
        tensors = weights_in(home)
        if role == "text_encoder":
            tensors = _without_head(tensors)
        return Piece(role, home, read_json(home / "config.json"), tensors)

    def place(self, role: str) -> Path | None:
        """The folder of one module, if it is there."""
        if self.layout == "diffusers":
            candidates = [self.folder / role]
        else:
            roots = [self.folder, *([self.dit, self.dit.parent] if self.dit is not None else [])]
            candidates = [root / name for root in roots for name in _UPSTREAM_FOLDERS[role]]
        if role == "tokenizer":
            return next((path for path in candidates if any(path.glob("tokenizer*"))), None)
        return next((path for path in candidates if path.is_dir()), None)

    def _of_the_one_file(self, role: str) -> Piece | None:
        if self.dit is None:
            return None
        if self._split is None:
            config = read_json(self.dit / "config.json")
            parts = split(self.dit, config, weights_in(self.dit))
            self._split = {
                name: Piece(name, self.dit, part.config, part.tensors) for name, part in parts.items()
            }
        return self._split.get(role)


def open_checkpoint(folder: Path, donors: Sequence[Path] = ()) -> Checkpoint:
    """Find every module in `folder`, and what it lacks in `donors`, in their order.

    Reads configs and headers only; raises CheckpointError for what is missing, incomplete or unreadable.
    """
    source = _Source(folder)
    helpers = [_Source(donor) for donor in donors]
    pieces: dict[str, Piece] = {}
    for role in (*REQUIRED, *OPTIONAL):
        piece = source.piece(role)
        if piece is None and role not in _OWN:
            piece = next(filter(None, (helper.piece(role) for helper in helpers)), None)
        if piece is not None:
            pieces[role] = piece
        elif role in REQUIRED:
            raise _lacking(folder, role)
    if ("audio_tokenizer" in pieces) != ("audio_token_detokenizer" in pieces):
        raise CheckpointError(f"{folder} has one of {' and '.join(OPTIONAL)} without the other")
    tokenizer = next(filter(None, (one.place("tokenizer") for one in (source, *helpers))), None)
    if tokenizer is None:
        raise _lacking(folder, "tokenizer")
    return Checkpoint(
        folder=folder,
        layout=source.layout,
        pieces=pieces,
        tokenizer=tokenizer,
        silence=source.dit / "silence_latent.pt" if source.dit is not None else None,
    )


def _layout(folder: Path) -> str:
    roles = (*REQUIRED, *OPTIONAL)
    is_upstream = any(
        (folder / name / "config.json").is_file() for name in _UPSTREAM_FOLDERS["text_encoder"][:1]
    )
    if (folder / "model_index.json").is_file():
        return "diffusers"
    if is_upstream or _dit_folders(folder):
        return "upstream"
    if any((folder / role / "config.json").is_file() for role in roles):
        return "diffusers"
    raise CheckpointError(
        f"{folder} holds no ACE-Step 1.5 model: neither the diffusers layout (model_index.json, transformer/ "
        "and so on) nor the upstream layout (acestep-v15-.../ with config.json and model.safetensors)"
    )


def _dit_folder(folder: Path) -> Path | None:
    found = _dit_folders(folder)
    if len(found) > 1:
        raise CheckpointError(
            f"{folder} holds several models ({listed(path.name for path in found)}): name the folder of one"
        )
    return found[0] if found else None


def _dit_folders(folder: Path) -> list[Path]:
    """The folder itself, or those in it, with the config of upstream's one file."""
    own = folder / "config.json"
    if own.is_file() and is_upstream_config(read_json(own)):
        return [folder]
    configs = sorted(folder.glob("*/config.json"))
    return [path.parent for path in configs if is_upstream_config(read_json(path))]


def _without_head(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """Saved as a language model, an encoder's tensors have a prefix, and its embedding a second time."""
    return {
        re.sub(r"^model\.", "", name): stored
        for name, stored in tensors.items()
        if name not in {"lm_head.weight", "model.lm_head.weight"}
    }


def _lacking(folder: Path, role: str) -> CheckpointError:
    if role in _OWN:
        return CheckpointError(f"{folder} has no {_WHAT[role]}: it can only be a donor of other parts")
    return CheckpointError(
        f"{folder} has no {_WHAT[role]}. Put it there, or name a donor that has it after a plus sign: "
        f"{folder}+ACE-Step/Ace-Step1.5"
    )
