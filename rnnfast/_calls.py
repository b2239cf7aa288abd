"""One call of one layer in one direction: check, kernel, return.

Arrays that are as the kernels need them go straight there. Only where one is not, or with lengths
or resets, does `_check` look at each, to copy it or to raise; the kernel gets the result.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import _check, _kernels
from ._threads import resolve

Array = NDArray[Any]
Tape = _kernels.Tape
Outputs = tuple[Array, Array, Array | None, Tape | None]

_CELLS = {
    _kernels.RNN: ("an RNN", 1),
    _kernels.GRU: ("a GRU", 3),
    _kernels.GRU_RESET_BEFORE: ("a GRU", 3),
    _kernels.LSTM: ("an LSTM", 4),
}


Index = NDArray[np.intp]


class Packing(NamedTuple):
    """Sequences of different length without their padding, longest first, step after step."""

    order: Index  # (B,) which sequence of the batch stands where
    active: Index  # rows of each step
    offset: Index  # first packed row of each step
    rows: Index | None  # (N,) where in (T*B) each packed row is; None: x and y are packed
    padding: Index  # the other rows of (T*B), which are zeroed


def packing_of(lengths: Index, T: int, reverse: bool) -> Packing:
    return Packing._make(_kernels.packing(lengths, T, reverse))


def forward(calls: list[tuple[Any, ...]], threads: int | None) -> list[Outputs]:
    """Run one call, or both directions of a layer side by side: (y, h_n, c_n, tape) of each.

    A call is (cell, act, x, (h0, c0), (w_ih, w_hh, b_ih, b_hh, w_hr), lengths, resets, reverse,
    need_tape); both directions have the same x, lengths and resets, and the same y (T, B, 2P), one
    beside the other. c_n is None but for an LSTM.
    """
    return forward_on(calls, resolve(threads))


def forward_on(calls: list[tuple[Any, ...]], threads: int) -> list[Outputs]:
    """Like `forward`; the number of threads is one that `resolve` returns."""
    results: list[Outputs] | None = None
    if calls[0][5] is None and calls[0][6] is None:
        results = _kernels.run_forward(calls, threads)
    if results is None:
        results = _kernels.run_forward([_checked_forward(*call) for call in calls], threads)
    assert results is not None, "checked arguments were refused"
    return results


def backward(calls: list[tuple[Any, ...]], threads: int | None) -> list[tuple[Any, ...]]:
    """Run one call, or both directions of a layer side by side: of each, the gradients of x, h0,
    c0 and (w_ih, w_hh, b_ih, b_hh, w_hr); None for what was not given.

    A call is (cell, tape, dy, (dh_n, dc_n)), dy of the whole y. `cell` is the kind that the caller
    expects; both GRUs are one kind.
    """
    return backward_on(calls, resolve(threads))


def backward_on(calls: list[tuple[Any, ...]], threads: int) -> list[tuple[Any, ...]]:
    """Like `backward`; the number of threads is one that `resolve` returns."""
    results = _kernels.run_backward(calls, threads)
    if results is None:
        results = _kernels.run_backward([_checked_backward(*call) for call in calls], threads)
    assert results is not None, "checked arguments were refused"
    return results


def _checked_forward(
    cell: int,
    act: int,
    x: Any,
    state: tuple[Any, Any],
    weights: tuple[Any, ...],
    lengths: Any,
    resets: Any,
    reverse: bool,
    need_tape: bool,
) -> tuple[Any, ...]:
    """Return the call as the kernels need it, or raise."""
    x, state, weights = _checked(cell, x, state, weights)
    T, B, _ = x.shape
    if resets is not None:
        resets = _check.mask("resets", resets, "(T, B)", (T, B)).view(np.uint8).reshape(-1)
    packing = None
    if lengths is not None:
        lengths = _check.lengths(lengths, T, B)
        if B and _kernels.extremes(lengths)[0] < T:
            packing = packing_of(lengths, T, reverse)
            resets, reverse = None if resets is None else resets[packing.rows], False
    return cell, act, x, state, weights, packing, resets, bool(reverse), bool(need_tape)


def _checked_backward(cell: int, tape: Any, dy: Any, dstate: tuple[Any, Any]) -> tuple[Any, ...]:
    """Return the call as the kernels need it, or raise."""
    _check_tape(cell, tape)
    T, B, _, H, P = tape.shape
    dims = f"(T, B, {'2' * (tape.directions - 1)}{'P' if P != H else 'H'})"
    dy = _check.optional("dy", dy, tape.dtype, dims, (T, B, tape.directions * P), "x")
    dh_n, dc_n = dstate
    dims = "(B, P)" if P != H else "(B, H)"
    dh_n = _check.optional("dh_n", dh_n, tape.dtype, dims, (B, P), "x")
    dc_n = _check.optional("dc_n", dc_n, tape.dtype, "(B, H)", (B, H), "x")
    return cell, tape, dy, (dh_n, dc_n)


def _checked(
    cell: int, x: Any, state: tuple[Any, Any], weights: tuple[Any, ...]
) -> tuple[Array, tuple[Any, Any], tuple[Any, ...]]:
    """Return the arguments as the kernels need them, or raise."""
    x = _check.floating("x", x, "(T, B, I)", 3)
    _, B, I = x.shape
    gates, dtype = _CELLS[cell][1], x.dtype
    (h0, c0), (w_ih, w_hh, b_ih, b_hh, w_hr) = state, weights
    H, P = _check.sizes(gates, dtype, w_ih, w_hh, w_hr)
    if I == 0:
        raise ValueError(f"x has shape {x.shape}, expected (T, B, I) with I >= 1")
    dims = "(B, P)" if P != H else "(B, H)"
    h0 = _check.optional("h0", h0, dtype, dims, (B, P), "x")
    c0 = _check.optional("c0", c0, dtype, "(B, H)", (B, H), "x")
    dims = "(G*H, P)" if w_hr is not None else "(G*H, H)"
    weights = (
        _check.array("w_ih", w_ih, dtype, "(G*H, I)", (gates * H, I), "x"),
        _check.array("w_hh", w_hh, dtype, dims, (gates * H, P), "x"),
        _check.optional("b_ih", b_ih, dtype, "(G*H,)", (gates * H,), "x"),
        _check.optional("b_hh", b_hh, dtype, "(G*H,)", (gates * H,), "x"),
        _check.optional("w_hr", w_hr, dtype, "(P, H)", (P, H), "x"),
    )
    return x, (h0, c0), weights


def _check_tape(cell: int, tape: Any) -> None:
    if not isinstance(tape, Tape):
        raise TypeError(f"tape has type {type(tape).__name__}, expected the tape of a forward call")
    if _CELLS[tape.cell] != _CELLS[cell]:
        raise TypeError(f"tape is of {_CELLS[tape.cell][0]}, expected one of {_CELLS[cell][0]}")
    if tape.used:
        raise RuntimeError(
            "tape was used by an earlier backward, which works in the tape's own memory"
        )
