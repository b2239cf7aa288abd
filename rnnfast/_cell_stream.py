"""Streaming of cells of the user's own: a step or a chunk at a time, with the state inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _cell_calls
from ._core import cell_passes, checks
from ._core.threads import resolve
from ._described import Described

Array = NDArray[Any]
Extra = Mapping[str, Array] | None


class CellStream(Described):
    """A unidirectional layer's weights, packed once, and a state that steps and chunks carry on.

    Made by `layer.stream`. The weights are a snapshot: later changes of the layer's parameters do
    not reach it. There is no dropout, and masks are their means. Cutting a sequence into steps and
    chunks does not change a bit of the result. One stream serves one thread at a time. It can be
    copied and pickled if the cell can.

    Parameters
    ----------
    layer : Recurrent
    batch_size : int
        B.
    state : ndarray or tuple of ndarray, optional
        Where to start, as in the layer's `forward`; None means zeros.
    threads : int, optional
        From 1 to 256; None: see `rnnfast.set_num_threads`, now.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit, or the layer is bidirectional.
    """

    def __init__(
        self, layer: Any, batch_size: int = 1, state: Any = None, threads: int | None = None
    ) -> None:
        if layer.bidirectional:
            raise ValueError(
                "layer is bidirectional, and its reverse direction starts from a sequence's end: "
                "call it on whole sequences, or make a layer with bidirectional=False"
            )
        self._batch_size = checks.integer("batch_size", batch_size, 0)
        self._given_threads, self._threads = threads, resolve(threads)
        self._layer = layer._snapshot()
        self.dtype = layer.dtype
        cells = [
            cell_passes.StreamCell(
                _cell_calls.plan_of(graph, layer.dtype, False),
                params,
                self._batch_size,
                layer.dtype,
            )
            for graph, params in zip(layer._graphs, layer._check_params(), strict=True)
        ]
        self._layers = cell_passes.StreamCells(
            cells, self._batch_size, layer.dtype, self._threads
        )
        self.state = state

    def _option(self, name: str) -> Any:
        options = {"batch_size": self._batch_size, "threads": self._given_threads}
        return options.get(name, self._layer)

    def __reduce__(self) -> Any:
        return type(self), (self._layer, self._batch_size, self.state, self._given_threads)

    @property
    def state(self) -> Any:
        """The state, (L, B, size), or a tuple of them: a copy. It can be set, to None for zeros."""
        parts = zip(*(cell.states for cell in self._layers.cells), strict=True)
        states = tuple(np.stack(part) for part in parts)
        return states[0] if len(states) == 1 else states

    @state.setter
    def state(self, state: Any) -> None:
        parts = self._layer._check_state("state", state, (self._batch_size,))
        for given, cell in zip(parts, self._layers.cells, strict=True):
            for own, value in zip(cell.states, given, strict=True):
                own[...] = 0 if value is None else value

    def reset(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Set the state to zero: of all rows, or of those where `mask`, bool (B,), is true.

        Raises
        ------
        TypeError, ValueError
            `mask` is not a bool array of that shape.
        """
        rows: Any = slice(None)
        if mask is not None:
            rows = checks.mask("mask", mask, "(B,)", (self._batch_size,))
        for cell in self._layers.cells:
            for own in cell.states:
                own[rows] = 0

    def step(self, x: Array, out: Array | None = None, *, extra: Extra = None) -> Array:
        """Take one time step and return its output.

        Parameters
        ----------
        x : ndarray, shape (B, I), or (I,) if the batch size is 1
        out : ndarray, shape (B, size), or (size,) with x (I,), optional
            Where to put the output: C-contiguous, writeable, apart from x.
        extra : dict of str to array, optional
            The cell's extra inputs of this step, (B, n) or (n,).

        Returns
        -------
        ndarray
            `out`, or a new array of its shape.

        Raises
        ------
        TypeError
            An array has another dtype, or is none.
        ValueError
            A shape or a name does not fit, or `out` cannot be written to.
        """
        return self._layers.step(x, out, self._inputs(1, extra))

    def run(self, x: Array, *, extra: Extra = None) -> Array:
        """Take a chunk of steps, going on from the state and carrying it further.

        Parameters
        ----------
        x : ndarray, shape (T, B, I), or (B, T, I) if the layer is `batch_first`, or (T, I) if the
            batch size is 1
        extra : dict of str to array, optional
            The cell's extra inputs of these steps, as in the layer's `forward`.

        Returns
        -------
        ndarray
            The outputs, with the axes of x. A transposed view if `batch_first`.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit.
        """
        B, I, P = self._batch_size, self._layer.input_size, self._layer._graphs[-1].output.size
        rows_first = self._layer.batch_first
        given = checks.chunk_input(x, self.dtype, B, I, rows_first)
        T = given.shape[0]
        y = np.empty((T, B, P), self.dtype)
        if rows_first and given.ndim == 3 and extra is not None:
            extra = {n: e.swapaxes(0, 1) if e.ndim == 3 else e for n, e in extra.items()}
        self._layers.run(given, y, T, self._inputs(T, extra))
        if given.ndim == 2:
            return y[:, 0]
        return y.swapaxes(0, 1) if rows_first else y

    def _inputs(self, T: int, extra: Extra) -> list[tuple[Array, int, int]]:
        """The extra inputs, with the means of masks that are not given."""
        own, graph, B = self._layer.cell, self._layer._graphs[0], self._batch_size
        if not own.extra and extra is None:
            return []
        inputs = _cell_calls.inputs_of_layer(own, graph, extra, self.dtype, T, B)
        inputs = _cell_calls.with_masks(own, graph, inputs, self.dtype, T, B, None)
        return [(e.rows, e.by_step, e.by_row) for e in inputs.values()]
