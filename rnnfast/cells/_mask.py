"""Extra inputs that are drawn while a layer is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .._core import checks


@dataclass(frozen=True)
class Mask:
    """An extra input that a layer draws at random while it trains.

    Each number is 1 with probability p, else 0. `Recurrent.forward` draws from the layer's
    generator, for each stacked layer and each direction anew. Where nothing is trained (a call of
    the layer, a stream, a module of PyTorch in evaluation) every number is the mean instead. A mask
    has no gradient.

    Parameters
    ----------
    p : float
        The probability of a 1.
    per_step : bool
        Whether every time step has a mask of its own. Otherwise one mask serves all steps of a row.
    scaled : bool
        Whether ``1 / p`` is drawn instead of 1, so that the mean is 1.
    evaluation : float, optional
        The number that takes the mask's place where nothing is trained; the mean by default.

    Raises
    ------
    TypeError, ValueError
        A number is none, or p is not a probability, or 0 although the mask is scaled.

    Examples
    --------
    >>> from rnnfast.cells import Mask, cell, linear, tanh
    >>> @cell(state="h", extra="m", masks={"m": Mask(0.8, per_step=False, scaled=True)})
    ... def dropped(x, h, m):
    ...     return tanh(linear("a", x, h=m * h))
    """

    p: float
    per_step: bool = True
    scaled: bool = False
    evaluation: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= checks.real("p", self.p) <= 1:
            raise ValueError(f"p is {self.p}, expected a number from 0 to 1")
        if self.scaled and self.p == 0:
            raise ValueError("p is 0, expected more than 0 for a scaled mask")
        if self.evaluation is not None:
            checks.real("evaluation", self.evaluation)

    @property
    def expected(self) -> float:
        """What takes the mask's place where nothing is trained."""
        if self.evaluation is not None:
            return float(self.evaluation)
        return 1.0 if self.scaled else float(self.p)

    def shape(self, T: int, B: int, n: int) -> tuple[int, ...]:
        """The shape of a mask for so many steps, rows and units."""
        return (T, B, n) if self.per_step else (B, n)

    def of(self, uniform: Any) -> Any:
        """Turn numbers drawn uniformly from [0, 1) into the mask, in place: of NumPy or PyTorch."""
        uniform[...] = uniform < self.p
        if self.scaled:
            uniform /= self.p
        return uniform

    def __str__(self) -> str:
        one = f"{1 / self.p:g}" if self.scaled else "1"
        when = "drawn for each step" if self.per_step else "drawn once for all steps"
        return f"{one} with probability {self.p:g}, else 0, {when}; {self.expected:g} in evaluation"
