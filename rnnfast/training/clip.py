"""Gradient clipping, the remedy for exploding gradients."""

from __future__ import annotations

import math

import numpy as np

from ._array import Arrays, check_positive

SMALL = 1 << 14  # numbers that take about as long as the call that adds up their squares


def global_norm(grads: Arrays) -> float:
    """The Euclidean norm over all arrays together, accumulated in float64."""
    # einsum casts in small blocks: no float64 copy, and no overflow of float32 squares.
    large = (g.ravel() for g in grads.values() if g.size > SMALL)
    total = sum(np.einsum("i,i->", g, g, dtype=np.float64) for g in large)
    small = [g for g in grads.values() if g.size <= SMALL]
    if small:
        flat = np.concatenate(small, axis=None, dtype=np.float64)
        total += np.add.reduce(np.square(flat, out=flat))
    return math.sqrt(total)


def clip_norm(grads: Arrays, max_norm: float) -> float:
    """Scale all gradients together, in place, so that their global norm is at most `max_norm`.

    `g = g min(1, max_norm / (norm + 1e-6))`: the direction stays.

    Parameters
    ----------
    grads : dict
        Gradients; modified in place.
    max_norm : float
        The largest norm allowed, > 0.

    Returns
    -------
    norm : float
        The norm before clipping. If it is not finite the gradients are left as they are.

    Notes
    -----
    Source: Pascanu, Mikolov & Bengio, On the difficulty of training recurrent neural networks
    (2013), algorithm 1; the `1e-6` is PyTorch's.
    """
    check_positive(max_norm=max_norm)
    norm = global_norm(grads)
    scale = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and scale < 1:
        for g in grads.values():
            g *= scale
    return norm


def clip_value(grads: Arrays, max_value: float) -> None:
    """Limit every gradient entry to `-max_value .. max_value`, in place.

    Parameters
    ----------
    grads : dict
        Gradients; modified in place.
    max_value : float
        The largest magnitude allowed, > 0.

    Notes
    -----
    Source: Mikolov, Statistical language models based on neural networks (2012), section 3.2.2.
    """
    check_positive(max_value=max_value)
    for g in grads.values():
        np.clip(g, -max_value, max_value, out=g)
