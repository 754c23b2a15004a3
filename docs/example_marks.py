"""What may stand for an example's value in the word lists."""

# ruff: noqa: INP001 - a module beside files that are no Python
from typing import Final

OMITTED: Final = object()
"""In examples the field is left out: it is only there when it was asked for."""
BUILT: Final = object()
"""In examples the value is built from the field's own type."""
