"""Make .venv and install what the lock pins: `bootstrap.py run|dev`; `bootstrap.py lock` renews the locks.

Needs nothing but Python's standard library. A second call finds the stamp of the first and does nothing.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
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
    with (ROOT / ".bootstrap.lock").open("w") as guard:
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
    stamp = VENV / f".installed-{extra}"
    wanted = fingerprint(LOCKS[extra])
    # What `dev` installs includes what `run` needs.
    for known in {stamp, VENV / ".installed-dev"}:
        if known.exists() and known.read_text() == (wanted if known == stamp else fingerprint(LOCKS["dev"])):
            return
    say(f"installing {LOCKS[extra].name} into .venv")
    stamp.unlink(missing_ok=True)
    install_packages(["--requirement", str(LOCKS[extra])])
    install_packages(["--no-deps", "--editable", str(ROOT)])
    stamp.write_text(wanted)


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


def fingerprint(lock: Path) -> str:
    """Changes when something must be installed again."""
    parts = [lock.read_bytes(), (ROOT / "pyproject.toml").read_bytes(), sys.version.encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def install_packages(arguments: list[str]) -> None:
    """With uv, which is ten times as fast; with pip where uv is not to be had."""
    uv = uv_command()
    if uv is not None:
        command = [*uv, "pip", "install", "--python", PYTHON, *uv_sources(), *arguments]
        if run(command, check=False) == 0:
            return
        say("uv could not do it, trying pip")
    run([PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *arguments])


def uv_command() -> list[Path | str] | None:
    """uv inside .venv, installed when it is not there."""
    uv = VENV / "bin" / "uv"
    if not uv.exists():
        command = [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"uv=={UV_VERSION}"]
        if run(command, check=False) != 0 or not uv.exists():
            say("uv is not to be had here, pip does its work")
            return None
    return [uv]


def uv_sources() -> list[str]:
    """What pip was told by its environment and its configuration files, in the words of uv."""
    options: list[str] = []
    for link in pip_setting("find-links"):
        options += ["--find-links", link]
    extra = pip_setting("extra-index-url")
    for url in extra:
        options += ["--extra-index-url", url]
    for url in pip_setting("index-url")[-1:]:
        options += ["--index-url", url]
    if pip_setting("no-index")[-1:] in (["1"], ["true"], ["yes"], ["on"]):
        options += ["--no-index"]
    # Like pip: a version may come from any index. Everything is pinned, so none can slip in a newer one.
    return [*options, "--index-strategy", "unsafe-best-match"] if extra else options


def pip_setting(name: str) -> list[str]:
    """All values of one pip setting, as pip merges them: the environment counts beside the files."""
    found: list[str] = []
    for scope in ("global", "install"):
        command = [PYTHON, "-m", "pip", "config", "get", f"{scope}.{name}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if answer.returncode == 0:
            found += answer.stdout.split()
    found += os.environ.get(f"PIP_{name.upper().replace('-', '_')}", "").split()
    return list(dict.fromkeys(found))


def uv_environment() -> dict[str, str]:
    """pip's certificate file counts for uv too; uv must not search for another environment."""
    environ = dict(os.environ)
    certificates = environ.get("PIP_CERT") or (pip_setting("cert")[:1] or [""])[0]
    if certificates and "SSL_CERT_FILE" not in environ:
        environ["SSL_CERT_FILE"] = certificates
    return environ | {"UV_NO_CONFIG": "1", "UV_LINK_MODE": environ.get("UV_LINK_MODE", "copy")}


def write_locks() -> None:
    """Resolve pyproject.toml for Python 3.11 to 3.14 into both locks."""
    make_environment()
    uv = uv_command()
    if uv is None:
        raise SystemExit("the locks are made by uv, which is not to be had here")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    torch = next(line for line in project["dependencies"] if line.startswith("torch=="))
    for name, lock in LOCKS.items():
        command = [*uv, "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11"]
        command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links", *uv_sources()]
        command += ["--extra", "dev"] if name == "dev" else []
        answer = subprocess.run(  # noqa: S603
            command, cwd=ROOT, env=uv_environment(), stdout=subprocess.PIPE, text=True, check=True
        )
        pins = [line for line in answer.stdout.splitlines() if line and not FOLLOWS_TORCH.match(line)]
        head = f"# Made by `make lock` from pyproject.toml ({name}). torch's own parts follow from its build."
        lock.write_text("\n".join([head, *sorted([*pins, torch])]) + "\n")


def run(command: list[Path | str], *, check: bool = True) -> int:
    """Run a program, its output goes to stderr: stdout belongs to the command that comes after."""
    return subprocess.run(command, cwd=ROOT, env=uv_environment_once(), stdout=sys.stderr, check=check).returncode  # noqa: S603


def say(text: str) -> None:
    """One line for the person who waits."""
    print(f"bootstrap: {text}", file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
