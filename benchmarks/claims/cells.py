"""Group: the built-in layers, written as cells, against themselves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from clock import LAYERS, Clock, Row, Run, Sizes

import rnnfast
from rnnfast.bench.cases import CELLS, DIRECTIONS, SHAPES
from rnnfast.cells import Expression, cell, linear, sigmoid, tanh

GOALS = {"small": 0.8, "medium": 0.9, "long": 0.8, "large": 0.9, "xl": 0.9}


@cell(state="h")
def rnn(x: Expression, h: Expression) -> Expression:
    return tanh(linear("a", x, h))


@cell(state="h")
def gru(x: Expression, h: Expression) -> Expression:
    r, z = sigmoid(linear("r", x, h)), sigmoid(linear("z", x, h))
    n = tanh(linear("n_x", x) + r * linear("n_h", h))
    return (1 - z) * n + z * h


@cell(state="h c")
def lstm(x: Expression, h: Expression, c: Expression) -> tuple[Expression, Expression]:
    i, f, o = (sigmoid(linear(name, x, h)) for name in "ifo")
    c = f * c + i * tanh(linear("g", x, h))
    return o * tanh(c), c


WRITTEN = {"rnn": rnn, "gru": gru, "lstm": lstm}


def layers(name: str, I: int, H: int) -> dict[str, Any]:
    """The built-in layer and the one of a cell."""
    return {"built in": LAYERS[name](I, H, rng=0), "cell": rnnfast.Recurrent(WRITTEN[name], I, H)}


def work(layer: Any, sizes: Sizes, direction: str) -> Run:
    T, B, I, H = sizes
    x = np.random.default_rng(0).standard_normal((T, B, I), dtype=np.float32)
    if direction == "forward":
        run = layer.stream(B).run
        return lambda: (run(x),)
    dy = np.ones((T, B, H), np.float32)
    return lambda: (layer.backward(layer.forward(x)[2], dy).input,)


def cells(clock: Clock) -> Iterator[Row]:
    """RNN, GRU and LSTM as cells of one's own: speed over that of the built-in layers."""
    for shape, name, direction in product(clock.some(list(GOALS)), CELLS, DIRECTIONS):
        _, _, I, H = SHAPES[shape]
        what = f"{shape} {name.upper()} {direction}"
        runs = {key: work(l, SHAPES[shape], direction) for key, l in layers(name, I, H).items()}
        found = clock.best(what, runs)
        yield Row(what, found["built in"] / found["cell"], "x", GOALS[shape], at_least=True)
    for name, (I, H) in product(CELLS, clock.some([(1, 32), (32, 64)])):
        what = f"stream.run {name.upper()} {I}->{H}"
        pair = layers(name, I, H).items()
        found = clock.best(what, {key: work(l, (1000, 1, I, H), "forward") for key, l in pair})
        yield Row(what, found["built in"] / found["cell"], "x", 0.6, at_least=True)
