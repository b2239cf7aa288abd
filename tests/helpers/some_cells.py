"""Cells for tests: those that everybody knows, odd ones, and random ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from rnnfast import cells
from rnnfast.cells import Cell, _library, cell, linear, sigmoid, tanh, vector
from rnnfast.cells._factory import is_factory

Array = np.ndarray[Any, Any]


@cell(state="h")
def rnn(x, h):
    return tanh(linear("a", x, h))


@cell(state="h c")
def lstm(x, h, c):
    i, f = sigmoid(linear("i", x, h)), sigmoid(linear("f", x, h))
    g, o = tanh(linear("g", x, h)), sigmoid(linear("o", x, h))
    c = f * c + i * g
    return o * tanh(c), c


@cell(state="h")
def gru(x, h):
    r, z = sigmoid(linear("r", x, h)), sigmoid(linear("z", x, h))
    n = tanh(linear("n_x", x) + r * linear("n_h", h))
    return (1 - z) * n + z * h


@cell(state="h")
def gru_reset_before(x, h):
    r, z = sigmoid(linear("r", x, h)), sigmoid(linear("z", x, h))
    n = tanh(linear("n", x, gated=r * h))
    return (1 - z) * n + z * h


@cell(state="h c")
def peephole(x, h, c):
    i = sigmoid(linear("i", x, h) + vector("p_i") * c)
    f = sigmoid(linear("f", x, h) + vector("p_f") * c)
    c = f * c + i * tanh(linear("g", x, h))
    o = sigmoid(linear("o", x, h) + vector("p_o") * c)
    return o * tanh(c), c


@cell(state="h")
def layer_norm(x, h):
    a = cells.normalize(linear("a", x, h))
    return tanh(a * vector("gain", init=1.0) + vector("shift"))


@cell(state="h", extra="k m")
def with_inputs(x, h, k, m):
    n = cells.softplus(linear("n", x, h, k)) * vector("one", size=1) + linear("s", h, size=1)
    kept = cells.where(m > 0.5, n, h) * k + cells.relu(h) * cells.log(cells.exp(h * 0.1) + 1.5)
    return tanh(kept - abs(h) * cells.minimum(h, 0.3))


@cell(state="h q", sizes={"q": 3})
def several_stages(x, h, q):
    p = cells.softmax(linear("p", x, q, size=7))
    o = cells.outer(q, linear("w", h, size=2))
    scale = cells.sqrt(h * h + 0.1) / (1 + cells.maximum(h, 0.2))
    h = tanh(linear("n", x, p=p, o=o, before=h)) + cells.clip(h, -0.5, 0.5) * scale
    return {"h": h, "q": tanh(linear("q", n=h, size=3)) + cells.mean(h), "y": h * 2 + 0.5}


@cell(state="h")
def unchanged(x, h):
    return h


@cell(state="h k")
def without_linear(x, h, k):
    return h * 0.5 + x, h - 2 * k * vector("v")


CELLS = [
    rnn, lstm, gru, gru_reset_before, peephole, layer_norm, with_inputs, several_stages, unchanged,
    without_linear,
]  # fmt: skip


# Arguments of the library's functions that make cells; what is not here is called without any.
ARGUMENTS: dict[str, list[tuple[Any, ...]]] = {
    "clockwork": [((1, 2, 4),)],
    "deep_transition": [(1,), (3, True)],
    "gated_feedback": [(2, kind) for kind in ("tanh", "lstm", "gru")],
    "jordan": [(), (0.5,)],
    "lstm_variant": [(name,) for name in _library.VARIANTS],
    "recurrent_dropout_gru": [(), (0.5, True)],
    "recurrent_dropout_lstm": [(), (0.5, True)],
}


def library() -> Iterator[Cell]:
    """All cells of the library."""
    for module in cells._modules():
        for name in module.__all__:
            found = getattr(module, name)
            if isinstance(found, Cell):
                yield found
            elif is_factory(found):
                yield from (found(*arguments) for arguments in ARGUMENTS.get(name, [()]))


def random_cell(choose: Callable[[int], int]) -> cells.Cell:
    """A cell of random operations; `choose(n)` returns a number below n."""
    states = ["h", "q"][: 1 + choose(2)]
    steps = [
        (choose(len(STEPS)), choose(100), choose(100), choose(3)) for _ in range(2 + choose(9))
    ]

    def function(x, *state):
        pool = {n: [] for n in ("H", 3, 1)}
        for value in state:
            pool["H" if value is state[0] else 3].append(value)
        for number, (step, a, b, size) in enumerate(steps):
            wanted = ("H", "H", 3)[size]
            made = STEPS[step](f"p{number}", x, pool, wanted, a, b)
            pool[1 if made.size == 1 else "H" if made.size == state[0].size else 3].append(made)
        new = [tanh(pool["H"][-1] + 0.5 * linear("last", x, state[0]))]
        if len(states) > 1:
            new.append(sigmoid(pool[3][-1]) - 0.5 * state[1])
        return tuple(new)

    # `cell` reads the names of the arguments.
    source = f"lambda x, {', '.join(states)}: function(x, {', '.join(states)})"
    named = eval(source, {"function": function})
    return cell(state=" ".join(states), sizes={"q": 3} if len(states) > 1 else None)(named)


def _pick(pool, size, number):
    values = pool[size] or pool["H"]
    return values[number % len(values)]


def _linear(name, x, pool, size, a, b):
    sources = {"a": _pick(pool, "H", a)}
    if b % 3:
        sources["b"] = _pick(pool, (1, 3, "H")[b % 3], b)
    if sources["a"].value is getattr(sources.get("b"), "value", None):
        del sources["b"]  # one source twice is refused
    own = (x,) if b % 2 else ()
    return linear(name, *own, **sources, size=None if size == "H" else 3, bias=bool(a % 4))


def _binary(operation):
    def step(name, x, pool, size, a, b):
        first = _pick(pool, size, a)
        second = _pick(pool, 1 if b % 5 == 0 else size, b)
        if first.size != second.size and 1 not in (first.size, second.size):
            second = first
        return operation(first, second)

    return step


def _unary(operation):
    return lambda name, x, pool, size, a, b: operation(_pick(pool, size, a))


def _scaled(name, x, pool, size, a, b):
    value = _pick(pool, size, a)
    return value * vector(name, value.size, 0.5)


STEPS = [
    _linear,
    _linear,
    _linear,
    _binary(lambda a, b: a + b),
    _binary(lambda a, b: a - 0.5 * b),
    _binary(lambda a, b: tanh(a) * b),
    _binary(lambda a, b: tanh(a / (2 + cells.softplus(b)))),
    _binary(cells.minimum),
    _binary(cells.maximum),
    _binary(lambda a, b: cells.where(a < b, a * 0.3, b)),
    _unary(sigmoid),
    _unary(tanh),
    _unary(cells.relu),
    _unary(cells.softplus),
    _unary(abs),
    _unary(lambda a: cells.exp(-cells.softplus(a))),
    _unary(lambda a: cells.sqrt(a * a + 0.3)),
    _unary(lambda a: cells.log(a * a + 0.7)),
    _unary(lambda a: cells.clip(a, -0.4, 0.6)),
    _unary(cells.softmax),
    _unary(lambda a: cells.normalize(a, 0.1)),
    _unary(cells.mean),
    _unary(lambda a: -cells.total(a) * 0.2),
    _scaled,
]


def problem(
    which: cells.Cell, T: int, B: int, I: int, H: int, dtype: str = "float64", seed: int = 0
) -> dict[str, Any]:
    """Arguments of `cell_forward`: x, states, parameters and extra inputs."""
    rng = np.random.default_rng(seed)
    graph = which.graph(I, H)
    shapes = [(T, B, 0), (T, 1, 0), (B, 0), (0,)]
    extra = {
        name: rng.uniform(0, 1, (*shapes[i % 4][:-1], value.size if i % 2 else 1)).astype(dtype)
        for i, (name, value) in enumerate(graph.extra.items())
    }
    return {
        "x": rng.standard_normal((T, B, I)).astype(dtype),
        "state": tuple(
            rng.uniform(-1, 1, (B, v.size)).astype(dtype) for v in graph.states.values()
        ),
        "params": {n: rng.uniform(-0.6, 0.6, s).astype(dtype) for n, s in graph.shapes().items()},
        "extra": extra,
    }


def gradients(y: Array, state: tuple[Array, ...], seed: int = 1) -> dict[str, Any]:
    """Arguments of `cell_backward`."""
    rng = np.random.default_rng(seed)
    return {
        "dy": rng.standard_normal(y.shape).astype(y.dtype),
        "dstate": tuple(rng.standard_normal(s.shape).astype(s.dtype) for s in state),
    }
