"""Repositories arrive whole: only what is read, resumed after a cut, compared with the hub's checksums."""

import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.ace_step.bundle import Bundle
from engine.ace_step.checkpoint import CheckpointError, Download, check, downloads_for, inspect, pull
from engine.ace_step.checkpoint.manifest import NAME
from tests.checkpoints.tiny import write_checkpoint
from tests.engine.ace_step.checkpoint_copies import assert_same, load
from tests.engine.ace_step.small_hub import COMMIT, SmallHub

TINY = Download("owner/tiny")
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module", name="files")
def _files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_checkpoint(tmp_path_factory.mktemp("hub") / "tiny")
    (folder / "modeling_remote.py").write_text("raise SystemExit('never run')")
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02.")
    (folder / "README.md").write_text("# tiny")
    return folder


@pytest.fixture(name="hub")
def _hub(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallHub]:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the hub client's own attempts
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 16 * 1024)
    hub = SmallHub(files)
    with hub.serving():
        yield hub


def pulled(hub: SmallHub, cache: Path, download: Download = TINY) -> Path:
    return Path(pull(download, progress=False, cache=cache, endpoint=hub.endpoint).folder)


def test_a_pulled_repository_loads_and_holds_only_what_is_read(
    hub: SmallHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turbo_bundle: Bundle
) -> None:
    result = pull(TINY, progress=False, cache=tmp_path, endpoint=hub.endpoint)
    assert (result.repository, result.revision) == ("owner/tiny", COMMIT)
    folder = Path(result.folder)
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = {name for name in hub.files if not name.endswith((".py", ".bin", ".md"))}
    assert there == wanted | {NAME}
    assert result.files == len(wanted)
    manifest = json.loads((folder / NAME).read_text())
    assert manifest["files"][WEIGHTS]["sha256"] == hub.sha256(WEIGHTS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert_same(load("owner/tiny"), turbo_bundle)
    assert load(f"owner/tiny@{COMMIT}").kind == "turbo"
    facts = check("owner/tiny", cache=tmp_path)
    assert (facts.repository, facts.revision, facts.problems) == ("owner/tiny", COMMIT, ())


def test_what_is_there_is_not_fetched_again(hub: SmallHub, tmp_path: Path) -> None:
    pulled(hub, tmp_path)
    hub.ranges.clear()
    pulled(hub, tmp_path)
    assert hub.ranges == []


def test_a_cut_transfer_goes_on_where_it_stopped(
    hub: SmallHub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = 10 * 16 * 1024
    hub.cut = (WEIGHTS, half)
    with pytest.raises(CheckpointError, match="it goes on where it stopped"):
        pulled(hub, tmp_path)
    hub.cut = None
    hub.ranges.clear()
    monkeypatch.setenv("TQDM_POSITION", "-1")  # draws bars without a terminal, too
    folder = Path(pull(TINY, progress=True, cache=tmp_path, endpoint=hub.endpoint).folder)
    assert "diffusion_pytorch_model.safetensors" in capsys.readouterr().err
    assert (folder / WEIGHTS).read_bytes() == hub.files[WEIGHTS]
    assert [start for name, start in hub.ranges if name == WEIGHTS] == [half]


def test_two_pulls_at_once_do_not_mix(hub: SmallHub, tmp_path: Path) -> None:
    blobs = tmp_path / "models--owner--tiny" / "blobs"
    blobs.mkdir(parents=True)
    with (blobs / f"{hub.sha256(WEIGHTS)}.antiphon-partial").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(CheckpointError, match="another process is pulling owner/tiny"):
            pulled(hub, tmp_path)
    assert (pulled(hub, tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_file_that_is_not_what_the_hub_says_is_removed(hub: SmallHub, tmp_path: Path) -> None:
    hub.lies[WEIGHTS] = "0" * 64
    with pytest.raises(
        CheckpointError, match=r"arrived damaged.* and was removed: run the same command again"
    ):
        pulled(hub, tmp_path)
    assert not list(tmp_path.rglob(WEIGHTS))
    assert not list(tmp_path.rglob("*partial"))
    hub.lies.clear()
    assert (pulled(hub, tmp_path) / WEIGHTS).read_bytes() == hub.files[WEIGHTS]


def test_a_small_file_is_compared_as_git_names_it(hub: SmallHub, tmp_path: Path) -> None:
    folder = pulled(hub, tmp_path)
    config = (folder / "transformer" / "config.json").resolve()
    config.write_bytes(config.read_bytes() + b" ")
    with pytest.raises(CheckpointError, match=r"config.json arrived damaged"):
        pulled(hub, tmp_path)
    assert pulled(hub, tmp_path) == folder


def test_damage_after_the_pull_is_found_by_check(hub: SmallHub, tmp_path: Path) -> None:
    folder = pulled(hub, tmp_path)
    weights = (folder / WEIGHTS).resolve()
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert inspect("owner/tiny", cache=tmp_path).problems == ()
    (problem,) = check("owner/tiny", cache=tmp_path).problems
    assert f"{WEIGHTS} is not what was pulled" in problem


def test_parts_of_a_repository_add_up(hub: SmallHub, tmp_path: Path) -> None:
    """A donor's two folders, and later the whole model: one list of checksums."""
    folder = pulled(hub, tmp_path, Download("owner/tiny", only=("audio_tokenizer",)))
    there = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if path.is_file()}
    assert there == {"audio_tokenizer", "model_index.json", NAME}
    pulled(hub, tmp_path, Download("owner/tiny", only=("vae",)))
    listed = json.loads((folder / NAME).read_text())["files"]
    assert {name.split("/")[0] for name in listed} == {"audio_tokenizer", "vae", "model_index.json"}


@pytest.mark.parametrize(
    ("download", "words"),
    [
        (Download("owner/other"), "there is no repository owner/other"),
        (Download("owner/tiny", only=("nothing",)), "has no .safetensors weights"),
    ],
)
def test_what_cannot_be_pulled_is_said(hub: SmallHub, tmp_path: Path, download: Download, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        pulled(hub, tmp_path, download)


def test_without_a_network_the_pull_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="could not be pulled"):
        pull(TINY, progress=False, cache=tmp_path, endpoint="http://127.0.0.1:9")


def test_public_models_and_sources_name_what_to_pull() -> None:
    turbo, donor = downloads_for("ace-step-1.5-xl")
    assert turbo.repository == "ACE-Step/acestep-v15-xl-turbo-diffusers"
    assert (donor.repository, donor.only) == (
        "ACE-Step/acestep-v15-xl-sft-diffusers",
        ("audio_tokenizer", "audio_token_detokenizer"),
    )
    assert [each.repository for each in downloads_for("ace-step-1.5-base")] == [
        "ACE-Step/acestep-v15-base",
        "ACE-Step/Ace-Step1.5",
    ]
    assert downloads_for(f"owner/tiny@{COMMIT}") == (Download("owner/tiny", COMMIT),)
    assert [each.repository for each in downloads_for("owner/tiny+owner/donor")] == [
        "owner/tiny",
        "owner/donor",
    ]
    with pytest.raises(CheckpointError, match=r"none of ace-step-1\.5-xl"):
        downloads_for("nonsense")
