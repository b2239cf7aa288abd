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
from torch import Tensor

from .. import _kernels
from .._calls import Packing
from .._threads import MAX_THREADS

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


def split(weights: Sequence[Tensor], directions: int) -> Weights:
    """Return the weights of each direction."""
    n = len(weights) // directions
    return [weights[d * n : (d + 1) * n] for d in range(directions)]


def array(tensor: Maybe) -> Any:
    """Return the tensor's own memory, or a copy if it is not contiguous; None for None."""
    return None if tensor is None else tensor.contiguous().numpy(force=True)


def threads() -> int:
    """Return the threads of a call: PyTorch's."""
    return min(int(torch.get_num_threads()), MAX_THREADS)


def forward(
    directions: Sequence[Direction],
    x: Tensor,
    h0: Maybe,
    c0: Maybe,
    weights: Weights,
    need_tape: bool,
) -> tuple[list[Tensor], Any]:
    """Return y, h_n and an LSTM's c_n, and a tape of each direction if they are needed."""
    given, h, c = array(x), array(h0), array(c0)
    calls = []
    for d, (direction, own) in enumerate(zip(directions, weights, strict=True)):
        mode, reverse, packing, resets = direction
        state = of_direction(d, h, c)
        call = *KINDS[mode], rows_of(given), state, tuple(map(array, unpacked(own)))
        calls.append((*call, packing, resets, reverse and packing is None, need_tape))
    results = _kernels.run_forward(calls, threads())
    if results is None:
        raise RuntimeError("the shapes of the weights do not fit each other")
    ys, hs, cs, tapes = zip(*results, strict=True)
    y = ys[0].reshape(*x.shape[:-1], ys[0].shape[-1])
    return [torch.from_numpy(part) for part in (y, _both(hs), _both(cs)) if part is not None], tapes


def backward(
    directions: Sequence[Direction], tapes: Any, x_shape: Any, upstream: Sequence[Maybe]
) -> list[Any]:
    """Return the gradients of x, h0, c0 and the weights; c0's is None unless of an LSTM."""
    dy, dh_n, dc_n = map(array, (*upstream, None)[:3])
    calls = []
    for d, (direction, tape) in enumerate(zip(directions, tapes, strict=True)):
        kind, _ = KINDS[direction.mode]
        state = of_direction(d, dh_n, dc_n)
        calls.append((kind, tape, None if dy is None else rows_of(dy), state))
    results = _kernels.run_backward(calls, threads())
    assert results is not None, "tapes that were used"
    dxs, dhs, dcs, dweights = zip(*results, strict=True)
    dx = dxs[0].reshape(x_shape)
    for other in dxs[1:]:
        dx += other.reshape(x_shape)
    present = [dw for own in dweights for dw in own if dw is not None]
    return [dx, _both(dhs), _both(dcs), *present]


def of_direction(d: int, h: Any, c: Any) -> tuple[Any, Any]:
    """Return one direction's states, None for None."""
    return None if h is None else h[d], None if c is None else c[d]


def rows_of(given: Any) -> Any:
    """Return (T, B, .), packed data as (1, N, .)."""
    return np.ascontiguousarray(given if given.ndim == 3 else given[None])


def _both(states: Sequence[Any]) -> Any:
    """Return the states of all directions as one array; None for None."""
    if states[0] is None:
        return None
    return states[0][None] if len(states) == 1 else np.stack(states)
