"""The baseline of a language model: n-grams with the smoothing of Witten and Bell."""

from __future__ import annotations

from typing import Any

import numpy as np


def ngram_bits(training: Any, test: Any, order: int) -> float:
    """Bits per symbol of a test text under an n-gram model of a training text.

    `p_n(w | context) = (c(context w) + t(context) p_{n-1}(w)) / (c(context) + t(context))`,
    where `c` counts occurrences, `t` the different symbols seen after the context, and `p_0` is
    uniform. A context never seen leaves `p_{n-1}`. Source: Witten & Bell, The zero-frequency
    problem (1991), method C, in the interpolated form of Chen & Goodman (1998).

    Parameters
    ----------
    training, test : ndarray (N,), integer
        Symbols `0 .. V-1`.
    order : int
        `n`: a symbol is predicted from the `n - 1` before it.

    Returns
    -------
    bits : float
        The mean of `-log2 p` over the test symbols that have `n - 1` symbols before them.
    """
    size = int(max(training.max(), test.max())) + 1
    p = np.full(len(test) - order + 1, 1 / size)
    for n in range(1, order + 1):
        seen, asked = (_ngrams(text, n, order, size) for text in (training, test))
        grams, gram_counts = np.unique(seen, return_counts=True)
        contexts, place = np.unique(grams // size, return_inverse=True)
        count = _lookup(grams, gram_counts, asked)
        total = _lookup(contexts, np.bincount(place, gram_counts), asked // size)
        types = _lookup(contexts, np.bincount(place), asked // size)
        known = total > 0
        p[known] = ((count + types * p) / np.where(known, total + types, 1))[known]
    return float(-np.log2(p).mean())


def _ngrams(text: Any, n: int, order: int, size: int) -> Any:
    """The n-gram that ends at each position from `order - 1` on, as one number."""
    code = np.zeros(len(text) - order + 1, np.int64)
    for back in range(n - 1, -1, -1):
        code = code * size + text[order - 1 - back : len(text) - back]
    return code


def _lookup(keys: Any, values: Any, asked: Any) -> Any:
    """The value of each asked key, 0 for one that is not there; `keys` are sorted."""
    found = np.searchsorted(keys, asked).clip(max=len(keys) - 1)
    return np.where(keys[found] == asked, values[found], 0)
