"""Connectionist temporal classification: labels for a sequence whose alignment is not known.

At every step the network names a label or the blank. A path, one name for each step, spells the
labels that remain when repeated names count once and blanks are left out: `-aa-ab` spells `aab`.
The probability of the labels is the sum over all paths that spell them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._core import checks
from ._array import Array, check_ids, check_lengths
from ._positions import Positions


def ctc_loss(
    logits: Array,
    targets: Any,
    lengths: Any = None,
    target_lengths: Any = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    weight: Any = None,
) -> tuple[float, Array]:
    """Mean negative log-probability of the target labels, over all alignments with the steps.

    With the labels `l'` that have a blank before, between and after them,
    `a_t(s) = y_t(l'_s) (a_{t-1}(s) + a_{t-1}(s-1) + a_{t-1}(s-2))`, the last term only where `l'_s`
    is neither the blank nor `l'_{s-2}`; `loss = mean(-log(a_T(2 S + 1) + a_T(2 S)))`. `y` is the
    softmax of the logits.

    Parameters
    ----------
    logits : ndarray (T, B, C), float32 or float64
        Unnormalised log-probabilities of `C` classes, the blank among them.
    targets : ndarray (S, B), integer
        The labels of each sequence, padded, as `pad` makes them; none is the blank.
    lengths : ndarray (B,), integer, optional
        The steps of each sequence, `0 <= lengths <= T`; all `T` if omitted.
    target_lengths : ndarray (B,), integer, optional
        The labels of each sequence, `0 <= target_lengths <= S`; all `S` if omitted.
    blank : int
        The class that stands for no label.
    zero_infinity : bool
        Whether a sequence with too few steps for its labels counts as a loss of 0, not infinity.
    weight : ndarray (B,), optional
        How much each sequence counts, >= 0, `loss = sum(w l) / sum(w)`; all the same if omitted.

    Returns
    -------
    loss : float
        The mean over the `B` sequences, in nats; infinite if one of them cannot be spelt.
    dlogits : ndarray (T, B, C)
        Zero in the padding, and for a sequence that cannot be spelt.

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, a class, a length or a weight out of range, a blank among the
        labels, or no sequence.

    Notes
    -----
    Labels need a step each, and one more between two that are equal. The sums are in float64 and
    log space. Padding is not read. PyTorch's `ctc_loss` takes log-probabilities, and its mean
    divides each sequence's loss by its number of labels.

    Source: Graves, Fernandez, Gomez & Schmidhuber, Connectionist temporal classification (2006).
    """
    T, B, C = _check_logits(logits)
    if B == 0:
        raise ValueError(f"logits has shape {logits.shape}, expected at least one sequence")
    blank = _check_blank(blank, C)
    steps = check_lengths("lengths", lengths, T, B)
    sequences = Positions((B,), None, weight, entire=True)
    labels, ends = _with_blanks(targets, target_lengths, B, C, blank)

    read = np.arange(T)[:, None] < steps  # (T, B)
    y, log_y = _softmax(np.where(read[:, :, None], logits, 0).astype(np.float64, copy=False))
    through = _log_paths(log_y, labels, steps, ends)
    log_p = np.logaddexp.reduce(np.logaddexp.reduce(through[:1], axis=2), axis=0)
    log_p[(steps == 0) & (ends == 1)] = 0  # no steps spell no labels
    spelt = log_p != -np.inf
    losses = np.where(spelt, -log_p, 0 if zero_infinity else np.inf)

    # The expected number of times that a class is named at a step, given the labels.
    posterior = np.exp(through - np.where(spelt, log_p, 0)[:, None])
    place = np.arange(T * B).reshape(T, B, 1) * C + labels
    expected = np.bincount(place.ravel(), posterior.ravel(), T * B * C).reshape(T, B, C)
    gradient = np.where((read & spelt)[:, :, None], y - expected, 0)
    gradient = sequences.averaged(gradient.swapaxes(0, 1)).swapaxes(0, 1)
    return sequences.mean(losses), gradient.astype(logits.dtype, copy=False)


def ctc_decode(logits: Array, lengths: Any = None, *, blank: int = 0) -> list[list[int]]:
    """Return the labels that the likeliest path of each sequence spells.

    The likeliest labels may be others, which many unlikely paths spell.

    Parameters
    ----------
    logits : ndarray (T, B, C), float32 or float64
        Or probabilities: only their order counts.
    lengths : ndarray (B,), integer, optional
        The steps of each sequence, `0 <= lengths <= T`; all `T` if omitted.
    blank : int
        The class that stands for no label.

    Returns
    -------
    labels : list of B lists of int

    Raises
    ------
    TypeError, ValueError
        A wrong dtype or shape, or a length or the blank out of range.

    Notes
    -----
    Source: Graves, Fernandez, Gomez & Schmidhuber (2006), section 3.2: best path decoding.
    """
    T, B, C = _check_logits(logits)
    blank = _check_blank(blank, C)
    steps = check_lengths("lengths", lengths, T, B)
    best = logits.argmax(axis=2)
    begins = best != blank
    begins[1:] &= best[1:] != best[:-1]
    begins &= np.arange(T)[:, None] < steps
    return [best[begins[:, b], b].tolist() for b in range(B)]


# ------------------------------------------------------------------------------------------ paths

# A path walks through the labels with blanks, (B, L): it begins at the first or second of them,
# ends at the last or the one before, and at each step stays, moves on by one, or skips a blank.


def _log_paths(log_y: Array, labels: Array, steps: Array, ends: Array) -> Array:
    """Log-probability of all paths that are at label s at step t, (T, B, L).

    What follows a step is the same as what goes before it, for the sequence turned around: both
    come from one loop over twice as many rows.
    """
    T, B, _ = log_y.shape
    time, place = np.arange(T)[:, None], np.arange(labels.shape[1])
    turned = (
        np.maximum(steps - 1 - time, 0)[:, :, None],
        np.arange(B)[:, None],
        np.maximum(ends[:, None] - 1 - place, 0),
    )
    log_z = np.take_along_axis(log_y, labels[None], axis=2)
    both = np.concatenate([log_z, log_z[turned]], axis=1)
    before = _log_before(both, np.concatenate([labels, labels[turned[1:]]]))
    through = before[:, :B] + log_z + before[:, B:][turned]
    inside = (time < steps)[:, :, None] & (place < ends[:, None])
    return np.where(inside, through, -np.inf)


def _log_before(log_z: Array, labels: Array) -> Array:
    """Log-probability of all beginnings of paths, to step t - 1, that can be at label s at t."""
    skips = np.zeros(labels.shape, bool)
    skips[:, 2:] = labels[:, 2:] != labels[:, :-2]
    log_skips = np.where(skips, 0, -np.inf)[:, 2:]
    before = np.full(log_z.shape, -np.inf)
    before[:1, :, :2] = 0
    for t in range(1, len(log_z)):
        at, to = before[t - 1] + log_z[t - 1], before[t]
        np.logaddexp(at[:, 1:], at[:, :-1], out=to[:, 1:])
        to[:, 0] = at[:, 0]
        np.logaddexp(to[:, 2:], at[:, :-2] + log_skips, out=to[:, 2:])
    return before


def _softmax(z: Array) -> tuple[Array, Array]:
    """The softmax over the last axis and its logarithm, which is not rounded to -inf."""
    z -= z.max(axis=-1, keepdims=True)
    y = np.exp(z)
    total = y.sum(axis=-1, keepdims=True)
    return y / total, z - np.log(total)


# ------------------------------------------------------------------------------------------ checks


def _check_logits(logits: Array) -> tuple[int, int, int]:
    """Return (T, B, C)."""
    checks.of_floats("logits", logits)
    if logits.ndim != 3 or logits.shape[2] == 0:
        raise ValueError(f"logits has shape {logits.shape}, expected (T, B, C) with C >= 1")
    T, B, C = logits.shape
    return T, B, C


def _check_blank(blank: int, classes: int) -> int:
    blank = checks.integer("blank", blank, 0)
    if blank >= classes:
        raise ValueError(f"blank is {blank}, expected a class from 0 to {classes - 1}")
    return blank


def _with_blanks(
    targets: Any, target_lengths: Any, batch: int, classes: int, blank: int
) -> tuple[Array, Array]:
    """Return the labels with blanks around them, (B, 2 S + 1), and how many each sequence has."""
    given = checks.readable("targets", targets)
    checks.integers("targets", given, targets)
    if given.ndim != 2 or given.shape[1] != batch:
        raise ValueError(f"targets has shape {given.shape}, expected (S, B) = (S, {batch})")
    counts = check_lengths("target_lengths", target_lengths, len(given), batch)
    told = np.arange(len(given))[:, None] < counts
    wanted = check_ids("targets", np.where(told, given, blank), classes)
    if (told & (wanted == blank)).any():
        raise ValueError(f"targets has the blank, {blank}, among its labels")
    labels = np.full((batch, 2 * len(given) + 1), blank)
    labels[:, 1::2] = wanted.T
    return labels, 2 * counts + 1
