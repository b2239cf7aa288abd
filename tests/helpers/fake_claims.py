"""The modules of `benchmarks/claims` for the tests, and stand-ins for what they measure with."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

CLAIMS = Path(__file__).parents[2] / "benchmarks" / "claims"
NAMES = ("cell_peers", "cells", "clock", "jax_layers", "memory", "modules", "scaling", "speed")


def load_claims() -> SimpleNamespace:
    """Import the modules, which import each other by their bare names; no one else can see them."""
    sys.path.insert(0, str(CLAIMS))
    try:
        return SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(str(CLAIMS))
        for name in NAMES:
            sys.modules.pop(name, None)


class Scripted:
    """A clock of the claims that finds the times it is given, by the name and key of a run."""

    def __init__(self, claims: Any, find: Any, quick: bool = False, threads: int = 2) -> None:
        self.timed: dict[str, dict[Any, Any]] = {}
        clock = self.clock = claims.clock.Clock(quick, threads)
        clock.peak = 50.0

        def best(what: str, runs: Any, pause: float = 0) -> dict[Any, float]:
            self.timed[what] = dict(runs)
            return {key: find(what, key) for key in runs}

        clock.best = best


def spy_on_layers(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    """In `module` a run of a layer is only what was asked for."""

    def run_of(cell: str, sizes: Any, direction: str, call: Any = None, **options: Any) -> Any:
        return cell, tuple(sizes), direction, call or {}, options

    monkeypatch.setattr(module, "run_of", run_of)
