"""Streaming: a step or a chunk at a time, with packed weights and the state carried inside."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import _check, _kernels
from ._threads import resolve

__all__ = ["Stream"]

Array = NDArray[Any]


class Stream(_kernels.Steps):
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
    _layers: list[dict[str, Any]]
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
        B = _check.integer("batch_size", batch_size, 0)
        layers = [_pack(layer, weights, B) for weights in layer._check_params()]
        layer = layer._snapshot()
        self = super().__new__(
            cls, layers, B, resolve(threads), layer.dtype, rows_first=layer.batch_first
        )
        self._layer, self._layers, self._batch_size = layer, layers, B
        self._given_threads = threads
        self.state = state
        return self

    def __reduce__(self) -> Any:
        return type(self), (self._layer, self._batch_size, self.state, self._given_threads)

    @property
    def state(self) -> Any:
        """The state, (L, B, P), for the LSTM a pair (h, c) with c (L, B, H): a copy.

        It can be set, to None for zeros.
        """
        h = np.stack([self._h(layer) for layer in self._layers])
        if self._layers[0]["c"] is None:
            return h
        return h, np.stack([layer["c"][:, : layer["H"]] for layer in self._layers])

    @state.setter
    def state(self, state: Any) -> None:
        parts = self._layer._check_state("state", state, (self._batch_size,))
        for (h, c), layer in zip(parts, self._layers, strict=True):
            self._h(layer)[:] = 0 if h is None else h
            if layer["c"] is not None:
                layer["c"][:, : layer["H"]] = 0 if c is None else c

    def reset(self, mask: NDArray[np.bool_] | None = None) -> None:
        """Set the state to zero: of all rows, or of those where `mask`, bool (B,), is true.

        Raises
        ------
        TypeError, ValueError
            `mask` is not a bool array of that shape.
        """
        rows: Any = slice(None)
        if mask is not None:
            rows = _check.mask("mask", mask, "(B,)", (self._batch_size,))
        for layer in self._layers:
            self._h(layer)[rows] = 0
            if layer["c"] is not None:
                layer["c"][rows] = 0

    def _h(self, layer: dict[str, Any]) -> Array:
        return layer["h"][self.turn, :, : layer["P"]]  # type: ignore[no-any-return]

    # What `step` and `run` call when an argument is not the plain array of the right shape that
    # they expect: these return a usable copy or raise.

    def accept_x(self, x: Any) -> Array:
        I = self._layer.input_size
        one = self._batch_size == 1 and getattr(x, "ndim", 2) == 1
        shape = (I,) if one else (self._batch_size, I)
        return _check.array("x", x, self.dtype, "(I,)" if one else "(B, I)", shape)

    def accept_chunk(self, x: Any) -> Array:
        """Return a chunk as (T, B, I), also that of a `batch_first` layer, or (T, I)."""
        B, I = self._batch_size, self._layer.input_size
        ndim, rows_first = getattr(x, "ndim", 0), self.rows_first
        if ndim == 2 and B == 1:
            return _check.array("x", x, self.dtype, "(T, I)", (len(x), I))
        T = x.shape[int(rows_first and ndim == 3)] if ndim in (2, 3) else -1
        dims, shape = ("(B, T, I)", (B, T, I)) if rows_first else ("(T, B, I)", (T, B, I))
        x = _check.array("x", x, self.dtype, dims, shape)
        return np.ascontiguousarray(x.swapaxes(0, 1)) if rows_first else x

    def accept_out(self, out: Any, ndim: int) -> None:
        P = self._layers[-1]["P"]
        shape = (P,) if ndim == 1 else (self._batch_size, P)
        _check.array("out", out, self.dtype, "(P,)" if ndim == 1 else "(B, P)", shape)
        raise ValueError("out is not a C-contiguous, writeable numpy.ndarray")


def _pack(layer: Any, weights: tuple[Any, ...], B: int) -> dict[str, Any]:
    """Pack the weights of one stacked layer and allocate its arrays."""
    dtype, (cell, act) = layer.dtype, layer._kind()
    H, P = layer.hidden_size, layer._sizes[0]
    arrays = (None if w is None else np.require(w, None, ["C", "A"]) for w in weights)
    packed, lanes = _kernels.pack(cell, act, *arrays)
    Hp, Pp = -(-H // lanes) * lanes, -(-P // lanes) * lanes

    def zeros(*shape: int, wanted: bool = True) -> Array | None:
        return np.zeros(shape, dtype) if wanted else None

    return {
        "weights": packed, "H": H, "P": P,
        "h": zeros(2, B, Pp), "y": zeros(B, P), "c": zeros(B, Hp, wanted=cell == _kernels.LSTM),
        "work": zeros(B, Hp, wanted=P != H),
        "gates": zeros(B, 4 * Hp, wanted=cell == _kernels.GRU_RESET_BEFORE),
    }  # fmt: skip
