"""The rules of the code that csrc/README.md and docs/ state: names, macros, sizes, citations."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
C_FILES = sorted(path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".c", ".h"))
pytestmark = pytest.mark.skipif(not C_FILES, reason="the sources are not here")

# Words that say nothing about a value.
VAGUE = {
    "far", "mine", "after", "further", "few", "apart", "aside", "across", "away", "ahead", "fresh",
    "turned", "whole", "each", "more", "later", "left", "near",
}  # fmt: skip
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
ID = re.compile(r"\bM\d\d\b")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_of(path: Path) -> str:
    """The C code without comments and strings; lines stay where they are."""
    text = COMMENT.sub(lambda m: "\n" * m[0].count("\n"), path.read_text(encoding="utf-8"))
    return re.sub(r'"[^"\n]*"', '""', text)


def defines(path: Path) -> list[str]:
    """The `#define`s of a file, each with its continued lines."""
    return re.findall(r"^#define (?:.*\\\n)*.*", code_of(path), re.MULTILINE)


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_names_say_what_they_mean(path: Path) -> None:
    assert VAGUE.isdisjoint(re.findall(r"[A-Za-z_]\w*", code_of(path)))


def test_macros_are_few_and_plain() -> None:
    macros = {path: defines(path) for path in C_FILES}
    assert sum(map(len, macros.values())) <= 120
    calls = re.compile(r"#define \w+\(")
    outside = [m for path, ms in macros.items() for m in ms if path.parent.name != "isa"]
    assert len([macro for macro in outside if calls.match(macro)]) <= 12
    for macro in itertools.chain.from_iterable(macros.values()):
        assert not re.search(r"\b(for|switch|case|while|do)\b", macro), macro
    assert not any("#undef" in code_of(path) for path in C_FILES)


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_functions_fit_on_a_screen(path: Path) -> None:
    for body in re.finditer(
        r"^(\w[^;{}()]*\([^;{}]*\)) \{$\n(.*?)^\}$", code_of(path), re.M | re.S
    ):
        assert body[2].count("\n") <= 40, body[1]


def test_sizes_of_files() -> None:
    lines = {name(p): p.read_text(encoding="utf-8").count("\n") for p in C_FILES}
    limits = {"csrc/step.h": 200, "csrc/tile.h": 120}
    limits |= dict.fromkeys(
        ("csrc/rnn.h", "csrc/gru.h", "csrc/gru_reset_before.h", "csrc/lstm.h"), 90
    )
    for file, count in lines.items():
        isa = file.startswith("csrc/isa/")
        limit = limits.get(file, 300 if not isa else 6 if file.endswith(".c") else 45)
        assert count <= limit, file


def test_every_measurement_is_cited_and_there() -> None:
    sources = [*C_FILES, *(ROOT / "rnnfast").rglob("*.p*")]
    sources = [
        path for path in sources if path.suffix in (".c", ".h", ".py", ".pyx", ".pxd", ".pxi")
    ]
    cited = {i for path in sources for i in ID.findall(path.read_text(encoding="utf-8"))}
    rows = (ROOT / "docs" / "measurements.md").read_text(encoding="utf-8").splitlines()
    listed = [row.split("|")[1].strip() for row in rows if row.startswith("| M")]
    assert len(listed) == len(set(listed))
    assert set(listed) == cited
    for row in rows:
        if row.startswith("| M"):
            cells = [cell.strip() for cell in row.strip("|").split("|")]
            assert len(cells) == 6, row
            assert re.fullmatch(r"[0-9a-f]{7}", cells[5]), row
            assert all(cells), row


@pytest.mark.parametrize("path", C_FILES, ids=name)
def test_comments_have_no_ranges_of_percentages(path: Path) -> None:
    for comment in COMMENT.findall(path.read_text(encoding="utf-8")):
        assert "per cent" not in comment, comment
        assert not re.search(r"\d %", comment), comment
