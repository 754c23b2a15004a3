"""What `antiphon generate --show-lyrics-help` and `--show-caption-help` print: pages of the documentation."""

from pathlib import Path

PAGES = Path(__file__).resolve().parent.parent.parent / "docs"
"""Beside the package, in a checkout as in an installed wheel."""


def read_guide(name: str) -> str:
    """The guide of that name: `lyrics` or `captions`."""
    return (PAGES / f"{name}.md").read_text("utf-8")
