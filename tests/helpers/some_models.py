"""Models of many kinds for the tests of `Sequential`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import rnnfast
from rnnfast import GRU, LSTM, RNN, Last, Recurrent, Sequential, cells
from rnnfast.training import Activation, Dropout, Embedding, Linear

Array = Any
SIZE = 5  # numbers per step, or ids, that the models take


def from_ids(**options: Any) -> Sequential:
    return Sequential(
        Embedding(SIZE, 3, dtype=options.get("dtype", np.float32), rng=0),
        LSTM(3, 7, rng=1, **options),
        Last(),
        Linear(7, 2, dtype=options.get("dtype", np.float32), rng=2),
    )


def at_every_step(**options: Any) -> Sequential:
    dtype = options.get("dtype", np.float32)
    return Sequential(
        Linear(SIZE, 11, dtype=dtype, rng=0),
        Activation("silu"),
        GRU(11, 7, 2, rng=1, **options),
        Linear(7, 3, dtype=dtype, rng=2),
        Activation("tanh"),
    )


def of_many(sizes: tuple[int, ...] = (6, 17, 13, 5, 9), **options: Any) -> Sequential:
    """All recurrent layers that a stream can have."""
    dtype = options.get("dtype", np.float32)
    a, b, c, d, e = sizes
    return Sequential(
        RNN(SIZE, a, nonlinearity="relu", rng=0, **options),
        GRU(a, b, reset_after=False, rng=1, **options),
        Sequential(Activation("softplus"), LSTM(b, c, 2, proj_size=d, rng=2, **options)),
        Recurrent(cells.mgu, d, e, rng=3, **options),
        Last(),
        Sequential(Linear(e, 4, dtype=dtype, rng=4), Activation("elu")),
    )


def both_ways(**options: Any) -> Sequential:
    dtype = options.get("dtype", np.float32)
    return Sequential(
        LSTM(SIZE, 4, bidirectional=True, rng=0, **options),
        GRU(8, 3, bidirectional=True, rng=1, **options),
        Linear(6, 2, dtype=dtype, rng=2),
    )


def with_dropout(**options: Any) -> Sequential:
    dtype = options.get("dtype", np.float32)
    return Sequential(
        Dropout(0.25, rng=0),
        GRU(SIZE, 8, 2, dropout=0.5, rng=1, **options),
        Dropout(0.5, rng=2),
        Last(),
        Linear(8, 2, dtype=dtype, rng=3),
    )


ONE_WAY: list[Callable[..., Sequential]] = [from_ids, at_every_step, of_many, with_dropout]
ALL = [*ONE_WAY, both_ways]


def given(model: Sequential, T: int, B: int, seed: int = 0) -> Array:
    """An input, in the model's layout and dtype."""
    rng = np.random.default_rng(seed)
    shape = (B, T) if model.batch_first else (T, B)
    if isinstance(model[0], Embedding):
        return rng.integers(0, SIZE, shape)
    return rng.standard_normal((*shape, SIZE)).astype(dtype_of(model))


def dtype_of(model: Sequential) -> Any:
    return next(iter(model.params.values())).dtype


def rows_of(x: Array, rows: Any, model: Sequential) -> Array:
    """Some rows of the batch."""
    return x[rows] if model.batch_first else x[:, rows]


def by_hand(layers: Any, x: Array, lengths: Any = None, resets: Any = None) -> Array:
    """What a chain computes, layer by layer."""
    for layer in layers:
        if isinstance(layer, Sequential):
            x = by_hand(layer, x, lengths, resets)
        elif isinstance(layer, RNN | GRU | LSTM | Recurrent):
            x = layer(x, lengths=lengths, resets=resets)[0]
        elif isinstance(layer, Last):
            x = last_by_hand(x, lengths)
        else:
            x = layer(x)
    return x


def last_by_hand(y: Array, lengths: Any) -> Array:
    """Of time-major y the last valid step of each row."""
    T, B, F = y.shape
    lengths = [T] * B if lengths is None else lengths
    rows = [y[n - 1, b] if n else np.zeros(F, y.dtype) for b, n in enumerate(lengths)]
    return np.array(rows, y.dtype).reshape(B, F)


class Doubled:
    """A layer of one's own with no more than what a model needs."""

    def __init__(self) -> None:
        self.params = {"by": np.full(1, 2.0, np.float32)}

    def forward(self, x: Array) -> tuple[Array, Array]:
        return x * self.params["by"], x

    def backward(self, tape: Array, dy: Array) -> Any:
        params = {"by": np.array([np.sum(dy * tape)], np.float32)}
        return rnnfast.training.ModuleGrads(dy * self.params["by"], params)
