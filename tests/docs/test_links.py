"""Links between the pages: each leads somewhere, and every page is one click from the start."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
INDEX = ROOT / "docs" / "README.md"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def links(page: Path) -> list[tuple[Path, str]]:
    """Pages of ours that a page links to, each with its anchor or an empty text."""
    targets = LINK.findall(FENCED.sub("", page.read_text()))
    found = []
    for target in targets:
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        found.append(((page.parent / path).resolve() if path else page, anchor))
    return found


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings; a repeated heading gets a number."""
    made: list[str] = []
    for heading in HEADING.findall(FENCED.sub("", page.read_text())):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        anchor = re.sub(r"[^\w -]", "", plain.lower()).replace(" ", "-")
        repeats = sum(re.sub(r"-\d+$", "", other) == anchor for other in made)
        made.append(f"{anchor}-{repeats}" if repeats else anchor)
    return set(made)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_something_that_is_there(page: Path) -> None:
    broken = [
        f"{target.relative_to(ROOT)}#{anchor}"
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


def test_every_page_is_one_click_from_the_index_and_the_index_from_the_readme() -> None:
    assert len(PAGES) > 15
    reached = {target for target, _ in links(INDEX)} | {INDEX}
    assert [str(page.relative_to(ROOT)) for page in PAGES if page not in reached] == []
    assert INDEX in {target for target, _ in links(ROOT / "README.md")}
