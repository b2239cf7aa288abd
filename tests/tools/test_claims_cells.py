"""The groups of `benchmarks/claims` about cells: what is compared computes the same."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_claims import Scripted, load_claims

OTHERS = [name for name in ("jax", "torch") if importlib.util.find_spec(name)]
FIVE = ["peephole_lstm", "layer_norm_lstm", "multiplicative_lstm", "mgu", "indrnn"]


@pytest.fixture(scope="module")
def claims() -> SimpleNamespace:
    return load_claims()


@pytest.mark.skipif(not OTHERS, reason="neither JAX nor PyTorch is installed")
@pytest.mark.parametrize("direction", ["forward", "training"])
@pytest.mark.parametrize("cell", FIVE)
def test_the_same_equations_give_the_same_results(claims: Any, cell: str, direction: str) -> None:
    """Output and gradient of the input; the parameters' gradients are arranged otherwise."""
    layer, x, dy = claims.cell_peers.case(cell, (5, 3, 4, 8))
    ours = claims.cell_peers.our_run(layer, x, dy, direction)()
    for other in OTHERS:
        if other == "jax":
            run = claims.cell_peers.jax_run(cell, layer, x, dy, direction, 1)
        else:
            run = claims.cell_peers.torch_run(cell, layer, x, dy, direction, compiled=False)
        theirs = [np.asarray(part) for part in run()]
        assert len(theirs) == len(ours[:1]) if direction == "forward" else len(theirs) > 2
        for mine, part in zip(ours[:2], theirs[:2], strict=True):
            np.testing.assert_allclose(mine, part, rtol=1e-4, atol=1e-5)


def test_the_fastest_of_the_others_counts(claims: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"rnnfast": 1.0, "JAX, unroll 1": 4.0, "JAX, unroll 16": 3.0}
    times |= {"PyTorch": 9.0, "PyTorch, compiled": 8.0}
    same = (np.ones(3, np.float32),) * 2
    for name in ("our_run", "jax_run", "torch_run"):
        monkeypatch.setattr(claims.cell_peers, name, lambda *args, **options: lambda: same)
    monkeypatch.setattr(claims.cell_peers, "missing", lambda name: None)
    monkeypatch.setattr(claims.cell_peers, "one_thread_for_torch", lambda: None)
    scripted = Scripted(claims, lambda what, key: times[key])
    rows = {row.what: row for row in claims.cell_peers.cell_peers(scripted.clock)}
    assert len(rows) == len(FIVE) * 4
    assert {row.measured for row in rows.values()} == {3.0}
    goals = {what: row.goal for what, row in rows.items()}
    assert goals["small peephole_lstm forward"] == 3
    assert goals["medium layer_norm_lstm training"] == 1.5
    assert goals["small mgu forward"] == 1.2
    assert goals["medium mgu training"] == 1.5
    assert goals["small indrnn training"] == 1
    assert all(row.at_least for row in rows.values())


def test_without_jax_and_pytorch_the_group_is_skipped(
    claims: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claims.cell_peers, "missing", lambda name: "it is not there")
    with pytest.raises(claims.clock.SkipError, match="neither JAX nor PyTorch is installed"):
        list(claims.cell_peers.cell_peers(claims.clock.Clock(True, 2)))
