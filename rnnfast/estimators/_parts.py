"""What stands around the network of an estimator: examples, scaling, the end of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..training import ModuleGrads
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


@dataclass
class Scaling:
    """A shift and a scale for each of F features, to mean 0 and variance 1."""

    mean: Array  # (F,)
    scale: Array

    @classmethod
    def of(cls, values: Array, weight: Array | None = None, scaled: bool = True) -> Scaling:
        """That of values (..., F), each row of which counts as its weight (...) says.

        A feature whose numbers differ by rounding only is shifted, and not scaled.
        """
        if not scaled:
            return cls(np.zeros(values.shape[-1]), np.ones(values.shape[-1]))
        rows = values.reshape(-1, values.shape[-1]).astype(np.float64)
        weight = None if weight is None else weight.reshape(-1)
        mean = np.average(rows, axis=0, weights=weight)
        deviation = np.sqrt(np.average(np.square(rows - mean), axis=0, weights=weight))
        rounding = 10 * np.finfo(values.dtype).eps * np.abs(mean)
        return cls(mean, np.where(deviation <= rounding, 1.0, deviation))

    def apply(self, values: Array) -> Array:
        """Scaled values, in their own dtype."""
        scaled: Array = ((values - self.mean) / self.scale).astype(values.dtype)
        return scaled

    def undo(self, values: Array) -> Array:
        """The reverse of `apply`."""
        unscaled: Array = (values * self.scale + self.mean).astype(values.dtype)
        return unscaled


class Returning:
    """Gives every step of a bidirectional layer the output where the second direction ends.

    That is the output at the first step, which has read the whole row. A `Last` behind it then has
    the ends of both directions, in (B, T, 2H) as x and y are.
    """

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}

    def __repr__(self) -> str:
        return "Returning()"

    def forward(self, x: Array) -> tuple[Array, None]:
        """Output, and nothing for a tape."""
        y = x.copy()
        half = x.shape[2] // 2
        y[:, :, half:] = x[:, :1, half:]
        return y, None

    def backward(self, tape: None, dy: Array) -> ModuleGrads:
        """Gradient of the input."""
        dx = dy.copy()
        half = dy.shape[2] // 2
        dx[:, 0, half:] = dy[:, :, half:].sum(axis=1)
        dx[:, 1:, half:] = 0
        return ModuleGrads(dx, {})
