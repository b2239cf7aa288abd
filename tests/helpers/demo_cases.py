"""What the tests of the demonstrations share."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnfast.demos import DEMOS, _demo, load, run
from rnnfast.training import History

NAMES = [name for name in DEMOS if name != "all"]


def result(name: str, tmp_path: Path, *argv: str) -> dict[str, Any]:
    """Run a demonstration; the content of its JSON, plus `status`."""
    path = tmp_path / "result.json"
    status = run(name, ["--json", str(path), *argv])
    content: dict[str, Any] = json.loads(path.read_text())
    assert content["name"] == name
    assert content["reached"] == all(figure["reached"] for figure in content["figures"])
    return content | {"status": status}


def values(content: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["value"] for figure in content["figures"]}


def assert_drawn(outcome: _demo.Result, path: Path) -> None:
    """Draw the plot; every axis has a label. Skipped from here on without matplotlib."""
    pytest.importorskip("matplotlib", reason="plots are an extra")
    figure = outcome.plot()
    figure.savefig(path, dpi=100)
    assert path.stat().st_size > 10_000
    for axes in figure.axes:
        assert axes.get_ylabel()
        assert axes.get_xlabel() or axes.get_label() == "<colorbar>"


class Trained:
    """One call of `train`, with what it was given; it trains nothing."""

    def __init__(self, loss: Any, optimizer: Any, batches: Any, **options: Any) -> None:
        self.loss, self.options = loss, options
        self.model = getattr(loss, "__self__", None)
        self.rates = type(optimizer).__name__, optimizer.lr
        self.optimizer = optimizer
        self.start = {name: p.copy() for name, p in optimizer.params.items()}
        self.batches = list(batches(options.get("rng")))
        self.figure = options["evaluate"]() if "evaluate" in options else None


def recorded(
    name: str, monkeypatch: pytest.MonkeyPatch, *argv: str, before: Callable[[Trained], None] = id
) -> tuple[list[Trained], _demo.Result]:
    """Run a demonstration without training: the calls of `train`, and the result."""
    calls: list[Trained] = []

    def train(*arguments: Any, **options: Any) -> History:
        calls.append(Trained(*arguments, **options))
        before(calls[-1])
        figures = [] if calls[-1].figure is None else [calls[-1].figure]
        return History([1.0], [1.0], figures, [1.0])

    monkeypatch.setattr(import_module(f"rnnfast.demos.{name.replace('-', '_')}"), "train", train)
    demo = load(name)
    return calls, demo.main(_demo.parse(name, "", argv, demo))


def figures(result: _demo.Result) -> dict[str, float]:
    return {figure.name: figure.value for figure in result.figures}


def same(first: Any, second: Any) -> bool:
    """Whether two batches have the same arrays."""
    return all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
