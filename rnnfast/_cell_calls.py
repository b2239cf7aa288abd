"""Forward and backward of one cell of the user's own: checks, and the call of the kernels.

Letters: T time steps, B batch rows, I input size, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._core import cell_passes, cell_plans, checks, ragged
from ._core.rows import ragged_of
from ._core.threads import resolve
from .cells._cell import Cell
from .cells._graph import SOME_H, Graph
from .cells._plan import make_plan

Array = NDArray[Any]
States = Sequence[Array | None] | None


class CellGrads(NamedTuple):
    """Gradients of the arguments of `cell_forward`.

    `extra` has those of the inputs that are of floating-point numbers and no masks.
    """

    x: Array
    state: tuple[Array, ...]
    params: dict[str, Array]
    extra: dict[str, Array]


class CellTape:
    """What `cell_forward` leaves for one `cell_backward`."""

    def __init__(self, cell: Cell, graph: Graph, y_shape: tuple[int, ...], tape: Any) -> None:
        self.cell, self.graph, self.y_shape, self.passed = cell, graph, y_shape, tape
        self.extra: dict[str, ExtraInput] = {}
        self.rows: Any = None  # a `Ragged`, of sequences of different length

    def __reduce__(self) -> Any:
        self.passed.__reduce__()


class ExtraInput(NamedTuple):
    """An extra input as the kernels take it: rows of n numbers, and which row is whose."""

    rows: Array  # (R, n)
    by_step: int  # row t * by_step + b * by_row belongs to step t and batch row b
    by_row: int
    given: Array


def cell_forward(
    cell: Cell,
    x: Array,
    state: States,
    params: Mapping[str, Array],
    *,
    extra: Mapping[str, Any] | None = None,
    lengths: Any = None,
    resets: Any = None,
    reverse: bool = False,
    need_tape: bool = True,
    threads: int | None = None,
) -> tuple[Array, tuple[Array, ...], CellTape | None]:
    """Run a cell over a sequence, in one direction.

    Parameters
    ----------
    cell : Cell
        Made by `rnnfast.cells.cell`.
    x : ndarray, shape (T, B, I), float32 or float64
    state : tuple of ndarray, shape (B, size of the state), in the cell's order, or None
        The states before the first step. None for one of them, or for all, means zeros.
    params : dict of str to ndarray
        ``{linear}.weight_{source}``, ``{linear}.bias`` and ``{vector}``, with the shapes that
        ``print(cell)`` shows. Without any bias, none is added.
    extra : dict of str to array, optional
        The extra inputs, of shape (T, B, n), (T, 1, n), (B, n) or (n,), where n is the size of the
        input or 1. Masks are given like the others: nothing is drawn here.
    lengths : integers, shape (B,), optional
        Row b has ``lengths[b]`` steps, 0 to T. Beyond them its outputs are 0 and no gradient flows.
    resets : ndarray of bool, shape (T, B), optional
        Where true, the row's states are set to zero before the step; no gradient crosses.
    reverse : bool
        Run each row from its last step to step 0.
    need_tape : bool
        Whether to return what `cell_backward` needs.
    threads : int, optional
        Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

    Returns
    -------
    y : ndarray, shape (T, B, size of the output)
    state_n : tuple of ndarray
        The states after each row's last step.
    tape : object
        For one call of `cell_backward`; None if not `need_tape`.

    Raises
    ------
    TypeError
        An argument is not an array, or has another dtype.
    ValueError
        A shape, a name or a value does not fit.
    TraceError
        The cell cannot have these sizes (`rnnfast.cells.TraceError`).
    """
    x = checks.floating("x", x, "(T, B, I)", 3)
    T, B, I = x.shape
    if I == 0:
        raise ValueError(f"x has shape {x.shape}, expected (T, B, I) with I >= 1")
    graph = graph_of(cell, I, state, params)
    given = plain_params(params, graph.shapes(), x.dtype)
    states = checked_states("state", cell, graph, state, x.dtype, B)
    inputs = extra_inputs(cell, graph, extra, x.dtype, T, B)
    if lengths is not None:
        lengths = checks.lengths(lengths, T, B)
    if resets is not None:
        resets = checks.mask("resets", resets, "(T, B)", (T, B))
    y, final, tape = run_forward(
        cell, graph, x, states, given, inputs, lengths, resets, reverse, need_tape, resolve(threads)
    )
    return y, tuple(final), tape


def cell_backward(
    tape: CellTape,
    dy: Array | None = None,
    dstate: States = None,
    *,
    threads: int | None = None,
) -> CellGrads:
    """Backpropagate through the `cell_forward` that returned `tape`.

    Parameters
    ----------
    tape : object
        From `cell_forward`. It can be used once.
    dy : ndarray, shaped as ``y``, optional
        Gradient of the output, zeros by default.
    dstate : tuple of ndarray, shaped as ``state_n``, optional
        Gradients of the final states; None for one of them, or for all, means zeros.
    threads : int, optional
        Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

    Returns
    -------
    CellGrads
        Named tuple: `x`, `state` (a tuple), `params` and `extra` (dicts), shaped as the arguments.

    Raises
    ------
    TypeError
        `tape` is not a tape, or another argument not an array of its dtype.
    ValueError
        A shape does not fit.
    RuntimeError
        The tape has been used.
    """
    if not isinstance(tape, CellTape):
        kind = type(tape).__name__
        raise TypeError(f"tape has type {kind}, expected the tape of cell_forward")
    if tape.passed.used:
        raise RuntimeError("tape has been used: it serves one backward")
    dtype = tape.passed.dtype
    dy = checks.optional("dy", dy, dtype, "y.shape", tape.y_shape, "x")
    B = tape.y_shape[1]
    dstates = checked_states("dstate", tape.cell, tape.graph, dstate, dtype, B)
    return run_backward(tape, dy, 0, dstates, resolve(threads))


def plain_params(
    params: Any, shapes: Mapping[str, tuple[int, ...]], dtype: np.dtype[Any]
) -> dict[str, Array]:
    """Check the parameters, and return them as the kernels take them."""
    checks.named("params", params, shapes, dtype)
    return {name: as_plain(params[name]) for name in shapes}


def as_plain(array: Array) -> Array:
    """Return the array as the kernels take it, C-contiguous and aligned: itself, or a copy."""
    return array if array.flags.carray else np.require(array, None, ["C", "A"])


def graph_of(cell: Cell, I: int, state: States, params: Mapping[str, Array]) -> Graph:
    """Return the graph with the hidden size that the states and parameters have."""
    if not isinstance(cell, Cell):
        kind = type(cell).__name__
        raise TypeError(f"cell has type {kind}, expected what rnnfast.cells.cell makes")
    if not isinstance(params, Mapping):
        raise TypeError(f"params has type {type(params).__name__}, expected a dict of arrays")
    bias = any(name.endswith(".bias") for name in params)
    return cell.graph(I, _hidden_size(cell, I, state, params), bias=bias)


def _hidden_size(cell: Cell, I: int, state: States, params: Mapping[str, Array]) -> int:
    """H, as a state of that size has it, or else a parameter."""
    parts = state if isinstance(state, tuple | list) else ()
    for name, value in zip(cell.states, parts, strict=False):
        if name not in cell.sizes and getattr(value, "ndim", 0) == 2:
            return int(value.shape[1])
    for name, shape in cell.example().shapes().items():
        found = getattr(params.get(name), "shape", ())
        for axis, size in enumerate(shape):
            if size == SOME_H and len(found) == len(shape):
                return int(found[axis])
    if all(name in cell.sizes for name in cell.states) or (state is not None and not parts):
        return I  # it has no effect, or what is wrong with the state is said later
    raise ValueError(
        f"state is None, and no parameter of cell {cell.name} has the hidden size: give a state of "
        "that size"
    )


def checked_states(
    name: str, cell: Cell, graph: Graph, state: States, dtype: np.dtype[Any], B: int
) -> list[Array | None]:
    """Check a state or its gradient, which may be None or have a None for each part."""
    if state is None:
        return [None] * len(cell.states)
    if not isinstance(state, tuple | list) or len(state) != len(cell.states):
        parts = ", ".join(cell.states)
        found = f"{len(state)} parts" if isinstance(state, tuple | list) else type(state).__name__
        raise TypeError(f"{name} has {found}, expected a tuple of {len(cell.states)}: ({parts})")
    return [
        checks.optional(f"{name}[{i}]", part, dtype, f"(B, {value.size})", (B, value.size), "x")
        for i, (part, value) in enumerate(zip(state, graph.states.values(), strict=True))
    ]


def plan_of(graph: Graph, dtype: np.dtype[Any], resets: bool) -> Any:
    """Return the plan of a graph for vectors of the instruction set in use, made once."""
    key = cell_plans.lanes_of(dtype), resets
    if key not in graph.plans:
        graph.plans[key] = cell_plans.Plan(make_plan(graph, *key))
    return graph.plans[key]


def extra_inputs(
    cell: Cell, graph: Graph, extra: Mapping[str, Any] | None, dtype: np.dtype[Any], T: int, B: int
) -> dict[str, ExtraInput]:
    """Check the extra inputs and lay them out as rows."""
    given = {} if extra is None else extra
    checks.names("extra", given, dict.fromkeys(cell.extra))
    return _laid_out(cell, graph, given, dtype, T, B)


def inputs_of_layer(
    cell: Cell, graph: Graph, extra: Mapping[str, Any] | None, dtype: np.dtype[Any], T: int, B: int
) -> dict[str, ExtraInput]:
    """Like `extra_inputs`, but masks may be missing, which `with_masks` adds."""
    given = {} if extra is None else extra
    checks.names("extra", given, expected_inputs(cell, given))
    return _laid_out(cell, graph, given, dtype, T, B)


def expected_inputs(cell: Cell, given: Any) -> dict[str, None]:
    """The names of the extra inputs, but for masks that are not given."""
    if not cell.masks:
        return dict.fromkeys(cell.extra)
    drawn = cell.masks.keys() - (given.keys() if isinstance(given, Mapping) else ())
    return dict.fromkeys(name for name in cell.extra if name not in drawn)


def with_masks(
    cell: Cell, graph: Graph, inputs: dict[str, ExtraInput], dtype: np.dtype[Any], T: int, B: int,
    random: Callable[[tuple[int, ...]], Array] | None,
) -> dict[str, ExtraInput]:  # fmt: skip
    """Add the masks that were not given, made of random numbers; their means if random is None."""
    if not cell.masks:
        return inputs
    found = {}
    for name in cell.extra:
        if name in inputs:
            found[name] = inputs[name]
            continue
        mask, n = cell.masks[name], graph.extra[name].size
        if random is None:
            value = np.full(n, mask.expected, dtype)
        else:
            value = mask.of(random(mask.shape(T, B, n)))
        found[name] = extra_input(name, value, n, dtype, T, B)
    return found


def _laid_out(
    cell: Cell, graph: Graph, given: Mapping[str, Any], dtype: np.dtype[Any], T: int, B: int
) -> dict[str, ExtraInput]:
    return {
        name: extra_input(f"extra[{name!r}]", given[name], graph.extra[name].size, dtype, T, B)
        for name in cell.extra
        if name in given
    }


def extra_input(
    name: str, value: Any, size: int, dtype: np.dtype[Any], T: int, B: int
) -> ExtraInput:
    """Lay out one extra input: (T, B, n), (T, 1, n), (B, n) or (n,), n the size or 1."""
    given = checks.plain(name, value, dtype)
    if given.dtype.kind not in "iub":  # integers and bools will do
        checks.of_dtype(name, given, dtype, "x")
    shape = given.shape
    n = shape[-1] if shape else 0
    steps = {(T, B, n): (B, 1), (T, 1, n): (1, 0), (B, n): (0, 1), (n,): (0, 0)}
    if n not in (1, size) or shape not in steps:
        dims = f"(T, B, n), (T, 1, n), (B, n) or (n,) with n = {size} or 1"
        raise ValueError(f"{name} has shape {shape}, expected {dims}, where T = {T} and B = {B}")
    rows = np.ascontiguousarray(given, dtype).reshape(-1, n)
    if n < size:
        rows = np.repeat(rows, size, axis=1)
    return ExtraInput(rows, *steps[shape], given)


def run_forward(
    cell: Cell, graph: Graph, x: Array, state: Sequence[Array | None], params: dict[str, Array],
    extra: dict[str, ExtraInput], lengths: Any, resets: Any, reverse: bool, need_tape: bool,
    threads: int, y: Array | None = None, column: int = 0,
) -> tuple[Array, list[Array], CellTape | None]:  # fmt: skip
    """Run checked arguments; y goes to columns of an array that is given."""
    T, B, _ = x.shape
    flags = None if resets is None else resets.view(np.uint8).reshape(-1)
    rows = None
    if lengths is not None and B and ragged.extremes(lengths)[0] < T:
        rows = ragged_of(lengths, T, reverse)
        reverse = False
        flags = None if flags is None else flags[rows.rows]
    if y is None:
        y = cell_plans.empty((T, B, graph.output.size), x.dtype)
    compiled = plan_of(graph, x.dtype, flags is not None)
    given = [(e.rows, e.by_step, e.by_row) for e in extra.values()]
    final, passed = cell_passes.forward(
        compiled, x, list(state), params, given, rows, flags, reverse, need_tape, threads, y, column
    )  # fmt: skip
    if not need_tape:
        return y, final, None
    tape = CellTape(cell, graph, y.shape, passed)
    tape.extra, tape.rows = extra, rows
    return y, final, tape


def run_backward(
    tape: CellTape, dy: Array | None, column: int, dstate: Sequence[Array | None], threads: int
) -> CellGrads:
    """Run back from checked gradients."""
    dx, initial, params, rows = cell_passes.backward(tape.passed, dy, column, list(dstate), threads)
    return CellGrads(dx, tuple(initial), params, _extra_gradients(tape, rows))


def _extra_gradients(tape: CellTape, rows: Array) -> dict[str, Array]:
    """Add up each extra input's gradient over the steps and rows that it served."""
    plan = tape.passed.plan
    T, B = tape.passed.shape[:2]
    gradients = {}
    for name, extra in tape.extra.items():
        if extra.given.dtype.kind != "f" or name in tape.graph.masks:
            continue
        size = tape.graph.extra[name].size
        full = np.zeros((T * B, size), rows.dtype)
        if name in plan.extra_gradients:
            first = plan.extra_gradients[name]
            place = slice(None) if tape.rows is None else tape.rows.rows
            full[place] = rows[:, first : first + size]
        total = full.reshape(T, B, size)
        if extra.given.shape[-1] < size:
            total = total.sum(axis=2, keepdims=True)
        if not extra.by_step:
            total = total.sum(axis=0, keepdims=True)
        if not extra.by_row:
            total = total.sum(axis=1, keepdims=True)
        gradients[name] = total.reshape(extra.given.shape)
    return gradients
