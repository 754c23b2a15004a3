"""`silence_latent.pt` is read without unpickling: what it holds arrives, what it would run does not."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.ace_step.checkpoint import CheckpointError
from engine.ace_step.checkpoint.loading import _silence
from engine.ace_step.checkpoint.silence import read_silence
from tests.checkpoints.upstream import write_upstream
from tests.engine.ace_step.checkpoint_copies import refusal


class Trap:
    """What a hostile file would have run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["plain", "turned", "part of a longer one"])
def test_a_saved_tensor_arrives_number_for_number(tmp_path: Path, dtype: torch.dtype, layout: str) -> None:
    whole = torch.randn(1, 4, 40).to(dtype)
    tensor = {
        "plain": whole[:, :, :30].clone(),
        "turned": whole[:, :, :30].transpose(1, 2).contiguous().transpose(1, 2),
        "part of a longer one": whole[:, :, 7:37],
    }[layout]
    torch.save(tensor, tmp_path / "silence_latent.pt")
    read = _silence(tmp_path / "silence_latent.pt")
    assert read.dtype is dtype
    assert torch.equal(read, tensor.transpose(1, 2))


def test_a_hostile_pickle_is_not_executed(tmp_path: Path) -> None:
    folder = write_upstream(tmp_path / "model")
    mark = tmp_path / "owned"
    path = folder / "silence_latent.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("silence_latent/data.pkl", pickle.dumps(Trap(mark), protocol=2))
        archive.writestr("silence_latent/data/0", bytes(4 * 8 * 15_000))
    message = refusal(tmp_path / "model")
    assert "is not read: it names" in message
    assert "pathlib.PosixPath" in message
    assert not mark.exists()
    with zipfile.ZipFile(path) as archive:
        pickle.loads(archive.read("silence_latent/data.pkl"))  # noqa: S301 - the trap does work
    assert mark.exists()


def saved(path: Path, value: Any) -> Path:
    torch.save(value, path)
    return path


def rewritten(path: Path, **replaced: bytes) -> Path:
    """The same archive with other members."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    root = next(iter(members)).split("/")[0]
    names = {"numbers": f"{root}/data/0", "description": f"{root}/data.pkl"}
    members |= {names[name]: data for name, data in replaced.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_whatever_is_not_one_plain_tensor_is_refused(tmp_path: Path) -> None:
    tensor = torch.randn(1, 4, 30)
    path = tmp_path / "silence_latent.pt"
    refusals = {}
    for name, value in {
        "two": {"a": tensor, "b": tensor + 1},
        "flat": tensor.flatten(),
        "integers": tensor.long(),
        "a parameter": torch.nn.Parameter(tensor),
        "a text": "silence",
    }.items():
        with pytest.raises(CheckpointError) as caught:
            read_silence(saved(path, value))
        refusals[name] = str(caught.value)
    assert "more than one tensor" in refusals["two"]
    assert "three dimensions" in refusals["flat"]
    assert "torch.LongStorage" in refusals["integers"]
    assert "torch._utils._rebuild_parameter" in refusals["a parameter"]


def test_a_tensor_that_reaches_beyond_its_numbers_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "silence_latent.pt", torch.randn(1, 4, 30))
    rewritten(path, numbers=bytes(16))
    with pytest.raises(CheckpointError, match="beyond its numbers"):
        read_silence(path)


def test_a_description_that_is_far_too_long_is_refused(tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "silence_latent.pt", torch.randn(1, 4, 30)), description=bytes(70_000))
    with pytest.raises(CheckpointError, match="it describes more than a tensor"):
        read_silence(path)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_files_that_are_no_archive_are_refused(tmp_path: Path, data: bytes) -> None:
    """Also the bare pickles of old versions of torch."""
    path = tmp_path / "silence_latent.pt"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="is not read"):
        read_silence(path)


def test_numbers_of_the_wrong_shape_are_refused(tmp_path: Path) -> None:
    folder = write_upstream(tmp_path)
    torch.save(torch.randn(1, 8, 400), folder / "silence_latent.pt")
    assert "has the shape (1, 8, 400) instead of (1, 8, 15000)" in refusal(tmp_path)
