"""What stands around the network of an estimator: examples, scaling, the end of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training import Standardizer
from ._read import Array


@dataclass
class Examples:
    """n sequences with what is to be predicted of them."""

    x: Array  # (n, T, I)
    y: Array  # (n, ...)
    lengths: Array | None = None  # (n,)
    weight: Array | None = None  # (n,)

    def __getitem__(self, rows: Any) -> Examples:
        """Some of them."""
        lengths = None if self.lengths is None else self.lengths[rows]
        weight = None if self.weight is None else self.weight[rows]
        return Examples(self.x[rows], self.y[rows], lengths, weight)

    def step_weight(self) -> Array | None:
        """How much each step counts, (n, T); None: all the same."""
        if self.lengths is None and self.weight is None:
            return None
        n, T, _ = self.x.shape
        counts = np.ones((n, T)) if self.weight is None else np.tile(self.weight[:, None], T)
        return counts if self.lengths is None else counts * (np.arange(T) < self.lengths[:, None])


def standardizer(values: Array, weight: Array | None = None, scaled: bool = True) -> Standardizer:
    """One fitted to values (..., F), of which each row counts as its weight (...) says.

    Without `scaled` it leaves all numbers as they are.
    """
    features = values.shape[-1]
    if not scaled:
        return Standardizer(np.zeros(features), np.ones(features))
    found = Standardizer().fit(values, mask=None if weight is None else weight > 0)
    if weight is None:
        return found
    # From the plain mean on, by which the weighted one of equal numbers has no rounding error.
    rows, counts = values.reshape(-1, features) - found.mean, weight.reshape(-1)
    shift = np.average(rows, axis=0, weights=counts)
    deviation = np.sqrt(np.average(np.square(rows - shift), axis=0, weights=counts))
    return Standardizer(found.mean + shift, np.where(deviation > 0, deviation, 1))
