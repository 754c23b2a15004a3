"""The environment, read once: every problem named, nothing secret shown."""

import concurrent.futures
import re
import stat
from pathlib import Path

import pytest

from gateway.settings import DEFAULT_CATALOG, Settings, SettingsError, read_settings

SECRET = "x" * 32


def read(home: Path, **environ: str) -> Settings:
    return read_settings({"ANTIPHON_HOME": str(home), **environ})


def problems(home: Path, **environ: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        read(home, **environ)
    return str(caught.value).splitlines()


def test_an_empty_environment_is_enough(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings({})
    assert settings.home == tmp_path / ".antiphon"
    assert (settings.bind_host, settings.bind_port) == ("127.0.0.1", 8000)
    assert settings.base_url == "http://127.0.0.1:8000"
    assert settings.storage_url == (tmp_path / ".antiphon" / "audio").as_uri()
    assert settings.catalog == DEFAULT_CATALOG
    assert (settings.database_url, settings.public_url, settings.metrics_token) == (None, None, None)
    assert settings.engine_device == "auto"


def test_models_of_the_engine_are_named_with_their_sources(tmp_path: Path) -> None:
    both = read(tmp_path, ANTIPHON_ENGINE_MODELS=" ace-step-1.5=/models/a , ace-step-1.5-xl=org/repo-xl,")
    assert both.engine_models == (("ace-step-1.5", "/models/a"), ("ace-step-1.5-xl", "org/repo-xl"))
    guide = read(tmp_path, ACESTEP_CONFIG_PATH="/models/b", ACESTEP_LM_MODEL_PATH="/models/lm")
    assert guide.engine_models == (("ace-step-1.5", "/models/b"),)
    assert guide.engine_planner == "/models/lm"
    nothing = read(tmp_path)
    assert (nothing.engine_models, nothing.engine_planner, nothing.allow_private_hosts) == ((), None, False)
    assert read(tmp_path, ANTIPHON_ALLOW_PRIVATE_HOSTS="true").allow_private_hosts


@pytest.mark.parametrize("value", ["ace-step-1.5", "=x", "ace-step-1.5=", "a=1,a=2"])
def test_models_without_name_or_source_are_a_problem(tmp_path: Path, value: str) -> None:
    (problem,) = problems(tmp_path, ANTIPHON_ENGINE_MODELS=value)
    assert problem.startswith("ANTIPHON_ENGINE_MODELS")


def test_empty_variables_are_unset_ones(tmp_path: Path) -> None:
    names = "DATABASE_URL BIND PUBLIC_URL STORAGE_URL CATALOG SECRET_KEY METRICS_TOKEN ENGINE_DEVICE".split()
    assert read(tmp_path, **{f"ANTIPHON_{name}": "" for name in names}) == read(tmp_path)


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        ANTIPHON_BIND="8000",
        ANTIPHON_DATABASE_URL="mysql://user:hunter2@db/x",
        ANTIPHON_PUBLIC_URL="music.example",
        ANTIPHON_STORAGE_URL="/var/audio",
        ANTIPHON_CATALOG="nowhere.toml",
        ANTIPHON_SECRET_KEY="short",
    )
    assert [re.match(r"ANTIPHON_\w+", line)[0] for line in found] == [  # type: ignore[index]
        "ANTIPHON_BIND",
        "ANTIPHON_DATABASE_URL",
        "ANTIPHON_PUBLIC_URL",
        "ANTIPHON_STORAGE_URL",
        "ANTIPHON_CATALOG",
        "ANTIPHON_SECRET_KEY",
    ]
    assert "hunter2" not in "".join(found)
    assert "short" not in "".join(found)


@pytest.mark.parametrize(
    ("bind", "host", "port", "base_url"),
    [
        ("0.0.0.0:80", "0.0.0.0", 80, "http://127.0.0.1:80"),  # noqa: S104
        ("[::]:8000", "::", 8000, "http://127.0.0.1:8000"),
        ("[::1]:8000", "::1", 8000, "http://[::1]:8000"),
        ("music.example:65535", "music.example", 65535, "http://music.example:65535"),
    ],
)
def test_a_place_to_listen(tmp_path: Path, bind: str, host: str, port: int, base_url: str) -> None:
    settings = read(tmp_path, ANTIPHON_BIND=bind)
    assert (settings.bind_host, settings.bind_port, settings.base_url) == (host, port, base_url)


@pytest.mark.parametrize(
    "bind",
    ["8000", ":8000", "localhost", "localhost:", "localhost:http", "x:65536", "::1:80", "[::1]", "[x]:1"],
)
def test_no_place_to_listen(tmp_path: Path, bind: str) -> None:
    assert "ANTIPHON_BIND" in problems(tmp_path, ANTIPHON_BIND=bind)[0]


@pytest.mark.parametrize("url", ["https://music.example/", "http://127.0.0.1:8000"])
def test_a_public_origin_loses_its_slash(tmp_path: Path, url: str) -> None:
    assert read(tmp_path, ANTIPHON_PUBLIC_URL=url).public_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url", ["music.example", "ftp://x", "https://", "https://x/path", "https://x/?a=b", "https://x/#a"]
)
def test_what_is_no_origin_is_told(tmp_path: Path, url: str) -> None:
    assert "ANTIPHON_PUBLIC_URL" in problems(tmp_path, ANTIPHON_PUBLIC_URL=url)[0]


@pytest.mark.parametrize("url", ["postgresql://u:p@h/d", "postgres://u@h:5/d?sslmode=require"])
def test_a_database(tmp_path: Path, url: str) -> None:
    assert read(tmp_path, ANTIPHON_DATABASE_URL=url).database_url == url


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ANTIPHON_PUBLIC_URL", "http://[::1"),
        ("ANTIPHON_DATABASE_URL", "postgresql://[::1/x"),
        ("ANTIPHON_STORAGE_URL", "file://[x"),
        ("ANTIPHON_STORAGE_URL", "s3://"),
        ("ANTIPHON_STORAGE_URL", "file://relative/path"),
    ],
)
def test_an_address_that_cannot_be_read_is_a_problem_not_a_crash(
    tmp_path: Path, variable: str, value: str
) -> None:
    assert problems(tmp_path, **{variable: value})[0].startswith(variable)


def test_the_guides_name_of_the_device_counts_after_ours(tmp_path: Path) -> None:
    assert read(tmp_path, ACESTEP_DEVICE="cpu").engine_device == "cpu"
    assert read(tmp_path, ACESTEP_DEVICE="cpu", ANTIPHON_ENGINE_DEVICE="cuda").engine_device == "cuda"


def test_a_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    home = tmp_path / "deep" / "home"
    first = read(home).secret_key
    assert len(first) >= 32
    assert read(home).secret_key == first
    assert stat.S_IMODE((home / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["secret_key"]
    assert read(home, ANTIPHON_SECRET_KEY=SECRET).secret_key == SECRET


def test_processes_that_start_together_agree_on_the_secret(tmp_path: Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        secrets = list(pool.map(lambda _: read(tmp_path / "home").secret_key, range(32)))
    assert len(set(secrets)) == 1


def test_an_empty_secret_on_disk_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text("")
    assert "secret_key" in problems(tmp_path)[0]


def test_a_home_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert problems(tmp_path / "file" / "home")[0].startswith("ANTIPHON_HOME")


def test_settings_show_no_secret(tmp_path: Path) -> None:
    settings = read(
        tmp_path,
        ANTIPHON_SECRET_KEY=SECRET,
        ANTIPHON_METRICS_TOKEN="token",
        ANTIPHON_DATABASE_URL="postgresql://u:hunter2@h/d",
    )
    for shown in (repr(settings), str(settings), f"{settings}"):
        assert not re.search(f"{SECRET}|token|hunter2", shown)
