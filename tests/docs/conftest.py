"""One running gateway for all pages and examples of this folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.stack import Payments, Stack


@pytest.fixture(scope="session")
def payments() -> Iterator[Payments]:
    """Started with the gateway that it reports to."""
    provider = Payments()
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def stack(memory_folder: Path, payments: Payments) -> Iterator[Stack]:
    folder = memory_folder / "docs"
    folder.mkdir(mode=0o711)
    # Receivers of webhooks listen on this machine.
    with Stack(folder, ANTIPHON_ALLOW_PRIVATE_HOSTS="1", **payments.environ) as running:
        ready = running.start()
        payments.start(ready["base_url"])
        yield running


@pytest.fixture
def reader(stack: Stack) -> dict[str, str]:
    """The environment of somebody who followed the first steps."""
    return dict(stack.environ)
