"""Argument checks of the training kit: every message says what came and what was expected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]


def check_float(name: str, value: object, like: Array | None = None) -> Array:
    """`value` as it is, refused unless a float32 or float64 ndarray (of `like`'s dtype)."""
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name} is {type(value).__name__}, expected ndarray")
    wanted = (np.float32, np.float64) if like is None else (like.dtype,)
    if value.dtype not in wanted:
        raise TypeError(
            f"{name} has dtype {value.dtype}, expected "
            + " or ".join(str(np.dtype(dtype)) for dtype in wanted)
        )
    return value


def check_shape(name: str, value: Array, expected: tuple[int, ...], letters: str = "") -> None:
    """Refuse an array of another shape; `letters` names the expected one, as in "(T, B)"."""
    if value.shape != expected:
        named = f"{letters} = " if letters else ""
        raise ValueError(f"{name} has shape {value.shape}, expected {named}{expected}")


def check_last(name: str, value: Array, size: int, letter: str) -> None:
    """Refuse an array whose last axis does not have `size` entries."""
    if value.ndim == 0 or value.shape[-1] != size:
        raise ValueError(
            f"{name} has shape {value.shape}, expected (..., {letter}) = (..., {size})"
        )


def check_ids(name: str, ids: object, count: int) -> Array:
    """`ids` as an integer array, refused unless every entry is in `0 <= id < count`."""
    array = np.asarray(ids)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"{name} has dtype {array.dtype}, expected integers")
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ValueError(
            f"{name} has entries from {array.min()} to {array.max()}, expected 0 to {count - 1}"
        )
    return array


def check_positive(**values: float) -> None:
    """Refuse a number that is not finite and above zero."""
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}, expected a finite number > 0")


def check_fraction(**values: float) -> None:
    """Refuse a number outside `0 <= value < 1`."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}, expected 0 <= {name} < 1")


def check_same_names(what: str, got: Iterable[str], expected: Iterable[str]) -> None:
    """Refuse a collection of names that differs from the expected one."""
    missing, unknown = set(expected) - set(got), set(got) - set(expected)
    if missing or unknown:
        raise ValueError(f"{what}: missing {sorted(missing)}, unknown {sorted(unknown)}")


def check_like(what: str, arrays: Arrays, like: Arrays) -> None:
    """Refuse arrays that differ from `like` in name, dtype or shape."""
    check_same_names(what, arrays, like)
    for name, array in arrays.items():
        check_float(f"{what} {name!r}", array, like=like[name])
        check_shape(f"{what} {name!r}", array, like[name].shape)


def join(**parts: Arrays) -> dict[str, Array]:
    """One flat dict from the dicts of several layers, each name prefixed by its part's.

    The arrays are the same objects, so that a model of several layers has live parameters, and
    gradients under the same names:

    >>> model = join(lstm=lstm.params, out=linear.params)             # doctest: +SKIP
    >>> grads = join(lstm=lstm_grads.params, out=linear_grads.params) # doctest: +SKIP
    >>> sorted(model)                                                 # doctest: +SKIP
    ['lstm.bias_hh_l0', ..., 'out.bias', 'out.weight']
    """
    return {f"{part}.{name}": a for part, arrays in parts.items() for name, a in arrays.items()}
