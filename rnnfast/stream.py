"""Streaming: a step or a chunk at a time, with packed weights and the state carried inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import checks
from ._core.passes import Weights
from ._core.streaming import LayerState, Steps
from ._core.threads import resolve
from ._described import Described

__all__ = ["Stream"]

Array = NDArray[Any]


class Stream(Steps, Described):
    """A unidirectional layer's weights, packed once, and a state that steps and chunks carry on.

    Made by `layer.stream`. The weights are a snapshot: later changes of the layer's parameters do
    not reach it. There is no dropout. Cutting a sequence into steps and chunks does not change a
    bit of the result. One stream serves one thread at a time. It can be copied and pickled: the
    copy has the same weights and goes on from the same state.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
    batch_size : int
        B.
    state : ndarray or pair of ndarray, optional
        Where to start, as in the layer's `forward`; None means zeros.
    threads : int, optional
        From 1 to 256; None: see `rnnfast.set_num_threads`, now.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit, or the layer is bidirectional.
    """

    _layer: Any  # with parameters of its own, as they were when the stream was made
    _batch_size: int
    _given_threads: int | None

    def __new__(
        cls, layer: Any, batch_size: int = 1, state: Any = None, threads: int | None = None
    ) -> Stream:
        if layer.bidirectional:
            raise ValueError(
                "layer is bidirectional, and its reverse direction starts from a sequence's end: "
                "call it on whole sequences, or make a layer with bidirectional=False"
            )
        B = checks.integer("batch_size", batch_size, 0)
        cell, act = layer._kind()
        layers = [
            LayerState(cell, act, _contiguous(weights), B, np.zeros)
            for weights in layer._check_params()
        ]
        layer = layer._snapshot()
        self = super().__new__(
            cls, layers, B, resolve(threads), layer.dtype, rows_first=layer.batch_first
        )
        self._layer, self._batch_size = layer, B
        self._given_threads = threads
        self.state = state
        return self

    def _option(self, name: str) -> Any:
        options = {"batch_size": self._batch_size, "threads": self._given_threads}
        return options.get(name, self._layer)

    def __reduce__(self) -> Any:
        return type(self), (self._layer, self._batch_size, self.state, self._given_threads)

    @property
    def state(self) -> Any:
        """The state, (L, B, P), for the LSTM a pair (h, c) with c (L, B, H): a copy.

        It can be set, to None for zeros.
        """
        h = np.stack([self._h(layer) for layer in self.layers])
        if self.layers[0].c is None:
            return h
        return h, np.stack([layer.c[:, : layer.H] for layer in self.layers])

    @state.setter
    def state(self, state: Any) -> None:
        parts = self._layer._check_state("state", state, (self._batch_size,))
        for part, layer in zip(parts, self.layers, strict=True):
            self._h(layer)[:] = 0 if part[0] is None else part[0]
            if layer.c is not None:
                layer.c[:, : layer.H] = 0 if part[1] is None else part[1]

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
        for layer in self.layers:
            self._h(layer)[rows] = 0
            if layer.c is not None:
                layer.c[rows] = 0

    def _h(self, layer: LayerState) -> Array:
        return layer.h[self.turn, :, : layer.P]


def _contiguous(weights: Weights) -> Weights:
    return Weights(*(None if w is None else np.require(w, None, ["C", "A"]) for w in weights))
