"""One stacked layer, in one direction or both, on PyTorch's tensors by the kernels.

The input is (T, B, I), or (N, I) if it is the data of a PackedSequence. The output has D*P for I,
states are (D, B, .), and the weights are those of each direction, in `torch.nn`'s order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import _kernels
from .._calls import Packing

Maybe: TypeAlias = Tensor | None
Weights: TypeAlias = Sequence[Sequence[Tensor]]  # of each direction

KINDS = {  # of cells and activations, by the names in torch.nn
    "RNN_TANH": (_kernels.RNN, _kernels.ACTIVATIONS["tanh"]),
    "RNN_RELU": (_kernels.RNN, _kernels.ACTIVATIONS["relu"]),
    "GRU": (_kernels.GRU, 0),
    "LSTM": (_kernels.LSTM, 0),
}


class Direction(NamedTuple):
    """What is computed, apart from the numbers."""

    mode: str
    reverse: bool
    packing: Packing | None = None  # None: all rows of x have all steps
    resets: NDArray[np.uint8] | None = None  # a flag per row, in the order of `packing`


def unpacked(weights: Sequence[Any]) -> list[Any]:
    """Return w_ih, w_hh, b_ih, b_hh, w_hr, None if absent, from those `torch.nn` has."""
    w_ih, w_hh, *rest = weights
    biases = rest[:2] if len(rest) > 1 else [None, None]
    return [w_ih, w_hh, *biases, rest[-1] if len(rest) % 2 else None]


def split(weights: Sequence[Any], directions: int) -> Any:
    """Return the weights of each direction."""
    n = len(weights) // directions
    return [weights[d * n : (d + 1) * n] for d in range(directions)]


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
    return -min(torch.get_num_threads(), _kernels.MAX_THREADS)


class Given(NamedTuple):
    """The arrays of a call: x as the caller has it, states (D, B, .), weights of each direction."""

    x: Any
    h0: Any
    c0: Any
    weights: Sequence[Sequence[Any]]


def forward(
    directions: Sequence[Direction],
    x: Tensor,
    h0: Maybe,
    c0: Maybe,
    weights: Weights,
    need_tape: bool,
) -> tuple[list[Tensor], Any]:
    """Return y, h_n and an LSTM's c_n, and a tape of each direction if they are needed."""
    tensors = x, h0, c0, *chain(*weights)
    found = arrays(tensors) or list(map(array, tensors))
    given = Given(*found[:3], split(found[3:], len(directions)))
    sizes = state_sizes(given.weights[0])[: 1 + (directions[0].mode == "LSTM")]
    packing = directions[0].packing
    B = x.shape[1] if packing is None else len(packing.order)
    D = len(directions)
    results = [x.new_empty(*x.shape[:-1], D * sizes[0])]
    results += [x.new_empty(D, B, size) for size in sizes]
    return results, run(directions, given, arrays(results) or [], need_tape)


def state_sizes(weights: Sequence[Any]) -> tuple[int, int]:
    """Return P and H from the weights of one direction."""
    _, w_hh, _, _, w_hr = unpacked(weights)
    P = w_hh.shape[1]
    return P, P if w_hr is None else w_hr.shape[1]


def run(
    directions: Sequence[Direction], given: Given, results: Sequence[Any], need_tape: bool
) -> Any:
    """Compute y, h_n and an LSTM's c_n into `results`; return a tape of each direction, or None."""
    x, (y, h_n, c_n) = rows_of(given.x), (*results, None)[:3]
    calls, outs = [], []
    for d, (mode, reverse, packing, resets) in enumerate(directions):
        state = of_direction(d, given.h0, given.c0)
        call = *KINDS[mode], x, state, tuple(unpacked(given.weights[d]))
        calls.append((*call, packing, resets, reverse and packing is None, need_tape))
        outs.append((rows_of(y), *of_direction(d, h_n, c_n)))
    found = _kernels.run_forward(calls, threads(), outs)
    if found is None:
        contiguous = [(*c[:3], *map(_contiguous, c[3:5]), *c[5:]) for c in calls]
        found = _kernels.run_forward(contiguous, threads(), outs)
    if found is None:
        raise RuntimeError("the shapes of the weights do not fit each other")
    return [tape for *_, tape in found]


def backward(
    directions: Sequence[Direction],
    tapes: Any,
    inputs: Sequence[Maybe],
    needs: Sequence[bool],
    upstream: Sequence[Maybe],
) -> list[Maybe]:
    """Return the gradients of the inputs x, h0, c0 and the weights that are needed."""
    x, h0, c0, *weights = inputs
    dy, dh_n, dc_n = map(array, (*upstream, None)[:3])
    grads = [
        x.new_empty(tensor.shape) if need and tensor is not None else None
        for tensor, need in zip(inputs, needs, strict=True)
    ]
    dx, dh0, dc0, *dweights = arrays(grads) or []
    n = len(weights) // len(directions)
    calls, outs = [], []
    for d, (direction, tape) in enumerate(zip(directions, tapes, strict=True)):
        state = of_direction(d, dh_n, dc_n)
        calls.append((KINDS[direction.mode][0], tape, None if dy is None else rows_of(dy), state))
        own = unpacked(dweights[d * n : (d + 1) * n])
        outs.append((None if d or dx is None else rows_of(dx), *of_direction(d, dh0, dc0), *own))
    results = _kernels.run_backward(calls, threads(), outs)
    assert results is not None, "tapes that were used"
    if dx is not None:
        for other, *_ in results[1:]:
            dx += other.reshape(dx.shape)
    return grads


def of_direction(d: int, h: Any, c: Any) -> tuple[Any, Any]:
    """Return one direction's states, None for None."""
    return None if h is None else h[d], None if c is None else c[d]


def rows_of(given: Any) -> Any:
    """Return (T, B, .) in C order, packed data as (1, N, .)."""
    return np.ascontiguousarray(given if given.ndim == 3 else given[None])


def _contiguous(given: Any) -> Any:
    """Return an array, or a tuple of some, in C order; None for None."""
    if isinstance(given, tuple):
        return tuple(map(_contiguous, given))
    return None if given is None else np.ascontiguousarray(given)


_tensors = _kernels.Tensors(Tensor.__dlpack_c_exchange_api__, Tensor, torch.nn.Parameter)
