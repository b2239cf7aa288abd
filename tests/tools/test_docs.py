"""The Python in the documentation runs: every section of a page is one program."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnnfast._core import threads as _threads

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md", "docs/cells.md", "docs/embedding.md", "docs/estimators.md", "docs/models.md",
    "docs/training.md",
)  # fmt: skip
EXTRAS = {"estimators": "sklearn", "onnx": "onnx", "torch": "torch"}  # parts that need a package


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


PROGRAMS = [
    pytest.param(page, program, id=f"{page}: {heading}")
    for page in PAGES
    for heading, program in sections(page)
    if program.strip()
]


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


def test_the_programs_are_found() -> None:
    pages = [program.values[0] for program in PROGRAMS]
    assert set(pages) == set(PAGES)
    used = set().union(*(optional_packages(str(program.values[1])) for program in PROGRAMS))
    assert used == {"onnx", "onnxruntime", "safetensors", "sklearn", "statsmodels", "torch"}


@pytest.mark.parametrize(("page", "program"), PROGRAMS)
def test_it_runs(page: str, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in sorted(optional_packages(program)):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_threads, "_process_wide", None)  # and undo what the program sets
    exec(compile(program, str(ROOT / page), "exec"), {"__name__": "__main__"})
