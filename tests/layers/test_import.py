"""What `import rnnfast` brings, and what comes at first use."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rnnfast

PARTS = {"onnx": "onnx", "torch": "torch", "training": "numpy"}  # and the package each needs


def run(program: str, folder: Path) -> str:
    """What a program prints in a Python of its own."""
    environment = os.environ | {"PYTHONPATH": str(Path(rnnfast.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_source_folder_says_that_it_is_not_compiled(tmp_path: Path) -> None:
    binaries = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__")
    shutil.copytree(Path(rnnfast.__file__).parent, tmp_path / "rnnfast", ignore=binaries)
    done = subprocess.run(
        [sys.executable, "-c", "import rnnfast"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "ImportError: rnnfast is imported from its source folder, where it is" in done.stderr


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_imported_at_first_use(part: str, tmp_path: Path) -> None:
    pytest.importorskip(PARTS[part])
    program = f"""
import sys, numpy
before = set(sys.modules)
import rnnfast
dir(rnnfast), hasattr(rnnfast, "none_such")
new = set(sys.modules) - before
for name in ("rnnfast.{part}", "torch", "onnx", "safetensors", "zipfile", "tqdm", "argparse"):
    assert name not in new, name
assert rnnfast.{part} is sys.modules["rnnfast.{part}"]
assert vars(rnnfast)["{part}"] is rnnfast.{part}
print(rnnfast.{part}.__name__, len([n for n in sys.modules if n == "rnnfast.{part}"]))
"""
    assert run(program, tmp_path) == f"rnnfast.{part} 1\n"


@pytest.mark.parametrize("form", ["import rnnfast.training", "from rnnfast import training"])
def test_the_usual_forms_of_import_work(form: str, tmp_path: Path) -> None:
    program = f"{form}; import rnnfast; print(rnnfast.training.__name__)"
    assert run(program, tmp_path) == "rnnfast.training\n"


@pytest.mark.parametrize("part", ["onnx", "torch"])
def test_a_part_without_its_package_says_what_to_install(part: str, tmp_path: Path) -> None:
    program = f"""
import sys
sys.modules["onnx"] = sys.modules["torch"] = None
import pydoc, rnnfast
forms = ["rnnfast.{part}", "import rnnfast.{part}", "from rnnfast import {part}"]
for form in [*forms, "hasattr(rnnfast, '{part}')"]:
    try:
        exec(form)
    except ImportError as error:
        assert "pip install rnnfast[{part}]" in str(error), form
        print("refused")
assert "{part}" not in dir(rnnfast)
assert "LSTM" in pydoc.render_doc(rnnfast)
"""
    assert run(program, tmp_path) == 4 * "refused\n"


def test_torch_is_missed_as_a_module(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["torch"] = None
import rnnfast
try:
    rnnfast.torch
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run(program, tmp_path) == "torch\n"


def test_an_old_pytorch_is_named(tmp_path: Path) -> None:
    program = """
import sys
from types import ModuleType
torch = sys.modules["torch"] = ModuleType("torch")
torch.Tensor, torch.__version__ = object, "2.6.0"
import rnnfast
try:
    rnnfast.torch
except ImportError as error:
    print(error)
"""
    expected = "rnnfast.torch needs PyTorch 2.10 or newer, found 2.6.0\n"
    assert run(program, tmp_path) == expected


def test_a_star_brings_what_needs_numpy_only(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
from rnnfast import *
print(LSTM.__name__, load.__name__, save.__name__)
assert "rnnfast.training" not in sys.modules
"""
    assert run(program, tmp_path) == "LSTM load save\n"


def test_dir_names_all_that_is_there() -> None:
    names = dir(rnnfast)
    assert names == sorted(set(names))
    assert {*rnnfast.__all__, "training", "__doc__", "layers"} <= set(names)
    assert not {"annotations", "TYPE_CHECKING", "import_module"} & set(names)
    for part, package in PARTS.items():
        if part in names:
            pytest.importorskip(package)
            assert isinstance(getattr(rnnfast, part), ModuleType)
    inspect.getmembers(rnnfast)
    assert "LSTM" in pydoc.render_doc(rnnfast)


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    message = re.escape("module 'rnnfast' has no attribute 'torhc'")
    with pytest.raises(AttributeError, match=f"^{message}$") as raised:
        rnnfast.torhc  # noqa: B018
    assert (raised.value.name, raised.value.obj) == ("torhc", rnnfast)  # for "Did you mean"
    assert not hasattr(rnnfast, "x")
    assert getattr(rnnfast, "__wrapped__", None) is None
    with pytest.raises(ImportError, match="cannot import name 'torhc'"):
        from rnnfast import torhc  # noqa: F401


def test_pickles_and_copies_go_by_the_usual_names() -> None:
    for thing in (rnnfast.LSTM, rnnfast.load, rnnfast.training.Adam, rnnfast.training.fit):
        assert pickle.loads(pickle.dumps(thing)) is thing
    layer = rnnfast.GRU(3, 5)
    assert repr(pickle.loads(pickle.dumps(layer))) == repr(copy.deepcopy(layer)) == repr(layer)
