"""What stands around the network of an estimator: its examples, scaling, ends of two directions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import Last
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


class Ends:
    """The outputs where both directions of a layer end, (B, T, 2H) to (B, 2H).

    The first direction ends at the last valid step of a row, the second at its first step.
    """

    def __init__(self) -> None:
        self.params: dict[str, Array] = {}
        self._last = Last(batch_first=True)

    def __repr__(self) -> str:
        return "Ends()"

    def __call__(self, x: Array, *, lengths: Any = None) -> Array:
        return self.forward(x, lengths=lengths)[0]

    def forward(self, x: Array, *, lengths: Any = None) -> tuple[Array, Any]:
        """Output and tape."""
        y, tape = self._last.forward(x, lengths=lengths)
        half = y.shape[1] // 2
        y[:, half:] = x[:, 0, half:]
        return y, tape

    def backward(self, tape: Any, dy: Array) -> ModuleGrads:
        """Gradient of the input."""
        half = dy.shape[1] // 2
        dlast = dy.copy()
        dlast[:, half:] = 0
        dx = self._last.backward(tape, dlast).input
        dx[:, 0, half:] = dy[:, half:]
        return ModuleGrads(dx, {})
