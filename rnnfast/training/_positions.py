"""The positions that a mean is over: which ones count, and how much."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core import checks
from ._array import Array


class Positions:
    """A mean over the entries of arrays whose leading axes are `shape`.

    Parameters
    ----------
    shape : tuple of int
    mask : ndarray, bool, optional
        The positions that count; nothing else is read.
    weight : array_like, optional
        How much each counts, >= 0; one of weight 0 does not count. Not read behind the mask.
    entire : bool
        Whether mask and weight have all axes of `shape`, not only leading ones.

    Attributes
    ----------
    total : float
        The sum of the weights of all entries; without weights their number.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        mask: Array | None = None,
        weight: Any = None,
        *,
        entire: bool = False,
    ) -> None:
        if mask is not None:
            axes = len(shape) if entire else np.ndim(mask)
            checks.of_shape("mask", checks.booleans("mask", mask), shape[:axes])
        self.shape, self.mask, self.weight = shape, mask, None
        if weight is not None:
            given = reals("weight", weight)
            checks.of_shape("weight", given, shape[: len(shape) if entire else given.ndim])
            self.weight = _scaled(given if mask is None else _where(mask, given))
            self.mask = self.weight > 0
        if self.mask is None:
            self.total: float = math.prod(shape)
        else:
            kept = np.count_nonzero(self.mask) if self.weight is None else self.weight.sum()
            self.total = float(kept) * math.prod(shape[self.mask.ndim :])
        if self.total == 0:
            raise ValueError(
                "the mean is over no positions: the input is empty, the mask leaves nothing "
                "or every weight is 0"
            )

    def select(self, values: Array) -> Array:
        """Return a copy of `values` with zeros where they do not count."""
        if self.mask is None:
            return values.copy()
        return np.where(_over(self.mask, values), values, values.dtype.type(0))

    def targets(self, targets: Any, like: Array, shape: tuple[int, ...] | None = None) -> Array:
        """`targets` in the dtype of the predictions `like`, zero where they do not count.

        Their shape is that of `like`, or the one given.
        """
        array = reals("targets", targets)
        checks.of_shape("targets", array, like.shape if shape is None else shape)
        array = array.astype(like.dtype, copy=False)
        return array if self.mask is None else np.where(_over(self.mask, array), array, 0)

    def weights(self) -> Array:
        """How much each position counts, in the shape of all; 0 where one does not count."""
        counted = self.mask if self.weight is None else self.weight
        given = np.ones(()) if counted is None else counted.astype(np.float64)
        axes = (1,) * (len(self.shape) - given.ndim)
        return np.broadcast_to(given.reshape(given.shape + axes), self.shape)

    def sum(self, terms: Array) -> float:
        """The weighted sum of `terms`, in float64; what does not count may be anything."""
        if self.mask is not None:
            terms = np.where(_over(self.mask, terms), terms, 0)
        if self.weight is not None:
            terms = terms * _over(self.weight, terms)
        return float(terms.sum(dtype=np.float64))

    def mean(self, terms: Array) -> float:
        """The weighted mean of `terms`."""
        return self.sum(terms) / self.total

    def averaged(self, gradient: Array, factor: float = 1) -> Array:
        """Turn the gradients of the terms into `factor` times that of their mean, in place."""
        if self.weight is not None:
            gradient *= _over(self.weight.astype(gradient.dtype), gradient)
        elif self.mask is not None:
            gradient *= _over(self.mask, gradient)
        gradient /= self.total / factor
        return gradient


def reals(name: str, value: Any) -> Array:
    """Return what NumPy reads as an array of real numbers; refuse anything else."""
    array = checks.readable(name, value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} has dtype {array.dtype}, expected real numbers")
    return array


def _where(mask: Array, weight: Array) -> Array:
    """The weights that the mask leaves, 0 elsewhere; the two may have different leading axes."""
    longest = mask if mask.ndim > weight.ndim else weight
    return np.where(_over(mask, longest), _over(weight, longest), 0)


def _scaled(weight: Array) -> Array:
    """Weights in float64, at most 1, so that neither their sum nor another dtype overflows.

    They are scaled by a power of two, which rounds nothing.
    """
    wrong = weight[~((weight >= 0) & (weight < np.inf))]
    if wrong.size:
        raise ValueError(
            f"weight has {wrong.size} entries that are negative or not finite, such as {wrong[0]}; "
            "expected finite numbers >= 0"
        )
    scaled: Array = weight.astype(np.float64)
    np.ldexp(scaled, -np.frexp(scaled.max(initial=0))[1], out=scaled)
    return scaled


def _over(counted: Array, values: Array) -> Array:
    """`counted` with axes appended so that it broadcasts over the trailing axes of `values`."""
    return counted.reshape(counted.shape + (1,) * (values.ndim - counted.ndim))
