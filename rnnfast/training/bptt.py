"""Backpropagation through time: its truncated form, and a look at the gradient on its way.

Truncated BPTT cuts a long sequence into windows. The state is carried from one window to the next,
the gradient is not: `backward` starts from zero at each window's end and its gradient of the
initial state is dropped. Nothing else is needed:

    state = None
    for x, target in windows(35, inputs, targets):
        y, state, tape = lstm.forward(x, state)         # carry the state
        loss, dy = mean_squared_error(y, target)
        optimizer.step(lstm.backward(tape, dy))         # no dstate: the gradient is cut

Source: Williams & Peng, An efficient gradient-based algorithm for on-line training of recurrent
network trajectories (1990); Werbos, Backpropagation through time (1990).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._core import checks
from ._array import Array


def streams(sequence: Array, batch: int) -> Array:
    """Cut one long sequence into `batch` consecutive pieces that run side by side.

    Parameters
    ----------
    sequence : ndarray (N, ...)
    batch : int
        `B`, `1 <= B <= N`.

    Returns
    -------
    pieces : ndarray (N // B, B, ...), C order
        `pieces[t, b] = sequence[b (N // B) + t]`; the last `N % B` entries are left out.
    """
    steps = len(sequence) // checks.integer("batch", batch, 1)
    if steps == 0:
        raise ValueError(f"batch is {batch}, expected 1 to {len(sequence)}, the sequence's length")
    pieces = sequence[: steps * batch].reshape(batch, steps, *sequence.shape[1:])
    return np.ascontiguousarray(np.swapaxes(pieces, 0, 1))


def windows(length: int, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Consecutive windows over the time axis of arrays of equal length, for truncated BPTT.

    Parameters
    ----------
    length : int
        Steps per window, >= 1; the last window is shorter if they do not divide.
    *arrays : ndarray (T, ...)

    Yields
    ------
    window : tuple of ndarray
        Views `array[t : t + length]`, one per array.
    """
    checks.integer("length", length, 1)
    if len({len(array) for array in arrays}) != 1:
        raise ValueError(f"arrays have {[len(a) for a in arrays]} steps, expected equal numbers")
    for start in range(0, len(arrays[0]), length):
        yield tuple(array[start : start + length] for array in arrays)


class GradientThroughTime(NamedTuple):
    """The gradient of the loss with respect to the state after each step.

    `h (T+1, L, B, P)` and, for an LSTM, `c (T+1, L, B, H)`; entry 0 belongs to the initial state.
    """

    h: Array
    c: Array | None

    @property
    def norm(self) -> Array:
        """`(T+1, L, B)`, float64: the Euclidean norm over the units of `h` and `c` together."""
        parts = [self.h] if self.c is None else [self.h, self.c]
        # A vanishing gradient has squares below the smallest number: so take it in float64, and
        # scale it by a power of two, which rounds nothing.
        largest = np.maximum.reduce([np.abs(part).max(axis=-1) for part in parts])
        power = np.frexp(largest.astype(np.float64))[1]
        scaled = (np.ldexp(part.astype(np.float64), -power[..., None]) for part in parts)
        norm: Array = np.ldexp(np.sqrt(sum(np.square(part).sum(axis=-1) for part in scaled)), power)
        return norm


def gradient_through_time(
    layer: Any, x: Array, dy: Array | None = None, dstate: Any = None, *, state: Any = None
) -> GradientThroughTime:
    """How the gradient of a loss travels back through a sequence: whether it vanishes or explodes.

    The layer runs step by step and then back, `d_t = (d state_{t+1} / d state_t)^T d_{t+1} + dy_t`.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        Unidirectional, `batch_first=False`, without dropout.
    x : ndarray (T, B, I)
    dy : ndarray (T, B, P), optional
        Gradient of the loss with respect to the outputs.
    dstate : optional
        Gradient with respect to the final state, in the layer's form of a state.
    state : optional
        Initial state.

    Returns
    -------
    gradient : GradientThroughTime
        Its `.norm` is what one plots: `plot_gradient_through_time`.

    Raises
    ------
    ValueError
        The layer is bidirectional, batch-first or has dropout or masks; or neither `dy` nor
        `dstate`.

    Notes
    -----
    Source: Bengio, Simard & Frasconi, Learning long-term dependencies with gradient descent is
    difficult (1994); Pascanu, Mikolov & Bengio (2013), section 2.
    """
    for option in ("bidirectional", "batch_first", "dropout"):
        if getattr(layer, option, False):
            raise ValueError(f"layer has {option}={getattr(layer, option)}, expected none")
    if hasattr(layer, "cell") and layer.cell.masks:
        raise ValueError(f"layer draws {', '.join(layer.cell.masks)}, expected no masks")
    if dy is None and dstate is None:
        raise ValueError("dy and dstate are both None, expected a gradient to send back")
    tapes = []
    for t in range(len(x)):
        _, state, tape = layer.forward(x[t : t + 1], state)
        tapes.append(tape)
    lstm = isinstance(state, tuple)
    if dstate is None:
        dstate = tuple(map(np.zeros_like, state)) if lstm else np.zeros_like(state)

    track = []
    for t in range(len(x), 0, -1):
        total = [a.copy() for a in (dstate if lstm else (dstate,))]
        if dy is not None:
            total[0][-1] += dy[t - 1]
        track.append(total)
        dy_t = None if dy is None else dy[t - 1 : t]
        dstate = layer.backward(tapes[t - 1], dy_t, dstate).state
    track.append(list(dstate) if lstm else [dstate])
    h, *c = (np.stack(part[::-1]) for part in zip(*track, strict=True))
    return GradientThroughTime(h, c[0] if c else None)
