"""The windows of a series: what a forecasting network reads and what it is to predict."""

from __future__ import annotations

import numpy as np

from ..training import sliding_windows
from ._parts import Examples, standardizer
from ._read import Array


class Windows:
    """The way from K variables to a network's input, and back from its output.

    Parameters
    ----------
    values : ndarray (T, K)
    exog : ndarray (T, E) or None
    window, steps : int
        How many steps the network reads, W, and how many it predicts, S.
    scaling : {"window", "series", "none"}
    """

    def __init__(
        self, values: Array, exog: Array | None, window: int, steps: int, scaling: str
    ) -> None:
        self.window, self.steps, self.variables = window, steps, values.shape[1]
        self.moved, scaled = scaling == "window", scaling != "none"
        if self.moved:
            past, _ = sliding_windows(values, window, steps, batch_first=True)
            self.values = standardizer(past - self._level(past))
        else:
            self.values = standardizer(values, scaled=scaled)
        self.exog = None if exog is None else standardizer(exog, scaled=scaled)

    def examples(self, values: Array, exog: Array | None) -> Examples:
        """All stretches of W + S steps, one after the other; with `exog` the last S count."""
        past, future = sliding_windows(values, self.window, self.steps, batch_first=True)
        level = self._level(past)
        if exog is None:
            return Examples(self.inputs(past, None), self.values.transform(future - level))
        both = np.concatenate([past, future], axis=1)
        around = sliding_windows(exog, self.window, self.steps, batch_first=True)
        x = self.inputs(past, np.concatenate(around, axis=1))
        to_come = np.zeros(both.shape[:2])
        to_come[:, self.window :] = 1
        return Examples(x, self.values.transform(both - level), weight=to_come)

    def inputs(self, past: Array, exog: Array | None) -> Array:
        """What the network reads, of `past` (n, W, K).

        With `exog` (n, W + S, E) it goes on through the steps to come. There the values are zero
        and a further input, zero before, is one.
        """
        values = self.values.transform(past - self._level(past))
        if exog is None or self.exog is None:
            return values
        values = np.pad(values, ((0, 0), (0, self.steps), (0, 0)))
        to_come = np.zeros_like(values[..., :1])
        to_come[:, self.window :] = 1
        return np.concatenate([values, to_come, self.exog.transform(exog)], axis=2)

    def forecast(self, past: Array, outputs: Array) -> Array:
        """The forecast (S, K, Q) after `past` (W, K), of the network's outputs (S, K, Q)."""
        values = self.values.inverse_transform(outputs.swapaxes(1, 2)) + self._level(past[None])
        return values.swapaxes(1, 2)

    def _level(self, past: Array) -> Array:
        """What each variable of each window is moved by, (n, 1, K)."""
        level: Array = past.mean(axis=1, keepdims=True)
        return level if self.moved else np.zeros_like(level)
