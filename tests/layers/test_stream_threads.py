"""Streams whose steps are shared among threads: the layer's bits, and threads that really share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import DTYPES, shared

import rnnfast
from rnnfast._core import config

pytestmark = [
    pytest.mark.usefixtures("isa"),
    pytest.mark.skipif(not rnnfast.config()["openmp"], reason="built without OpenMP"),
]

CELLS: dict[str, tuple[type, dict[str, Any]]] = {
    **{f"rnn-{n}": (rnnfast.RNN, {"nonlinearity": n}) for n in ("tanh", "relu", "sigmoid")},
    "gru": (rnnfast.GRU, {}),
    "gru-reset_before": (rnnfast.GRU, {"reset_after": False}),
    "lstm": (rnnfast.LSTM, {}),
    "lstm-projected": (rnnfast.LSTM, {"proj_size": 87}),
}
T, B = 3, 67  # rows that 2, 3 and 8 threads divide unequally
GATES = {rnnfast.RNN: 1, rnnfast.GRU: 3, rnnfast.LSTM: 4}


def stream_of(cell: str, num_layers: int, dtype: str, threads: int) -> tuple[Any, Any, Any, Any]:
    """A layer whose every step is worth sharing, a stream of it from a random state, and inputs."""
    kind, options = CELLS[cell]
    H = 227 if kind is rnnfast.RNN else 131
    layer = kind(H, H, num_layers, dtype=dtype, rng=1, **options)
    work = 2 * B * GATES[kind] * H * (H + options.get("proj_size", H))
    assert work > config.SERIAL_FLOPS, "or a step runs on one thread"
    rng = np.random.default_rng(num_layers)
    x = rng.standard_normal((T, B, H)).astype(dtype)
    shapes = (num_layers, B, options.get("proj_size", H)), (num_layers, B, H)
    start = tuple(rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes)
    state = start if kind is rnnfast.LSTM else start[0]
    return layer, layer.stream(B, state, threads=threads), state, x


def states(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("cell", CELLS)
def test_bits_of_the_layer(cell: str, dtype: str, num_layers: int, threads: int) -> None:
    """Steps with and without `out`, and a chunk, from a given state and carried on."""
    layer, stream, state, x = stream_of(cell, num_layers, dtype, threads)
    y, last = layer(x, state, threads=1)
    out = np.full_like(y[0], np.nan)
    assert stream.step(x[0], out=out) is out
    for got, want in [(out, y[0]), (stream.step(x[1]), y[1]), (stream.run(x[2:]), y[2:])]:
        np.testing.assert_array_equal(got, want, strict=True)
    for got, want in zip(states(stream.state), states(last), strict=True):
        np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("threads", [2, 3, 8])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_every_thread_takes_rows(cell: str, num_layers: int, threads: int) -> None:
    """A step is cut once for each thread and layer; a chunk into blocks, some for each thread."""
    _, stream, _, x = stream_of(cell, num_layers, "float32", threads)
    every = num_layers * threads
    assert shared(lambda: stream.step(x[0])) == (num_layers, every, every)
    calls, blocks, takers = shared(lambda: stream.run(x))
    assert (calls, takers) == (num_layers, every)
    assert blocks % every == 0


def test_little_work_stays_with_the_caller() -> None:
    stream = rnnfast.LSTM(16, 16, rng=0).stream(4, threads=8)
    x = np.ones((2, 4, 16), np.float32)
    assert shared(lambda: (stream.step(x[0]), stream.run(x))) == (0, 0, 0)


def test_no_more_threads_than_rows() -> None:
    """Two rows are work for two threads, however many there may be."""
    layer = rnnfast.RNN(1700, 1700, rng=0)
    x = np.random.default_rng(0).standard_normal((2, 2, 1700), np.float32)
    stream = layer.stream(2, threads=8)
    y, _ = layer(x, threads=1)
    assert shared(lambda: np.testing.assert_array_equal(stream.step(x[0]), y[0])) == (1, 2, 2)
    assert shared(lambda: np.testing.assert_array_equal(stream.run(x[1:]), y[1:])) == (1, 2, 2)
