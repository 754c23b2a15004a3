"""The GPU benchmark, on a CPU: every path runs, the fast ones agree, and the count matches known sizes."""

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderOobleck

from benchmarks import engine_gpu
from benchmarks.engine_floor import Floor, Rates
from benchmarks.engine_weights import PARAMETERS, xl_modules


@pytest.fixture(scope="module", name="sizes")
def _sizes() -> dict[str, Any]:
    """XL, without memory."""
    with pytest.warns(FutureWarning, match="weight_norm"), torch.device("meta"):
        return xl_modules()


def test_all_paths_run_and_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUT", str(tmp_path))
    engine_gpu.main(["--tiny"])
    written = json.loads((tmp_path / "engine_gpu.json").read_text())
    assert [(row["song_s"], row["batch"]) for row in written["rows"]] == list(engine_gpu.TINY_ROWS)
    for row in written["rows"]:
        assert row["ours"]["seconds"] > 0, row
        assert row["pipeline"]["seconds"] > 0, row
        assert 0 < row["share_of_floor"] < 1, row
    exactness = written["exactness"]
    assert exactness.pop("latents, made again: equal bits") is True
    assert len(exactness) == 3
    assert max(exactness.values()) < 1e-5
    assert written["planner"]["planner, recorded against growing cache"] < 1e-5
    assert set(written["goals"].values()) == {None}
    printed = capsys.readouterr().out
    assert "transformer: on, agrees with the plain path" in printed
    assert "240 s in at most 0.7 s: not measured" in printed


def test_it_imports_no_package_but_those_that_its_head_names() -> None:
    root = Path(engine_gpu.__file__).parents[1]
    todo, seen, foreign = ["benchmarks.engine_gpu"], set[str](), set[str]()
    while todo:
        module = todo.pop()
        file = root.joinpath(*module.split("."))
        file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        if module in seen or not file.exists():
            continue
        seen.add(module)
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            for name in names:
                parts = name.split(".")
                if parts[0] in ("benchmarks", "engine", "tests"):
                    todo += [".".join(parts[: end + 1]) for end in range(len(parts))]
                elif parts[0] not in sys.stdlib_module_names:
                    foreign.add(parts[0])
    assert "engine.ace_step.runner" in seen
    # The last two come with transformers.
    assert foreign == {"torch", "diffusers", "transformers", "numpy", "msgspec", "tokenizers", "yaml"}


def test_what_fails_costs_only_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such kernel")

    decode = AutoencoderOobleck.decode

    def whole_is_too_much(self: Any, latents: torch.Tensor, **options: Any) -> Any:
        if not self.use_tiling:
            raise torch.OutOfMemoryError("whole")
        return decode(self, latents, **options)

    monkeypatch.setattr(AutoencoderOobleck, "decode", whole_is_too_much)
    monkeypatch.setattr(engine_gpu.Bench, "ours", fail)
    monkeypatch.setattr(engine_gpu.Bench, "exactness", fail)
    monkeypatch.setattr(engine_gpu.Bench, "planner", fail)
    monkeypatch.setattr(engine_gpu, "TINY_ROWS", ((1, 1),))
    engine_gpu.main(["--tiny", "--json", str(tmp_path / "figures.json")])
    written = json.loads((tmp_path / "figures.json").read_text())
    assert written["exactness"] == {"failed": "RuntimeError: no such kernel"}
    (row,) = written["rows"]
    assert row["ours"] == {"failed": "RuntimeError: no such kernel"}
    assert row["pipeline"]["seconds"] > 0
    assert row["pipeline"]["tiled"] is True
    assert "pipeline: decoded in tiles" in capsys.readouterr().out


def test_goals_are_judged_by_single_songs() -> None:
    row = {"song_s": 240, "batch": 1, "floor": {"total": 0.3}}
    row |= {"ours": {"seconds": 0.5}, "pipeline": {"seconds": 1.4}}
    batch = row | {"batch": 8, "ours": {"seconds": 9.0}}
    verdicts = engine_gpu.goals([engine_gpu.finished(row), engine_gpu.finished(batch)])
    assert verdicts["240 s in at most 0.7 s"] is True
    assert verdicts["240 s: 3 times the pipeline"] is False
    assert verdicts["240 s: 50% of the floor's speed"] is True
    assert verdicts["30 s in at most 0.12 s"] is None


def test_a_row_without_time_is_told_as_skipped() -> None:
    row = {"song_s": 60, "batch": 8, "floor": {"total": 0.5}}
    row |= {name: {"failed": "skipped: no time left"} for name in ("ours", "pipeline")}
    assert "ours: skipped: no time left" in engine_gpu.line(engine_gpu.finished(row))


def test_weights_have_the_released_sizes(sizes: dict[str, Any]) -> None:
    counted = {
        name: sum(parameter.numel() for parameter in module.parameters()) for name, module in sizes.items()
    }
    assert counted == PARAMETERS


@pytest.mark.parametrize(("seconds", "transformer", "decoder"), [(30, 0.032, 0.005), (240, 0.269, 0.041)])
def test_the_floor_is_that_of_the_design(
    seconds: int, transformer: float, decoder: float, sizes: dict[str, Any]
) -> None:
    bundle: Any = SimpleNamespace(dit=sizes["transformer"], vae=sizes["vae"], dtype=torch.bfloat16)
    floor = Floor(bundle, Rates(flops=790e12, bandwidth=4.3e12), steps=8).seconds(seconds, 1)
    assert floor["transformer"] == pytest.approx(transformer, rel=0.03)
    assert floor["decoder"] == pytest.approx(decoder, rel=0.15)
    assert floor["total"] == floor["transformer"] + floor["decoder"]


def test_at_few_tokens_the_weights_are_what_takes_time(sizes: dict[str, Any]) -> None:
    bundle: Any = SimpleNamespace(dit=sizes["transformer"], vae=sizes["vae"], dtype=torch.bfloat16)
    floor = Floor(bundle, Rates(flops=790e12, bandwidth=4.3e12), steps=8)
    assert floor.seconds(5, 1)["transformer"] == floor.seconds(5, 2)["transformer"]
    assert floor.seconds(60, 2)["transformer"] == pytest.approx(2 * floor.seconds(60, 1)["transformer"])
