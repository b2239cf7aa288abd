"""One stacked layer, in one direction or both, on PyTorch's tensors by the kernels.

The input is (T, B, I), or (N, I) if it is the data of a PackedSequence. The output has D*P for I,
states are (D, B, .), and the weights are those of each direction, in `torch.nn`'s order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, contiguous_format, empty_like

from .._core import config
from .._core.passes import BackwardCall, ForwardCall, Weights, run_backward, run_forward
from .._core.rows import Ragged
from .._core.tensors import Tensors

Maybe: TypeAlias = Tensor | None
CellWeights: TypeAlias = Sequence[Sequence[Tensor]]  # of each direction

KINDS = {  # of cells and activations, by the names in torch.nn
    "RNN_TANH": (config.RNN, config.ACTIVATIONS["tanh"]),
    "RNN_RELU": (config.RNN, config.ACTIVATIONS["relu"]),
    "GRU": (config.GRU, 0),
    "LSTM": (config.LSTM, 0),
}


class Direction(NamedTuple):
    """What is computed, apart from the numbers."""

    mode: str
    reverse: bool
    ragged: Ragged | None = None  # None: all rows of x have all steps
    resets: NDArray[np.uint8] | None = None  # a flag per row, in the order of `ragged`


def unpacked(weights: Sequence[Any]) -> Weights:
    """Return the weights of a cell by name from those that `torch.nn` has, in its order."""
    w_ih, w_hh, *rest = weights
    b_ih, b_hh = rest[:2] if len(rest) > 1 else (None, None)
    return Weights(w_ih, w_hh, b_ih, b_hh, rest[-1] if len(rest) % 2 else None)


def split(weights: Sequence[Any], parts: int) -> Any:
    """Return the weights of each direction, or of each cell."""
    n = len(weights) // parts
    return [weights[k * n : (k + 1) * n] for k in range(parts)]


def arrays(tensors: Sequence[Maybe]) -> list[Any] | None:
    """Return arrays that share the tensors' memory, None for None.

    Or None if the kernels cannot take them as they are: all must be `torch.Tensor` or `Parameter`,
    on the CPU, strided, float32 or float64, of one dtype, and not lazily negated.
    """
    return _tensors.arrays(tensors)


def array(tensor: Maybe) -> Any:
    """Return a tensor of any kind as an array in C order, or a copy of it; None for None."""
    if tensor is None:
        return None
    found = arrays((tensor,))
    # A copy, for after `numpy` the storage of its tensor cannot be resized any more.
    return tensor.clone().numpy(force=True) if found is None else _contiguous(found[0])


def threads() -> int:
    """Return the threads of a call: at most PyTorch's, which is what a negative number says."""
    return -min(int(torch.get_num_threads()), config.MAX_THREADS)


def forward(
    directions: Sequence[Direction],
    x: Tensor,
    h0: Maybe,
    c0: Maybe,
    weights: Sequence[Tensor],
    need_tape: bool,
    given: Sequence[Any] | None = None,
) -> tuple[list[Tensor], Any]:
    """Return y, h_n and an LSTM's c_n, and a tape of each direction if they are needed.

    The weights are those of all directions. `given` are the arrays of all tensors, if known.
    """
    if given is None:
        tensors = x, h0, c0, *weights
        given = arrays(tensors) or list(map(array, tensors))
    rows, h, c, *flat = given
    D, n = len(directions), len(weights) // len(directions)
    sizes = state_sizes(flat[:n])[: 1 + (directions[0].mode == "LSTM")]
    ragged = directions[0].ragged
    B = rows.shape[1] if ragged is None else len(ragged.order)
    results = [x.new_empty((*rows.shape[:-1], D * sizes[0]))]
    results += [x.new_empty((D, B, size)) for size in sizes]
    y, *ends = arrays_of(results)
    h_n, c_n = (*ends, None)[:2]

    rows, y, calls = rows_of(rows), rows_of(y), []
    for d, (mode, reverse, ragged, flags) in enumerate(directions):
        weights_of_cell, (h0_d, c0_d) = unpacked(flat[d * n : (d + 1) * n]), of_direction(d, h, c)
        dense_reverse = reverse and ragged is None
        call = ForwardCall(
            *KINDS[mode], rows, h0_d, c0_d, weights_of_cell, None, None, dense_reverse, need_tape
        )
        call.ragged, call.flags = ragged, flags
        call.y, (call.h_n, call.c_n) = y, of_direction(d, h_n, c_n)
        calls.append(call)
    try:
        run_forward(calls, threads())
    except ValueError as error:
        raise RuntimeError("the shapes of the weights do not fit each other") from error
    return results, [call.tape for call in calls]


def state_sizes(weights: Sequence[Any]) -> tuple[int, int]:
    """Return P and H from the weights of one direction."""
    w = unpacked(weights)
    P = w.w_hh.shape[1]
    return P, P if w.w_hr is None else w.w_hr.shape[1]


def arrays_of(tensors: Sequence[Maybe]) -> list[Any]:
    """Return the arrays of tensors that were made here."""
    found = arrays(tensors)
    assert found is not None, "a new tensor is like those it was made for"
    return found


def backward(
    directions: Sequence[Direction],
    tapes: Any,
    inputs: Sequence[Any],
    needs: Sequence[bool],
    upstream: Sequence[Maybe],
) -> list[Maybe]:
    """Return the gradients of the inputs x, h0, c0 and the weights that are needed."""
    given = arrays(upstream) or list(map(array, upstream))
    dy, dh_n, dc_n = (*map(_contiguous, given), None)[:3]
    grads = [
        empty_like(tensor, memory_format=contiguous_format) if need else None
        for tensor, need in zip(inputs, needs, strict=True)
    ]
    dx, dh0, dc0, *dweights = arrays_of(grads)
    D, n = len(directions), len(dweights) // len(directions)
    dy, to_x = None if dy is None else rows_of(dy), None if dx is None else rows_of(dx)
    calls = []
    for d in range(D):
        cell = KINDS[directions[d].mode][0]
        call = BackwardCall(cell, tapes[d], dy, *of_direction(d, dh_n, dc_n))
        call.dx, (call.dh0, call.dc0) = None if d else to_x, of_direction(d, dh0, dc0)
        call.dweights = unpacked(dweights[d * n : (d + 1) * n])
        calls.append(call)
    run_backward(calls, threads())
    if dx is not None:
        for other in calls[1:]:
            dx += other.dx.reshape(dx.shape)
    return grads


def of_direction(d: int, h: Any, c: Any) -> tuple[Any, Any]:
    """Return one direction's states, None for None."""
    return None if h is None else h[d], None if c is None else c[d]


def rows_of(given: Any) -> Any:
    """Return (T, B, .) in C order, packed data as (1, N, .)."""
    return _contiguous(given if given.ndim == 3 else given[None])


def _contiguous(given: Any) -> Any:
    """Return an array, or a tuple of some, in C order; None for None."""
    if isinstance(given, tuple):
        return tuple(map(_contiguous, given))
    if given is None or given.flags.c_contiguous:
        return given
    return np.ascontiguousarray(given)


_tensors = Tensors(Tensor.__dlpack_c_exchange_api__, Tensor, torch.nn.Parameter)
