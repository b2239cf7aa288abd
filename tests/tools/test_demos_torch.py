"""`--compare torch`: the same model, data and steps on both sides."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_cases import result

from rnnfast.demos import _demo, _torch, run
from rnnfast.demos._torch import torch_adder, torch_language_model
from rnnfast.demos.binary_adder import BATCH, Adder, sums
from rnnfast.demos.char_lm import LanguageModel
from rnnfast.training import Adam


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("binary-adder", ["2 x 20 LSTM, batch 64, 8 steps"]),
        (
            "char-lm",
            ["2 x 192 GRU, batch 16, 64 steps", "2 x 256 LSTM, batch 32, 64 steps"],
        ),
    ],
)
def test_compare_torch_is_of_the_same_model(
    name: str, models: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is only compared with")
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    content = result(name, tmp_path, "--quick", "--compare", "torch", "--dropout", "0")
    out = capsys.readouterr().out
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)
    measured = {models[0]: content}
    if len(models) == 2:
        measured[models[1]] = content["larger_lstm"]
    for model, times in measured.items():
        ours, theirs = times["first_losses"]
        assert ours == pytest.approx(theirs, rel=1e-5)
        seconds = times["torch_seconds_per_step"], times["rnnfast_seconds_per_step"]
        assert min(seconds) > 0
        assert times["speed_up"] == pytest.approx(seconds[0] / seconds[1])
        assert f"{model}, PyTorch {torch.__version__}: " in out


def test_torch_takes_the_same_training_steps() -> None:
    """Losses stay together over optimiser, clipping and carried state."""
    pytest.importorskip("torch", reason="PyTorch is only compared with")
    rng = np.random.default_rng(0)
    adder, model = Adder(0.0, rng), LanguageModel(40, 0.0, rng)
    batches = [sums(rng, BATCH) for _ in range(5)]
    pieces = list(islice(model.windows(rng.integers(0, 40, 10_000)), 5))
    for ours, theirs, data in [
        (
            _demo.steps(adder.loss_and_grads, Adam(adder.params, lr=0.01)),
            torch_adder(adder, 0.01),
            batches,
        ),
        (
            _demo.steps(model.loss_and_grads, Adam(model.params, lr=0.01), clip_norm=0.1),
            torch_language_model(model, 0.01, 0.1),
            pieces,
        ),
    ]:
        tensors = [tuple(map(torch_tensor, batch)) for batch in data]
        losses = [ours([batch])[0] for batch in data]
        assert losses == pytest.approx(theirs(tensors), rel=1e-4)
        assert abs(losses[-1] - losses[0]) > 1e-3 * losses[0]


def torch_tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def test_compare_without_torch_is_refused_before_the_work(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit):
        run("char-lm", ["--compare", "torch"])
    assert "argument --compare: needs PyTorch, pip install torch" in capsys.readouterr().err


class Side:
    """Training steps of one side: notes its batches, the threads and the order."""

    def __init__(self, name: str, log: list[Any], loss: float) -> None:
        self.name, self.log, self.loss = name, log, loss

    def __call__(self, batches: Any) -> list[float]:
        torch = pytest.importorskip("torch")
        arrays = [[np.asarray(part) for part in batch] for batch in batches]
        kinds = {type(part) for batch in batches for part in batch}
        self.log.append((self.name, arrays, kinds, torch.get_num_threads()))
        return [self.loss] * len(batches)


def test_both_sides_get_the_same_batches_threads_and_turns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is only compared with")
    log: list[Any] = []
    times = {"ours": iter([3.0, 1.0, 2.0]), "theirs": iter([60.0, 4.0, 5.0])}

    def timed(train: Side, batches: Any) -> float:
        train(batches)
        return next(times[train.name])

    monkeypatch.setattr(_torch, "_time", timed)
    batches = [  # one before, three rounds of two, and one that is left
        (np.full(2, i), np.full(3, -i)) for i in range(8)
    ]
    ours, theirs = Side("ours", log, 0.5), Side("theirs", log, 0.75)
    content = _torch.compare("a model", ours, theirs, batches, 3, 2)
    assert [entry[0] for entry in log] == ["ours", "theirs"] * 4
    assert {entry[3] for entry in log} == {2}
    for (_, one, kinds, _), (_, other, tensors, _) in zip(log[::2], log[1::2], strict=True):
        assert (kinds, tensors) == ({np.ndarray}, {torch.Tensor})
        for a, b in zip(one, other, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
    assert [[int(batch[0][0]) for batch in entry[1]] for entry in log[::2]] == [
        [0], [1, 2], [3, 4], [5, 6],
    ]  # fmt: skip
    assert content == {
        "torch_version": torch.__version__,
        "torch_seconds_per_step": 2.5,  # the median round, of two steps
        "rnnfast_seconds_per_step": 1.0,
        "speed_up": 2.5,
        "timed_steps": 6,
        "first_losses": [0.5, 0.75],
    }
    assert "2.5e+03 ms per training step, rnnfast 1e+03 ms: 2.50x" in capsys.readouterr().out
