"""Layers of ONNX nodes that fix more than parameters: a direction, initial states, lengths."""

from __future__ import annotations

from .._parameters import Array
from .._recurrent import GivenState, Recurrent, State, Tape
from ..layers import GRU, LSTM, RNN
from ..stream import Stream


class NodeLayer(Recurrent[State]):
    """What a node fixes besides its parameters.

    Attributes
    ----------
    reverse : bool
        Whether the layer runs from the last valid step of each row to step 0, and only so.
    initial_state : ndarray (D, B, H), for the LSTM a pair, or None
        Where calls start that are given no state.
    lengths : ndarray of int, (B,), or None
        The lengths for calls that are given none.
    """

    initial_state: GivenState = None
    lengths: Array | None = None

    @property
    def reverse(self) -> bool:
        return self._reverse

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
        state = self.initial_state if state is None else state
        lengths = self.lengths if lengths is None else lengths
        return super()._run(x, state, lengths, resets, threads, training=training)

    def stream(
        self, batch_size: int = 1, state: GivenState = None, threads: int | None = None
    ) -> Stream:
        """Return a `Stream`, as other layers do, that starts from `initial_state`.

        Raises
        ------
        ValueError
            The layer is `reverse` or has `lengths`.
        """
        if self.reverse:
            raise ValueError("layer runs in reverse, which needs the end of the sequence")
        if self.lengths is not None:
            raise ValueError("layer has lengths of its own, a stream has no end")
        return super().stream(batch_size, self.initial_state if state is None else state, threads)


class NodeRNN(NodeLayer[Array], RNN):
    __doc__ = NodeLayer.__doc__


class NodeGRU(NodeLayer[Array], GRU):
    __doc__ = NodeLayer.__doc__


class NodeLSTM(NodeLayer[tuple[Array, Array]], LSTM):
    __doc__ = NodeLayer.__doc__
