"""What the generators of this folder share: where the code is, how a page is written or only compared."""

# ruff: noqa: INP001 - a module beside files that are no Python
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # so that whoever imports this can import the gateway next


def write_or_check(page: Path, render: Callable[[], str], arguments: Sequence[str]) -> int:
    """Write the page; with `--check` only compare. Exit status 1 when it is out of date."""
    text = render()
    if list(arguments) != ["--check"]:
        page.write_text(text)
        return 0
    if page.exists() and page.read_text() == text:
        return 0
    print(f"{page.relative_to(ROOT)} is out of date: run `make docs`", file=sys.stderr)  # noqa: T201
    return 1


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [_line(head), f"|{'---|' * len(head)}", *(_line(row) for row in rows)]
    return "".join(f"{line}\n" for line in lines)


def _line(cells: Sequence[str]) -> str:
    """A bar inside a cell would end it, and so would a line feed."""
    plain = [" ".join(cell.replace("|", "\\|").split()) for cell in cells]
    return f"| {' | '.join(plain)} |"
