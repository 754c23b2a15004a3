"""What a model is, from its configs and headers alone: cheap enough to ask often. Free of torch."""

import math
from pathlib import Path

import msgspec

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.faults import faults_of, kind_of, size_of
from engine.ace_step.checkpoint.manifest import Manifest, read_manifest
from engine.ace_step.checkpoint.pieces import Checkpoint, Piece
from engine.ace_step.checkpoint.sources import open_source


class ModuleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One module."""

    parameters: int
    bytes_by_dtype: dict[str, int]
    """On disk, by the names of the safetensors format: F32, F16, BF16."""
    folder: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known without loading. With problems, as much as could be found out."""

    source: str
    folder: str | None = None
    repository: str | None = None
    revision: str | None = None
    """Commit, if `antiphon models pull` brought it."""
    layout: str | None = None
    kind: str | None = None
    """turbo, base or sft."""
    size: str | None = None
    """2B, XL or custom."""
    variant: str | None = None
    """The row of `engine.VARIANTS` that fits: turbo, xl-sft, ..."""
    channels: int | None = None
    """Width of a latent frame."""
    modules: dict[str, ModuleFacts] = {}
    parameters: int = 0
    bytes_by_dtype: dict[str, int] = {}
    has_audio_tokenizers: bool = False
    """Without them: no covers, and nothing that the planner plans."""
    verifiable: bool = False
    """A list of checksums lies beside the files."""
    problems: tuple[str, ...] = ()


def inspect(source: str | Path, *, donor: str | Path | None = None, cache: Path | None = None) -> Facts:
    """Look at a model; whatever is wrong is in `problems`, and nothing is raised for it."""
    try:
        return facts_of(open_source(source, donor=donor, cache=cache), str(source))
    except CheckpointError as error:
        return Facts(source=str(source), problems=(str(error),))


def facts_of(checkpoint: Checkpoint, source: str) -> Facts:
    """The same of one that is open; raises CheckpointError if its list of checksums cannot be read."""
    modules = {role: _module(piece) for role, piece in checkpoint.pieces.items()}
    kind, size = kind_of(checkpoint, source), size_of(checkpoint)
    by_dtype: dict[str, int] = {}
    for module in modules.values():
        for dtype, count in module.bytes_by_dtype.items():
            by_dtype[dtype] = by_dtype.get(dtype, 0) + count
    manifest = read_manifest(checkpoint.folder)
    from_where = manifest or Manifest()
    return Facts(
        source=source,
        folder=str(checkpoint.folder),
        repository=from_where.repository,
        revision=from_where.revision,
        layout=checkpoint.layout,
        kind=kind,
        size=size,
        variant=kind and (f"xl-{kind}" if size == "XL" else kind),
        channels=checkpoint.pieces["transformer"].config.get("audio_acoustic_hidden_dim", 64),
        modules=modules,
        parameters=sum(module.parameters for module in modules.values()),
        bytes_by_dtype=by_dtype,
        has_audio_tokenizers="audio_tokenizer" in modules,
        verifiable=manifest is not None,
        problems=tuple(faults_of(checkpoint, source)),
    )


def _module(piece: Piece) -> ModuleFacts:
    by_dtype: dict[str, int] = {}
    parameters = 0
    for name, stored in piece.tensors.items():
        by_dtype[stored.dtype] = by_dtype.get(stored.dtype, 0) + stored.end - stored.start
        if name != "silence_latent":
            parameters += math.prod(stored.shape)
    return ModuleFacts(parameters=parameters, bytes_by_dtype=by_dtype, folder=str(piece.folder))
