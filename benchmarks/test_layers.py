"""Layers: what stacking, a second direction and unequal lengths cost over a single pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rnnfast
from rnnfast.bench.cases import CELLS, SHAPES

LAYERS = {"rnn": rnnfast.RNN, "gru": rnnfast.GRU, "lstm": rnnfast.LSTM}
KINDS: dict[str, dict[str, Any]] = {
    "single": {},
    "stacked": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
}


def layer_of(cell: str, shape: str, kind: str) -> tuple[Any, np.ndarray[Any, Any]]:
    """A layer and an input `x (T, B, I)`."""
    T, B, I, H = SHAPES[shape]
    x = np.random.default_rng(1).standard_normal((T, B, I), dtype=np.float32)
    return LAYERS[cell](I, H, rng=0, **KINDS[kind]), x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", ["tiny", "small", "medium"])
def test_inference(
    benchmark: BenchmarkFixture, agree: Callable[..., None], cell: str, shape: str, kind: str
) -> None:
    layer, x = layer_of(cell, shape, kind)
    benchmark.group = f"layer inference {shape}"
    y, _ = benchmark(layer, x)
    agree({"y": y}, layer, x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", ["tiny", "small", "medium"])
def test_training(
    benchmark: BenchmarkFixture, agree: Callable[..., None], cell: str, shape: str, kind: str
) -> None:
    layer, x = layer_of(cell, shape, kind)
    dy = np.random.default_rng(2).standard_normal(layer(x)[0].shape, dtype=np.float32)

    def train() -> Any:
        y, _, tape = layer.forward(x)
        return y, layer.backward(tape, dy)

    benchmark.group = f"layer training {shape}"
    y, grads = benchmark(train)
    agree({"y": y, "input": grads.input, **grads.params}, layer, x, dy=dy)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("lengths", ["full", "half"])
def test_lengths(
    benchmark: BenchmarkFixture, agree: Callable[..., None], cell: str, lengths: str
) -> None:
    """`half`: lengths from 0 to T, half of T on average, so at best half the time."""
    layer, x = layer_of(cell, "medium", "single")
    T, B = x.shape[:2]
    rows = np.linspace(0, T, B).round().astype(np.int64) if lengths == "half" else np.full(B, T)
    benchmark.group = "layer lengths medium"
    y, _ = benchmark(layer, x, lengths=rows)
    agree({"y": y}, layer, x, lengths=rows)
    assert np.array_equal((y != 0).any(axis=2).sum(axis=0), rows)
