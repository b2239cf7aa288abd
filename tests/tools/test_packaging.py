"""What gets installed, what it needs, and how a build without a compiler ends."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest

import rnnfast

ROOT = Path(__file__).parents[2]
NAMES = (
    "arrays", "cell_gradients", "cell_passes", "cell_plans", "cells", "config", "gradients",
    "linear", "passes", "ragged", "sequence", "streaming", "tensors",
)  # fmt: skip
MODULES = {name: importlib.import_module(f"rnnfast._core.{name}") for name in NAMES}
PARTS = ("rnnfast", "csrc", "tests", "benchmarks", "docs", ".ci", ".github")
FILES = (
    "setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md",
    "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md",
)  # fmt: skip
LITTER = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis", ".benchmarks", "*.so")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Copy the sources, so that a build leaves nothing behind."""
    copy = tmp_path / "sources"
    for part in PARTS:
        if (ROOT / part).exists():
            shutil.copytree(ROOT / part, copy / part, ignore=LITTER)
    for name in FILES:
        shutil.copy(ROOT / name, copy)
    return copy


def setup(sources: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run setup.py."""
    return subprocess.run(
        [sys.executable, "setup.py", *arguments],
        cwd=sources,
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def stand_in_compiler(folder: Path, refuse: str) -> str:
    """Write a compiler that takes trial programs without `refuse` and fails at the rest."""
    path = folder / "cc"
    path.write_text(
        f"""#!/bin/sh
for word; do
  case $word in
    *trial.c) ! grep -q '{refuse}' "$word"; exit ;;
  esac
done
echo "$@"
exit 1
"""
    )
    path.chmod(0o755)
    return str(path)


def test_version() -> None:
    assert importlib.metadata.version("rnnfast") == rnnfast.__version__


def test_numpy_is_the_only_requirement() -> None:
    requirements = importlib.metadata.requires("rnnfast") or []
    assert [r for r in requirements if "extra ==" not in r] == ["numpy>=2.0"]


def test_import_needs_numpy_only(tmp_path: Path) -> None:
    text = (
        "import json, sys, numpy; before = set(sys.modules); import rnnfast;"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})))"
    )
    command = [sys.executable, "-c", text]
    names = json.loads(subprocess.check_output(command, cwd=tmp_path, timeout=60))
    assert "rnnfast" in names
    allowed = {"rnnfast", "numpy", "cython_runtime", *sys.stdlib_module_names}
    assert [n for n in names if n not in allowed and not n.startswith("_cython_")] == []


def test_import_leaves_optional_parts_alone(tmp_path: Path) -> None:
    text = "import rnnfast, sys; print([n for n in sys.modules if n.startswith('rnnfast.')])"
    command = [sys.executable, "-c", text]
    names = subprocess.check_output(command, cwd=tmp_path, timeout=60, text=True)
    for part in ("training", "demos", "bench", "torch", "onnx"):
        assert f"'rnnfast.{part}" not in names


def test_types_are_installed() -> None:
    package = Path(rnnfast.__file__).parent
    assert (package / "py.typed").is_file()
    for name in MODULES.keys() - {
        "sequence",
        "gradients",
        "cells",
        "cell_gradients",
    }:  # these have nothing for Python
        assert (package / "_core" / f"{name}.pyi").is_file()


def test_built_for_this_interpreter() -> None:
    # not for the stable ABI, which would cost every call some 90 ns
    for module in MODULES.values():
        assert module.__file__.endswith(sysconfig.get_config_var("EXT_SUFFIX"))


def test_the_extensions_are_small() -> None:
    """Without debugging data, which CPython's own flags ask for: 4 MB, of which a wheel is half."""
    assert sum(Path(module.__file__).stat().st_size for module in MODULES.values()) < 4.2e6


def test_one_module_has_the_code_of_memoryviews() -> None:
    """It is more than half of such a module."""
    code = {name: Path(module.__file__).read_bytes() for name, module in MODULES.items()}
    assert [name for name, text in code.items() if b"View.MemoryView" in text] == ["ragged"]


def test_no_symbol_but_the_module_is_exported() -> None:
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    for name, module in MODULES.items():
        command = [nm, "-D", "--defined-only", module.__file__]
        table = subprocess.check_output(command, text=True)
        names = [line.split()[-1].partition("@")[0] for line in table.splitlines()]
        assert names == [f"PyInit_{name}"]


def installed_files() -> list[str]:
    distribution = importlib.metadata.distribution("rnnfast")
    if Path(str(distribution.locate_file("rnnfast"))).resolve() != Path(rnnfast.__file__).parent:
        pytest.skip("what is imported is not what is installed, but a source tree")
    return [str(path) for path in distribution.files or []]


def test_names_of_static_functions_are_not_installed() -> None:
    """They take a twentieth of a wheel. What is built in place has them, for profilers."""
    installed_files()
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("nm is not installed")
    table = subprocess.check_output([nm, MODULES["config"].__file__], text=True)
    assert "lstm_one_row" not in table


def test_installed_files() -> None:
    names = installed_files()
    assert [n for n in names if n.endswith((".c", ".h", ".inc", ".pyx", ".pxd", ".pxi"))] == []
    assert {n.partition("/")[0] for n in names if not n.startswith("../")} == {
        "rnnfast",
        f"rnnfast-{rnnfast.__version__}.dist-info",
    }


def test_build_without_a_compiler(sources: Path) -> None:
    result = setup(sources, "build_ext", CC=str(sources / "absent-cc"))
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    message = result.stderr[result.stderr.index("error: ") :]
    assert message.startswith("error: rnnfast needs a C compiler, and ")
    assert "absent-cc" in message
    assert "Install gcc or clang" in message
    assert len(message.splitlines()) == 4


def test_build_without_python_headers(sources: Path) -> None:
    result = setup(sources, "build_ext", CC=stand_in_compiler(sources, refuse="Python.h"))
    assert "Traceback" not in result.stderr
    assert "error: rnnfast needs the C headers of Python" in result.stderr


@pytest.mark.parametrize(
    ("refuse", "switch", "openmp"),
    [("nothing", "", 1), ("nothing", "0", 1), ("nothing", "1", 0), ("omp.h", "", 0)],
)
def test_openmp_is_found_or_left_out(sources: Path, refuse: str, switch: str, openmp: int) -> None:
    compiler = stand_in_compiler(sources, refuse=refuse)
    output = setup(sources, "build_ext", CC=compiler, RNNFAST_NO_OPENMP=switch).stdout
    assert f"-DRNNFAST_OPENMP={openmp}" in output
    assert ("-fopenmp" in output) == bool(openmp)
    assert ("building WITHOUT OpenMP" in output) != bool(openmp)
    assert "files to compile, which takes one to three minutes" in output
    last_of = {flag: i for i, flag in enumerate(output.split())}
    assert last_of["-g0"] > last_of.get("-g", -1)  # the last one counts


def test_source_distribution_is_complete(sources: Path) -> None:
    expected = {str(p.relative_to(sources)) for p in sources.rglob("*") if p.is_file()}
    result = setup(sources, "sdist")
    assert result.returncode == 0, result.stderr
    (archive,) = sources.glob("dist/*.tar.gz")
    with tarfile.open(archive) as tar:
        packed = {name.partition("/")[2] for name in tar.getnames()}
    assert expected - packed == set()
    assert f"rnnfast-{rnnfast.__version__}" in archive.name
