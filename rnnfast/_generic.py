"""`Recurrent`: layers of a cell that the user describes by its equations.

Letters and cells as in `rnnfast._parameters`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from . import _cell_calls
from ._cell_calls import CellGrads, CellTape, ExtraInput
from ._cell_stream import CellStream
from ._core import cell_plans, checks
from ._parameters import Array, Seed
from ._recurrent import CellState, GivenState, RecurrentLayer, Tape, stacked
from .cells._cell import Cell
from .cells._graph import Graph

Extra = Mapping[str, Array] | None


class CellGradients(NamedTuple):
    """What `backward` returns: gradients shaped as the arguments.

    `extra` has those of the extra inputs of floating-point numbers, but for masks.
    """

    input: Array
    state: Any
    params: dict[str, Array]
    extra: dict[str, Array]


class _ForwardCall(NamedTuple):
    y: Array  # of all directions
    states: list[Array]
    tape: CellTape | None


class _BackwardCall(NamedTuple):
    dx: Array
    grads: CellGrads


class Recurrent(RecurrentLayer):
    """Stacked layers of a cell of your own, with all that the built-in layers have.

    Parameters
    ----------
    cell : Cell
        Made by `rnnfast.cells.cell`, or one of the library in `rnnfast.cells`.
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L: each layer but the first reads the outputs of the one before, of all directions.
    sizes : dict of str to int or "x", optional
        The sizes of states and extra inputs that differ from H. They go before those of the cell.
    bias : bool
        Whether linears that ask for a bias have one.
    batch_first : bool
        Whether x is (B, T, I), and extra inputs of three axes (B, T, n), instead of (T, B, ...).
    dropout : float
        The probability that `forward` drops an output of a layer on its way to the next one.
    bidirectional : bool
        Whether a second cell runs from the end, its outputs behind those of the first.
    dtype : dtype
        float32 or float64.
    rng : int or numpy.random.Generator, optional
        Draws the initial parameters, uniformly from ``+-1 / sqrt(hidden_size)``, dropout and masks.
        Vectors begin as the cell says.

    Attributes
    ----------
    params : dict of str to ndarray
        ``{linear}.weight_{source}_l0``, ``{linear}.bias_l0`` and ``{vector}_l0``, those of the
        reverse direction with ``_l0_reverse``, further layers with ``_l1`` and so on. They may be
        changed in place.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit.
    TraceError
        The cell cannot have these sizes (`rnnfast.cells.TraceError`).

    Examples
    --------
    >>> layer = rnnfast.Recurrent(rnnfast.cells.mgu, input_size=8, hidden_size=32, rng=0)
    >>> x = np.zeros((100, 16, 8), np.float32)
    >>> y, state, tape = layer.forward(x)
    >>> grads = layer.backward(tape, np.ones_like(y))
    """

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        sizes: Mapping[str, int | str] | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = np.float32,
        rng: Seed = None,
    ) -> None:
        if not isinstance(cell, Cell):
            kind = type(cell).__name__
            raise TypeError(f"cell has type {kind}, expected what rnnfast.cells.cell makes")
        self.cell, self.sizes = cell, dict(sizes or {})
        self._state_names = cell.states
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias=bias,
            batch_first=batch_first,
            dropout=dropout,
            bidirectional=bidirectional,
            dtype=dtype,
            rng=rng,
        )

    # ------------------------------------------------------------------------------ parameters

    def _name_parameters(self) -> None:
        self._graphs = self._trace()
        for layer, graph in enumerate(self._graphs):
            for suffix in (f"_l{layer}", f"_l{layer}_reverse")[: self._directions]:
                names = {name: name + suffix for name in graph.shapes()}
                self._cells.append(tuple(names.items()))
                self._shapes |= {names[n]: shape for n, shape in graph.shapes().items()}

    def _trace(self) -> list[Graph]:
        """The graph of each stacked layer."""
        graphs: list[Graph] = []
        inputs = self.input_size
        for _ in range(self.num_layers):
            graphs.append(self.cell.graph(inputs, self.hidden_size, self.sizes, self.bias))
            inputs = self._directions * graphs[-1].output.size
        for graph in graphs[1:]:
            for name, size in self._sizes_of(graph).items():
                if size != (first := self._sizes_of(graphs[0])[name]):
                    raise ValueError(
                        f"num_layers is {self.num_layers}, expected 1: {name} has the size of x, "
                        f"which is {first} in the first layer and {size} in the next"
                    )
        return graphs

    @staticmethod
    def _sizes_of(graph: Graph) -> dict[str, int]:
        return {name: leaf.size for name, leaf in (graph.states | graph.extra).items()}

    def _state_sizes(self) -> tuple[int, ...]:
        first = self.cell.graph(self.input_size, self.hidden_size, self.sizes, self.bias)
        return tuple(state.size for state in first.states.values())

    def _initial_values(self) -> dict[str, Array]:
        values = super()._initial_values()
        for k, names in enumerate(self._cells):
            graph = self._graphs[k // self._directions]
            for own, name in names:
                if own in graph.vectors:
                    init = graph.vectors[own].init
                    size = graph.vectors[own].size
                    values[name][...] = init(self.rng, size) if callable(init) else init
        return values

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_graphs"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._graphs = self._trace()

    def __repr__(self) -> str:
        text = super().__repr__()
        sizes = f", sizes={self.sizes}" if self.sizes else ""
        return text.replace("(", f"({self.cell.name}, ", 1)[:-1] + sizes + ")"

    def _check_params(self) -> list[dict[str, Array]]:
        """Return the parameters of each cell by their names in the graph."""
        given = _cell_calls.plain_params(self.params, self._shapes, self.dtype)
        return [{own: given[name] for own, name in names} for names in self._cells]

    def _graph(self, k: int) -> Graph:
        """The graph of a cell, by its number."""
        return self._graphs[k // self._directions]

    # ---------------------------------------------------------------------------------- passes

    def __call__(
        self,
        x: Array,
        state: GivenState = None,
        *,
        extra: Extra = None,
        lengths: Array | None = None,
        resets: Array | None = None,
        threads: int | None = None,
    ) -> tuple[Array, Any]:
        """Return ``(y, state)``, without dropout, and with the means of masks.

        Arguments, results and errors are those of `forward`.
        """
        inputs = self._check_extra(x, lengths, extra)
        y, calls, _ = self._run_forward(
            x, state, lengths, resets, threads, training=False, extra=inputs
        )
        return y, self._final_state([call.states for call in calls], x.ndim == 3)

    def forward(
        self,
        x: Array,
        state: GivenState = None,
        *,
        extra: Extra = None,
        lengths: Array | None = None,
        resets: Array | None = None,
        threads: int | None = None,
    ) -> tuple[Array, Any, Tape]:
        """Run the layer for training, with dropout and drawn masks.

        Parameters
        ----------
        x : ndarray, (T, B, I), or (B, T, I) if `batch_first`, or (T, I)
            The input, in the layer's dtype. Must not be modified before `backward`. Where it has no
            batch axis, neither have the results.
        state : ndarray, (L*D, B, size), or (L*D, size) for x (T, I); a tuple if there are several
            The states before the first step, zeros by default. In a tuple each may be None.
        extra : dict of str to array, optional
            The cell's extra inputs, which all layers and directions see: (T, B, n), (T, 1, n),
            (B, n) or (n,), where n is the size of the input or 1. For x (T, I) B is 1. A mask is
            drawn if it is not given.
        lengths, resets, threads
            As in the built-in layers.

        Returns
        -------
        y : ndarray, (T, B, D*size), or (B, T, D*size) if `batch_first`, or (T, D*size)
            The last layer's outputs, forward direction first.
        state : ndarray or tuple of ndarray, shaped as the argument
            The states after the last step (of the reverse direction: after step 0).
        tape : object
            For one call of `backward`.

        Raises
        ------
        TypeError
            If an argument is not an array, or has another dtype.
        ValueError
            If a shape, a name or a value does not fit.
        """
        inputs = self._check_extra(x, lengths, extra)
        y, calls, tape = self._run_forward(
            x, state, lengths, resets, threads, training=True, extra=inputs
        )
        return y, self._final_state([call.states for call in calls], x.ndim == 3), tape

    def backward(
        self,
        tape: Tape,
        dy: Array | None = None,
        dstate: GivenState = None,
        *,
        accumulate: dict[str, Array] | None = None,
        threads: int | None = None,
    ) -> CellGradients:
        """Backpropagate through the `forward` that returned `tape`.

        Parameters
        ----------
        tape : object
            From this layer's `forward`. It can be used once.
        dy : ndarray, shaped as ``y``, optional
            Gradient of ``y``; zeros by default.
        dstate : ndarray or tuple of ndarray, shaped as the returned state, optional
            Gradient of the returned state, zeros by default.
        accumulate : dict of str to ndarray, optional
            Arrays with the names, shapes and dtype of the parameters, to which the parameters'
            gradients are added; it is returned as `params`.
        threads : int, optional
            Number of threads, from 1 to 256; by default `rnnfast.get_num_threads`.

        Returns
        -------
        CellGradients
            Named tuple: `input`, `state`, `params` and `extra`.

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
        params = {
            name: call.grads.params[own]
            for names, call in zip(self._cells, calls, strict=True)
            for own, name in names
        }
        state = self._final_state([call.grads.state for call in calls], bool(tape.batch))
        extra = {
            name: sum(call.grads.extra[name] for call in calls) for name in calls[0].grads.extra
        }
        if self.batch_first and tape.batch:
            extra = {n: e.swapaxes(0, 1) if e.ndim == 3 else e for n, e in extra.items()}
        return CellGradients(dx, state, self._accumulated(params, accumulate), extra)

    def stream(
        self, batch_size: int = 1, state: GivenState = None, threads: int | None = None
    ) -> CellStream:
        """Return a stream: a snapshot of the weights that takes steps and carries the state."""
        return CellStream(self, batch_size, state, threads)

    # ----------------------------------------------------------------------------------- cells

    def _check_extra(self, x: Any, lengths: Any, extra: Extra) -> dict[str, ExtraInput]:
        """Check the extra inputs; x says how many steps and rows there are."""
        batch = self._check_input(x, lengths)
        T = x.shape[1 if self.batch_first and batch else 0]
        if extra is not None and self.batch_first and batch:
            extra = {
                name: value.swapaxes(0, 1) if getattr(value, "ndim", 0) == 3 else value
                for name, value in extra.items()
            }
        B = batch[0] if batch else 1
        return _cell_calls.inputs_of_layer(self.cell, self._graphs[0], extra, self.dtype, T, B)

    def _random(self, shape: tuple[int, ...]) -> Array:
        return self.rng.random(shape, dtype=self.dtype.type)

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
        weights = self._check_params()
        T, B = x.shape[:2]
        lengths = None if lengths is None else checks.lengths(lengths, T, B)
        resets = None if resets is None else np.ascontiguousarray(resets)
        size = self._graph(cells[0][1]).output.size
        y = cell_plans.empty((T, B, len(cells) * size), self.dtype)
        x = np.ascontiguousarray(x)
        calls = []
        for i, (direction, k) in enumerate(cells):
            graph = self._graph(k)
            start = [None if s is None else np.ascontiguousarray(s) for s in states[k]]
            inputs = _cell_calls.with_masks(
                self.cell, graph, extra, self.dtype, T, B, self._random if training else None
            )
            _, final, tape = _cell_calls.run_forward(
                self.cell, graph, x, start, weights[k], inputs, lengths, resets,
                (direction == 1) != self._reverse, training, threads, y, i * size,
            )  # fmt: skip
            calls.append(_ForwardCall(y, final, tape))
        return calls

    def _backward_calls(
        self,
        cells: list[tuple[int, int]],
        tapes: list[Any],
        dy: Array | None,
        dstates: Sequence[CellState],
        threads: int,
    ) -> list[Any]:
        if dy is not None:
            dy = np.ascontiguousarray(dy)
        calls = []
        for i, (_, k) in enumerate(cells):
            end = [None if s is None else np.ascontiguousarray(s) for s in dstates[k]]
            column = i * tapes[k].graph.output.size
            grads = _cell_calls.run_backward(tapes[k], dy, column, end, threads)
            calls.append(_BackwardCall(grads.x, grads))
        return calls

    def _final_state(self, parts: Sequence[Sequence[Array]], batched: bool) -> Any:
        """Turn the states of all cells, (B, size) each, into what the user sees."""
        states = tuple(stacked(part, batched) for part in zip(*parts, strict=True))
        return states[0] if len(states) == 1 else states
