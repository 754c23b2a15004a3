"""Weights on disk, as far as headers tell: only safetensors, every byte accounted for. Free of torch."""

import json
import math
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from engine.ace_step.checkpoint.errors import CheckpointError

MAX_HEADER_BYTES: Final = 100 * 1024 * 1024
"""As in the format's own reader."""
MAX_JSON_BYTES: Final = 64 * 1024 * 1024
BYTES_OF: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The number formats that are read, by their names in the header."""

_FOREIGN: Final = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".onnx", ".gguf")
_CANONICAL: Final = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_SHARD: Final = re.compile(r".+-\d{5}-of-\d{5}\.safetensors")


class Stored(msgspec.Struct, frozen=True):
    """One tensor in one file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    """Offset in bytes from the beginning of the file."""
    end: int


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def weights_in(folder: Path) -> dict[str, Stored]:
    """Every tensor of `folder` by name; raises CheckpointError for whatever is incomplete."""
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if len(indexes) > 1:
        raise CheckpointError(f"{folder} has several indexes of weights; keep one: {_names(indexes)}")
    if indexes:
        return _sharded(indexes[0])
    found = sorted(folder.glob("*.safetensors"))
    for name in _CANONICAL:
        if folder / name in found:
            return read_header(folder / name)
    if len(found) == 1 and not _SHARD.fullmatch(found[0].name):
        return read_header(found[0])
    if found:
        raise CheckpointError(
            f"{folder} has parts of weights ({_names(found)}) but no *.safetensors.index.json that lists them"
        )
    foreign = [path for path in sorted(folder.glob("*")) if path.suffix in _FOREIGN]
    if foreign:
        raise CheckpointError(
            f"{folder} has weights only as {_names(foreign)}. Such files can run code when they are opened, "
            "or need another program: only .safetensors is read. Get the safetensors release of this model"
        )
    raise CheckpointError(f"{folder} has no weights (*.safetensors)")


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one file, whose size must be exactly what its header says."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if not 2 <= length <= MAX_HEADER_BYTES:
                raise CheckpointError(f"{path} is no safetensors file")
            raw = msgspec.json.decode(file.read(length), type=dict[str, Any])
        size = path.stat().st_size
        raw.pop("__metadata__", None)
        entries = msgspec.convert(raw, dict[str, _Entry])
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: copy or pull the model again") from error
    except (struct.error, msgspec.DecodeError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    begin = 8 + length
    end = begin + max((entry.data_offsets[1] for entry in entries.values()), default=0)
    if size != end:
        raise CheckpointError(
            f"{path} is incomplete or damaged: {size} bytes instead of {end}. Copy or pull the model again"
        )
    return {name: _stored(path, name, entry, begin) for name, entry in entries.items()}


def read_bytes(stored: Stored) -> bytes:
    """The numbers of one tensor, as they lie in the file (little endian)."""
    with stored.path.open("rb") as file:
        file.seek(stored.start)
        return file.read(stored.end - stored.start)


def read_json(path: Path) -> dict[str, Any]:
    """One object from a file of moderate size."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointError(f"{path} is far too large for what it should be")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing: copy or pull the model again") from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no object")
    return value


def listed(names: Iterable[str], *, most: int = 5) -> str:
    """Names for a message, cut where nobody reads on."""
    every = sorted(names)
    rest = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + rest


def _sharded(index: Path) -> dict[str, Stored]:
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise CheckpointError(f"{index} has no weight_map")
    shards = sorted(set(where.values()))
    for shard in shards:
        if Path(shard).name != shard:
            raise CheckpointError(f"{index} points outside of its folder: {shard!r}")
    missing = [shard for shard in shards if not (index.parent / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{index.parent} lacks {len(missing)} of {len(shards)} parts of its weights: {listed(missing)}. "
            "Copy or pull the model again"
        )
    headers = {shard: read_header(index.parent / shard) for shard in shards}
    lost = [name for name, shard in where.items() if name not in headers[shard]]
    if lost:
        raise CheckpointError(f"{index} lists tensors that its parts do not have: {listed(lost)}")
    return {name: headers[shard][name] for name, shard in where.items()}


def _stored(path: Path, name: str, entry: _Entry, begin: int) -> Stored:
    width = BYTES_OF.get(entry.dtype)
    if width is None:
        raise CheckpointError(
            f"{path}: {name} is stored as {entry.dtype}; weights are read as {', '.join(BYTES_OF)}. "
            "Quantised weights are not supported: take the original release"
        )
    start, end = entry.data_offsets
    if (
        not 0 <= start <= end
        or end - start != width * math.prod(entry.shape)
        or min(entry.shape, default=0) < 0
    ):
        raise CheckpointError(f"{path} is damaged: {name} has the wrong size")
    return Stored(path, name, entry.dtype, entry.shape, begin + start, begin + end)


def _names(paths: list[Path]) -> str:
    return listed(path.name for path in paths)
