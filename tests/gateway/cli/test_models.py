"""`antiphon models`: what is there, what is missing, what is wrong, and how to get it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import main
from tests.checkpoints.tiny import write_checkpoint
from tests.engine.ace_step.checkpoint_copies import copied, edit_weights
from tests.engine.ace_step.small_hub import COMMIT, SmallHub
from tests.gateway.api.installation import SECRET

ROOT = Path(__file__).parents[3]


class Shell:
    """Somebody with a shell and no database."""

    def __init__(self, home: Path) -> None:
        self.environ = {
            "ANTIPHON_HOME": str(home),
            "ANTIPHON_SECRET_KEY": SECRET,
            "HF_HUB_CACHE": str(home / "hub"),
        }

    def run(self, *arguments: str, status: int = 0, **environ: str) -> str:
        result = CliRunner().invoke(main, ["models", *arguments], env=self.environ | environ)
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 or "--json" in arguments else result.output

    def json(self, *arguments: str, status: int = 0, **environ: str) -> Any:
        return json.loads(self.run(*arguments, "--json", status=status, **environ))


@pytest.fixture(name="shell")
def _shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    for name in [name for name in os.environ if name.startswith(("ANTIPHON_", "ACESTEP_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return Shell(tmp_path)


@pytest.fixture(scope="module", name="turbo")
def _turbo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("models") / "turbo")


def test_the_list_says_what_can_be_had_and_what_is_there(shell: Shell, turbo: Path) -> None:
    listed = shell.json("list", ANTIPHON_ENGINE_MODELS=f"ace-step-1.5={turbo}")["models"]
    by_name = {model["name"]: model for model in listed}
    assert by_name["ace-step-1.5"]["facts"]["kind"] == "turbo"
    assert by_name["ace-step-1.5"]["facts"]["problems"] == []
    assert by_name["ace-step-1.5-xl"]["facts"] is None
    assert by_name["ace-step-1.5-xl"]["release"] == "ACE-Step/acestep-v15-xl-turbo-diffusers"
    assert by_name["planner"]["release"] == "ACE-Step/acestep-5Hz-lm-1.7B"
    assert not {"sandbox", "ace-step"} & by_name.keys()
    text = shell.run("list", ANTIPHON_ENGINE_MODELS=f"ace-step-1.5={turbo}")
    assert f"{turbo}: ok, turbo" in text
    assert "antiphon models pull ace-step-1.5-xl," in text


def test_a_whole_model_passes_and_another_kind_does_not(shell: Shell, turbo: Path) -> None:
    one = shell.json("check", ANTIPHON_ENGINE_MODELS=f"ace-step-1.5={turbo}")
    assert one["ok"] is True
    assert [model["name"] for model in one["models"]] == ["ace-step-1.5"]
    other = shell.json("check", status=3, ANTIPHON_ENGINE_MODELS=f"ace-step-1.5-base={turbo}")
    assert other["ok"] is False
    (problem,) = other["models"][0]["problems"]
    assert problem.endswith("holds turbo weights; ace-step-1.5-base is served as base")


def test_nothing_configured_is_no_problem(shell: Shell) -> None:
    assert "nothing is configured" in shell.run("check")


def test_a_folder_is_checked_by_its_path(shell: Shell, turbo: Path, tmp_path: Path) -> None:
    folder = copied(turbo, tmp_path)
    assert "no checksums" in shell.run("check", str(folder))
    assert shell.run("check", str(folder), "--write").startswith(str(folder))
    assert shell.json("check", str(folder))["models"][0]["verifiable"]
    weights = folder / "condition_encoder" / "diffusion_pytorch_model.safetensors"
    edit_weights(weights, lambda tensors: tensors["silence_latent"].zero_())
    output = shell.run("check", str(folder), status=3)
    assert "PROBLEM  silence_latent is all zeros" in output
    assert "is not what was pulled" in output


def test_a_model_that_was_not_pulled_says_how_to_get_it(shell: Shell) -> None:
    output = shell.run("check", "ace-step-1.5-xl", status=3)
    assert "run `antiphon models pull ACE-Step/acestep-v15-xl-turbo-diffusers`" in output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pull", "nonsense"], "none of ace-step-1.5-xl"),
        (["pull"], "Missing argument"),
        (["pull", "."], "is a folder on this machine"),
        (["check", "owner/tiny", "--write"], "--write is for folders"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error(shell: Shell, arguments: list[str], words: str) -> None:
    assert words in shell.run(*arguments, status=2)


def test_a_pull_needs_no_torch_and_ends_with_what_to_configure(shell: Shell, turbo: Path) -> None:
    """In a process of its own: the hub's address is read when its client is imported."""
    code = (
        "import sys; from gateway.cli import main; status = main(sys.argv[1:], standalone_mode=False); "
        "sys.exit(9 if 'torch' in sys.modules else status)"
    )
    hub = SmallHub(turbo)
    with hub.serving() as endpoint:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        result = subprocess.run(
            [sys.executable, "-c", code, "models", "pull", "owner/tiny", "--json"],
            cwd=ROOT,
            env=environ | shell.environ | {"HF_ENDPOINT": endpoint},
            capture_output=True,
            check=False,
            text=True,
        )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert answer["pulled"][0]["revision"] == COMMIT
    assert (answer["source"], answer["facts"]["problems"]) == ("owner/tiny", [])
    assert shell.json("check", "owner/tiny")["ok"] is True
