"""Cells of the user's own in plain NumPy: an interpreter of their graph, for reading and for tests.

The gradient is derived here a second time, by another way than in `rnnfast.cells._gradient`: each
operation says, from the values of the step, what it passes back to its operands. So the tests can
compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._cell_calls import CellGrads, graph_of
from .cells._cell import Cell
from .cells._graph import Graph, Value, in_order, weight_name

Array = NDArray[Any]
Values = dict[int, Array]  # of one step, by the id of the graph's value: (B, size)


def _sigmoid(a: Array) -> Array:
    e = np.exp(-np.abs(a))
    return np.where(a >= 0, 1 / (1 + e), e / (1 + e)).astype(a.dtype)


def _where(condition: Array, a: Array, b: Array) -> Array:
    chosen: Array = np.where(condition != 0, a, b)
    return chosen


def _centred(a: Array) -> Array:
    centred: Array = a - a.mean(axis=1, keepdims=True)
    return centred


def _outer(a: Array, b: Array) -> Array:
    return (a[:, :, None] * b[:, None, :]).reshape(len(a), a.shape[1] * b.shape[1])


FORWARD: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "minimum": np.minimum,
    "maximum": np.maximum,
    "less": lambda a, b: (a < b).astype(a.dtype),
    "less_equal": lambda a, b: (a <= b).astype(a.dtype),
    "equal": lambda a, b: (a == b).astype(a.dtype),
    "not_equal": lambda a, b: (a != b).astype(a.dtype),
    "neg": np.negative,
    "sigmoid": _sigmoid,
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "softplus": lambda a: np.logaddexp(a, 0),
    "abs": np.abs,
    "where": _where,
    "outer": _outer,
    "total": lambda a: a.sum(axis=1, keepdims=True),
    "largest": lambda a: a.max(axis=1, keepdims=True),
    "inverse_deviation": lambda a, eps: 1 / np.sqrt(a.var(axis=1, keepdims=True) + eps),
    "normalized": lambda a, scale: _centred(a) * scale,
}


def _extremum(a: Array, b: Array, d: Array, sign: int) -> tuple[Array, Array]:
    first = np.where(a == b, 0.5, (sign * (a - b) > 0).astype(a.dtype))
    return d * first, d * (1 - first)


def _abs_back(y: Array, d: Array, a: Array) -> tuple[Array, ...]:
    return ((d * np.sign(a)).astype(a.dtype),)


def _outer_back(a: Array, b: Array, d: Array) -> tuple[Array, Array]:
    d = d.reshape(len(d), a.shape[1], b.shape[1])
    return (d * b[:, None, :]).sum(axis=2), (d * a[:, :, None]).sum(axis=1)


# What an operation with the result y passes back to its operands, given the gradient d of y.
BACKWARD: dict[str, Callable[..., tuple[Array, ...]]] = {
    "add": lambda y, d, a, b: (d, d),
    "sub": lambda y, d, a, b: (d, -d),
    "mul": lambda y, d, a, b: (d * b, d * a),
    "div": lambda y, d, a, b: (d / b, -d * a / b**2),
    "minimum": lambda y, d, a, b: _extremum(a, b, d, -1),
    "maximum": lambda y, d, a, b: _extremum(a, b, d, 1),
    "neg": lambda y, d, a: (-d,),
    "sigmoid": lambda y, d, a: (d * y * (1 - y),),
    "tanh": lambda y, d, a: (d * (1 - y**2),),
    "relu": lambda y, d, a: (d * (a > 0),),
    "exp": lambda y, d, a: (d * y,),
    "log": lambda y, d, a: (d / a,),
    "sqrt": lambda y, d, a: (d / (2 * y),),
    "softplus": lambda y, d, a: (d * _sigmoid(a),),
    "abs": _abs_back,
    "where": lambda y, d, c, a, b: (0 * d, d * (c != 0), d * (c == 0)),
    "outer": lambda y, d, a, b: _outer_back(a, b, d),
    "total": lambda y, d, a: (d,),
    "inverse_deviation": lambda y, d, a, eps: (-d * y**3 * _centred(a) / a.shape[1], -d * y**3 / 2),
    "normalized": lambda y, d, a, scale: (_centred(d) * scale, d * _centred(a)),
}  # fmt: skip


class Tape(NamedTuple):
    """What the backward pass reads: the values of every step."""

    graph: Graph
    order: list[Value]
    x: Array
    params: Mapping[str, Array]
    extra: Mapping[str, Array]
    steps: list[tuple[Array, Values]]  # of each step of processing: (B,) the index of time; values
    valid: list[Array]  # (B,) which rows take part
    reset: list[Array]  # (B,) which rows began anew


def cell_forward(
    cell: Cell,
    x: Array,
    state: Sequence[Array | None] | None,
    params: Mapping[str, Array],
    *,
    extra: Mapping[str, Array] | None = None,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, tuple[Array, ...], Tape | None]:
    """Do what `rnnfast.functional.cell_forward` does."""
    graph = graph_of(cell, x.shape[2], state, params)
    return forward_graph(graph, x, state, params, extra or {}, lengths, resets, reverse)


def forward_graph(
    graph: Graph, x: Array, state: Sequence[Array | None] | None, params: Mapping[str, Array],
    extra: Mapping[str, Array], lengths: Any, resets: Any, reverse: bool,
) -> tuple[Array, tuple[Array, ...], Tape]:  # fmt: skip
    """Run the graph of a cell."""
    T, B, _ = x.shape
    order = list(in_order([*graph.new.values(), graph.output]))
    lengths = np.full(B, T) if lengths is None else np.asarray(lengths)
    resets = np.zeros((T, B), bool) if resets is None else np.asarray(resets)
    given = state or [None] * len(graph.states)
    now = [
        np.zeros((B, leaf.size), x.dtype) if part is None else np.array(part)
        for part, leaf in zip(given, graph.states.values(), strict=True)
    ]
    y = np.zeros((T, B, graph.output.size), x.dtype)
    tape = Tape(graph, order, x, params, extra, [], [], [])
    for s in range(T):
        valid = s < lengths
        time = np.where(valid, lengths - 1 - s if reverse else s, 0)
        reset = valid & resets[time, np.arange(B)] if T else valid
        before = [np.where(reset[:, None], 0, part).astype(x.dtype) for part in now]
        values = _step(tape, time, before)
        for i, new in enumerate(graph.new.values()):
            now[i] = np.where(valid[:, None], values[id(new)], now[i])
        rows = np.flatnonzero(valid)
        y[time[rows], rows] = values[id(graph.output)][rows]
        tape.steps.append((time, values))
        tape.valid.append(valid)
        tape.reset.append(reset)
    return y, tuple(now), tape


def _step(tape: Tape, time: Array, before: list[Array]) -> Values:
    """The values of one step."""
    graph, B = tape.graph, tape.x.shape[1]
    dtype, rows = tape.x.dtype, np.arange(B)
    values: Values = {}
    for leaf, state in zip(graph.states.values(), before, strict=True):
        values[id(leaf)] = state
    for value in tape.order:
        if value.kind == "state":
            continue
        if value.kind == "x":
            found = tape.x[time, rows]
        elif value.kind == "extra":
            found = _extra_at(tape.extra[value.name], time, tape.x.shape[:2], value.size)
        elif value.kind == "vector":
            found = np.broadcast_to(tape.params[value.name], (B, value.size))
        elif value.kind == "const":
            found = np.full((B, 1), value.number)
        elif value.kind == "linear":
            found = _linear(graph, value, values, tape.params, B)
        else:
            found = FORWARD[value.kind](*(values[id(a)] for a in value.args))
        values[id(value)] = np.asarray(found).astype(dtype)
    return values


def _extra_at(extra: Array, time: Array, sequence: tuple[int, ...], size: int) -> Array:
    n = extra.shape[-1]
    T, B = sequence
    full = np.broadcast_to(extra, (T, B, n))
    return np.broadcast_to(full[time, np.arange(B)], (B, size))


def _linear(
    graph: Graph, value: Value, values: Values, params: Mapping[str, Array], B: int
) -> Array:
    linear = graph.linears[value.name]
    total = np.zeros((B, value.size))
    if linear.bias:
        total = total + params[f"{linear.name}.bias"]
    for label, source in linear.sources.items():
        total = total + values[id(source)] @ params[weight_name(linear.name, label)].T
    return total


def cell_backward(
    tape: Tape,
    dy: Array | None = None,
    dstate: Sequence[Array | None] | None = None,
    *,
    threads: int | None = None,
) -> CellGrads:
    """Do what `rnnfast.functional.cell_backward` does."""
    graph, x, dtype = tape.graph, tape.x, tape.x.dtype
    _, B, _ = x.shape
    given = dstate or [None] * len(graph.states)
    carried = [
        np.zeros((B, leaf.size), dtype) if part is None else np.array(part)
        for part, leaf in zip(given, graph.states.values(), strict=True)
    ]
    grads = CellGrads(
        np.zeros_like(x),
        (),
        {name: np.zeros(shape, dtype) for name, shape in graph.shapes().items()},
        {
            name: np.zeros(np.shape(value), dtype)
            for name, value in tape.extra.items()
            if value.dtype.kind == "f" and name not in graph.masks
        },
    )
    for s in reversed(range(len(tape.steps))):
        carried = _step_back(tape, s, dy, carried, grads)
    return grads._replace(state=tuple(part.astype(dtype) for part in carried))


def _step_back(
    tape: Tape, s: int, dy: Array | None, carried: list[Array], grads: CellGrads
) -> list[Array]:
    """One step back; returns the gradients of the states before it."""
    graph, (time, values) = tape.graph, tape.steps[s]
    valid, rows = tape.valid[s][:, None], np.arange(tape.x.shape[1])
    d: Values = {}

    def add(value: Value, part: Array) -> None:
        if value.size == 1 and part.shape[1] > 1:
            part = part.sum(axis=1, keepdims=True)
        part = np.broadcast_to(part, (len(part), value.size))
        d[id(value)] = d.get(id(value), 0) + part

    for value, part in zip(graph.new.values(), carried, strict=True):
        add(value, np.where(valid, part, 0))
    if dy is not None:
        add(graph.output, np.where(valid, dy[time, rows], 0))
    for value in reversed(tape.order):
        if id(value) not in d:
            continue
        if value.kind == "linear":
            _linear_back(graph, value, values, d[id(value)], tape.params, grads.params, add)
        elif value.kind in BACKWARD:
            operands = [values[id(a)] for a in value.args]
            wide = [
                np.broadcast_to(o, (len(o), a.size))
                for o, a in zip(operands, value.args, strict=True)
            ]
            parts = BACKWARD[value.kind](values[id(value)], d[id(value)], *wide)
            for argument, part in zip(value.args, parts, strict=True):
                add(argument, part)
    _take_leaves(tape, time, d, grads)
    before = []
    for leaf, part in zip(graph.states.values(), carried, strict=True):
        own = np.where(tape.reset[s][:, None], 0, d.get(id(leaf), np.zeros_like(part)))
        before.append(np.where(valid, own, part))
    return before


def _linear_back(
    graph: Graph, value: Value, values: Values, d: Array, params: Mapping[str, Array],
    grads: Mapping[str, Array], add: Callable[[Value, Array], None],
) -> None:  # fmt: skip
    linear = graph.linears[value.name]
    if linear.bias:
        grads[f"{linear.name}.bias"][...] += d.sum(axis=0)
    for label, source in linear.sources.items():
        name = weight_name(linear.name, label)
        grads[name][...] += d.T @ values[id(source)]
        add(source, d @ params[name])


def _take_leaves(tape: Tape, time: Array, d: Values, grads: CellGrads) -> None:
    """Add the gradients of x, the vectors and the extra inputs of one step."""
    T, B, _ = tape.x.shape
    rows = np.arange(B)
    for value in tape.order:
        if id(value) not in d:
            continue
        part = d[id(value)]
        if value.kind == "x":
            np.add.at(grads.x, (time, rows), part)
        elif value.kind == "vector":
            grads.params[value.name][...] += part.sum(axis=0)
        elif value.kind == "extra" and value.name in grads.extra:
            to = grads.extra[value.name]
            full = np.zeros((T, B, value.size), part.dtype)
            np.add.at(full, (time, rows), part)
            if to.shape[-1] < value.size:
                full = full.sum(axis=2, keepdims=True)
            wide = (1,) * (3 - to.ndim) + to.shape
            for axis in range(2):
                if wide[axis] == 1 and full.shape[axis] > 1:
                    full = full.sum(axis=axis, keepdims=True)
            to[...] += full.reshape(to.shape)
