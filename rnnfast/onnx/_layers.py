"""Layers of ONNX nodes that fix more than parameters: a direction, initial states, lengths."""

from __future__ import annotations

from typing import Any

from .._core import checks
from .._generic import Recurrent
from .._parameters import Array
from .._recurrent import GivenState, RecurrentLayer, Tape
from ..cells._cell import Cell
from ..cells._graph import Graph
from ..layers import GRU, LSTM, RNN


class NodeLayer(RecurrentLayer):
    """What a node fixes besides its parameters.

    Attributes
    ----------
    reverse : bool
        Whether the layer runs from the last valid step of each row to step 0, and only so.
    initial_state : ndarray (L*D, B, H), for the LSTM a pair, or None
        Where calls start that are given no state.
    lengths : ndarray of int, (B,), or None
        The lengths for calls that are given none.
    """

    initial_state: GivenState = None
    lengths: Array | None = None

    @property
    def reverse(self) -> bool:
        return self._reverse

    def _run_forward(
        self,
        x: Array,
        state: GivenState,
        lengths: Array | None,
        resets: Array | None,
        threads: int | None,
        *,
        training: bool,
        extra: Any = None,
    ) -> tuple[Array, list[Any], Tape]:
        batch = self._check_input(x, None)
        state = self._own_state(batch) if state is None else state
        lengths = self._own_lengths(x, batch) if lengths is None else lengths
        return super()._run_forward(
            x, state, lengths, resets, threads, training=training, extra=extra
        )

    def _own_state(self, batch: tuple[int, ...]) -> GivenState:
        """Return `initial_state` for a batch axis of this size, or none."""
        state: Any = self.initial_state
        if state is not None and not batch:
            pair = isinstance(state, tuple)
            state = tuple(map(_first_row, state)) if pair else _first_row(state)
        try:
            self._check_state("initial_state", state, batch)
        except ValueError as error:
            own = "it is the loaded node's own, pass a state to start elsewhere"
            raise ValueError(f"{error}: {own}") from None
        return state  # type: ignore[no-any-return]

    def _own_lengths(self, x: Array, batch: tuple[int, ...]) -> Array | None:
        """Return `lengths` if they fit x."""
        if self.lengths is None:
            return None
        if not batch:
            raise ValueError(
                f"lengths is the loaded node's own, but x with shape {x.shape} has no batch axis"
            )
        try:
            return checks.lengths(self.lengths, x.shape[1 if self.batch_first else 0], *batch)
        except ValueError as error:
            own = "they are the loaded node's own, pass lengths to replace them"
            raise ValueError(f"{error}: {own}") from None

    def stream(
        self, batch_size: int = 1, state: GivenState = None, threads: int | None = None
    ) -> Any:
        """Return a stream, as other layers do, that starts from `initial_state`.

        Raises
        ------
        ValueError
            The layer is `reverse` or has `lengths`, or `initial_state` is of another size.
        """
        if self.reverse:
            raise ValueError("layer runs in reverse, which needs the end of the sequence")
        if self.lengths is not None:
            raise ValueError("layer has lengths of its own, a stream has no end")
        if state is None:
            state = self._own_state((checks.integer("batch_size", batch_size, 0),))
        return super().stream(batch_size, state, threads)  # type: ignore[misc]


def _first_row(part: Array | None) -> Array | None:
    """Return a state without its batch axis if that is of one row."""
    return part[:, 0] if part is not None and part.ndim == 3 and part.shape[1] == 1 else part


class NodeRNN(NodeLayer, RNN):
    __doc__ = NodeLayer.__doc__


class NodeGRU(NodeLayer, GRU):
    __doc__ = NodeLayer.__doc__


class NodeLSTM(NodeLayer, LSTM):
    __doc__ = NodeLayer.__doc__


class NodeRecurrent(NodeLayer, Recurrent):
    """A node that no built-in layer computes, with what it fixes besides its parameters.

    Attributes
    ----------
    reverse, initial_state, lengths
        As those of `NodeRNN`.
    reverse_cell : Cell or None
        The cell of the second direction, if it has other activations than the first.
    """

    reverse_cell: Cell | None = None

    def _graph(self, k: int) -> Graph:
        graph = super()._graph(k)
        if self.reverse_cell is None or k % self._directions == 0:
            return graph
        return self.reverse_cell.graph(graph.x.size, self.hidden_size, self.sizes, self.bias)
