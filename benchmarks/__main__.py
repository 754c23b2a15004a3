"""Run the benchmarks one after the other: `make bench`, or `python -m benchmarks`.

    python -m benchmarks [--quick] [--seconds 5] [--only admission,live] [--json]

With --json each benchmark that knows it prints one JSON object on its line.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent
WITH_OPTIONS: Final = (
    "admission",
    "ledger",
    "verify",
    "big_table",
    "memory",
    "songs",
    "engine_batch",
    "live",
    "remote_inflight",
    "remote_worker",
)
WITHOUT_OPTIONS: Final = ("engine_realtime", "encoding")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a smoke run of those that take options")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--only", help="some of " + ",".join(available()))
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else available()
    if unknown := set(names) - set(available()):
        parser.error(f"no {min(unknown)!r}: choose from {', '.join(available())}")
    arguments = ["--quick"] * options.quick + ["--json"] * options.as_json
    arguments += ["--seconds", f"{options.seconds:g}"] if options.seconds else []
    failed = [name for name in names if not run(name, arguments)]
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def available() -> list[str]:
    """The benchmarks that are here; the order is that of the list."""
    return [name for name in (*WITH_OPTIONS, *WITHOUT_OPTIONS) if (FOLDER / f"{name}.py").is_file()]


def run(name: str, arguments: list[str]) -> bool:
    """Whether it ended well."""
    started = time.monotonic()
    command = [sys.executable, str(FOLDER / f"{name}.py"), *(arguments if name in WITH_OPTIONS else [])]
    status = subprocess.run(command, cwd=FOLDER.parent, check=False).returncode
    sys.stderr.write(f"== {name}: {time.monotonic() - started:.0f} s\n")
    return status == 0


if __name__ == "__main__":
    main()
