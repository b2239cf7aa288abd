"""Features with mean 0 and standard deviation 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import checks
from ._array import Array, check_last, check_lengths
from ._positions import Positions
from .losses import length_mask


class Standardizer:
    """Shift and scale each feature to mean 0 and standard deviation 1.

    `z = (x - mean) / scale`, with the mean and the standard deviation over time and batch of what
    `fit` has seen: fit it to what the model is trained on, and use it for all data.

    Parameters
    ----------
    mean, scale : ndarray (C,), optional
        Of a standardiser that was fitted before: `np.savez(path, mean=s.mean, scale=s.scale)`
        saves it and `Standardizer(**np.load(path))` loads it.

    Attributes
    ----------
    mean, scale : ndarray (C,) or (), float64
        None before `fit`. The scale of a feature that is always the same is 1.

    Raises
    ------
    TypeError, ValueError
        Arrays that do not fit each other, or a scale that is not above 0.

    Examples
    --------
    >>> x = np.array([[1.0, 10], [3, 10]])
    >>> standardizer = Standardizer().fit(x)
    >>> standardizer.transform(x)
    array([[-1.,  0.],
           [ 1.,  0.]])
    """

    def __init__(self, mean: Any = None, scale: Any = None) -> None:
        self.mean: Array | None = None
        self.scale: Array | None = None
        if mean is None and scale is None:
            return
        if mean is None or scale is None:
            raise ValueError("mean and scale belong together, expected both or neither")
        for name, array in ("mean", mean), ("scale", scale):
            if checks.of_floats(name, array).ndim > 1:
                raise ValueError(f"{name} has shape {array.shape}, expected (C,) or ()")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} is {array}, expected finite numbers")
        checks.of_shape("scale", scale, mean.shape)
        if not (scale > 0).all():
            raise ValueError(f"scale is {scale}, expected numbers > 0")
        self.mean, self.scale = mean.astype(np.float64), scale.astype(np.float64)

    def fit(
        self, x: Array, *, lengths: Any = None, mask: Array | None = None, weight: Any = None
    ) -> Standardizer:
        """Take the mean and the standard deviation from `x`.

        Parameters
        ----------
        x : ndarray (..., C), float32 or float64
            The features on the last axis: (T, B, C), (B, T, C) or (N, C). An array (T,) is one
            feature. Computed in float64.
        lengths : ndarray (B,), integer, optional
            The valid steps of time-major x (T, B, C). The padding is not read.
        mask : ndarray, bool, optional
            What to go by, in the shape of leading axes of x; the rest is not read.
        weight : ndarray, optional
            How much each step counts, >= 0, in the shape of leading axes of x.

        Returns
        -------
        self : Standardizer

        Raises
        ------
        TypeError, ValueError
            A wrong dtype or shape, both `lengths` and `mask`, a weight out of range, nothing that
            counts, or NaN or infinity in it.
        """
        rows, counts = _rows(x, lengths, mask, weight)
        if not rows.size:
            raise ValueError(f"x has shape {x.shape}, expected at least one feature")
        if not np.isfinite(rows).all():
            raise ValueError(
                "x has NaN or infinity, expected finite numbers where it counts; see mask"
            )
        shape = () if x.ndim == 1 else x.shape[-1:]
        self.mean, self.scale = (a.reshape(shape) for a in _mean_and_scale(rows, counts))
        return self

    def fit_transform(
        self, x: Array, *, lengths: Any = None, mask: Array | None = None, weight: Any = None
    ) -> Array:
        """Return `x` shifted and scaled: `fit(x, ...)`, then `transform(x)`.

        Parameters
        ----------
        x : ndarray (..., C), float32 or float64
        lengths, mask, weight
            As in `fit`.

        Returns
        -------
        z : ndarray, the shape and dtype of x

        Raises
        ------
        TypeError, ValueError
            As in `fit`.
        """
        return self.fit(x, lengths=lengths, mask=mask, weight=weight).transform(x)

    def transform(self, x: Array) -> Array:
        """`(x - mean) / scale`, in the dtype of x.

        Parameters
        ----------
        x : ndarray (..., C), float32 or float64
            Padding is scaled too, and NaN stays NaN.

        Returns
        -------
        z : ndarray, the shape and dtype of x

        Raises
        ------
        TypeError, ValueError
            A wrong dtype or shape, or `fit` was not called.
        """
        mean, scale = self._fitted("x", x)
        z: Array = ((x - mean) / scale).astype(x.dtype)
        return z

    def inverse_transform(self, z: Array) -> Array:
        """`mean + scale z`, in the dtype of z: the reverse of `transform`.

        Parameters
        ----------
        z : ndarray (..., C), float32 or float64

        Returns
        -------
        x : ndarray, the shape and dtype of z

        Raises
        ------
        TypeError, ValueError
            A wrong dtype or shape, or `fit` was not called.
        """
        mean, scale = self._fitted("z", z)
        x: Array = (mean + scale * z).astype(z.dtype)
        return x

    def __repr__(self) -> str:
        if self.mean is None:
            return "Standardizer()"
        return f"Standardizer(features={self.mean.size})"

    def _fitted(self, name: str, value: Array) -> tuple[Array, Array]:
        """The mean and the scale, once `value` is known to fit them."""
        if self.mean is None or self.scale is None:
            raise ValueError("the Standardizer is not fitted: call fit first")
        checks.of_floats(name, value)
        if self.mean.ndim:
            check_last(name, value, len(self.mean), "C")
        return self.mean, self.scale


def _rows(x: Array, lengths: Any, mask: Array | None, weight: Any) -> tuple[Array, Array]:
    """What counts of x, (n, C) in float64, and how much each row counts."""
    checks.of_floats("x", x)
    if x.ndim == 0:
        raise ValueError("x has shape (), expected (..., C)")
    if lengths is not None:
        if mask is not None:
            raise ValueError("lengths and mask are both given, expected at most one")
        if x.ndim != 3:
            raise ValueError(f"x has shape {x.shape}, expected (T, B, C) with lengths")
        mask = length_mask(check_lengths("lengths", lengths, *x.shape[:2]), len(x))
    values = x[:, None] if x.ndim == 1 else x
    weights = Positions(values.shape[:-1], mask, weight).weights()
    counted = weights > 0
    return values[counted].astype(np.float64), weights[counted]


def _mean_and_scale(rows: Array, counts: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of the columns.

    The mean of equal numbers may be another number, from rounding: their column is found by its
    extremes instead.
    """
    least = rows.min(axis=0)
    mean = np.average(rows, axis=0, weights=counts)
    mean = np.where(least == rows.max(axis=0), least, mean)
    deviation = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=counts))
    return mean, np.where(deviation > 0, deviation, 1)
