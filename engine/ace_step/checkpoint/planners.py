"""The planner's weights, a language model as transformers saves it, as far as files tell. Free of torch."""

import math
from collections.abc import Iterator
from pathlib import Path

from engine.ace_step.checkpoint.errors import CheckpointError
from engine.ace_step.checkpoint.facts import Facts
from engine.ace_step.checkpoint.files import Stored, read_json, weights_in
from engine.ace_step.checkpoint.manifest import Manifest, Told, read_manifest, verify
from engine.ace_step.checkpoint.sources import local_folder


def inspect_planner(source: str | Path, *, cache: Path | None = None) -> Facts:
    """As `inspect` for models; raises nothing."""
    try:
        return _facts(local_folder(source, cache=cache), str(source))
    except CheckpointError as error:
        return Facts(source=str(source), kind="planner", problems=(str(error),))


def check_planner(source: str | Path, *, cache: Path | None = None, told: Told | None = None) -> Facts:
    """As `check` for models: besides, all checksums where they are listed."""
    try:
        folder = local_folder(source, cache=cache)
        return _facts(folder, str(source), tuple(verify(folder, told)))
    except CheckpointError as error:
        return Facts(source=str(source), kind="planner", problems=(str(error),))


def _facts(folder: Path, source: str, found: tuple[str, ...] = ()) -> Facts:
    tensors = weights_in(folder)
    by_dtype: dict[str, int] = {}
    for stored in tensors.values():
        by_dtype[stored.dtype] = by_dtype.get(stored.dtype, 0) + stored.end - stored.start
    manifest = read_manifest(folder)
    from_where = manifest or Manifest()
    return Facts(
        source=source,
        folder=str(folder),
        repository=from_where.repository,
        revision=from_where.revision,
        layout="transformers",
        kind="planner",
        parameters=sum(math.prod(stored.shape) for stored in tensors.values()),
        bytes_by_dtype=by_dtype,
        verifiable=manifest is not None,
        problems=(*_faults(folder, tensors), *found),
    )


def _faults(folder: Path, tensors: dict[str, Stored]) -> Iterator[str]:
    config = read_json(folder / "config.json")
    if config.get("model_type") != "qwen3":
        yield f"{folder} holds a {config.get('model_type')} model; the planner is a qwen3 language model"
    if not (folder / "tokenizer.json").is_file():
        yield f"{folder / 'tokenizer.json'} is missing: pull the planner again"
    embedding = tensors.get("model.embed_tokens.weight") or tensors.get("embed_tokens.weight")
    if embedding is not None and embedding.shape[0] != config.get("vocab_size"):
        yield (
            f"{folder} has {embedding.shape[0]} tokens in its weights and {config.get('vocab_size')} in its "
            "config: they are of different models"
        )
