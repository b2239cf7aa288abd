"""Both sides of the group `modules` of `benchmarks/claims` do the same work."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from fake_claims import Scripted, load_claims


@pytest.fixture(scope="module")
def claims() -> SimpleNamespace:
    return load_claims()


def tensors(*values: float) -> Any:
    import torch

    return lambda: tuple(torch.tensor([value]) for value in values)


def test_modules_divide_pytorch_s_time_by_rnnfast_s(claims: Any) -> None:
    pytest.importorskip("torch", reason="its layers are compared")
    scripted = Scripted(claims, lambda what, key: {"plain": 6e-3, "fast": 2e-3}[key])
    plain, fast = tensors(1.0, 2.0), tensors(1.0, 2.0)
    row = claims.modules.ratio(scripted.clock, "x", 2, lambda: [plain, fast])
    assert (row.measured, row.goal, row.at_least) == (pytest.approx(3), 2, True)
    assert row.note == "2 ms, PyTorch 6 ms"
    assert scripted.timed["x"] == {"plain": plain, "fast": fast}
    for other in (tensors(1.0, 2.001), tensors(1.001, 2.0)):
        with pytest.raises(SystemExit, match="x: results differ"):
            claims.modules.ratio(scripted.clock, "x", 2, lambda other=other: [plain, other])


def test_of_a_few_steps_the_least_ratio_counts(
    claims: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch", reason="its layers are compared")
    ratios = iter([3.0, 2.0, 5.0, 4.0, 6.0, 7.0])
    monkeypatch.setattr(claims.modules, "stacked", lambda *_: [tensors(1.0), tensors(1.0)])
    scripted = Scripted(claims, lambda what, key: next(ratios) if key == "plain" else 1.0)
    row = claims.modules.few_steps(scripted.clock, "GRU", 1, False, False)
    assert (row.what, row.measured) == ("few steps GRU, 1 layer, inference", 2.0)
    assert (row.goal, row.at_least) == (1.5, True)
    assert row.note.startswith("one step of one row: 3.00x")


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("L", "both"), [(1, False), (2, True)])
def test_stacked_layers_do_the_same_on_both_sides(
    claims: Any, L: int, both: bool, training: bool
) -> None:
    torch = pytest.importorskip("torch", reason="its layers are compared")
    runs = claims.modules.stacked("GRU", (3, 2, 4, 5), L, both, training)
    theirs, ours = (run() for run in runs)
    parameters = len(list(torch.nn.GRU(4, 5, num_layers=L, bidirectional=both).parameters()))
    assert len(theirs) == len(ours) == 1 + parameters * training
    assert ours[0].shape == (3, 2, 5 * (1 + both))
    assert [type(run.args[0]).__module__.partition(".")[0] for run in runs] == ["torch", "rnnfast"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_do_the_same_on_both_sides(claims: Any, packed: bool, dtype: str) -> None:
    torch = pytest.importorskip("torch", reason="its layers are compared")
    runs = claims.modules.layers("LSTM", (6, 3, 4, 5), dtype, packed)
    theirs, ours = (run() for run in runs)
    assert len(theirs) == len(ours) == 6, "y, dx and four parameters"
    assert theirs[0].dtype == ours[0].dtype == getattr(torch, dtype)
    assert ours[0].ndim == (2 if packed else 3)
    assert [type(run.args[0]).__module__.partition(".")[0] for run in runs] == ["torch", "rnnfast"]
