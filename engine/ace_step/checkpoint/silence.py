"""`silence_latent.pt`, the one file of the upstream layout that is a pickle: read without unpickling.

The file is a zip of a pickle that describes one tensor and of its raw numbers. The description is only
disassembled, into names and integers, and must be exactly that of a tensor; nothing in it is ever called.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.ace_step.checkpoint.errors import CheckpointError

MAX_BYTES: Final = 256 * 1024 * 1024
MAX_PICKLE_BYTES: Final = 64 * 1024

_DTYPES: Final = {"FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"}
_NEEDED: Final = {("torch._utils", "_rebuild_tensor_v2"), ("collections", "OrderedDict")}
_HARMLESS: Final = frozenset(
    "PROTO STOP MARK TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE BINPUT LONG_BINPUT BINGET LONG_BINGET BINPERSID "
    "REDUCE NEWFALSE NEWTRUE BINUNICODE BININT BININT1 BININT2 LONG1 GLOBAL".split()
)
"""What torch.save writes for one tensor, at its fixed pickle protocol 2."""
_INTEGERS: Final = frozenset({"BININT", "BININT1", "BININT2", "LONG1"})


class Silence(msgspec.Struct, frozen=True, eq=False):
    """The numbers of the file, [1, D, T], as unsigned integers of the width of `dtype`."""

    dtype: str
    bits: NDArray[Any]


def read_silence(path: Path) -> Silence:
    """Read the latents of silence; raises CheckpointError unless the file is one plain tensor."""
    try:
        with zipfile.ZipFile(path) as archive:
            description, numbers = _members(path, archive)
        return _tensor(path, list(_opcodes(description)), numbers)
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} is missing. Without it songs turn into a drone: copy or pull the model again"
        ) from error
    except (zipfile.BadZipFile, OSError, ValueError, EOFError, IndexError, NotImplementedError) as error:
        raise _refused(path, str(error)) from error


def _members(path: Path, archive: zipfile.ZipFile) -> tuple[bytes, bytes]:
    """The pickle and the only storage."""
    infos = archive.infolist()
    if len(infos) > 32 or sum(info.file_size for info in infos) > MAX_BYTES:
        raise _refused(path, "it is too large")
    if any(info.file_size > MAX_PICKLE_BYTES for info in infos if info.filename.endswith(".pkl")):
        raise _refused(path, "it describes more than a tensor")
    names = [info.filename for info in infos]
    pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise _refused(path, "it was not written by torch.save")
    root = pickles[0].removesuffix("data.pkl")
    if [name for name in names if name.startswith(f"{root}data/")] != [f"{root}data/0"]:
        raise _refused(path, "it holds more than one tensor")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise _refused(path, "its numbers are big endian")
    return archive.read(pickles[0]), archive.read(f"{root}data/0")


def _opcodes(description: bytes) -> Iterator[tuple[str, Any]]:
    for opcode, argument, _ in pickletools.genops(description):
        yield opcode.name, argument


def _tensor(path: Path, opcodes: list[tuple[str, Any]], numbers: bytes) -> Silence:
    strange = sorted({name for name, _ in opcodes} - _HARMLESS)
    if strange:
        raise _refused(path, f"it describes more than a tensor ({', '.join(strange)})")
    names = {tuple(argument.split(" ", 1)) for name, argument in opcodes if name == "GLOBAL"}
    storages = {name for module, name in names if module == "torch" and name in _DTYPES}
    if len(storages) != 1 or names != _NEEDED | {("torch", *storages)}:
        raise _refused(path, f"it names {', '.join(sorted('.'.join(name) for name in names))}")
    dtype = _DTYPES[storages.pop()]
    integers = [int(argument) for name, argument in opcodes if name in _INTEGERS]
    if len(integers) != 8:
        raise _refused(path, "its tensor does not have three dimensions")
    count, offset, *rest = integers
    size, stride = rest[:3], rest[3:]
    flat = np.frombuffer(numbers, np.uint32 if dtype == "F32" else np.uint16)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if len(flat) != count or min(offset, *stride) < 0 or min(size) < 1 or not 0 <= last < count:
        raise _refused(path, "its tensor reaches beyond its numbers")
    steps = [step * flat.itemsize for step in stride]
    return Silence(dtype, np.lib.stride_tricks.as_strided(flat[offset:], size, steps, writeable=False).copy())


def _refused(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not read: {why}. Only the plain tensor that the release ships is taken from such a file"
    )
