"""Every relative link of a page leads to a file, and every anchor to a heading of it."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "csrc").glob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md")),
]  # fmt: skip
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def prose(page: Path) -> str:
    """The page without its code."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return re.sub(r"^ {4}.*$", "", text, flags=re.M)


def anchor(heading: str) -> str:
    """What code hosts make of a heading, and MyST too: letters, digits, hyphens, underscores."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {anchor(h) for h in re.findall(r"^#+ (.*)$", prose(page), flags=re.M)}


def links(page: Path) -> list[tuple[str, str]]:
    found = LINK.findall(prose(page))
    return [(file, mark) for file, mark in found if not re.match(r"[a-z]+:", file)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_no_line_of_a_paragraph_begins_a_list_by_accident(page: Path) -> None:
    for before, line in pairwise(prose(page).splitlines()):
        if re.match(r"[-+*>] |1[.)] ", line):
            assert re.match(r"$|\s|[-+*>] ", before), line


def test_links_and_anchors_are_found() -> None:
    assert ("benchmarks/README.md", "") in links(ROOT / "README.md")
    assert ("", "results") in links(ROOT / "README.md")
    assert ("../performance.md", "inside-pytorch") in links(ROOT / "docs/howto/pytorch.md")
    assert anchor("What `print(cell)` shows") == "what-printcell-shows"
    assert "what-printcell-shows" in anchors(ROOT / "docs/cells.md")
    assert "nowhere" not in anchors(ROOT / "docs/cells.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for file, mark in links(page):
        target = page.parent / file if file else page
        assert target.exists(), file
        if mark:
            assert mark in anchors(target), f"{file}#{mark}"
