"""Write the list of decisions in docs/README.md: `python docs/generate_index.py`; `--check` only compares."""

# ruff: noqa: INP001 - a script beside files that are no Python
import re
import sys
from pathlib import Path
from typing import Final

from generated_page import ROOT, write_or_check

PAGE: Final = ROOT / "docs" / "README.md"
LIST: Final = re.compile(r"^(Decisions, .+\n\n)((?:\* .+\n)*)", re.MULTILINE)


def main(arguments: list[str]) -> int:
    """Exit status 1 when `--check` finds the list out of date."""
    return write_or_check(PAGE, render, arguments)


def render() -> str:
    """The page as it stands, with one line for each decision."""
    lines = "".join(map(_line, sorted((ROOT / "docs" / "adr").glob("*.md"))))
    return LIST.sub(lambda match: match[1] + lines, PAGE.read_text())


def _line(page: Path) -> str:
    title = page.read_text().partition("\n")[0].lstrip("# ")
    return f"* [{title}](adr/{page.name})\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
