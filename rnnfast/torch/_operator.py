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

from .. import _calls
from ._layer import KINDS, Maybe, Weights, array, of_direction, split, threads, unpacked


def operator(
    mode: str, lengths: Maybe, resets: Maybe, x: Tensor, h0: Maybe, c0: Maybe, weights: Weights
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
    ys, hs, cs, _ = _run(mode, directions, x, states, weights, lengths, resets, need_tape=False)
    final = [np.stack(parts) for parts in (hs, cs) if parts[0] is not None]
    return [torch.from_numpy(result) for result in (ys[0], *final)]


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
    *_, tapes = _run(mode, directions, x, states, weights, lengths, resets, need_tape=True)
    dy, dh_n, dc_n = map(array, (*upstream, None)[:3])
    calls = [
        (KINDS[mode][0], tape, dy, of_direction(d, dh_n, dc_n)) for d, tape in enumerate(tapes)
    ]
    dxs, dhs, dcs, dweights = zip(*_calls.backward_on(calls, threads()), strict=True)
    dstates = [np.stack(parts) for parts in (dhs, dcs) if parts[0] is not None]
    present = [dw for own in dweights for dw in own if dw is not None]
    return [torch.from_numpy(d) for d in (sum(dxs[1:], dxs[0]), *dstates, *present)]


def _run(
    mode: str,
    directions: int,
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    lengths: Maybe,
    resets: Maybe,
    need_tape: bool,
) -> Any:
    given, h0, c0 = array(x), *map(array, (*states, None, None)[:2])
    variable = array(lengths), array(resets)
    calls = []
    for d, own in enumerate(split(weights, directions)):
        state = of_direction(d, h0, c0)
        call = *KINDS[mode], given, state, tuple(map(array, unpacked(own))), *variable
        calls.append((*call, d == 1, need_tape))
    return zip(*_calls.forward_on(calls, threads()), strict=True)


def _forward_shapes(
    mode: str, directions: int, x: Tensor, states: Any, weights: Sequence[Tensor], *_: Any
) -> list[Tensor]:
    (T, B, _), (_, w_hh, _, _, w_hr) = x.shape, unpacked(weights[: len(weights) // directions])
    P = w_hh.shape[1]
    sizes = (P, P if w_hr is None else w_hr.shape[1])[: 1 + (mode == "LSTM")]
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
