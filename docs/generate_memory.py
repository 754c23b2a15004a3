"""Write the table in docs/performance.md: `python docs/generate_memory.py`; `--check` only compares."""

# ruff: noqa: INP001 - a script beside files that are no Python
import re
import sys
from typing import Final

from generated_page import ROOT, write_or_check

from engine.ace_step.memory import table

PAGE: Final = ROOT / "docs" / "performance.md"
TABLE: Final = re.compile(r"^(Longest single song in bfloat16, .+\n\n)((?:\|.+\n)*)", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds the table out of date."""
    return write_or_check(PAGE, render, arguments)


def render() -> str:
    """The page as it stands, with the table as it is computed now."""
    return TABLE.sub(lambda match: f"{match[1]}{table()}\n", PAGE.read_text())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
