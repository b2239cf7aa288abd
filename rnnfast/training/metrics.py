"""Figures by which people judge predictions; they have no gradient.

Mask and weight are those of `losses`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._core import checks
from ._array import Array, check_ids, check_vectors
from ._positions import Positions
from .regression import l1_loss, mean_squared_error

AVERAGES = ("binary", "macro", "micro", "weighted")


def accuracy(
    predictions: Any, targets: Any, *, mask: Array | None = None, weight: Any = None
) -> float:
    """The share of the predicted classes that are right.

    Parameters
    ----------
    predictions : ndarray (...) of integers or bool, or (..., C) of floats
        Classes, or the scores of C classes, of which the class with the highest is predicted:
        logits or probabilities. Log-odds `z` of yes and no become classes by `z > 0`.
    targets : ndarray (...), integer or bool
        The right classes.
    mask : ndarray, bool, optional
        The positions that count, in the shape of leading axes of `targets`.
    weight : ndarray, optional
        How much each position counts, >= 0, in the shape of leading axes of `targets`.

    Returns
    -------
    share : float
        From 0 to 1.

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight out of range, a score that is NaN, or nothing that counts.
    """
    positions, predicted, right = _classes(predictions, targets, mask, weight)
    return positions.mean(predicted == right)


def f1_score(
    predictions: Any,
    targets: Any,
    *,
    average: str = "binary",
    mask: Array | None = None,
    weight: Any = None,
) -> float:
    """The harmonic mean of precision and recall.

    Of one class it is `2 tp / (2 tp + fp + fn)`, with the numbers of its positions that were found
    (`tp`), of others that were taken for it (`fp`) and of its own that were missed (`fn`).

    Parameters
    ----------
    predictions, targets, mask, weight
        As `accuracy` has them.
    average : str
        "binary": of class 1; there is no other class but 0. "macro": the mean over the classes
        that occur among predictions or targets. "weighted": this mean by how often the targets
        have each class. "micro": of all classes counted together, which is the accuracy.

    Returns
    -------
    score : float
        From 0 to 1. A class that is never found has 0.

    Raises
    ------
    TypeError, ValueError
        As `accuracy`; an average of another name, or further classes with "binary".

    Notes
    -----
    The averages are scikit-learn's. Source: van Rijsbergen, Information retrieval (1979), ch. 7.
    """
    checks.choice("average", average, AVERAGES)
    positions, predicted, right = _classes(predictions, targets, mask, weight)
    weights = positions.weights()
    counted = weights > 0
    weights, pairs = weights[counted], np.stack([predicted[counted], right[counted]])
    classes, numbers = np.unique(pairs, return_inverse=True)
    predicted, right = numbers.reshape(pairs.shape)
    found = np.bincount(right, weights * (predicted == right), len(classes))
    by_prediction, by_target = (np.bincount(n, weights, len(classes)) for n in (predicted, right))
    scores = 2 * found / (by_prediction + by_target)
    if average == "binary":
        if not set(classes.tolist()) <= {0, 1}:
            raise ValueError(
                f"average is 'binary', and there are the classes {classes.tolist()}, expected 0 "
                "and 1; for others take average='macro', 'micro' or 'weighted'"
            )
        return float(scores[classes == 1].sum())
    if average == "micro":
        return float(found.sum() / by_target.sum())
    return float(np.average(scores, weights=by_target if average == "weighted" else None))


def mean_absolute_error(
    predictions: Array, targets: Array, *, mask: Array | None = None, weight: Any = None
) -> float:
    """Mean of the absolute differences, `mean(|y - t|)`: the value of `l1_loss`.

    Parameters
    ----------
    predictions, targets, mask, weight
        As `mean_squared_error` has them.

    Returns
    -------
    error : float

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight out of range, or nothing that counts.
    """
    return l1_loss(predictions, targets, mask=mask, weight=weight)[0]


def root_mean_squared_error(
    predictions: Array, targets: Array, *, mask: Array | None = None, weight: Any = None
) -> float:
    """Root of the mean of the squared differences, `sqrt(mean((y - t)^2))`.

    Parameters
    ----------
    predictions, targets, mask, weight
        As `mean_squared_error` has them.

    Returns
    -------
    error : float

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a weight out of range, or nothing that counts.
    """
    return math.sqrt(mean_squared_error(predictions, targets, mask=mask, weight=weight)[0])


def _classes(
    predictions: Any, targets: Any, mask: Array | None, weight: Any
) -> tuple[Positions, Array, Array]:
    """What counts, the predicted classes and the right ones."""
    right = _integers("targets", targets)
    positions = Positions(right.shape, mask, weight)
    given = checks.readable("predictions", predictions)
    if given.dtype.kind != "f":
        predicted = _integers("predictions", given)
        checks.of_shape("predictions", predicted, right.shape)
        return positions, predicted, right
    if given.ndim != right.ndim + 1:
        raise ValueError(
            f"predictions has dtype {given.dtype} and shape {given.shape}, expected scores of "
            f"shape {(*right.shape, 'C')}, or integers or bool of shape {right.shape}"
        )
    check_vectors("predictions", given)
    checks.of_shape("predictions", given, (*right.shape, given.shape[-1]), "(..., C)")
    if given.shape[-1] == 1:
        raise ValueError(
            f"predictions has shape {given.shape}, scores of one class, expected two or more; of "
            "log-odds make classes by predictions[..., 0] > 0"
        )
    check_ids("targets", positions.select(right), given.shape[-1])
    scores = positions.select(given)
    if np.isnan(scores).any():
        raise ValueError("predictions has scores that are NaN, expected numbers where it counts")
    return positions, scores.argmax(axis=-1), right


def _integers(name: str, value: Any) -> Array:
    """Classes as integers; yes is 1 and no is 0."""
    array = checks.readable(name, value)
    if array.dtype.kind == "b":
        return array.astype(np.int8)
    checks.integers(name, array, value)
    return array
