"""Central differences, the independent witness of every gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .._core import checks
from .._sequential import Sequential
from ._array import Array, Named, check_positive, named
from ._ties import summed, ties
from .dropout import Dropout


def numerical_gradient(loss: Callable[[], float], array: Array, *, eps: float = 1e-6) -> Array:
    """`(loss(a + eps) - loss(a - eps)) / (2 eps)` for every entry of an array.

    Parameters
    ----------
    loss : callable
        Takes nothing, reads `array` and returns a number.
    array : ndarray, float64
        Changed entry by entry during the call and restored, whatever happens.
    eps : float
        The displacement. The error of the quotient is about `eps^2 |loss'''| / 6` from the
        formula and `1e-16 |loss| / eps` from rounding.

    Returns
    -------
    gradient : ndarray, the shape of `array`

    Raises
    ------
    TypeError
        `array` is not a float64 ndarray: in float32 rounding drowns the difference.
    """
    check_positive(eps=eps)
    if checks.plain("array", array, np.dtype(np.float64)).dtype != np.float64:
        raise TypeError(
            f"array has dtype {array.dtype}, expected float64: float32 is too coarse to differ by; "
            "make the layer with dtype=np.float64"
        )
    gradient = np.zeros_like(array)
    for index in np.ndindex(array.shape):
        value = array[index]
        try:
            array[index] = value + eps
            above = loss()
            array[index] = value - eps
            below = loss()
        finally:
            array[index] = value
        gradient[index] = (above - below) / (2 * eps)
    return gradient


def gradcheck(
    loss: Callable[[], float], arrays: Named, grads: Named, *, eps: float = 1e-6
) -> dict[str, float]:
    """How far given gradients are from central differences.

    Parameters
    ----------
    loss : callable
        Takes nothing, reads `arrays` and returns a number.
    arrays : dict of ndarray, float64, or object with one as `params`
        The live arrays to differentiate by; restored.
    grads : dict of ndarray, or object with one as `params`
        The gradients to check, under the same names. Where one array has several names, it is the
        sum of its gradients that is checked.
    eps : float
        See `numerical_gradient`.

    Returns
    -------
    errors : dict
        For each name `max |given - numerical| / max(1, max |numerical|)`. A correct gradient of a
        well-scaled loss stays below about 1e-7; a wrong one is usually near 1.

    Examples
    --------
    >>> w = np.array([0.3, -0.7])
    >>> gradcheck(lambda: float(np.sum(w**2)), {"w": w}, {"w": 2 * w})["w"] < 1e-8
    True
    """
    arrays, grads = named("arrays", arrays), named("grads", grads)
    checks.names("grads", grads, arrays)
    for name, array in arrays.items():
        grad = checks.plain(f"grads[{name!r}]", grads[name])
        checks.of_shape(f"grads[{name!r}]", grad, array.shape)
    errors = {}
    tied = ties(arrays)
    for name, grad in summed(grads, tied).items():
        array = arrays[name]
        numerical = numerical_gradient(loss, array, eps=eps)
        scale = max(1.0, float(np.abs(numerical).max(initial=0.0)))
        errors[name] = float(np.abs(grad - numerical).max(initial=0.0)) / scale
    return errors | {name: errors[first] for name, first in tied.items()}


def gradcheck_layer(
    layer: Any,
    x: Array,
    *,
    state: Any = None,
    options: Mapping[str, Any] | None = None,
    rng: int | np.random.Generator | None = 0,
    eps: float = 1e-6,
) -> dict[str, float]:
    """`gradcheck` of a whole layer: its parameters, its input and its initial state.

    The loss is the sum of output and final state, each times fixed random numbers, so that every
    upstream gradient takes part.

    Parameters
    ----------
    layer : RNN, GRU, LSTM, Linear, Embedding, Sequential or alike
        In float64 and without dropout (which would draw another mask at every call). Masks that a
        cell declares are given in the options.
    x : ndarray
        Input: float64, or ids for an `Embedding`.
    state : optional
        Initial state of a recurrent layer: an array, or a pair of them.
    options : dict, optional
        Further arguments of `layer.forward`, such as `lengths`.
    rng : int or numpy.random.Generator, optional
        For the random numbers.
    eps : float
        See `numerical_gradient`.

    Returns
    -------
    errors : dict
        As of `gradcheck`, under the names of the parameters, `input`, and `state` (`state.0` and
        `state.1` for a pair).

    Raises
    ------
    ValueError
        The layer has dropout, or would draw a mask.
    """
    given = dict(options or {}) | ({} if state is None else {"state": state})
    _check_nothing_drawn("layer", layer, given.get("extra") or {})
    rng = np.random.default_rng(rng)
    upstream = [rng.standard_normal(a.shape) for a in _flat(layer.forward(x, **given)[:-1])]

    def loss() -> float:
        outputs = _flat(layer.forward(x, **given)[:-1])
        return float(sum(np.vdot(d, a) for d, a in zip(upstream, outputs, strict=True)))

    *outputs, tape = layer.forward(x, **given)
    d_state = upstream[1:]
    further = () if len(outputs) == 1 else (d_state[0] if len(d_state) == 1 else tuple(d_state),)
    result = layer.backward(tape, upstream[0], *further)

    arrays, grads = dict(layer.params), dict(result.params)
    if result.input is not None:
        arrays["input"], grads["input"] = x, result.input
    states = zip(_flat([state]), _flat([getattr(result, "state", None)]), strict=False)
    for number, (array, grad) in enumerate(states):
        name = f"state.{number}" if isinstance(state, tuple) else "state"
        arrays[name], grads[name] = array, grad
    return gradcheck(loss, arrays, grads, eps=eps)


def _check_nothing_drawn(name: str, layer: Any, extra: Mapping[str, Any]) -> None:
    """Refuse dropout and masks that are not given, also in the layers of a `Sequential`."""
    if isinstance(layer, Sequential):
        for i, part in enumerate(layer):
            _check_nothing_drawn(f"{name}[{i}]", part, extra)
        return
    option = "p" if isinstance(layer, Dropout) else "dropout"
    if p := getattr(layer, option, 0.0):
        raise ValueError(f"{name}.{option} is {p}, expected 0 for a gradient check")
    masks = layer.cell.masks if hasattr(layer, "cell") else {}
    if drawn := sorted(masks.keys() - extra.keys()):
        raise ValueError(f"options['extra'] has no {', '.join(drawn)}, which the layer would draw")


def _flat(values: Any) -> list[Array]:
    """The arrays in a nest of tuples and lists, `None` left out."""
    if isinstance(values, (tuple, list)):
        return [array for value in values for array in _flat(value)]
    return [] if values is None else [values]
