"""Learning rates that change with the epochs, for `fit(..., schedule=...)`.

A schedule is called with the number of an epoch, from 0, and returns its rate. One that goes by
what happened so far has `observe(history)` too, which `fit` calls before each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, Protocol

from .._core import checks
from .._described import Described
from ._array import check_fraction, check_positive


class Figures(Protocol):
    """What a schedule reads of `History`."""

    @property
    def loss(self) -> Sequence[float]:
        """The loss of each epoch."""

    @property
    def held_out(self) -> Sequence[float]:
        """The held-out figure of each epoch, if there is one."""

    @property
    def maximize(self) -> bool:
        """Whether higher held-out figures are better."""


class StepDecay(Described):
    """The rate falls to `factor` of itself after every so many epochs.

    `lr factor^floor(epoch / epochs)`.

    Parameters
    ----------
    lr : float
        The rate at first.
    epochs : int
        How many epochs a rate lasts.
    factor : float
        Above 0.

    Raises
    ------
    TypeError, ValueError
        A number of the wrong kind or out of range.

    Examples
    --------
    >>> schedule = StepDecay(0.1, epochs=10, factor=0.5)
    >>> [schedule(epoch) for epoch in (0, 9, 10, 20)]
    [0.1, 0.1, 0.05, 0.025]
    """

    def __init__(self, lr: float, epochs: int, factor: float = 0.1) -> None:
        check_positive(lr=lr, factor=factor)
        self.lr, self.factor = float(lr), float(factor)
        self.epochs = checks.integer("epochs", epochs, 1)

    def __call__(self, epoch: int) -> float:
        """The rate of an epoch."""
        power: int = checks.integer("epoch", epoch, 0) // self.epochs
        return self.lr * self.factor**power


class CosineDecay(Described):
    """The rate falls along half a cosine, and then stays.

    `last + (lr - last) (1 + cos(pi epoch / epochs)) / 2`; `last` from `epochs` on.

    Parameters
    ----------
    lr : float
        The rate at first.
    epochs : int
        After how many epochs it is at `last`.
    last : float
        The rate at the end, `0 <= last <= lr`.

    Raises
    ------
    TypeError, ValueError
        A number of the wrong kind or out of range.

    Notes
    -----
    With `last=0` and the `epochs` of the training, the last epoch still has a rate above 0.

    Source: Loshchilov & Hutter, SGDR: stochastic gradient descent with warm restarts (2017), arXiv
    1608.03983, without the restarts.
    """

    def __init__(self, lr: float, epochs: int, last: float = 0.0) -> None:
        check_positive(lr=lr)
        if not 0 <= checks.real("last", last) <= lr:
            raise ValueError(f"last is {last}, expected 0 <= last <= lr = {lr}")
        self.lr, self.last = float(lr), float(last)
        self.epochs = checks.integer("epochs", epochs, 1)

    def __call__(self, epoch: int) -> float:
        """The rate of an epoch."""
        done = min(checks.integer("epoch", epoch, 0) / self.epochs, 1.0)
        return self.last + (self.lr - self.last) * (1 + math.cos(math.pi * done)) / 2


class WarmUp(Described):
    """The rate rises in equal steps to where another schedule begins, which then takes over.

    `schedule(0) (epoch + 1) / (epochs + 1)` in the first epochs, then `schedule(epoch - epochs)`.

    Parameters
    ----------
    schedule : callable or float
        What follows: a function of the epoch, or a rate that stays.
    epochs : int
        How many epochs have a lower rate.

    Raises
    ------
    TypeError, ValueError
        A number of the wrong kind or out of range.

    Notes
    -----
    Source: Goyal et al., Accurate, large minibatch SGD (2017), arXiv 1706.02677, section 2.2.
    """

    def __init__(self, schedule: Callable[[int], float] | float, epochs: int) -> None:
        if not callable(schedule):
            check_positive(schedule=schedule)
        self.schedule = schedule
        self.epochs = checks.integer("epochs", epochs, 1)

    def __call__(self, epoch: int) -> float:
        """The rate of an epoch."""
        later = checks.integer("epoch", epoch, 0) - self.epochs
        rate = self.schedule(max(later, 0)) if callable(self.schedule) else self.schedule
        return rate if later >= 0 else rate * ((epoch + 1) / (self.epochs + 1))

    def observe(self, history: Figures) -> None:
        """Show the epochs after the first ones to the other schedule, if it wants to see them."""
        observe: Any = getattr(self.schedule, "observe", None)
        if observe is not None:
            loss, held_out = history.loss[self.epochs :], history.held_out[self.epochs :]
            rest = SimpleNamespace(loss=loss, held_out=held_out, maximize=history.maximize)
            observe(rest)


class Plateau(Described):
    """The rate falls to `factor` of itself when the held-out figure has not improved for long.

    Whether lower or higher figures are better is up to `fit(..., maximize=...)`. Without a held-out
    figure the training loss counts.

    Parameters
    ----------
    lr : float
        The rate at first.
    factor : float
        `0 < factor < 1`.
    patience : int
        How many epochs without improvement are put up with. The rate falls after one more, and
        from there they are counted again.
    threshold : float
        By how much a figure must be better than the best one before it, >= 0.
    lowest : float
        The rate never falls below it.

    Raises
    ------
    TypeError, ValueError
        A number of the wrong kind or out of range.

    Notes
    -----
    NaN is never an improvement. The rate is that of the whole history, so a training that is
    resumed goes on with the rate that it had.
    """

    def __init__(
        self,
        lr: float,
        factor: float = 0.1,
        patience: int = 10,
        *,
        threshold: float = 0.0,
        lowest: float = 0.0,
    ) -> None:
        check_positive(lr=lr, factor=factor)
        check_fraction(factor=factor)
        if not 0 <= checks.real("threshold", threshold) < math.inf:
            raise ValueError(f"threshold is {threshold}, expected a finite number >= 0")
        if not 0 <= checks.real("lowest", lowest) <= lr:
            raise ValueError(f"lowest is {lowest}, expected 0 <= lowest <= lr = {lr}")
        self.lr, self.factor = float(lr), float(factor)
        self.patience = checks.integer("patience", patience, 0)
        self.threshold, self.lowest = float(threshold), float(lowest)
        self._rate = self.lr

    def __call__(self, epoch: int) -> float:
        """The rate after the epochs that `observe` has seen, whatever the number of the epoch."""
        return self._rate

    def observe(self, history: Figures) -> None:
        """Find the rate of the next epoch from all epochs so far.

        Parameters
        ----------
        history : History
            Or what has the lists `loss` and `held_out`, and `maximize`.
        """
        sign = -1 if history.maximize and history.held_out else 1
        rate, best, without = self.lr, math.inf, 0
        for figure in history.held_out or history.loss:
            if sign * figure < best - self.threshold:
                best, without = sign * figure, 0
            else:
                without += 1
            if without > self.patience:
                rate, without = max(rate * self.factor, self.lowest), 0
        self._rate = rate
