"""Code blocks of the README and of guides, run in order against a real gateway, as a reader does."""

from pathlib import Path

import pytest

from tests.docs.code_blocks import as_one_script, blocks, run_shell

FIRST_PAGES = ("README.md", "docs/quickstart.md")
OPERATORS_PAGES = ("docs/credit.md", "docs/prices.md")
PAGES = (*FIRST_PAGES, *(pytest.param(page, marks=pytest.mark.slow) for page in OPERATORS_PAGES))
PAGE_SECONDS = 240


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_as_it_stands(page: str, reader: dict[str, str], scratch: Path) -> None:
    answer = run_shell(as_one_script(blocks(page)), environ=reader, folder=scratch, seconds=PAGE_SECONDS)
    assert answer.returncode == 0, f"{answer.stdout[-2000:]}\n{answer.stderr[-2000:]}"
    assert '{"error"' not in answer.stdout


@pytest.mark.parametrize("page", FIRST_PAGES)
def test_every_first_page_has_blocks_of_both_languages(page: str) -> None:
    # A changed fence would otherwise turn the test above into one of nothing.
    assert {block.language for block in blocks(page)} == {"sh", "python"}
