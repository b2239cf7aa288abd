"""Losses, each returned together with its gradient.

Every loss is a mean over the positions that count, accumulated in float64; the gradient has the
dtype and the shape of the predictions. A `mask` leaves positions out (padding): they add nothing
to the loss, get a gradient of exactly zero, and whatever stands there, NaN included, is not read.
"""

from __future__ import annotations

import numpy as np

from .._core import checks
from ._array import Array, check_ids
from .activations import sigmoid


def softmax_cross_entropy(
    logits: Array, targets: Array, *, mask: Array | None = None
) -> tuple[float, Array]:
    """Mean negative log-likelihood of the target classes under a softmax.

    `loss = mean(log(sum_k exp(z_k)) - z_target)`, `dz = (softmax(z) - onehot(target)) / n`.
    The largest logit is subtracted first, so no exponential overflows.

    Parameters
    ----------
    logits : ndarray (..., C), float32 or float64
        Unnormalised log-probabilities `z` of `C` classes.
    targets : ndarray (...), integer
        The right class of each position, `0 <= target < C`.
    mask : ndarray (...), bool, optional
        The positions that count; all of them if omitted.

    Returns
    -------
    loss : float
        In nats; divide by `log(2)` for bits.
    dlogits : ndarray (..., C)

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a class out of range, or nothing that counts.

    Notes
    -----
    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.4.
    """
    checks.of_floats("logits", logits)
    if logits.ndim == 0:
        raise ValueError("logits has shape (), expected (..., C)")
    targets = checks.readable("targets", targets)
    checks.of_shape("targets", targets, logits.shape[:-1])
    classes = logits.shape[-1]
    numbers, z = _select(logits, mask)
    if mask is not None:
        checks.of_shape("mask", mask, targets.shape)
    count = numbers // classes
    t = check_ids("targets", targets if mask is None else np.where(mask, targets, 0), classes)

    z -= z.max(axis=-1, keepdims=True)
    picked = np.take_along_axis(z, t[..., None], axis=-1)
    p = np.exp(z, out=z)
    total = p.sum(axis=-1, keepdims=True)
    loss = _mean(np.log(total) - picked, mask, count)
    p /= total
    np.put_along_axis(p, t[..., None], np.take_along_axis(p, t[..., None], axis=-1) - 1, axis=-1)
    return loss, _averaged(p, mask, count)


def sigmoid_cross_entropy(
    logits: Array, targets: Array, *, mask: Array | None = None
) -> tuple[float, Array]:
    """Mean cross-entropy of independent yes/no predictions.

    `loss = mean(max(z, 0) - z t + log(1 + exp(-|z|)))`, `dz = (sigmoid(z) - t) / n`,
    which is `-t log(sigmoid(z)) - (1 - t) log(1 - sigmoid(z))` without overflow or cancellation.

    Parameters
    ----------
    logits : ndarray, any shape, float32 or float64
        Log-odds `z`.
    targets : ndarray, the shape of `logits`
        Probabilities `t` from 0 to 1, usually one of the two; converted to the dtype of `logits`.
    mask : ndarray, bool, optional
        The positions that count, in the shape of the leading axes of `logits`.

    Returns
    -------
    loss : float
        In nats.
    dlogits : ndarray, the shape of `logits`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a target that is no probability, or nothing that counts.

    Notes
    -----
    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.2.
    """
    checks.of_floats("logits", logits)
    count, z = _select(logits, mask)
    t = _targets(targets, logits, mask)
    _check_probabilities(t)
    loss = _mean(np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z))), mask, count)
    return loss, _averaged(sigmoid(z) - t, mask, count)


def mean_squared_error(
    predictions: Array, targets: Array, *, mask: Array | None = None
) -> tuple[float, Array]:
    """Mean of the squared differences: `loss = mean((y - t)^2)`, `dy = 2 (y - t) / n`.

    Parameters
    ----------
    predictions : ndarray, any shape, float32 or float64
    targets : ndarray, the shape of `predictions`
        Converted to the dtype of `predictions`.
    mask : ndarray, bool, optional
        The positions that count, in the shape of the leading axes of `predictions`.

    Returns
    -------
    loss : float
    dpredictions : ndarray, the shape of `predictions`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, or nothing that counts.
    """
    checks.of_floats("predictions", predictions)
    count, y = _select(predictions, mask)
    t = _targets(targets, predictions, mask)
    y -= t
    return _mean(np.square(y), mask, count), _averaged(y, mask, count / 2)


def cosine_distance(
    predictions: Array, targets: Array, *, mask: Array | None = None
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

    Returns
    -------
    loss : float
    dpredictions : ndarray, the shape of `predictions`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, or nothing that counts.

    Notes
    -----
    A vector of zeros has no direction: its distance is 1, and it gets a gradient of zero.
    """
    checks.of_floats("predictions", predictions)
    if predictions.ndim == 0:
        raise ValueError("predictions has shape (), expected (..., C)")
    if mask is not None:
        checks.of_shape("mask", checks.booleans("mask", mask), predictions.shape[:-1])
    numbers, y = _select(predictions, mask)
    count = numbers // predictions.shape[-1]
    y, size = _direction(y)
    t, _ = _direction(_targets(targets, predictions, mask))
    cosine = (y * t).sum(axis=-1, keepdims=True)
    dy = (cosine * y - t) / np.where(size > 0, size, np.inf)
    return _mean(1 - cosine, mask, count), _averaged(dy, mask, count)


def length_mask(lengths: Array, steps: int) -> Array:
    """The mask of the valid steps of padded sequences.

    Parameters
    ----------
    lengths : ndarray (B,), integer, `0 <= lengths <= T`
    steps : int
        `T`, the padded length.

    Returns
    -------
    mask : ndarray (T, B), bool
        `mask[t, b]` is true where `t < lengths[b]`.
    """
    steps = checks.integer("steps", steps, 0)
    lengths = check_ids("lengths", lengths, steps + 1)
    checks.of_shape("lengths", lengths, (lengths.size,), "(B,)")
    return np.arange(steps)[:, None] < lengths


def _select(values: Array, mask: Array | None) -> tuple[int, Array]:
    """How many numbers count, and a copy of `values` with zeros where they do not."""
    _check_mask(mask, values.shape)
    if mask is None:
        count, selected = values.size, values.copy()
    else:
        count = int(np.count_nonzero(mask)) * int(np.prod(values.shape[mask.ndim :]))
        selected = np.where(_over(mask, values), values, values.dtype.type(0))
    if count == 0:
        raise ValueError("the loss is a mean over no positions: the mask or the input is empty")
    return count, selected


def _check_mask(mask: Array | None, shape: tuple[int, ...]) -> None:
    """Refuse a mask that does not have the leading axes of `shape`."""
    if mask is not None:
        checks.of_shape("mask", checks.booleans("mask", mask), shape[: np.ndim(mask)])


def _targets(targets: Array, predictions: Array, mask: Array | None) -> Array:
    """`targets` in the dtype of `predictions`, with zeros where the mask leaves them out."""
    targets = checks.readable("targets", targets)
    if targets.dtype.kind not in "biuf":
        raise TypeError(f"targets has dtype {targets.dtype}, expected real numbers")
    checks.of_shape("targets", targets, predictions.shape)
    targets = targets.astype(predictions.dtype, copy=False)
    return targets if mask is None else np.where(_over(mask, targets), targets, 0)


def _direction(vectors: Array) -> tuple[Array, Array]:
    """Vectors of length 1 along the last axis, and the lengths; zeros stay zeros.

    Dividing by the largest entry first keeps the squares from overflow and underflow.
    """
    largest = np.abs(vectors).max(axis=-1, keepdims=True)
    scaled = vectors / np.where(largest > 0, largest, 1)
    norm = np.sqrt(np.square(scaled).sum(axis=-1, keepdims=True))
    return scaled / np.where(norm > 0, norm, 1), largest * norm


def _check_probabilities(targets: Array) -> None:
    """Refuse targets below 0 or above 1, and NaN, which no comparison finds in range."""
    if not (targets.min() >= 0 and targets.max() <= 1):
        outside = targets[~((targets >= 0) & (targets <= 1))]
        raise ValueError(f"targets has {outside.size} entries outside 0 to 1, such as {outside[0]}")


def _over(mask: Array, values: Array) -> Array:
    """`mask` with axes appended so that it broadcasts over the trailing axes of `values`."""
    return mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))


def _mean(terms: Array, mask: Array | None, count: int) -> float:
    kept = terms if mask is None else np.where(_over(mask, terms), terms, 0)
    return float(kept.sum(dtype=np.float64)) / count


def _averaged(grad: Array, mask: Array | None, count: float) -> Array:
    if mask is not None:
        grad *= _over(mask, grad)
    grad /= count
    return grad
