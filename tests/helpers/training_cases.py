"""What the tests of training share: two models, and the optimisers with their options."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rnnfast import GRU
from rnnfast.training import (
    SGD,
    Adam,
    AdamW,
    History,
    Linear,
    RMSprop,
    Rprop,
    fit,
    join,
    length_mask,
    mean_squared_error,
    minibatches,
    pad,
)


class Summer:
    """A GRU with dropout that learns the running sum of sequences of different length."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.gru = GRU(1, 8, 2, dropout=0.2, rng=self.rng)
        self.out = Linear(8, 1, rng=self.rng)
        self.params = join(gru=self.gru.params, out=self.out.params)
        data = np.random.default_rng(1)
        lengths = data.integers(1, 7, 40)
        self.sequences = [data.random((n, 1), dtype=np.float32) - 0.5 for n in lengths]

    def batches(self, rng: np.random.Generator) -> Any:
        lengths = np.array([len(s) for s in self.sequences])
        for chosen in minibatches(len(lengths), 8, rng, lengths=lengths):
            yield pad([self.sequences[i] for i in chosen])

    def loss_and_grads(self, batch: Any) -> tuple[float, dict[str, Any]]:
        x, lengths = batch
        y, _, tape = self.gru.forward(x, lengths=lengths)
        prediction, out_tape = self.out.forward(y)
        mask = length_mask(lengths, len(x))
        loss, d_prediction = mean_squared_error(prediction, x.cumsum(axis=0), mask=mask)
        out = self.out.backward(out_tape, d_prediction)
        return loss, join(gru=self.gru.backward(tape, out.input).params, out=out.params)

    def evaluate(self) -> float:
        x, lengths = pad(self.sequences)
        prediction = self.out(self.gru(x, lengths=lengths)[0])
        mask = length_mask(lengths, len(x))
        return mean_squared_error(prediction, x.cumsum(axis=0), mask=mask)[0]

    def fit(self, epochs: int, optimizer: Any = None, **options: Any) -> History:
        optimizer = optimizer or Adam(self.params, lr=0.02)
        options = {"evaluate": self.evaluate, "progress": False, "rng": self.rng} | options
        return fit(self.loss_and_grads, optimizer, self.batches, epochs=epochs, **options)


def quadratic(start: float = 1.0) -> tuple[dict[str, Any], Any]:
    """One weight and the loss of its square: the smallest model there is."""
    params = {"w": np.array([start])}
    return params, lambda batch: (float(params["w"][0] ** 2), {"w": 2 * params["w"]})


def one_batch(rng: np.random.Generator) -> list[int]:
    return [0]


CASES = [
    (SGD, {"lr": 0.1}),
    (SGD, {"lr": 0.1, "momentum": 0.9}),
    (Rprop, {"lr": 0.02}),
    (Rprop, {"lr": 0.02, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.05)}),
    (RMSprop, {"lr": 0.03}),
    (RMSprop, {"lr": 0.03, "alpha": 0.8, "eps": 1e-3}),
    (Adam, {"lr": 0.05}),
    (Adam, {"lr": 0.05, "betas": (0.7, 0.9), "eps": 1e-4, "weight_decay": 0.1}),
    (AdamW, {"lr": 0.05}),
    (AdamW, {"lr": 0.05, "betas": (0.7, 0.9), "weight_decay": 0.3}),
]
cases = pytest.mark.parametrize(
    ("kind", "options"), CASES, ids=[f"{k.__name__}{i}" for i, (k, _) in enumerate(CASES)]
)


def parameters(dtype: Any = np.float64) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(s).astype(dtype) for name, s in [("w", (5, 3)), ("b", (7,))]}


def gradients(step: int, dtype: Any = np.float64) -> dict[str, Any]:
    """Gradients whose signs change here and there, some exactly zero."""
    rng = np.random.default_rng(100 + step // 2)
    grads = {
        n: (rng.standard_normal(p.shape) * (rng.random(p.shape) > 0.1)).astype(dtype)
        for n, p in parameters().items()
    }
    return {n: g if step % 3 else -g for n, g in grads.items()}


def assert_steps_of_torch(kind: Any, options: Any, rates: Sequence[float | None]) -> None:
    """Compare the parameters with PyTorch's after each step, before which `lr` is set to a rate."""
    torch = pytest.importorskip("torch", reason="the semantics promised are torch's")
    ours = parameters()
    theirs = {name: torch.tensor(p, requires_grad=True) for name, p in ours.items()}
    optimizer = kind(ours, **options)
    witness = getattr(torch.optim, kind.__name__)(theirs.values(), **options)
    for step, lr in enumerate(rates):
        if lr is not None:
            optimizer.lr = witness.param_groups[0]["lr"] = lr
        grads = gradients(step)
        for name, p in theirs.items():
            p.grad = torch.tensor(grads[name])
        optimizer.step(grads)
        witness.step()
        for name, p in theirs.items():
            np.testing.assert_allclose(ours[name], p.detach().numpy(), rtol=1e-11, atol=1e-13)
