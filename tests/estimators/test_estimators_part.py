"""`rnnfast.estimators` as a part of the package, with scikit-learn and without."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import rnnfast

INSTALLED = importlib.util.find_spec("sklearn") is not None


def output_of(text: str, folder: Path) -> str:
    command = [sys.executable, "-c", text]
    return subprocess.check_output(command, cwd=folder, text=True, timeout=60)


@pytest.mark.skipif(not INSTALLED, reason="scikit-learn is not installed")
def test_it_is_loaded_at_its_first_use(tmp_path: Path) -> None:
    text = (
        "import sys, rnnfast; print('sklearn' in sys.modules); "
        "print(rnnfast.estimators.Forecaster.__name__, 'torch' in sys.modules)"
    )
    assert output_of(text, tmp_path) == "False\nForecaster False\n"


def test_it_is_listed_where_scikit_learn_is() -> None:
    assert ("estimators" in dir(rnnfast)) == INSTALLED


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    text = (
        "import sys; sys.modules['sklearn'] = None; import rnnfast\n"
        "try: rnnfast.estimators\n"
        "except ImportError as error: print(error)"
    )
    expected = "rnnfast.estimators needs scikit-learn: pip install rnnfast[sklearn]\n"
    assert output_of(text, tmp_path) == expected
