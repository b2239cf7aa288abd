"""One step of a stream, and a chunk of steps, with weights packed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rnnfast
from rnnfast.bench.cases import CELLS, SHAPES, Case

LAYERS = {"rnn": rnnfast.RNN, "gru": rnnfast.GRU, "lstm": rnnfast.LSTM}
STREAMED = ("step", "tiny", "audio", "small")


Agree = Callable[..., None]


def layer_of(cell: str, shape: str) -> tuple[Any, np.ndarray[Any, Any]]:
    """A layer and an input `x (T, B, I)`."""
    T, B, I, H = SHAPES[shape]
    x = np.random.default_rng(1).standard_normal((T, B, I), dtype=np.float32)
    return LAYERS[cell](I, H, rng=0), x


# A stream carries its state from call to call: before and after it is timed it starts anew.


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", STREAMED)
def test_step(benchmark: BenchmarkFixture, agree: Agree, cell: str, shape: str) -> None:
    layer, x = layer_of(cell, shape)
    stream = layer.stream(batch_size=x.shape[1])
    out = np.empty((x.shape[1], layer.hidden_size), np.float32)
    benchmark.group = f"stream.step {shape}"
    benchmark.extra_info["flops"] = Case(cell, shape, "forward").flops // len(x)
    for timed in (False, True):
        if timed:
            benchmark(stream.step, x[0], out=out)
        stream.reset()
        agree({"y": np.stack([stream.step(x_t, out=out).copy() for x_t in x])}, layer, x)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", STREAMED)
def test_run(benchmark: BenchmarkFixture, agree: Agree, cell: str, shape: str) -> None:
    layer, x = layer_of(cell, shape)
    stream = layer.stream(batch_size=x.shape[1])
    benchmark.group = f"stream.run {shape}"
    benchmark.extra_info["flops"] = Case(cell, shape, "forward").flops
    for timed in (False, True):
        if timed:
            benchmark(stream.run, x)
        stream.reset()
        agree({"y": stream.run(x)}, layer, x)
