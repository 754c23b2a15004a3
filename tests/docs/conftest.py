"""One running gateway for all pages and examples of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.stack import Stack


@pytest.fixture(scope="session")
def stack(memory_folder: Path) -> Iterator[Stack]:
    folder = memory_folder / "docs"
    folder.mkdir(mode=0o711)
    with Stack(folder) as running:
        running.start()
        yield running


@pytest.fixture
def reader(stack: Stack) -> dict[str, str]:
    """The environment of somebody who followed the first steps."""
    return dict(stack.environ)
