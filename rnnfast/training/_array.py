"""Arguments of the training kit: named arrays, and the checks that `rnnfast._core.checks` lacks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .._core import checks

Array: TypeAlias = NDArray[Any]
Arrays: TypeAlias = Mapping[str, Array]


class HasParams(Protocol):
    """A layer, a model of several, or the gradients that one returns."""

    @property
    def params(self) -> Arrays:
        """Named arrays."""


Named: TypeAlias = Arrays | HasParams


def named(what: str, given: Named) -> Arrays:
    """Return a mapping of arrays as it is, and of any other object its `params`."""
    if type(given) is dict:
        return given
    arrays = given if isinstance(given, Mapping) else getattr(given, "params", None)
    if not isinstance(arrays, Mapping):
        raise TypeError(
            f"{what} has type {type(given).__name__}, expected a dict of arrays, or a layer or "
            "gradients, which have one as params"
        )
    return arrays


def check_last(name: str, value: Array, size: int, letter: str) -> None:
    """Refuse an array whose last axis does not have `size` entries."""
    if value.ndim == 0 or value.shape[-1] != size:
        raise ValueError(
            f"{name} has shape {value.shape}, expected (..., {letter}) = (..., {size})"
        )


def check_vectors(name: str, value: Array) -> None:
    """Refuse what is no array of floating-point vectors, with at least one entry each."""
    checks.of_floats(name, value)
    if value.ndim == 0 or value.shape[-1] == 0:
        raise ValueError(f"{name} has shape {value.shape}, expected (..., C) with C >= 1")


def check_ids(name: str, ids: object, count: int) -> Array:
    """`ids` as an integer array, refused unless every entry is in `0 <= id < count`."""
    array = checks.readable(name, ids)
    checks.integers(name, array, ids)
    if array.size and (array.min() < 0 or array.max() >= count):
        raise ValueError(
            f"{name} has entries from {array.min()} to {array.max()}, expected 0 to {count - 1}"
        )
    return array


def check_lengths(name: str, lengths: object, most: int, batch: int) -> Array:
    """`lengths` as an integer array (B,) with `0 <= length <= most`; None means `most` for all."""
    if lengths is None:
        return np.full(batch, most)
    array = check_ids(name, lengths, most + 1)
    checks.of_shape(name, array, (batch,), "(B,)")
    return array


def check_positive(**values: float) -> None:
    """Refuse a number that is not finite and above zero."""
    for name, value in values.items():
        if not (math.isfinite(checks.real(name, value)) and value > 0):
            raise ValueError(f"{name} is {value}, expected a finite number > 0")


def check_fraction(**values: float) -> None:
    """Refuse a number outside `0 <= value < 1`."""
    for name, value in values.items():
        if not 0 <= checks.real(name, value) < 1:
            raise ValueError(f"{name} is {value}, expected 0 <= {name} < 1")


def pair(name: str, value: Any) -> tuple[float, float]:
    """Check an option that is two numbers."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{name} has type {type(value).__name__}, expected a pair of numbers")
    if len(value) != 2:
        raise ValueError(f"{name} is {value}, expected a pair of numbers")
    return checks.real(f"{name}[0]", value[0]), checks.real(f"{name}[1]", value[1])


def check_like(what: str, arrays: Arrays, like: Arrays) -> None:
    """Refuse arrays, those of a file say, that differ from `like` in name, dtype or shape."""
    checks.names(what, arrays, like)
    for name, array in like.items():
        checks.exact(f"{what} {name!r}", arrays[name], array.dtype, array.shape)


def join(**parts: Named) -> dict[str, Array]:
    """One flat dict of the arrays of several layers, each name prefixed by its part's.

    A part is a dict, or what has one as `params`: a layer, or the gradients that its `backward`
    returns. The arrays are the same objects, so that a model of several layers has live parameters,
    and gradients under the same names:

    >>> model = join(lstm=lstm, out=linear)             # doctest: +SKIP
    >>> grads = join(lstm=lstm_grads, out=linear_grads) # doctest: +SKIP
    >>> sorted(model)                                   # doctest: +SKIP
    ['lstm.bias_hh_l0', ..., 'out.bias', 'out.weight']
    """
    return {
        f"{part}.{name}": array
        for part, arrays in parts.items()
        for name, array in named(part, arrays).items()
    }
