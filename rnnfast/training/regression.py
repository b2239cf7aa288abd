"""Losses of predicted numbers, each returned together with its gradient.

Mask, weight and mean are those of `losses`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core import checks
from ._array import Array, check_last, check_positive, check_vectors
from ._positions import Positions, reals


def mean_squared_error(
    predictions: Array, targets: Array, *, mask: Array | None = None, weight: Any = None
) -> tuple[float, Array]:
    """Mean of the squared differences: `loss = mean((y - t)^2)`, `dy = 2 (y - t) / n`.

    Parameters
    ----------
    predictions : ndarray, any shape, float32 or float64
    targets : ndarray, the shape of `predictions`
        Converted to the dtype of `predictions`.
    mask : ndarray, bool, optional
        The positions that count, in the shape of the leading axes of `predictions`.
    weight : ndarray, optional
        How much each position counts, >= 0, in the shape of leading axes of `predictions`.

    Returns
    -------
    loss : float
    dpredictions : ndarray, the shape of `predictions`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight out of range, or nothing that counts.
    """
    positions, error = _errors(predictions, targets, mask, weight)
    return positions.mean(np.square(error)), positions.averaged(error, 2)


def l1_loss(
    predictions: Array, targets: Array, *, mask: Array | None = None, weight: Any = None
) -> tuple[float, Array]:
    """Mean of the absolute differences: `loss = mean(|y - t|)`, `dy = sign(y - t) / n`.

    Parameters
    ----------
    predictions, targets, mask, weight
        As `mean_squared_error` has them.

    Returns
    -------
    loss : float
    dpredictions : ndarray, the shape of `predictions`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight out of range, or nothing that counts.

    Notes
    -----
    The prediction that it asks for is the median. Where `y = t` the gradient is 0.
    """
    positions, error = _errors(predictions, targets, mask, weight)
    return positions.mean(np.abs(error)), positions.averaged(np.sign(error))


def huber_loss(
    predictions: Array,
    targets: Array,
    *,
    delta: float = 1.0,
    mask: Array | None = None,
    weight: Any = None,
) -> tuple[float, Array]:
    """Squared near the target, absolute beyond: outliers pull no harder than by `delta`.

    `l = e^2 / 2` where `|e| <= delta`, else `delta (|e| - delta / 2)`, with `e = y - t`;
    `loss = mean(l)`, `dy = clip(e, -delta, delta) / n`.

    Parameters
    ----------
    predictions, targets, mask, weight
        As `mean_squared_error` has them.
    delta : float
        Where the two meet, > 0.

    Returns
    -------
    loss : float
    dpredictions : ndarray, the shape of `predictions`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight or `delta` out of range, or nothing that counts.

    Notes
    -----
    Source: Huber, Robust estimation of a location parameter (1964). The form is PyTorch's.
    """
    check_positive(delta=delta)
    positions, error = _errors(predictions, targets, mask, weight)
    slope = np.clip(error, -float(delta), float(delta))
    return positions.mean(slope * (error - slope / 2)), positions.averaged(slope)


def quantile_loss(
    predictions: Array,
    targets: Array,
    quantiles: Any,
    *,
    mask: Array | None = None,
    weight: Any = None,
) -> tuple[float, Array]:
    """Pinball loss: the predictions become the quantiles of the targets.

    `l_q = max(q e, (q - 1) e)` with `e = t - y_q`; the mean is over positions and quantiles.
    `dy_q = -q / n` where the target is above, `(1 - q) / n` where it is below, 0 where it is met.

    Parameters
    ----------
    predictions : ndarray (..., Q), float32 or float64
        One prediction for each quantile.
    targets : ndarray (...)
        Converted to the dtype of `predictions`.
    quantiles : sequence of Q float
        `0 < q < 1`; 0.5 is the median.
    mask : ndarray, bool, optional
        The positions that count, in the shape of leading axes of `targets`.
    weight : ndarray, optional
        How much each position counts, >= 0, in the shape of leading axes of `targets`.

    Returns
    -------
    loss : float
    dpredictions : ndarray, the shape of `predictions`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a quantile or a weight out of range, or nothing that counts.

    Notes
    -----
    Source: Koenker & Bassett, Regression quantiles (1978).
    """
    check_vectors("predictions", predictions)
    q = reals("quantiles", quantiles)
    checks.of_shape("quantiles", q, predictions.shape[-1:], "(Q,)")
    if not (q.min() > 0 and q.max() < 1):
        raise ValueError(f"quantiles is {q}, expected 0 < q < 1")
    positions = Positions(predictions.shape[:-1], mask, weight)
    t = positions.targets(targets, predictions, predictions.shape[:-1])
    error = t[..., None] - positions.select(predictions)
    slope = np.where(error > 0, -q, np.where(error < 0, 1 - q, 0)).astype(error.dtype)
    error *= -slope
    positions.total *= q.size
    return positions.mean(error), positions.averaged(slope)


def gaussian_nll(
    predictions: Array, targets: Array, *, mask: Array | None = None, weight: Any = None
) -> tuple[float, Array]:
    """Mean negative log-likelihood of the targets under predicted normal distributions.

    With mean `m` and log variance `s`, `loss = mean((s + (t - m)^2 exp(-s) + log(2 pi)) / 2)`,
    `dm = (m - t) exp(-s) / n`, `ds = (1 - (t - m)^2 exp(-s)) / (2 n)`.

    Parameters
    ----------
    predictions : ndarray (..., 2), float32 or float64
        `m` and `s`.
    targets : ndarray (...)
        Converted to the dtype of `predictions`.
    mask : ndarray, bool, optional
        The positions that count, in the shape of leading axes of `targets`.
    weight : ndarray, optional
        How much each position counts, >= 0, in the shape of leading axes of `targets`.

    Returns
    -------
    loss : float
        In nats.
    dpredictions : ndarray (..., 2)

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight out of range, or nothing that counts.

    Notes
    -----
    PyTorch's `GaussianNLLLoss` takes the variance, and has the constant with `full=True`.

    Source: Nix & Weigend, Estimating the mean and variance of the target probability distribution
    (1994).
    """
    check_vectors("predictions", predictions)
    check_last("predictions", predictions, 2, "2")
    positions = Positions(predictions.shape[:-1], mask, weight)
    t = positions.targets(targets, predictions, predictions.shape[:-1])
    m, s = np.moveaxis(positions.select(predictions), -1, 0)
    narrow = np.exp(-s / 2)
    error = (m - t) * narrow  # in standard deviations
    square = np.square(error)
    slope = np.stack([error * narrow, (1 - square) / 2], axis=-1)
    terms = (s + square + math.log(2 * math.pi)) / 2
    return positions.mean(terms), positions.averaged(slope)


def cosine_distance(
    predictions: Array, targets: Array, *, mask: Array | None = None, weight: Any = None
) -> tuple[float, Array]:
    """Mean of `1 - cos`, where `cos` is of the angle between a predicted vector and its target.

    `loss = mean(1 - y.t / (|y| |t|))`, `dy = (cos y/|y| - t/|t|) / (|y| n)`: 0 if they point the
    same way, 2 if they point opposite ways, whatever their lengths.

    Parameters
    ----------
    predictions : ndarray (..., C), float32 or float64
        Vectors `y` along the last axis.
    targets : ndarray, the shape of `predictions`
        Converted to the dtype of `predictions`.
    mask : ndarray (...), bool, optional
        The vectors that count; all of them if omitted.
    weight : ndarray (...), optional
        How much each vector counts, >= 0; all the same if omitted.

    Returns
    -------
    loss : float
    dpredictions : ndarray, the shape of `predictions`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight out of range, or nothing that counts.

    Notes
    -----
    A vector of zeros has no direction: its distance is 1, and it gets a gradient of zero.
    """
    check_vectors("predictions", predictions)
    positions = Positions(predictions.shape[:-1], mask, weight, entire=True)
    y, size = _direction(positions.select(predictions))
    t, _ = _direction(positions.targets(targets, predictions))
    cosine = (y * t).sum(axis=-1, keepdims=True)
    dy = (cosine * y - t) / np.where(size > 0, size, np.inf)
    return positions.mean(1 - cosine), positions.averaged(dy)


def _errors(
    predictions: Array, targets: Array, mask: Array | None, weight: Any
) -> tuple[Positions, Array]:
    """What the mean is over, and `y - t`, an array of its own."""
    checks.of_floats("predictions", predictions)
    positions = Positions(predictions.shape, mask, weight)
    error = positions.select(predictions)
    error -= positions.targets(targets, predictions)
    return positions, error


def _direction(vectors: Array) -> tuple[Array, Array]:
    """Vectors of length 1 along the last axis, and the lengths; zeros stay zeros.

    Dividing by the largest entry first keeps the squares from overflow and underflow.
    """
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1)
    norm = np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True))
    return scaled / np.where(norm > 0, norm, 1), largest * norm
