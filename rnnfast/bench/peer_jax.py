"""How JAX computes a case."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .cases import Arrays, Case
from .timing import Run, fastest
from .work import Work

UNROLLS = (1, 16)  # steps in one pass of the loop; which is faster depends on the case
TASKS = Path("/proc/self/task")


def on_jax(case: Case, arrays: Arrays, threads: int) -> Work:
    """Each way of unrolling is compiled and measured, the faster one is what counts."""
    import jax

    jax.config.update("jax_enable_x64", case.dtype == "float64")
    unrolls = [unroll for unroll in UNROLLS if unroll <= max(1, case.sizes[0])]
    runs = {unroll: jax_run(case, arrays, unroll) for unroll in unrolls}
    unroll = fastest(runs) if len(runs) > 1 else unrolls[0]
    return Work(runs[unroll], eigen_threads(), notes={"unroll": unroll})


def jax_run(case: Case, arrays: Arrays, unroll: int) -> Run:
    """Inference has the weights as constants, as the sessions of inference engines have them."""
    import jax

    *args, dy = (jax.numpy.asarray(value) for value in arrays.values())
    cell = jax_cell(case.cell)

    def forward(x: Any, *rest: Any) -> Any:
        *state, w_ih, w_hh, b_ih, b_hh = rest

        def step(state: Any, ax: Any) -> Any:
            state = cell(state, ax, state[0] @ w_hh.T + b_hh)
            return state, state[0]

        return jax.lax.scan(step, tuple(state), x @ w_ih.T + b_ih, unroll=unroll)[1]

    def inference(*x_and_state: Any) -> Any:
        return (forward(*x_and_state, *args[-4:]),)

    def training(*args: Any) -> Any:
        y, backward = jax.vjp(forward, *args)
        return y, *backward(dy)

    given = args[:-4] if case.direction == "forward" else args
    compiled = jax.jit(inference if case.direction == "forward" else training)

    def run() -> tuple[Any, ...]:
        return tuple(jax.block_until_ready(compiled(*given)))

    run()  # compiles
    return run


def jax_cell(name: str) -> Callable[[Any, Any, Any], tuple[Any, ...]]:
    """One step: `(state, w_ih x + b_ih, w_hh h + b_hh)` to the next state, `h` first."""
    from jax.nn import sigmoid
    from jax.numpy import split, tanh

    def rnn(state: Any, ax: Any, ah: Any) -> tuple[Any, ...]:
        return (tanh(ax + ah),)

    def gru(state: Any, ax: Any, ah: Any) -> tuple[Any, ...]:
        (rx, zx, nx), (rh, zh, nh) = split(ax, 3, -1), split(ah, 3, -1)
        r, z = sigmoid(rx + rh), sigmoid(zx + zh)
        return ((1 - z) * tanh(nx + r * nh) + z * state[0],)

    def lstm(state: Any, ax: Any, ah: Any) -> tuple[Any, ...]:
        i, f, g, o = split(ax + ah, 4, -1)
        c = sigmoid(f) * state[1] + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c

    return {"rnn": rnn, "gru": gru, "lstm": lstm}[name]


def eigen_threads() -> int | None:
    """The threads of the pool that computes (Linux): JAX itself does not tell their number."""
    found = 0
    for task in TASKS.iterdir() if TASKS.exists() else ():
        with suppress(OSError):  # a thread that has ended meanwhile
            found += (task / "comm").read_text().strip() == "tf_XLAEigen"
    return found or None
