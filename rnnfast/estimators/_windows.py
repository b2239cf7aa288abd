"""The windows of a series: what a forecasting network reads and what it is to predict."""

from __future__ import annotations

import numpy as np

from ._parts import Examples, Scaling
from ._read import Array


class Windows:
    """The way from K variables to a network's input and back.

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
        self.moved = scaling == "window"
        past = stretches(values, window)
        self.values = Scaling.of(past - self._level(past) if self.moved else values)
        if scaling == "none":
            self.values = Scaling.of(values, scaled=False)
        self.exog = None if exog is None else Scaling.of(exog, scaled=scaling != "none")

    def examples(self, values: Array, exog: Array | None) -> Examples:
        """All stretches of W + S steps, one after the other; with `exog` the last S count."""
        both = stretches(values, self.window + self.steps)
        past = both[:, : self.window]
        if exog is None:
            targets = both[:, self.window :] - self._level(past)
            return Examples(self.inputs(past, None), self.values.apply(targets))
        to_come = np.zeros(both.shape[:2])
        to_come[:, self.window :] = 1
        x = self.inputs(past, stretches(exog, self.window + self.steps))
        return Examples(x, self.values.apply(both - self._level(past)), weight=to_come)

    def inputs(self, past: Array, exog: Array | None) -> Array:
        """What the network reads, of `past` (n, W, K).

        With `exog` (n, W + S, E) it goes on through the steps to come. There the values are zero
        and a further input, zero before, is one.
        """
        values = self.values.apply(past - self._level(past))
        if exog is None:
            return values
        values = np.pad(values, ((0, 0), (0, self.steps), (0, 0)))
        to_come = np.zeros_like(values[..., :1])
        to_come[:, self.window :] = 1
        return np.concatenate([values, to_come, self.exog.apply(exog)], axis=2)

    def forecast(self, past: Array, outputs: Array) -> Array:
        """The forecast (S, K, Q) after `past` (W, K), of the network's outputs (S, K, Q)."""
        unscaled = self.values.undo(outputs.swapaxes(1, 2)) + self._level(past[None])
        return unscaled.swapaxes(1, 2)

    def _level(self, past: Array) -> Array:
        """What each variable of each window is moved by, (n, 1, K)."""
        level: Array = past.mean(axis=1, keepdims=True)
        return level if self.moved else np.zeros_like(level)


def stretches(values: Array, steps: int) -> Array:
    """All stretches (T - steps + 1, steps, K) of values (T, K)."""
    return np.lib.stride_tricks.sliding_window_view(values, steps, axis=0).swapaxes(1, 2)
