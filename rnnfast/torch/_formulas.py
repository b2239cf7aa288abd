"""One stacked layer in PyTorch's own operations: slower, but everything works on them.

PyTorch's recurrent layers themselves have no rule for `torch.vmap`, and its LSTM none for
forward-mode differentiation. The equations are those of `rnnfast.reference`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from .._core.rows import ragged_of
from ._layer import CellWeights, Direction, Maybe, unpacked


def composite(
    directions: Sequence[Direction], x: Tensor, h0: Maybe, c0: Maybe, weights: CellWeights
) -> Sequence[Tensor]:
    """Return y, h_n and an LSTM's c_n."""
    results = []
    for d, (direction, own) in enumerate(zip(directions, weights, strict=True)):
        starts = [None if state is None else state[d] for state in (h0, c0)]
        results.append(_one_direction(direction, x, starts, own))
    ys, *states = zip(*results, strict=True)
    return [torch.cat(ys, -1), *map(torch.stack, states)]


def _one_direction(
    direction: Direction, x: Tensor, starts: Sequence[Maybe], weights: Sequence[Tensor]
) -> list[Tensor]:
    """Return y (T, B, P) and the final states (B, .)."""
    w_ih, w_hh, b_ih, b_hh, w_hr = unpacked(weights)
    P, H = w_hh.shape[1], w_hh.shape[1] if w_hr is None else w_hr.shape[1]
    ragged, resets = direction.ragged, direction.resets
    if ragged is None:
        T, B = x.shape[:2]
        ragged = ragged_of(np.full(B, T), T, direction.reverse)
        resets = None if resets is None else resets[ragged.rows]
    order = torch.from_numpy(ragged.order).to(x.device)
    at = None if ragged.rows is None else torch.from_numpy(ragged.rows).to(x.device)
    zero = None if resets is None else torch.from_numpy(resets != 0).to(x.device)[:, None]

    state = [
        x.new_zeros(len(order), size) if start is None else start[order]
        for start, size in zip(starts, (P, H), strict=True)
    ][: 1 + (direction.mode == "LSTM")]
    flat = x.reshape(-1, x.shape[-1])
    a = linear(flat if at is None else flat[at], w_ih, b_ih)
    ys = []
    for first, n in zip(ragged.offset.tolist(), ragged.active.tolist(), strict=True):
        before = [part[:n] for part in state]
        if zero is not None:
            before = [torch.where(zero[first : first + n], 0, part) for part in before]
        after = _step(direction.mode, a[first : first + n], before, w_hh, b_hh, w_hr)
        state = [torch.cat((new, part[n:])) for new, part in zip(after, state, strict=True)]
        ys.append(after[0])

    y = torch.cat(ys) if ys else x.new_zeros(0, P)
    if at is not None:
        y = y.new_zeros(flat.shape[0], P).index_copy(0, at, y)
    return [y.reshape(*x.shape[:-1], P), *(part[torch.argsort(order)] for part in state)]


def _step(
    mode: str, a: Tensor, state: list[Tensor], w_hh: Tensor, b_hh: Maybe, w_hr: Maybe
) -> list[Tensor]:
    """Return the state after a step, from a = w_ih x + b_ih and the state before."""
    h, b = state[0], linear(state[0], w_hh, b_hh)
    if mode == "LSTM":
        i, f, g, o = (a + b).chunk(4, -1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        return [h if w_hr is None else linear(h, w_hr), c]
    if mode == "GRU":
        (ar, az, an), (br, bz, bn) = a.chunk(3, -1), b.chunk(3, -1)
        z = (az + bz).sigmoid()
        n = (an + (ar + br).sigmoid() * bn).tanh()
        return [(1 - z) * n + z * h]
    return [(a + b).tanh() if mode == "RNN_TANH" else (a + b).relu()]
