"""The examples in docstrings run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import rnnfast
from rnnfast import interop, training

PACKAGE = Path(rnnfast.__file__).parent
FILES = [
    path.relative_to(PACKAGE)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]
FURTHER = {"onnx": ("onnxruntime",)}  # packages that the examples of a part use


def names() -> dict[str, Any]:
    """What an example may use without saying so, besides what its own module has."""
    gru = rnnfast.GRU(8, 16, rng=0)
    return {
        **{name: getattr(training, name) for name in training.__all__},
        "np": np,
        "rnnfast": rnnfast,
        "x": np.zeros((20, 4, 8), np.float32),
        "ids": np.zeros((20, 4), int),
        "lengths": np.array([20, 3, 7, 11], np.int32),
        "layer": gru,
        "lstm": rnnfast.LSTM(8, 16, rng=0),
        "linear": training.Linear(16, 2, rng=0),
        "model": rnnfast.Sequential(
            rnnfast.GRU(8, 16, batch_first=True, rng=0), rnnfast.Last(), training.Linear(16, 2)
        ),
        "series": np.sin(np.arange(300) / 5),
        "w_ih": np.ones((48, 8), np.float32),
        "w_hh": np.ones((48, 16), np.float32),
        **dict.fromkeys(("X", "X_new", "X_test"), np.zeros((10, 5, 8), np.float32)),
        **dict.fromkeys(("y", "y_test"), np.arange(10) % 2),
        "keras_layer": SimpleNamespace(get_weights=lambda: interop.to_keras(gru)),
    }


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_examples_run(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, context = path.parts[0].removesuffix(".py"), names()
    packages = (*filter(None, [rnnfast._PARTS.get(part)]), *FURTHER.get(part, ()))
    context |= {package: pytest.importorskip(package) for package in packages}
    monkeypatch.chdir(tmp_path)
    parts = ["rnnfast", *path.with_suffix("").parts]
    module = importlib.import_module(".".join(parts).removesuffix(".__init__"))
    failures: list[str] = []
    attempted = 0
    for example in doctest.DocTestFinder().find(module, extraglobs=context):
        runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS)
        attempted += len(example.examples)
        runner.run(example, out=failures.append)
    assert not failures, "".join(failures)
    assert attempted
