"""One step of a stream, and a chunk of steps, with weights packed once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rnnfast
from rnnfast.bench.cases import CELLS, SHAPES, Case

LAYERS = {"rnn": rnnfast.RNN, "gru": rnnfast.GRU, "lstm": rnnfast.LSTM}
STREAMED = ("step", "tiny", "audio", "small")


def stream_of(cell: str, shape: str) -> tuple[Any, np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A stream, an input `x (T, B, I)` and the outputs the layer gives for it."""
    T, B, I, H = SHAPES[shape]
    layer = LAYERS[cell](I, H, rng=0)
    x = np.random.default_rng(1).standard_normal((T, B, I), dtype=np.float32)
    return layer.stream(batch_size=B), x, layer(x)[0]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", STREAMED)
def test_step(benchmark: BenchmarkFixture, cell: str, shape: str) -> None:
    stream, x, y = stream_of(cell, shape)
    out = np.empty_like(y[0])
    assert np.array_equal(stream.step(x[0], out=out), y[0])
    benchmark.group = f"stream.step {shape}"
    benchmark.extra_info["flops"] = Case(cell, shape, "forward").flops // len(x)
    benchmark(stream.step, x[0], out=out)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", STREAMED)
def test_run(benchmark: BenchmarkFixture, cell: str, shape: str) -> None:
    stream, x, y = stream_of(cell, shape)
    assert np.array_equal(stream.run(x), y)
    benchmark.group = f"stream.run {shape}"
    benchmark.extra_info["flops"] = Case(cell, shape, "forward").flops
    benchmark(stream.run, x)
