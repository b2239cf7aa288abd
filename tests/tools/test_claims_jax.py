"""The group of `benchmarks/claims` about JAX: what is compared computes the same."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_claims import Scripted, load_claims

from rnnfast.bench.cases import CELLS, DIRECTIONS


@pytest.fixture(scope="module")
def claims() -> SimpleNamespace:
    return load_claims()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_both_sides_compute_the_same(claims: Any, cell: str, direction: str) -> None:
    pytest.importorskip("jax")
    group = claims.jax_layers
    arrays = group.inputs(cell, (5, 3, 4, 8))
    ours = group.run_of(group.ours(cell), arrays, direction)()
    assert len(ours) == {"forward": 1, "training": 6}[direction]
    for unroll in group.UNROLLS:
        theirs = group.run_of(group.scan(cell, unroll), arrays, direction)()
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_the_faster_scan_counts(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    group, same = claims.jax_layers, (np.ones(3, np.float32),)
    monkeypatch.setattr(group, "missing", lambda name: None)
    for name in ("ours", "scan"):
        monkeypatch.setattr(group, name, lambda *arguments: None)
    monkeypatch.setattr(group, "run_of", lambda *arguments: lambda: same)
    times = {"rnnfast": 2.0, "scan, unroll 1": 5.0, "scan, unroll 16": 3.0}
    scripted = Scripted(claims, lambda what, key: times[key])
    rows = list(group.jax_layers(scripted.clock))
    assert len(rows) == 3 * 4 * 2
    assert {(row.measured, row.goal, row.at_least) for row in rows} == {(1.5, 1, True)}
    assert rows[0].what == "tiny rnn forward"


def test_without_jax_the_group_is_skipped(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims.jax_layers, "missing", lambda name: "it is not there")
    with pytest.raises(claims.clock.SkipError, match="JAX is not installed"):
        list(claims.jax_layers.jax_layers(claims.clock.Clock(True, 2)))
