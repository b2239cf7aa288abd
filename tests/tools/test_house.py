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


# ------------------------------------------------------------------------------------------- pages

PAGES = [
    path
    for path in [
        *sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md", ROOT / "csrc" / "README.md",
        ROOT / "benchmarks" / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md",
    ]
    if path.exists()
]  # fmt: skip


def paragraphs(path: Path) -> list[str]:
    """The prose of a page, or of the comments of a C file: no code, tables or formulas."""
    text = path.read_text(encoding="utf-8")
    if path in C_FILES:
        text = "\n\n".join(re.sub(r"\n *\*", "\n", c[2:-2]) for c in COMMENT.findall(text))
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "code", text)
    parts = re.split(r"\n\s*\n|\n(?=\s*[-*] |\d+\. )|\n {2,}", text)
    return [" ".join(part.split()) for part in parts if not part.strip().startswith(("|", "#"))]


@pytest.mark.parametrize("path", C_FILES + PAGES, ids=name)
def test_sentences_are_short(path: Path) -> None:
    for paragraph in paragraphs(path):
        for sentence in re.split(r"(?<=[.!?:;])(?:\*\*)?\s+", paragraph):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            assert len(words) <= 25, sentence


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_pages_name_exist(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / link).exists(), link
    folders = "csrc|rnnfast|tests|benchmarks|docs|\\.ci"
    for file in re.findall(rf"`((?:{folders})/[\w./]+\.\w+)`", text):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize(
    ("file", "equation"),
    [
        ("rnn.h", "h = act(w_ih x + b_ih + w_hh h' + b_hh)"),
        ("gru.h", "vfma(z, h - n, n)"),
        ("lstm.h", "vfma(f, c_prev, i * g)"),
        ("tile.h", "vfma("),
    ],
)
def test_the_equations_are_where_the_readme_says(file: str, equation: str) -> None:
    assert f"csrc/{file}" in (ROOT / "README.md").read_text(encoding="utf-8").replace("`", "")
    assert equation in (ROOT / "csrc" / file).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------- Python and Cython

PACKAGE = ROOT / "rnnfast"
PYTHON_FILES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".pyx"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PYTHON_FILES}


def imports_of(module: str) -> set[str]:
    """The modules of the package that a module imports, also inside functions."""
    path = MODULES[module]
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    found = set()
    statement = re.compile(
        r"^[ \t]*(?:from (\.*[\w.]*) c?import (\((?:[^)]*)\)|.*)|import (rnnfast[\w.]*))", re.M
    )
    for source, names, plain in statement.findall(path.read_text(encoding="utf-8")):
        if plain:
            found.add(plain)
            continue
        dots = len(source) - len(source.lstrip("."))
        base = (
            source
            if not dots
            else ".".join(package.split(".")[: len(package.split(".")) - dots + 1])
        )
        base = f"{base}.{source.lstrip('.')}".rstrip(".") if dots else source
        for name in re.findall(r"\w+", names.partition("#")[0]):
            found.add(f"{base}.{name}" if f"{base}.{name}" in MODULES else base)
    return {name for name in found if name in MODULES} - {module, "rnnfast"}


def test_imports_have_no_circle() -> None:
    graph = {module: imports_of(module) for module in MODULES}
    assert "rnnfast._core.checks" in graph["rnnfast._core.passes"], "imports are found"
    done: set[str] = set()
    while remaining := graph.keys() - done:
        ready = {module for module in remaining if graph[module] <= done}
        assert ready, {module: graph[module] - done for module in remaining}
        done |= ready


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name)
def test_files_of_the_package_are_short(path: Path) -> None:
    limit = 600 if path.name == "reference.py" else 400
    assert path.read_text(encoding="utf-8").count("\n") <= limit


def test_only_one_place_knows_of_bytes() -> None:
    """Elsewhere in Cython arrays are rows."""
    for path in (PACKAGE / "_core").glob("*.p[yx]*"):
        if path.suffix in (".pyx", ".pxd") and path.stem not in ("arrays", "abi", "tensors"):
            text = re.sub(r'""".*?"""|#.*', "", path.read_text(encoding="utf-8"), flags=re.S)
            assert "memcpy" not in text, path.name
            assert not re.search(r"\* ?(f\.)?k\.size\b(?! \*)", text) or path.stem in (
                "sequence",
                "config",
            ), path.name
            assert "include " not in text, path.name
