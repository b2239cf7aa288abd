"""A layer's call without gradients: all stacked layers on arrays, with as little Python as can be.

One step of one sequence takes the kernels a microsecond or two, so what is here decides how fast a
decoder or an agent runs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .. import _kernels
from ._layer import KINDS, arrays, results_of, threads, unpacked


def inference(layer: Any, input: Any, states: Any, weights: list[Any]) -> Any:
    """Return (output, states), or None for what has to go another way.

    `input` is any object; `weights` are those of all cells in `torch.nn`'s order.
    """
    given = arrays((input, *states, *weights))
    if given is None or (torch.is_grad_enabled() and _needs_grad((input, *states, *weights))):
        return None
    x, n = given[0], 1 + len(states)
    L, D = layer.num_layers, 2 if layer.bidirectional else 1
    if layer.dropout and layer.training and L > 1:
        return None
    batched = x.ndim == 3
    if batched and layer.batch_first:
        x = x.swapaxes(0, 1)
    elif x.ndim == 2:
        x = x[:, None]
    starts = _starts(layer, x, given[1:n], L * D, batched)
    if starts is None or not x.size:
        return None
    T, B, _ = x.shape
    lead, batch = ((T, B), (B,)) if batched else ((T,), ())
    P, H = layer.proj_size or layer.hidden_size, layer.hidden_size
    sizes = (P, H) if layer.mode == "LSTM" else (P,)
    y = input.new_empty((*lead, D * P))
    final = [input.new_empty((L * D, *batch, size)) for size in sizes]
    y_array, *ends = results_of(y, *final)
    done = _stack(
        layer,
        np.ascontiguousarray(x),
        starts,
        given[n:],
        y_array.reshape(T, B, D * P),
        [end.reshape(L * D, B, -1) for end in ends],
    )
    if not done:
        return None
    if batched and layer.batch_first:
        y = y.transpose(0, 1)
    return y, tuple(final) if len(final) == 2 else final[0]


def _needs_grad(tensors: Any) -> bool:
    return any(tensor.requires_grad for tensor in tensors)


def _starts(layer: Any, x: Any, given: list[Any], cells: int, batched: bool) -> Any:
    """Return h0 and c0 as (L*D, B, .) or None; or None if they or x (T, B, I) do not fit."""
    if x.ndim != 3 or x.shape[2] != layer.input_size:
        return None
    if not given:
        return None, None
    sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size]
    if len(given) != (2 if layer.mode == "LSTM" else 1):
        return None
    found = []
    for state, size in zip(given, sizes, strict=False):
        if state is None:
            return None
        state = state if batched else state[:, None]
        if state.shape != (cells, x.shape[1], size):
            return None
        found.append(state)
    return (*found, None)[:2]


def _stack(layer: Any, x: Any, starts: Any, weights: list[Any], y: Any, ends: list[Any]) -> bool:
    """Compute y and the states after the last step. False if an array is not in C order."""
    (h0, c0), (h_n, c_n) = starts, (*ends, None)[:2]
    L, D, kind = layer.num_layers, 2 if layer.bidirectional else 1, KINDS[layer.mode]
    n, most = len(weights) // (L * D), threads()
    for k in range(0, L * D, D):
        calls, outs = [], []
        for cell in range(k, k + D):
            start = None if h0 is None else h0[cell], None if c0 is None else c0[cell]
            own = tuple(unpacked(weights[cell * n : (cell + 1) * n]))
            calls.append((*kind, x, start, own, None, None, cell > k, False))
            end = None if c_n is None else c_n[cell]
            outs.append((y if k == L * D - D else None, h_n[cell], end))
        results = _kernels.run_forward(calls, most, outs)
        if results is None:
            return False
        x = results[0][0]
    return True
