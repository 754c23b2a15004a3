"""A planner from a folder, and in plain words why not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.ace_step.planner import Planner
from engine.ace_step.planner.loading import load_planner
from engine.errors import NotLoaded
from tests.checkpoints.tiny_planner import ALL_CODES, save_planner
from tests.engine.ace_step.planner.conftest import ask, plans


def edit(path: Path, **values: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def without_a_norm(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def cut_in_half(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture(scope="session", name="few_codes")
def _few_codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Quick to load, and lacking an audio code, which is what is checked last."""
    folder = save_planner(tmp_path_factory.mktemp("planner"), codes=3)
    edit(folder / "config.json", audio_codes=4)
    return folder


def test_a_saved_planner_plans_as_the_one_it_was_saved_from(planner: Planner, tmp_path: Path) -> None:
    loaded = load_planner(save_planner(tmp_path), device="cpu", dtype=torch.float32)
    asks = [ask(write_caption=False)]
    assert plans(loaded, asks) == plans(planner, asks)


@pytest.mark.slow
def test_a_planner_with_all_codes_plans(tmp_path: Path) -> None:
    planner = load_planner(save_planner(tmp_path, codes=ALL_CODES), device="cpu", dtype=torch.float32)
    codes = plans(planner, [ask(seconds=20.0)])["a"].codes
    assert len(codes) == 100
    assert 32_000 < max(codes) < 64_000


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda _: None, "lacks audio code 3"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (
            lambda folder: edit(folder / "tokenizer_config.json", eos_token="<|endoftext|>"),
            "end with <|endoftext|>, not with <|im_end|>",
        ),
        (without_a_norm, "lack model.norm.weight"),
        (pickled, "cannot be read"),
        (cut_in_half, "cannot be read"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "cannot be read"),
        (lambda folder: edit(folder / "config.json", model_type="gpt2", architectures=["X"]), "not a Qwen3"),
        (
            lambda folder: edit(
                folder / "config.json", layer_types=["sliding_attention"] * 2, sliding_window=8
            ),
            "windowed attention",
        ),
    ],
)
def test_what_is_wrong_is_said_in_plain_words(
    few_codes: Path, tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    folder = shutil.copytree(few_codes, tmp_path / "planner")
    damage(folder)
    with pytest.raises(NotLoaded) as caught:
        load_planner(folder, device="cpu", dtype=torch.float32)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["/no/such/folder", "nobody/never-downloaded", "what is this"])
def test_a_source_that_is_not_here_is_not_fetched(source: str) -> None:
    with pytest.raises(NotLoaded) as caught:
        load_planner(source, device="cpu", dtype=torch.float32)
    assert source in str(caught.value)
