"""What stands around the network of an estimator: its examples and their scaling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training import Standardizer, length_mask
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
        if self.lengths is None:
            return counts
        return counts * length_mask(self.lengths, T, batch_first=True)


def standardizer(values: Array, weight: Array | None = None, scaled: bool = True) -> Standardizer:
    """Return a `Standardizer` fitted to values (..., F) with weights (...).

    Without `scaled` it leaves all numbers as they are.
    """
    if not scaled:
        features = values.shape[-1]
        return Standardizer(np.zeros(features), np.ones(features))
    return Standardizer().fit(values, weight=weight)
