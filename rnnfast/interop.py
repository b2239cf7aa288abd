"""Weights from and to Keras, as plain arrays; Keras itself is not needed.

A Keras layer is a layer with ``num_layers=1`` here. Its kernels are ours transposed, and the gates
of its GRU stand in the order z r h instead of r z n. Where Keras has one bias, it is ``bias_ih``
here, with zeros for ``bias_hh``; only the GRU with ``reset_after=True`` has both in Keras too.

What the weights do not show:

- Activations. Keras's defaults are assumed, tanh and sigmoid; SimpleRNN's other ones are a matter
  of `nonlinearity`. A GRU or an LSTM with others has no counterpart here, and its weights give
  other results: see to ``recurrent_activation`` above all, for TensorFlow 1 had ``hard_sigmoid``.
- ``go_backwards=True``: give the layer the reversed sequence.
- ``merge_mode`` of Bidirectional: the outputs here are side by side, as with "concat".
- Masks: `lengths` gives the same states and, like ``zero_output_for_mask=True``, zeros at the
  masked steps, where Keras otherwise repeats the output before them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, overload

import numpy as np

from ._core import checks
from ._parameters import Array
from .layers import GRU, LSTM, RNN

__all__ = ["from_keras", "to_keras"]

Layer = TypeVar("Layer", RNN, GRU, LSTM)

_KINDS: dict[str, Any] = {"simplernn": RNN, "rnn": RNN, "gru": GRU, "lstm": LSTM}


@overload
def from_keras(
    kind: type[Layer],
    weights: Sequence[Array],
    *,
    nonlinearity: str | None = ...,
    reset_after: bool | None = ...,
    bidirectional: bool | None = ...,
    batch_first: bool = ...,
) -> Layer: ...


@overload
def from_keras(
    kind: str,
    weights: Sequence[Array],
    *,
    nonlinearity: str | None = ...,
    reset_after: bool | None = ...,
    bidirectional: bool | None = ...,
    batch_first: bool = ...,
) -> Any: ...


def from_keras(
    kind: Any,
    weights: Sequence[Array],
    *,
    nonlinearity: str | None = None,
    reset_after: bool | None = None,
    bidirectional: bool | None = None,
    batch_first: bool = False,
) -> Any:
    """Make a layer of the weights of a Keras layer.

    Sizes, dtype, directions and whether there are biases follow from the arrays.

    Parameters
    ----------
    kind : {"SimpleRNN", "GRU", "LSTM"} or {RNN, GRU, LSTM}
        Keras's name, in any case, or the class of the result.
    weights : sequence of ndarray, all float32 or all float64
        What ``get_weights()`` of the Keras layer returns: kernel (I, G*H), recurrent kernel
        (H, G*H) and, if there is one, bias (G*H,), for a GRU with ``reset_after=True`` (2, G*H).
        Of a Bidirectional around it: those of the forward direction, then those of the other.
    nonlinearity : {"tanh", "relu", "sigmoid", "identity"}, optional
        Of SimpleRNN only: its ``activation``, tanh by default; "identity" is Keras's "linear".
    reset_after : bool, optional
        Of GRU only. The bias shows it; without a bias, Keras's default, True, is assumed.
    bidirectional : bool, optional
        Whether the weights are those of a Bidirectional. By default their number decides, and the
        weights of two equal stacked layers look like those of one Bidirectional: say False where
        that may be, and they are refused. Each Keras layer is to be loaded by itself.
    batch_first : bool
        Whether the layer is to take (B, T, I), as Keras does, instead of (T, B, I).

    Returns
    -------
    RNN, GRU or LSTM

    Raises
    ------
    TypeError
        If a weight is not an array, or the dtypes differ or are others.
    ValueError
        If `kind` is unknown, or an array has another shape than the others ask for. If an option
        does not belong to the kind or contradicts the weights.

    Examples
    --------
    >>> layer = from_keras("GRU", keras_layer.get_weights(), batch_first=True)
    >>> y, state = layer(x)  # y is keras_layer's output with return_sequences=True
    """
    cls = _class(kind)
    count, directions = _layout(weights, bidirectional)
    kernel = checks.floating("weights[0]", weights[0], "(I, G*H)", 2)
    recurrent = checks.floating("weights[1]", weights[1], "(H, G*H)", 2)
    I, H = len(kernel), len(recurrent)

    options: dict[str, Any] = {}
    if cls is GRU:
        options["reset_after"] = _reset_after(weights, count, H, reset_after)
    elif reset_after is not None:
        raise ValueError(f"reset_after is {reset_after}, but kind is {cls.__name__}")
    if cls is RNN:
        options["nonlinearity"] = "tanh" if nonlinearity is None else nonlinearity
    elif nonlinearity is not None:
        raise ValueError(f"nonlinearity is {nonlinearity!r}, but kind is {cls.__name__}")
    _check_weights(weights, count, cls._gates, I, H, two=options.get("reset_after", False))

    layer = cls(
        I,
        H,
        bias=count == 3,
        bidirectional=directions == 2,
        batch_first=batch_first,
        dtype=kernel.dtype,
        **options,
    )
    for cell, start in zip(layer._cells, range(0, len(weights), count), strict=True):
        values = _from_cell(cls, weights[start : start + count])
        for short, name in cell:
            layer.params[name][...] = values[short]
    return layer


def to_keras(layer: RNN | GRU | LSTM) -> list[Array]:
    """Return the weights for ``set_weights()`` of a Keras layer.

    Parameters
    ----------
    layer : RNN, GRU or LSTM
        With one stacked layer and no projection. Where it is bidirectional, the Keras layer is a
        Bidirectional; options that the weights do not show are the Keras layer's business.

    Returns
    -------
    list of ndarray
        As `from_keras` takes them: copies. Where Keras has one bias, it is ``bias_ih + bias_hh``.

    Raises
    ------
    TypeError
        If `layer` is not one of the three.
    ValueError
        If it has no counterpart in Keras.
    """
    if not isinstance(layer, RNN | GRU | LSTM):
        raise TypeError(f"layer has type {type(layer).__name__}, expected RNN, GRU or LSTM")
    for name, expected in ("num_layers", 1), ("proj_size", 0):
        if getattr(layer, name) != expected:
            raise ValueError(
                f"layer has {name}={getattr(layer, name)}, a Keras layer has {name}={expected}"
            )
    layer._check_named("params", layer.params)
    return [
        array
        for cell in layer._cells
        for array in _to_cell(layer, {short: layer.params[name] for short, name in cell})
    ]


# ---------------------------------------------------------------------- one cell, one direction


def _from_cell(cls: Any, weights: Sequence[Array]) -> dict[str, Array]:
    kernel, recurrent, *biases = (_swap_gates(cls, a) for a in weights)
    values = {"w_ih": kernel.T, "w_hh": recurrent.T}
    for bias in biases:
        b_ih, b_hh = bias if bias.ndim == 2 else (bias, np.zeros_like(bias))
        values |= {"b_ih": b_ih, "b_hh": b_hh}
    return values


def _to_cell(layer: RNN | GRU | LSTM, params: dict[str, Array]) -> list[Array]:
    arrays = [params["w_ih"].T, params["w_hh"].T]
    if layer.bias:
        both = np.stack([params["b_ih"], params["b_hh"]])
        arrays.append(both if getattr(layer, "reset_after", False) else both.sum(axis=0))
    return [_swap_gates(type(layer), a).copy() for a in arrays]


def _swap_gates(cls: Any, a: Array) -> Array:
    """Turn the gates z r h of a GRU, along the last axis, into r z n, or back."""
    if not issubclass(cls, GRU):
        return a
    z, r, n = np.split(a, 3, axis=-1)
    return np.concatenate([r, z, n], axis=-1)


# --------------------------------------------------------------------------------------- checks


def _class(kind: Any) -> Any:
    found = _KINDS.get(kind.lower()) if isinstance(kind, str) else kind
    if found not in _KINDS.values():
        raise ValueError(f"kind is {kind!r}, expected 'SimpleRNN', 'GRU', 'LSTM' or such a class")
    return found


_STACKED = "; load each of several layers by itself"
_LAYOUTS = {2: (2, 1), 3: (3, 1), 4: (2, 2), 6: (3, 2)}  # arrays: of each direction, directions


def _layout(weights: Sequence[Array], bidirectional: bool | None) -> tuple[int, int]:
    """Return how many arrays a direction has, and how many directions there are."""
    if not isinstance(weights, list | tuple):
        fix = "; weights.get_weights()" if hasattr(weights, "get_weights") else ""
        kind = type(weights).__name__
        raise TypeError(f"weights has type {kind}, expected a list of arrays{fix}")
    found = len(weights)
    wanted: dict[bool | None, str] = {
        None: "2 or 3 (without or with a bias) for each direction",
        False: "2 or 3 with bidirectional=False",
        True: "4 or 6 with bidirectional=True",
    }
    count, directions = _LAYOUTS.get(found, (0, 0))
    asked = None if bidirectional is None else bool(bidirectional)
    if not count or asked not in (None, directions == 2):
        more = _STACKED if found > 3 and not asked else ""
        raise ValueError(f"weights has {found} arrays, expected {wanted[asked]}{more}")
    return count, directions


def _reset_after(weights: Sequence[Array], count: int, H: int, given: bool | None) -> bool:
    """Return what the bias of a GRU shows, or else what was given."""
    if count == 2:
        return given is None or bool(given)
    shape = np.shape(weights[2])
    shown = {(2, 3 * H): True, (3 * H,): False}.get(shape)
    if shown is None or (given is not None and shown != bool(given)):
        shapes = {True: f"(2, 3*H) = {(2, 3 * H)}", False: f"(3*H,) = {(3 * H,)}"}
        expected = " or ".join(shapes[r] for r in (True, False) if given in (None, r))
        raise ValueError(f"weights[2] has shape {shape}, expected {expected}")
    return shown


def _check_weights(
    weights: Sequence[Array], count: int, G: int, I: int, H: int, *, two: bool
) -> None:
    """Raise unless all arrays, of both directions, have the shapes that the first two ask for."""
    dims = ["(I, G*H)", "(H, G*H)", "(2, G*H)" if two else "(G*H,)"]
    shapes = [(I, G * H), (H, G * H), (2, G * H) if two else (G * H,)]
    for i, value in enumerate(weights):
        k = i % count
        if i == count and np.shape(value) == shapes[1] != shapes[0]:
            raise ValueError(
                f"weights[{i}] has shape {value.shape}, expected {dims[0]} = {shapes[0]}{_STACKED}"
            )
        checks.exact(f"weights[{i}]", value, weights[0].dtype, shapes[k], dims[k], "weights[0]")
