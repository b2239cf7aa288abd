"""Gradient clipping, the remedy for exploding gradients.

These functions see gradients, and not which of their names are one array, tied. They take every
name's gradient by itself, though it is the sum that moves a tied array. So for an array of `n`
names the norm of the sum may be up to `sqrt(n)` times the norm here. Its entries may be `n` times
those that `clip_value` allows. `Optimizer.summed` adds up, and `fit` goes by the norm of the sum.
"""

from __future__ import annotations

import math

import numpy as np

from .._core import checks
from ._array import Array, Named, check_positive, named

SMALL = 1 << 14  # numbers that take about as long as the call that adds up their squares


def global_norm(grads: Named) -> float:
    """The Euclidean norm over all arrays together, accumulated in float64.

    Parameters
    ----------
    grads : dict, or object with one as `params`
        Each name counts by itself: for tied ones give what `Optimizer.summed` returns.

    Returns
    -------
    norm : float
    """
    arrays = named("grads", grads)
    if {*map(type, arrays.values())} != {np.ndarray}:
        for name, g in arrays.items():
            checks.plain(f"grads[{name!r}]", g)
    # einsum casts in small blocks: no float64 copy, and no overflow of float32 squares.
    large = (g.ravel() for g in arrays.values() if g.size > SMALL)
    total = sum(np.einsum("i,i->", g, g, dtype=np.float64) for g in large)
    small = [g for g in arrays.values() if g.size <= SMALL]
    if small:
        flat = np.concatenate(small, axis=None, dtype=np.float64)
        total += np.add.reduce(np.square(flat, out=flat))
    return math.sqrt(total)


def clip_norm(grads: Named, max_norm: float) -> float:
    """Scale all gradients together, in place, so that their global norm is at most `max_norm`.

    `g = g min(1, max_norm / (norm + 1e-6))`: the direction stays.

    Parameters
    ----------
    grads : dict, or object with one as `params`
        Gradients; modified in place. Each name counts by itself, see `global_norm`; an array under
        several names is scaled once.
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
    return scale_to_norm(grads, max_norm, global_norm(grads))


def scale_to_norm(grads: Named, max_norm: float, norm: float) -> float:
    """`clip_norm` of gradients whose `norm` is known."""
    scale = max_norm / (norm + 1e-6)
    if math.isfinite(norm) and scale < 1:
        for g in _writeable(grads):
            g *= scale
    return norm


def clip_value(grads: Named, max_value: float) -> None:
    """Limit every gradient entry to `-max_value .. max_value`, in place.

    Parameters
    ----------
    grads : dict, or object with one as `params`
        Gradients; modified in place. Each name counts by itself.
    max_value : float
        The largest magnitude allowed, > 0.

    Notes
    -----
    Source: Mikolov, Statistical language models based on neural networks (2012), section 3.2.2.
    """
    check_positive(max_value=max_value)
    for g in _writeable(grads):
        np.clip(g, -max_value, max_value, out=g)


def _writeable(grads: Named) -> list[Array]:
    """Return every array once, refused where it cannot be changed in place."""
    arrays = {}
    for name, g in named("grads", grads).items():
        if type(g) is not np.ndarray or g.dtype.kind != "f":
            checks.of_floats(f"grads[{name!r}]", g)
        if not g.flags.writeable:
            checks.of_writeable(f"grads[{name!r}]", g)
        arrays[id(g)] = g
    return list(arrays.values())
