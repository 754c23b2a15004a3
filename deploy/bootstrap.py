"""Make .venv and install what the lock pins: `bootstrap.py run|dev`; `bootstrap.py lock` renews the locks.

Needs nothing but Python's standard library. A second call finds the stamp of the first and does nothing.
"""

# ruff: noqa: INP001 - a script beside files that are no Python
import ast
import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
UV_VERSION = "0.13.8"
LOCKS = {"run": ROOT / "requirements.lock", "dev": ROOT / "requirements-dev.lock"}
# Their versions follow from torch's build (CPU or CUDA), which differs from machine to machine.
FOLLOWS_TORCH = re.compile(r"^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)\b")


def main(arguments: list[str]) -> int:
    """Exit status 0 when the environment is complete, else 1 after the failing program's own words."""
    if len(arguments) != 1 or arguments[0] not in {*LOCKS, "lock"}:
        print("usage: bootstrap.py run|dev|lock", file=sys.stderr)  # noqa: T201
        return 2
    with Path(__file__).open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)  # a second make waits for the first
        try:
            if arguments[0] == "lock":
                write_locks()
            else:
                install(arguments[0])
        except subprocess.CalledProcessError as error:
            say(f"failed with status {error.returncode}: {' '.join(map(str, error.cmd))}")
            return 1
    return 0


def install(extra: str) -> None:
    """Bring .venv to the lock `run` or `dev`; nothing to do when it was there already."""
    make_environment()
    # What `dev` installs includes what `run` needs.
    if any(is_installed(name) for name in {extra, "dev"}):
        return
    say(f"installing {LOCKS[extra].name} into .venv")
    install_packages(["--requirement", str(LOCKS[extra])])
    install_packages(["--no-deps", "--no-build-isolation", "--editable", str(ROOT)])
    stamp(extra).write_text(fingerprint(extra))


def is_installed(extra: str) -> bool:
    """True when the last installation that came to its end was of exactly this lock."""
    return stamp(extra).exists() and stamp(extra).read_text() == fingerprint(extra)


def stamp(extra: str) -> Path:
    """Lies inside .venv, so that it goes with it."""
    return VENV / f".installed-{extra}"


def make_environment() -> None:
    """A working .venv of this very folder: moved, copied, broken or outdated ones are made anew."""
    script = VENV / "bin" / "activate"
    if script.exists() and str(VENV) in script.read_text(errors="replace") and works():
        return
    if VENV.exists():
        say("making .venv anew: it was made elsewhere, or its Python is gone")
        shutil.rmtree(VENV)
    run([sys.executable, "-m", "venv", VENV])


def works() -> bool:
    """True when the environment's Python starts, is new enough and has pip."""
    check = "import sys, pip; sys.exit(sys.version_info < (3, 11))"
    try:
        return subprocess.run([PYTHON, "-c", check], capture_output=True, check=False).returncode == 0  # noqa: S603
    except OSError:
        return False


def fingerprint(extra: str) -> str:
    """Changes when something must be installed again."""
    parts = [LOCKS[extra].read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install_packages(arguments: list[str]) -> None:
    """With uv, which is ten times as fast; with pip where uv is not to be had, or cannot do it."""
    uv = uv_program()
    if uv is not None:
        for sources in (uv_sources(), uv_sources(extra_first=True)):
            command: list[Path | str] = [uv, "pip", "install", "--python", PYTHON, *sources, *arguments]
            if run(command, environ=uv_environment(), check=False) == 0:
                return
            say("uv could not do it, trying another way")
    run([PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *arguments])


def uv_program() -> Path | None:
    """The uv of .venv, installed when it is not there."""
    uv = VENV / "bin" / "uv"
    if not uv.exists():
        quiet = ["--quiet", "--disable-pip-version-check"]
        run([PYTHON, "-m", "pip", "install", *quiet, f"uv=={UV_VERSION}"], check=False)
    if uv.exists():
        return uv
    say("uv is not to be had here, pip does its work")
    return None


def uv_sources(*, extra_first: bool = False) -> list[str]:
    """What pip was told by its environment and its configuration files, in the words of uv.

    pip looks at the files of all indexes together. uv takes those of the first index that has the
    version, and an additional index may lack the best file for this machine: so the main one is asked
    first, unless it could not be reached. Everything is pinned, so no index can slip in another version.
    """
    main = (pip_setting("index-url") or ["https://pypi.org/simple"])[-1]
    extra = pip_setting("extra-index-url")
    options = ["--index-url", main, "--index-strategy", "unsafe-first-match"]
    for url in [*([] if extra_first or not extra else [main]), *extra]:
        options += ["--extra-index-url", url]
    for link in pip_setting("find-links"):
        options += ["--find-links", link]
    without_index = pip_setting("no-index")[-1:] in (["1"], ["true"], ["yes"], ["on"])
    return [*options, "--no-index"] if without_index else options


def uv_environment() -> dict[str, str]:
    """The certificate file of pip counts for uv too."""
    certificates = pip_setting("cert")[-1:]
    return dict(os.environ) | ({"SSL_CERT_FILE": certificates[0]} if certificates else {})


def pip_setting(name: str) -> list[str]:
    """All values of one pip setting; those of the environment stand last."""
    found: list[str] = []
    for scope in ("global", "install", ":env:"):
        found += pip_settings().get(f"{scope}.{name}", "").split()
    return list(dict.fromkeys(found))


@functools.cache
def pip_settings() -> dict[str, str]:
    """`pip config list`: lines like global.find-links='/wheels', the environment's begin with :env:."""
    command: list[Path | str] = [PYTHON, "-m", "pip", "config", "list"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    pairs = [line.partition("=") for line in answer.stdout.splitlines()]
    return {key: ast.literal_eval(value) for key, equals, value in pairs if equals}


def write_locks() -> None:
    """Resolve pyproject.toml for Python 3.11 to 3.14 into both locks."""
    make_environment()
    uv = uv_program()
    if uv is None:
        raise SystemExit("the locks are made by uv, which is not to be had here")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    torch = next(line for line in project["project"]["dependencies"] if line.startswith("torch=="))
    # The build system, and what it asks for to install in place, are locked too: nothing else is fetched.
    build = "\n".join([*project["build-system"]["requires"], "editables"])
    for name, lock in LOCKS.items():
        command: list[Path | str] = [
            uv,
            "pip",
            "compile",
            "pyproject.toml",
            "-",
            "--universal",
            "--python-version",
            "3.11",
        ]
        command += [
            "--no-header",
            "--no-annotate",
            "--no-emit-index-url",
            "--no-emit-find-links",
            *uv_sources(),
        ]
        command += ["--extra", "dev", "--constraint", LOCKS["run"]] if name == "dev" else []
        answer = subprocess.run(  # noqa: S603
            command,
            cwd=ROOT,
            env=uv_environment(),
            input=build,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        pins = [line for line in answer.stdout.splitlines() if line and not FOLLOWS_TORCH.match(line)]
        head = f"# Made by `make lock` from pyproject.toml ({name}). torch's own parts follow from its build."
        lock.write_text("\n".join([head, *sorted([*pins, torch])]) + "\n")


def run(command: Sequence[Path | str], *, environ: dict[str, str] | None = None, check: bool = True) -> int:
    """Run a program; its output goes to stderr, because stdout belongs to the command that comes after."""
    return subprocess.run(command, cwd=ROOT, env=environ, stdout=sys.stderr, check=check).returncode  # noqa: S603


def say(text: str) -> None:
    """One line for the person who waits."""
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
