"""Losses of predicted classes, each returned together with its gradient.

Every loss is a mean over the positions that count, accumulated in float64; the gradient has the
dtype and the shape of the predictions. A `mask` leaves positions out (padding): they add nothing
to the loss, get a gradient of exactly zero, and whatever stands there, NaN included, is not read.
A `weight` says how much each position counts, `loss = sum(w l) / sum(w)`: one of weight 2 counts
as two of weight 1, and one of weight 0 is left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import checks
from ._array import Array, check_fraction, check_ids, check_vectors
from ._positions import Positions, reals
from .activations import sigmoid


def softmax_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    mask: Array | None = None,
    weight: Any = None,
    class_weight: Any = None,
    label_smoothing: float = 0.0,
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
    weight : ndarray (...), optional
        How much each position counts, >= 0; all the same if omitted.
    class_weight : ndarray (C,), optional
        A further weight of each position, by its target's class.
    label_smoothing : float
        `s`, `0 <= s < 1`: the target is `(1 - s) onehot(target) + s / C` instead.

    Returns
    -------
    loss : float
        In nats; divide by `log(2)` for bits.
    dlogits : ndarray (..., C)

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a class or a weight out of range, or nothing that counts.

    Notes
    -----
    With both, the class weights stand in the smoothed target too, as in PyTorch:
    `loss = sum_n sum_c w_c q_nc (-log p_nc) / sum_n w_target`.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.4. Smoothing:
    Szegedy et al., Rethinking the Inception architecture for computer vision (2016), arXiv
    1512.00567.
    """
    check_vectors("logits", logits)
    targets = checks.readable("targets", targets)
    check_class_ids(targets, logits.shape)
    positions = Positions(targets.shape, mask, weight, entire=True)
    t = check_ids("targets", positions.select(targets), logits.shape[-1])[..., None]
    check_fraction(label_smoothing=label_smoothing)
    plain = class_weight is None and not label_smoothing
    share, hit = np.zeros((), logits.dtype), np.ones((), logits.dtype)
    if not plain:
        share, hit = _target(t, class_weight, label_smoothing, logits, positions)

    z = positions.select(logits)
    z -= z.max(axis=-1, keepdims=True)
    picked = np.take_along_axis(z, t, axis=-1)
    spread = (share * z).sum(axis=-1, keepdims=True) if label_smoothing else 0
    p = np.exp(z, out=z)
    total = p.sum(axis=-1, keepdims=True)
    log_total = np.log(total)
    terms = log_total - picked
    p /= total
    if not plain:
        terms *= hit
        terms += share.sum() * log_total - spread
        p *= hit + share.sum()
        p -= share
    np.put_along_axis(p, t, np.take_along_axis(p, t, axis=-1) - hit, axis=-1)
    return positions.mean(terms), positions.averaged(p)


def sigmoid_cross_entropy(
    logits: Array,
    targets: Array,
    *,
    mask: Array | None = None,
    weight: Any = None,
    pos_weight: Any = None,
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
    weight : ndarray, optional
        How much each position counts, >= 0, in the shape of leading axes of `logits`.
    pos_weight : float or ndarray (C,), optional
        A factor of the term `-t log(sigmoid(z))`, > 0: above 1 for rare yeses. One for all, or
        one for each entry of the last axis.

    Returns
    -------
    loss : float
        In nats.
    dlogits : ndarray, the shape of `logits`

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a target that is no probability, a weight out of range, or nothing
        that counts.

    Notes
    -----
    The loss is not divided by `pos_weight`, as in PyTorch.

    Source: Bishop, Pattern Recognition and Machine Learning (2006), section 4.3.2.
    """
    checks.of_floats("logits", logits)
    positions = Positions(logits.shape, mask, weight)
    t = positions.targets(targets, logits)
    _check_probabilities(t)
    z = positions.select(logits)
    terms = np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))
    slope = sigmoid(z) - t
    if pos_weight is not None:
        # The extra share, (pos_weight - 1) t, of -log(sigmoid(z)) and of its slope.
        extra = (_factors("pos_weight", pos_weight, logits) - 1) * t
        terms += extra * (np.maximum(-z, 0) + np.log1p(np.exp(-np.abs(z))))
        slope -= extra * sigmoid(-z)
    return positions.mean(terms), positions.averaged(slope)


def check_class_ids(targets: Array, shape: tuple[int, ...]) -> None:
    """Refuse targets that are no ids for scores of that shape, with what to do about it."""
    try:
        checks.of_shape("targets", targets, shape[:-1])
    except ValueError as error:
        fix = ""
        if targets.shape == shape and shape[-1] > 1:
            fix = "; of one-hot rows take the ids, targets.argmax(axis=-1)"
        elif targets.shape == (*shape[:-1], 1):
            fix = "; targets[..., 0]"
        raise ValueError(f"{error}, an id for each position{fix}") from None


def length_mask(lengths: Array, steps: int, *, batch_first: bool = False) -> Array:
    """The mask of the valid steps of padded sequences.

    Parameters
    ----------
    lengths : ndarray (B,), integer, `0 <= lengths <= T`
    steps : int
        `T`, the padded length.
    batch_first : bool
        Whether the batch is to be the first axis.

    Returns
    -------
    mask : ndarray (T, B), or (B, T) if `batch_first`, bool
        `mask[t, b]` is true where `t < lengths[b]`.
    """
    steps = checks.integer("steps", steps, 0)
    lengths = check_ids("lengths", lengths, steps + 1)
    checks.of_shape("lengths", lengths, (lengths.size,), "(B,)")
    if batch_first:
        return np.arange(steps) < lengths[:, None]
    return np.arange(steps)[:, None] < lengths


def _target(
    t: Array, class_weight: Any, smoothing: float, logits: Array, positions: Positions
) -> tuple[Array, Array]:
    """What each class gets of a smoothed target, and what the target's own class gets besides.

    With class weights, the mean is over those of the targets.
    """
    classes, dtype = logits.shape[-1], logits.dtype
    if class_weight is None:
        each = np.ones(classes, dtype)
    else:
        given = reals("class_weight", class_weight)
        checks.of_shape("class_weight", given, (classes,), "(C,)")
        if not (given.min() >= 0 and given.max() < np.inf):
            raise ValueError(f"class_weight is {given}, expected finite numbers >= 0")
        each = given.astype(dtype)
        positions.total = positions.sum(each[t])
        if positions.total == 0:
            raise ValueError("class_weight is 0 for every target, expected one that counts")
    return each * dtype.type(smoothing / classes), each[t] * dtype.type(1 - smoothing)


def _factors(name: str, value: Any, logits: Array) -> Array:
    """A factor > 0 of every number, or of each entry of the last axis."""
    factors = reals(name, value)
    if factors.ndim:
        checks.of_shape(name, factors, logits.shape[-1:], "(C,)")
    if not (factors.min(initial=1) > 0 and factors.max(initial=1) < np.inf):
        raise ValueError(f"{name} is {factors}, expected finite numbers > 0")
    return factors.astype(logits.dtype)


def _check_probabilities(targets: Array) -> None:
    """Refuse targets below 0 or above 1, and NaN, which no comparison finds in range."""
    if not (targets.min() >= 0 and targets.max() <= 1):
        outside = targets[~((targets >= 0) & (targets <= 1))]
        raise ValueError(f"targets has {outside.size} entries outside 0 to 1, such as {outside[0]}")
