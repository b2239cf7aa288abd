"""A stacked layer as an operator of PyTorch, for the graphs of `torch.compile`.

The input is (T, B, I). The states are none, or h0, or h0 and c0; the weights, those of one
direction or of both, are in one list. An operator returns nothing but tensors, so there is no tape:
backward runs forward again.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._core.passes import BackwardCall, ForwardCall, Weights, run_backward, run_forward
from ._layer import (
    KINDS,
    CellWeights,
    Maybe,
    array,
    of_direction,
    split,
    state_sizes,
    threads,
    unpacked,
)


def operator(
    mode: str, lengths: Maybe, resets: Maybe, x: Tensor, h0: Maybe, c0: Maybe, weights: CellWeights
) -> Sequence[Tensor]:
    """Return y, h_n and an LSTM's c_n. In a graph it stays as it is."""
    states = [state for state in (h0, c0) if state is not None]
    flat = list(chain(*weights))
    results: Sequence[Tensor] = _forward(mode, len(weights), x, states, flat, lengths, resets)
    return results


def _kernel_forward(
    mode: str,
    directions: int,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Maybe,
    resets: Maybe,
) -> list[Tensor]:
    calls = _run(mode, directions, x, states, weights, lengths, resets, need_tape=False)
    final = _stacked([call.h_n for call in calls], [call.c_n for call in calls])
    return [torch.from_numpy(result) for result in (calls[0].y, *final)]


def _stacked(*parts: Sequence[Any]) -> list[Any]:
    """Stack the states of all directions, those parts that the cell has."""
    return [np.stack(part) for part in parts if part[0] is not None]


def _kernel_backward(
    mode: str,
    directions: int,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Maybe,
    resets: Maybe,
    upstream: Sequence[Tensor],
) -> list[Tensor]:
    """Return the gradients of x, of all states a cell can have, and of the weights."""
    tapes = [
        call.tape for call in _run(mode, directions, x, states, weights, lengths, resets, True)
    ]
    dy, dh_n, dc_n = map(array, (*upstream, None)[:3])
    calls = [
        BackwardCall(KINDS[mode][0], tape, dy, *of_direction(d, dh_n, dc_n))
        for d, tape in enumerate(tapes)
    ]
    run_backward(calls, threads())
    dx = sum((call.dx for call in calls[1:]), calls[0].dx)
    dstates = _stacked([call.dh0 for call in calls], [call.dc0 for call in calls])
    present = [dw for call in calls for dw in call.dweights if dw is not None]
    return [torch.from_numpy(d) for d in (dx, *dstates, *present)]


def _run(
    mode: str,
    directions: int,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Maybe,
    resets: Maybe,
    need_tape: bool,
) -> list[ForwardCall]:
    given, h0, c0 = array(x), *map(array, (*states, None, None)[:2])
    variable = array(lengths), array(resets)
    calls = []
    for d, own in enumerate(split(weights, directions)):
        arrays_of_cell = Weights(*map(array, unpacked(own)))
        state = of_direction(d, h0, c0)
        calls.append(
            ForwardCall(*KINDS[mode], given, *state, arrays_of_cell, *variable, d == 1, need_tape)
        )
    run_forward(calls, threads())
    return calls


def _forward_shapes(
    mode: str, directions: int, x: Tensor, states: Any, weights: Sequence[Tensor], *_: Any
) -> list[Tensor]:
    T, B, _ = x.shape
    P, H = state_sizes(weights[: len(weights) // directions])
    sizes = (P, H)[: 1 + (mode == "LSTM")]
    y = x.new_empty(T, B, directions * P)
    return [y, *(x.new_empty(directions, B, size) for size in sizes)]


def _backward_shapes(
    mode: str, directions: int, x: Tensor, states: Any, weights: Sequence[Tensor], *rest: Any
) -> list[Tensor]:
    *_, (_, *dfinal) = rest
    return [x.new_empty(tensor.shape) for tensor in (x, *dfinal, *weights)]


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.mode, ctx.directions, x, states, weights, lengths, resets = inputs
    ctx.save_for_backward(x, lengths, resets, *states, *weights)
    ctx.states = len(states)


def _differentiate(ctx: Any, upstream: Sequence[Tensor]) -> tuple[Any, ...]:
    x, lengths, resets, *rest = ctx.saved_tensors
    states, weights = rest[: ctx.states], rest[ctx.states :]
    given = ctx.mode, ctx.directions, x, states, weights, lengths, resets
    grads = _backward(*given, list(upstream))
    return None, None, grads[0], grads[1 : 1 + len(states)], grads[len(upstream) :], None, None


_forward = torch.library.custom_op("rnnfast::layer", _kernel_forward, mutates_args=())
_forward.register_fake(_forward_shapes)
_forward.register_autograd(_differentiate, setup_context=_save)
_backward = torch.library.custom_op("rnnfast::layer_backward", _kernel_backward, mutates_args=())
_backward.register_fake(_backward_shapes)
