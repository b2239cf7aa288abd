"""The passes of a layer: stacked cells, directions, dropout between layers, batch axes.

Letters and cells as in `rnnfast._parameters`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

from ._core import arrays, checks
from ._core.passes import (
    NO_COPY_OF_A_TAPE,
    BackwardCall,
    ForwardCall,
    Weights,
    by_name,
    run_backward,
    run_forward,
)
from ._core.threads import resolve
from ._parameters import Array, Parameters
from .stream import Stream

GivenState = Array | Sequence[Array | None] | None
CellState = tuple[Array | None, Array | None]  # h and c of one cell, (B, .); None: zeros
State = TypeVar("State")  # what a layer returns as its state: an array, for the LSTM a pair


class Gradients(NamedTuple, Generic[State]):
    """What `backward` returns: gradients shaped as the input, the state and the parameters."""

    input: Array
    state: State
    params: dict[str, Array]


@dataclass(slots=True, eq=False)
class Tape:
    """What `forward` leaves for one `backward`."""

    layer: Recurrent[Any]
    batch: tuple[int, ...]  # (B,), or () if the input was unbatched
    y_shape: tuple[int, ...]
    cells: list[Any]  # of each cell the tape of its forward; emptied by backward
    masks: list[Array | None]  # of each stacked layer the dropout mask on its input

    def __reduce__(self) -> Any:
        raise TypeError(NO_COPY_OF_A_TAPE)


class Recurrent(Parameters, Generic[State]):
    """The passes, the same for every cell. A subclass names its cell."""

    _reverse = False  # whether the first direction is the one from the end

    def _kind(self) -> tuple[int, int]:
        """Return the kernels' numbers for the cell and its nonlinearity."""
        raise NotImplementedError

    def __call__(
        self,
        x: Array,
        state: GivenState = None,
        *,
        lengths: Array | None = None,
        resets: Array | None = None,
        threads: int | None = None,
    ) -> tuple[Array, State]:
        """Return ``(y, state)``, without dropout. Arguments, results and errors as in `forward`."""
        return self._run(x, state, lengths, resets, threads, training=False)[:2]

    def forward(
        self,
        x: Array,
        state: GivenState = None,
        *,
        lengths: Array | None = None,
        resets: Array | None = None,
        threads: int | None = None,
    ) -> tuple[Array, State, Tape]:
        """Run the layer for training, with dropout.

        Parameters
        ----------
        x : ndarray, (T, B, I), or (B, T, I) if `batch_first`, or (T, I)
            The input, in the layer's dtype. Must not be modified before `backward`. Where it has no
            batch axis, neither have the results.
        state : ndarray, (L*D, B, P), or (L*D, P) for x (T, I); for the LSTM a pair
            The states before the first step, zeros by default. The LSTM takes ``(h, c)`` with `c`
            (L*D, B, H); either may be None.
        lengths : ndarray of int, (B,), optional
            Row ``b`` has ``lengths[b]`` steps, from 0 to T; the rest is padding, where ``y`` is 0.
            The returned state is the one after the last valid step. Not with x (T, I).
        resets : ndarray of bool, with the axes of `x` but the last, optional
            Where true, the row's state is set to zero before that step, in both directions.
        threads : int, optional
            Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

        Returns
        -------
        y : ndarray, (T, B, D*P), or (B, T, D*P) if `batch_first`, or (T, D*P)
            The last layer's outputs, forward direction first. A transposed view if `batch_first`.
        state : ndarray or pair of ndarray, shaped as the argument
            The states after the last step (of the reverse direction: after step 0).
        tape : object
            For one call of `backward`.

        Raises
        ------
        TypeError
            If an argument is not an array, or has another dtype.
        ValueError
            If a shape or a value does not fit.
        """
        return self._run(x, state, lengths, resets, threads, training=True)

    def _run(
        self,
        x: Array,
        state: GivenState,
        lengths: Array | None,
        resets: Array | None,
        threads: int | None,
        *,
        training: bool,
    ) -> tuple[Array, State, Tape]:
        weights = self._check_params()
        batch = self._check_input(x, lengths)
        states = self._check_state("state", state, batch)
        if resets is not None:
            resets = checks.mask("resets", resets, "x.shape[:-1]", x.shape[:-1])
            resets = self._time_major(resets, batch)
        x = self._time_major(x, batch)
        cell, act = self._kind()
        done: list[ForwardCall] = []  # of each cell
        masks: list[Array | None] = []
        for layer, cells in enumerate(self._stack):
            mask = self._dropout_mask(x.shape) if training and layer else None
            if mask is not None:
                x = x * mask
            masks.append(mask)
            calls: list[ForwardCall] = []
            for direction, k in cells:
                reverse = (direction == 1) != self._reverse
                h0, c0 = states[k]
                call = ForwardCall(
                    cell, act, x, h0, c0, weights[k], lengths, resets, reverse, training
                )
                calls.append(call)
            run_forward(calls, resolve(threads))
            done += calls
            x = calls[-1].y
        y = self._as_given(x, batch)
        tapes = [call.tape for call in done]
        tape: Any = Tape(self, batch, y.shape, tapes, masks) if training else None
        final: Any = self._join([call.h_n for call in done], [call.c_n for call in done], batch)
        return y, final, tape

    def backward(
        self,
        tape: Tape,
        dy: Array | None = None,
        dstate: GivenState = None,
        *,
        accumulate: dict[str, Array] | None = None,
        threads: int | None = None,
    ) -> Gradients[State]:
        """Backpropagate through the `forward` that returned `tape`.

        Parameters
        ----------
        tape : object
            From this layer's `forward`. It can be used once.
        dy : ndarray, shaped as ``y``, optional
            Gradient of ``y``; zeros by default.
        dstate : ndarray, or for the LSTM a pair, shaped as the returned state, optional
            Gradient of the returned state, zeros by default; in a pair either may be None.
        accumulate : dict of str to ndarray, optional
            Arrays with the names, shapes and dtype of the parameters, to which the parameters'
            gradients are added; it is returned as `params`.
        threads : int, optional
            Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

        Returns
        -------
        Gradients
            Named tuple: `input`, shaped as ``x``; `state`, shaped as the state, also where that was
            None; `params`, a dict with the names of the layer's parameters.

        Raises
        ------
        TypeError
            If `tape` is not a tape, or another argument not an array of the layer's dtype.
        ValueError
            If a shape or a name does not fit, or the tape belongs to another layer.
        RuntimeError
            If the tape has been used.
        """
        dout, dstates = self._check_upstream(tape, dy, dstate)
        if accumulate is not None:
            self._check_named("accumulate", accumulate, writeable=True)
        cell, _ = self._kind()
        done: list[BackwardCall] = []  # of each cell
        for layer in range(self.num_layers - 1, -1, -1):
            calls: list[BackwardCall] = []
            for _, k in self._stack[layer]:
                dh_n, dc_n = dstates[k]
                calls.append(BackwardCall(cell, tape.cells[k], dout, dh_n, dc_n))
            run_backward(calls, resolve(threads))
            done = calls + done
            dout = calls[0].dx
            if len(calls) == 2:
                dout += calls[1].dx
            if tape.masks[layer] is not None:
                dout *= tape.masks[layer]
        params: Any = by_name(self._names, done)
        tape.cells, tape.masks = [], []
        if accumulate is not None:
            for name, gradient in params.items():
                np.add(accumulate[name], gradient, out=accumulate[name])
            params = accumulate
        dstate_0 = self._join([call.dh0 for call in done], [call.dc0 for call in done], tape.batch)
        return Gradients(self._as_given(dout, tape.batch), dstate_0, params)

    def stream(
        self, batch_size: int = 1, state: GivenState = None, threads: int | None = None
    ) -> Stream:
        """Return a `Stream`: a snapshot of the weights that takes steps and carries the state."""
        return Stream(self, batch_size, state, threads)

    # ------------------------------------------------------------------------------------ steps

    def _dropout_mask(self, shape: tuple[int, ...]) -> Array | None:
        """Inverted dropout: 0 with probability p, else 1 / (1 - p)."""
        if not self.dropout:
            return None
        mask = self.rng.random(shape, dtype=self.dtype.type)
        np.greater_equal(mask, self.dropout, out=mask)
        mask *= 1 / (1 - self.dropout)
        return mask

    def _time_major(self, a: Array, batch: tuple[int, ...]) -> Array:
        """Return the user's (T, B, ...), (B, T, ...) or (T, ...) as (T, B, ...) in C order, so that
        no direction needs a copy of its own."""
        if not batch:
            return a[:, None]
        return np.ascontiguousarray(a.swapaxes(0, 1)) if self.batch_first else a

    def _as_given(self, a: Array, batch: tuple[int, ...]) -> Array:
        """Undo `_time_major`."""
        if not batch:
            return a[:, 0]
        return a.swapaxes(0, 1) if self.batch_first else a

    def _join(self, h: Sequence[Any], c: Sequence[Any], batch: tuple[int, ...]) -> Any:
        """Turn each cell's h and c, (B, .), into what the user sees."""
        if len(h) == 1:  # views; unbatched, (1, .) is (L*D, .)
            first_h, first_c = h[0], c[0]
            if batch:
                first_h, first_c = first_h[None], first_c if first_c is None else first_c[None]
            return first_h if first_c is None else (first_h, first_c)
        joined = _stack(h, batch)
        return joined if len(self._sizes) == 1 else (joined, _stack(c, batch))

    # ----------------------------------------------------------------------------------- checks

    def _check_params(self) -> list[Weights]:
        """Return each cell's weights, checked unless they are the very arrays of last time."""
        params = self.params
        if not arrays.same(params, self._checked):
            self._check_named("params", params)
            self._checked = {name: params[name] for name in self._shapes}
            self._weights = [Weights(*map(params.get, names)) for names in self._names]
        return self._weights

    def _check_input(self, x: Array, lengths: Array | None) -> tuple[int, ...]:
        """Return (B,), or () for unbatched input."""
        if type(x) is not np.ndarray or x.dtype is not self.dtype:
            checks.of_dtype("x", x, self.dtype)
        shape = x.shape
        if len(shape) == 3 and shape[2] == self.input_size:
            return (shape[0 if self.batch_first else 1],)
        if len(shape) != 2 or shape[1] != self.input_size:
            batched = "(B, T, I)" if self.batch_first else "(T, B, I)"
            raise ValueError(
                f"x has shape {shape}, expected {batched} or (T, I) with I = {self.input_size}"
            )
        if lengths is not None:
            raise ValueError(f"lengths is given, but x with shape {shape} has no batch axis")
        return ()

    def _check_state(
        self, name: str, state: GivenState, batch: tuple[int, ...]
    ) -> Sequence[CellState]:
        """Return each cell's part of a state or its gradient."""
        if state is None:
            return [(None, None)] * len(self._cells)
        count = len(self._sizes)
        given: Any = (state,) if count == 1 else state
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"{name} has type {type(state).__name__}, expected a pair (h, c)")
        if len(given) != count:
            raise ValueError(f"{name} has length {len(state)}, expected a pair (h, c)")
        parts: list[Any] = [(None,) * len(self._cells)] * 2
        for i, part in enumerate(given):
            if part is None:
                continue
            label = name if count == 1 else f"{name}[{i}]"
            dims = f"(L*D, {'B, ' if batch else ''}{self._state_letters[i]})"
            checks.exact(label, part, self.dtype, (len(self._cells), *batch, self._sizes[i]), dims)
            parts[i] = part if batch else part[:, None]
        return list(zip(*parts, strict=True))

    def _check_upstream(
        self, tape: Tape, dy: Array | None, dstate: GivenState
    ) -> tuple[Any, Sequence[CellState]]:
        """Return dy (T, B, D*P) and each cell's part of dstate."""
        if not isinstance(tape, Tape):
            raise TypeError(f"tape has type {type(tape).__name__}, expected what forward returned")
        if tape.layer is not self:
            raise ValueError(f"tape is from another layer, {tape.layer}, expected one from {self}")
        if not tape.cells:
            raise RuntimeError("tape has been used: it serves one backward")
        if dy is not None:
            checks.exact("dy", dy, self.dtype, tape.y_shape, "y.shape")
            dy = self._time_major(dy, tape.batch)
        return dy, self._check_state("dstate", dstate, tape.batch)


def _stack(parts: Sequence[Array], batch: tuple[int, ...]) -> Array:
    """Stack the (B, .) of all cells; unbatched, (1, .) as (.)."""
    states = np.array(parts)
    return states if batch else states[:, 0]
