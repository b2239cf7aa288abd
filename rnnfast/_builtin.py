"""The passes of the built-in cells: RNN, GRU and LSTM, which have kernels of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

from ._core import arrays
from ._core.passes import BackwardCall, ForwardCall, Weights, run_backward, run_forward
from ._parameters import Array, Parameters
from ._recurrent import CellState, GivenState, RecurrentLayer, Tape, stacked
from .stream import Stream

State = TypeVar("State")  # what a layer returns as its state: an array, for the LSTM a pair


class Gradients(NamedTuple, Generic[State]):
    """What `backward` returns: gradients shaped as the input, the state and the parameters."""

    input: Array
    state: State
    params: dict[str, Array]


class KernelCell(Parameters):
    """Parameters of cells that have a kernel of their own. A subclass names the cell."""

    def _kind(self) -> tuple[int, int]:
        """Return the kernels' numbers for the cell and its nonlinearity."""
        raise NotImplementedError

    def _check_params(self) -> list[Weights]:
        """Return each cell's weights, checked unless they are the very arrays of last time."""
        params = self.params
        if not arrays.same(params, self._checked):
            self._check_named("params", params)
            self._checked = {name: params[name] for name in self._shapes}
            self._weights = [Weights(*map(params.get, names)) for names in self._names]
        return self._weights


class BuiltIn(RecurrentLayer, KernelCell, Generic[State]):
    """A layer of cells that have a kernel of their own."""

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
        y, calls, _ = self._run_forward(x, state, lengths, resets, threads, training=False)
        return y, self._join(
            [call.h_n for call in calls], [call.c_n for call in calls], x.ndim == 3
        )

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
        y, calls, tape = self._run_forward(x, state, lengths, resets, threads, training=True)
        return (
            y,
            self._join([call.h_n for call in calls], [call.c_n for call in calls], x.ndim == 3),
            tape,
        )

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
        if accumulate is not None:
            self._check_named("accumulate", accumulate, writeable=True)
        dx, calls = self._run_backward(tape, dy, dstate, threads)
        grads = arrays.by_name(self._names, [call.dweights for call in calls])
        params = self._accumulated(grads, accumulate)
        h0, c0 = [call.dh0 for call in calls], [call.dc0 for call in calls]
        state = self._join(h0, c0, bool(tape.batch))
        return Gradients(dx, state, params)

    def stream(
        self, batch_size: int = 1, state: GivenState = None, threads: int | None = None
    ) -> Stream:
        """Return a `Stream`: a snapshot of the weights that takes steps and carries the state."""
        return Stream(self, batch_size, state, threads)

    # ------------------------------------------------------------------------------------ cells

    def _forward_calls(
        self,
        cells: list[tuple[int, int]],
        x: Array,
        states: Sequence[CellState],
        lengths: Array | None,
        resets: Array | None,
        extra: Any,
        training: bool,
        threads: int,
    ) -> list[Any]:
        weights, (cell, act) = self._check_params(), self._kind()
        calls: list[ForwardCall] = []
        for direction, k in cells:
            h0, c0 = (*states[k], None)[:2]
            reverse = (direction == 1) != self._reverse
            call = ForwardCall(cell, act, x, h0, c0, weights[k], lengths, resets, reverse, training)
            calls.append(call)
        run_forward(calls, threads)
        return calls

    def _backward_calls(
        self,
        cells: list[tuple[int, int]],
        tapes: list[Any],
        dy: Array | None,
        dstates: Sequence[CellState],
        threads: int,
    ) -> list[Any]:
        cell, _ = self._kind()
        calls: list[BackwardCall] = []
        for _, k in cells:
            dh_n, dc_n = (*dstates[k], None)[:2]
            calls.append(BackwardCall(cell, tapes[k], dy, dh_n, dc_n))
        run_backward(calls, threads)
        return calls

    def _join(self, h: Sequence[Any], c: Sequence[Any], batched: bool) -> Any:
        """Turn each cell's h and c, (B, .), into what the user sees."""
        state = stacked(h, batched)
        return state if len(self._sizes) == 1 else (state, stacked(c, batched))
