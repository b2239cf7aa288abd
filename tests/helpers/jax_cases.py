"""What the tests of `rnnfast.jax` share: it on the problems of `cases`, and the same by a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Case, Problem, Results

jax = pytest.importorskip("jax")

import rnnfast.jax  # noqa: E402
from rnnfast.bench.peer_jax import jax_cell  # noqa: E402

FUNCTIONS: dict[str, Any] = {
    "rnn": rnnfast.jax.rnn,
    "gru": rnnfast.jax.gru,
    "lstm": rnnfast.jax.lstm,
}
OUTPUTS = ("y", "h_n", "c_n")


def split(problem: Problem) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that have gradients, and the others."""
    given = problem.forward
    arrays = {n: v for n, v in given.items() if isinstance(v, np.ndarray) and v.dtype.kind == "f"}
    return arrays, {n: v for n, v in given.items() if n not in arrays}


def run_jax(problem: Problem, **options: Any) -> Results:
    """Outputs and gradients by name, as `cases.run` gives them, under `jax.jit`."""
    arrays, others = split(problem)
    static = {n: others.pop(n) for n in list(others) if n not in ("lengths", "resets")} | options
    function = FUNCTIONS[problem.case.cell]

    @jax.jit
    def both(arrays: Any, others: Any, upstream: Any) -> Any:
        results, backward = jax.vjp(lambda a: function(**a, **others, **static), arrays)
        return results, backward(upstream)[0]

    results, grads = both(arrays, others, tuple(problem.upstream.values()))
    found = dict(zip(OUTPUTS, map(np.asarray, results), strict=False))
    return found | {f"d{n}": np.asarray(g) for n, g in grads.items()}


def by_scan(case: Case, arrays: dict[str, Any]) -> tuple[Any, ...]:
    """The same equations by `jax.lax.scan`: y and the last states."""
    a = dict(arrays)
    x, w_ih, w_hh, b_ih, b_hh = (a.pop(n) for n in ("x", "w_ih", "w_hh", "b_ih", "b_hh"))
    cell = jax_cell(case.cell)

    def step(state: Any, ax: Any) -> Any:
        state = cell(state, ax, state[0] @ w_hh.T + b_hh)
        return state, state[0]

    states = tuple(a[n] for n in ("h0", "c0") if n in a)
    last, y = jax.lax.scan(step, states, x @ w_ih.T + b_ih)
    return y, *last
