"""The Python in the documentation runs: every section of a page is one program."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pytest

import rnnfast
from rnnfast._core import threads as _threads

ROOT = Path(__file__).parents[2]
PAGES = [  # all that have Python
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "\n```python\n" in path.read_text(encoding="utf-8")
]
CONTINUED = ("docs/start.md",)  # its sections go on from each other
EXTRAS = rnnfast._PARTS  # parts of rnnfast, and the package that each needs


def sections(page: str) -> Iterator[tuple[str, str]]:
    """Each section's heading and its Python, every line of it where it stands on the page."""
    heading, language = "", None
    program: list[str] = []
    for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
        fence = re.match(r"```(\w*)", line)
        if language is None and line.startswith("#"):
            yield heading, "\n".join(program)
            heading, program = line.lstrip("# "), [""] * len(program)
        program.append(line if language == "python" and not fence else "")
        if fence:
            language = fence[1] if language is None else None
    assert language is None, f"{page} ends inside a block"
    yield heading, "\n".join(program)


def optional_packages(program: str) -> set[str]:
    """What a program imports beyond the standard library and NumPy."""
    names = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    packages = {name.partition(".")[0] for name in names}
    packages |= {
        package
        for part, package in EXTRAS.items()
        if any(f"{name}.".startswith(f"rnnfast.{part}.") for name in names)
    }
    return packages - {*sys.stdlib_module_names, "numpy", "rnnfast"}


def programs(page: str) -> Iterator[tuple[str, str]]:
    """The programs of a page: each section, or all sections up to one that needs a package."""
    before = ""
    for heading, program in sections(page):
        if page not in CONTINUED:
            yield heading, program
        elif optional_packages(program):
            yield heading, merged(before, program)
        else:
            before = merged(before, program)
    yield "all", before


def merged(first: str, second: str) -> str:
    """Two programs in one, every line where it stands on the page."""
    lines = zip_longest(first.split("\n"), second.split("\n"), fillvalue="")
    return "\n".join(a or b for a, b in lines)


PROGRAMS = [
    pytest.param(page, program, id=f"{page}: {heading}")
    for page in PAGES
    for heading, program in programs(page)
    if program.strip()
]


def test_the_programs_are_found() -> None:
    assert {program.values[0] for program in PROGRAMS} == set(PAGES)
    assert {"README.md", "docs/start.md", "docs/howto/pytorch.md", "docs/cells.md"} <= set(PAGES)
    used = set().union(*(optional_packages(str(program.values[1])) for program in PROGRAMS))
    assert used == {
        "jax", "onnx", "onnxruntime", "safetensors", "sklearn", "statsmodels", "torch"
    }  # fmt: skip


@pytest.mark.parametrize(("page", "program"), PROGRAMS)
def test_it_runs(page: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in sorted(optional_packages(program)):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_threads, "_process_wide", None)  # and undo what the program sets
    exec(compile(program, str(ROOT / page), "exec"), {"__name__": "__main__"})
