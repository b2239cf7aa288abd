"""The reference has every public name, and the site is built of it without a warning."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import rnnfast
from rnnfast import cells

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "api"
PACKAGE = Path(rnnfast.__file__).parent
MODULES = sorted({"functional", "interop", "reference", *rnnfast._PARTS})


def public(module: str) -> set[str]:
    """`__all__` as it is written, for the package that a part needs may be missing."""
    folder = PACKAGE / module
    file = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError(f"{file} has no __all__")


def described() -> set[str]:
    """The full names of what the pages describe."""
    names = set()
    for page in REFERENCE.glob("*.rst"):
        module, text = "", page.read_text(encoding="utf-8")
        for kind, name in re.findall(r"^\.\. (\w+):: ([\w.]+)", text, flags=re.MULTILINE):
            if kind in ("automodule", "currentmodule"):
                module = name
            if kind.startswith("auto"):
                names.add(name if name.startswith("rnnfast") else f"{module}.{name}")
    return names


def test_a_name_that_is_missing_is_found() -> None:
    assert {"rnnfast.LSTM", "rnnfast.cells.mgu", "rnnfast.functional.Tape"} <= described()
    assert "rnnfast.training.nothing" not in described()
    assert {"accelerate", "GRU"} <= public("torch")


@pytest.mark.parametrize("module", ["", *MODULES])
def test_every_public_name_is_described(module: str) -> None:
    prefix = f"rnnfast.{module}" if module else "rnnfast"
    names = {f"{prefix}.{name}" for name in public(module)}
    assert names - described() == set()
    assert prefix in described()


def test_every_cell_of_the_library_is_described() -> None:
    assert {f"rnnfast.cells.{name}" for name in dir(cells)} - described() == set()


@pytest.mark.skipif(
    not all(map(find_spec, ("sphinx", "pydata_sphinx_theme", "myst_parser", "numpydoc"))),
    reason="pip install --group docs",
)
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", ROOT / "docs"]
    result = subprocess.run(
        [*command, tmp_path], capture_output=True, text=True, cwd=tmp_path, timeout=600
    )
    assert result.returncode == 0, result.stderr
    index = (tmp_path / "searchindex.js").read_text(encoding="utf-8")
    inventory = objects(tmp_path)
    assert described() <= inventory
    assert "accelerate" in index
    for page in tmp_path.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img)\b[^>]*(?:src|href)=\"https?:[^>]*>", html)
        assert not loaded, f"{page.name} needs the internet"
        if "_modules" not in page.parts:
            assert "`" not in text_of(page), f"markup that is left in {page.name}"
    for page in ("index", "start", "howto/pytorch", "demos/echo-state", "kernels"):
        assert (tmp_path / f"{page}.html").exists()


def text_of(page: Path) -> str:
    """What a page shows, but for blocks of code."""
    code = r"<(script|style|pre)\b.*?</\1>"
    text = re.sub(code, "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.sub(r"<[^>]+>", "", text)


def objects(site: Path) -> set[str]:
    """The names in the site's inventory, which other sites may link to."""
    from sphinx.util.inventory import InventoryFile

    content = (site / "objects.inv").read_bytes()
    return {
        name
        for kind, names in InventoryFile.loads(content, uri="").data.items()
        if kind.startswith("py:")
        for name in names
    }
