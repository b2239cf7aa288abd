"""Group: the functions of `rnnfast.jax` beside `jax.lax.scan`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
from clock import Clock, Row, Run, Sizes, SkipError, must_agree

from rnnfast.bench.cases import CELLS, DIRECTIONS, GATES, SHAPES
from rnnfast.bench.peer_jax import jax_cell
from rnnfast.bench.peers import missing

CHOSEN = ("tiny", "small", "medium", "large")
UNROLLS = (1, 16)  # steps in one pass of the scan's loop


def jax_layers(clock: Clock) -> Iterator[Row]:
    """Speed of rnnfast.jax over jax.lax.scan, both under jit, weights as arguments."""
    if missing("jax"):
        raise SkipError("JAX is not installed")
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
    for cell, shape, direction in product(clock.some(CELLS), clock.some(CHOSEN), DIRECTIONS):
        yield beside(clock, cell, shape, direction)


def beside(clock: Clock, cell: str, shape: str, direction: str) -> Row:
    what = f"{shape} {cell} {direction}"
    arrays = inputs(cell, SHAPES[shape])
    runs = {"rnnfast": run_of(ours(cell), arrays, direction)}
    for unroll in UNROLLS:
        runs[f"scan, unroll {unroll}"] = run_of(scan(cell, unroll), arrays, direction)
    expected = runs["scan, unroll 1"]()
    for name, run in runs.items():
        must_agree(f"{what}, {name}", [np.asarray(part) for part in run()], expected)
    times = clock.best(what, runs, pause=0.03)
    fastest = min(time for name, time in times.items() if name != "rnnfast")
    note = ", ".join(f"{name} {1e3 * t:.3g} ms" for name, t in times.items())
    return Row(what, fastest / times["rnnfast"], "x", 1, at_least=True, note=note)


def inputs(cell: str, sizes: Sizes) -> dict[str, Any]:
    """x, the weights and the biases, and the gradient of y."""
    T, B, I, H = sizes
    rng, rows = np.random.default_rng(0), GATES[cell] * H
    shapes = {"x": (T, B, I), "dy": (T, B, H)}
    weights = {"w_ih": (rows, I), "w_hh": (rows, H), "b_ih": (rows,), "b_hh": (rows,)}
    arrays = {n: rng.standard_normal(s, dtype=np.float32) for n, s in shapes.items()}
    bound = H**-0.5
    return arrays | {
        n: rng.uniform(-bound, bound, s).astype(np.float32) for n, s in weights.items()
    }


def ours(cell: str) -> Callable[..., Any]:
    import rnnfast.jax

    function, states = getattr(rnnfast.jax, cell), (None,) * (1 + (cell == "lstm"))
    return lambda x, *weights: function(x, *states, *weights)[0]


def scan(cell: str, unroll: int) -> Callable[..., Any]:
    """The input's product is taken out of the loop."""
    import jax

    step = jax_cell(cell)

    def forward(x: Any, w_ih: Any, w_hh: Any, b_ih: Any, b_hh: Any) -> Any:
        zeros = jax.numpy.zeros((x.shape[1], w_hh.shape[1]), x.dtype)

        def one(state: Any, ax: Any) -> Any:
            state = step(state, ax, state[0] @ w_hh.T + b_hh)
            return state, state[0]

        start = (zeros,) * (1 + (cell == "lstm"))
        return jax.lax.scan(one, start, x @ w_ih.T + b_ih, unroll=unroll)[1]

    return forward


def run_of(forward: Callable[..., Any], arrays: dict[str, Any], direction: str) -> Run:
    import jax

    given = {name: jax.numpy.asarray(array) for name, array in arrays.items()}
    dy = given.pop("dy")

    def training(dy: Any, *given: Any) -> Any:
        y, backward = jax.vjp(forward, *given)
        return y, *backward(dy)

    if direction == "training":
        train = jax.jit(training)
        return lambda: tuple(jax.block_until_ready(train(dy, *given.values())))
    compiled = jax.jit(forward)
    return lambda: (jax.block_until_ready(compiled(*given.values())),)
