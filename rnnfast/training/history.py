"""What happened during `fit`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class History:
    """One entry per epoch in each list.

    Attributes
    ----------
    loss : list of float
        Mean training loss over the epoch's batches.
    gradient_norm : list of float
        Mean global norm of the gradients, before clipping.
    held_out : list of float
        What `evaluate` returned; empty without it.
    seconds : list of float
        Time of the epoch, evaluation included.
    interrupted : bool
        Whether Ctrl-C ended the training.
    """

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return len(self.loss)

    @property
    def best_epoch(self) -> int | None:
        """The first epoch (from 0) with the lowest held-out figure; NaN is never the lowest."""
        figures = [(value, epoch) for epoch, value in enumerate(self.held_out) if value == value]
        return min(figures)[1] if figures else None

    def add(
        self, loss: float, gradient_norm: float, held_out: float | None, seconds: float
    ) -> None:
        """Note one epoch."""
        self.loss.append(loss)
        self.gradient_norm.append(gradient_norm)
        if held_out is not None:
            self.held_out.append(held_out)
        self.seconds.append(seconds)

    def as_dict(self) -> dict[str, Any]:
        """Plain lists, as JSON takes them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, stored: Any) -> History:
        """The reverse of `as_dict`; ValueError for anything else."""
        names = ("loss", "gradient_norm", "held_out", "seconds")
        try:
            loss, norm, held_out, seconds = ([float(v) for v in stored[name]] for name in names)
        except (TypeError, KeyError, ValueError):
            raise ValueError("the stored history is damaged") from None
        if not (len(loss) == len(norm) == len(seconds) and len(held_out) in (0, len(loss))):
            raise ValueError("the stored history has lists of different length")
        return cls(loss, norm, held_out, seconds)
