"""The usual call of a layer, dense sequences of ordinary tensors, with as little Python as can be.

One step of one sequence takes the kernels a microsecond or two, so what is here decides how fast a
decoder or an agent runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import dropout

from .._core.passes import ForwardCall, run_forward
from ._autograd import Recurrence
from ._layer import KINDS, Direction, arrays, arrays_of, threads, unpacked

_DIRECTIONS = {
    (mode, both): [Direction(mode, False), Direction(mode, True)][: 1 + both]
    for mode in KINDS
    for both in (False, True)
}


def dense(layer: Any, input: Any, states: Sequence[Any], weights: list[Any]) -> Any:
    """Return (output, states), or None for what has to go another way.

    `input` and `states` are any objects; `weights` are those of all cells, in `torch.nn`'s order.
    """
    tensors = input, *states, *weights
    given = arrays(tensors)
    if given is None or not _fits(layer, given[: 1 + len(states)]):
        return None
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor.requires_grad:
                return _training(layer, input, states, weights, given)
    if layer.dropout and layer.training and layer.num_layers > 1:
        return None
    return _inference(layer, input, given, len(states))


def _fits(layer: Any, given: list[Any]) -> bool:
    """Whether x and the states are of the layer's sizes, and x is not empty."""
    x, *states = given
    if x.ndim not in (2, 3) or x.shape[-1] != layer.input_size or not x.size:
        return False
    if not states:
        return True
    cells = layer.num_layers * (2 if layer.bidirectional else 1)
    batch = x.shape[0 if layer.batch_first else 1 : 1 if layer.batch_first else 2]
    lead = (cells, *batch) if x.ndim == 3 else (cells,)
    sizes = [layer.proj_size or layer.hidden_size]
    if layer.mode == "LSTM":
        sizes.append(layer.hidden_size)
    return [None if s is None else s.shape for s in states] == [(*lead, size) for size in sizes]


# ------------------------------------------------------------------------------ without gradients


def _inference(layer: Any, input: Tensor, given: list[Any], states: int) -> Any:
    """Run all stacked layers on arrays."""
    x, batched = given[0], given[0].ndim == 3
    if not batched:
        x = x[:, None]
    elif layer.batch_first:
        x = x.swapaxes(0, 1)
    (T, B, _), D = x.shape, 2 if layer.bidirectional else 1
    H = layer.hidden_size
    P, cells = layer.proj_size or H, layer.num_layers * D
    lead, batch = ((T, B), (B,)) if batched else ((T,), ())
    results = [input.new_empty((*lead, D * P)), input.new_empty((cells, *batch, P))]
    if layer.mode == "LSTM":
        results.append(input.new_empty((cells, *batch, H)))
    y, *ends = arrays_of(results)
    if not batched:
        y, ends = y[:, None], [end[:, None] for end in ends]
    starts = [np.ascontiguousarray(s if batched else s[:, None]) for s in given[1 : 1 + states]]
    _stack(layer, np.ascontiguousarray(x), starts, given[1 + states :], y, ends)
    output, *final = results
    if batched and layer.batch_first:
        output = output.transpose(0, 1)
    return output, final[0] if len(final) == 1 else tuple(final)


def _stack(
    layer: Any, x: Any, starts: Sequence[Any], weights: list[Any], y: Any, ends: Sequence[Any]
) -> None:
    """Compute y and the states after the last step."""
    (h0, c0), (h_n, c_n) = (*starts, None, None)[:2], (*ends, None)[:2]
    D = 2 if layer.bidirectional else 1
    cells, kind, most = layer.num_layers * D, KINDS[layer.mode], threads()
    n = len(weights) // cells
    for first in range(0, cells, D):
        calls = []
        for k in range(first, first + D):
            start_h, start_c = None if h0 is None else h0[k], None if c0 is None else c0[k]
            own = unpacked(weights[k * n : k * n + n])
            call = ForwardCall(*kind, x, start_h, start_c, own, None, None, k > first, False)
            call.y, call.h_n = y if first + D == cells else None, h_n[k]
            call.c_n = None if c_n is None else c_n[k]
            calls.append(call)
        run_forward(calls, most)
        x = calls[0].y


# --------------------------------------------------------------------------------- with gradients


def _training(
    layer: Any, x: Tensor, states: Sequence[Tensor], weights: list[Tensor], given: list[Any]
) -> Any:
    """Run each stacked layer as a function of autograd."""
    rows, *others = given
    starts, others = others[: len(states)], others[len(states) :]
    batched = rows.ndim == 3
    if not batched:
        x, states = x[:, None], [state[:, None] for state in states]
        rows, starts = rows[:, None], [start[:, None] for start in starts]
    elif layer.batch_first:
        x, rows = x.transpose(0, 1), rows.swapaxes(0, 1)
    L, D = layer.num_layers, 2 if layer.bidirectional else 1
    directions, n = _DIRECTIONS[layer.mode, D == 2], len(weights) // L
    parts = [state.split(D) if L > 1 else (state,) for state in states]
    finals = []
    for k in range(L):
        if k and layer.dropout:
            x = dropout(x, layer.dropout, layer.training)
        if k:
            (rows,) = arrays_of((x,))
        own = slice(k * n, k * n + n)
        h0, c0 = (*[part[k] for part in parts], None, None)[:2]
        h, c = (*[start[k * D : k * D + D] for start in starts], None, None)[:2]
        known = rows, h, c, *others[own]
        x, *final = Recurrence.apply(directions, known, x, h0, c0, *weights[own])
        finals.append(final)
    final = finals[0] if L == 1 else [torch.cat(parts) for parts in zip(*finals, strict=True)]
    if not batched:
        x, final = x[:, 0], [state[:, 0] for state in final]
    elif layer.batch_first:
        x = x.transpose(0, 1)
    return x, final[0] if len(final) == 1 else tuple(final)
