"""What happened during `fit`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(repr=False)
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
    maximize : bool
        Whether a held-out figure is better when it is higher.
    """

    loss: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    held_out: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    interrupted: bool = False
    maximize: bool = False

    def __repr__(self) -> str:
        words = [f"epochs={self.epochs}"]
        if self.epochs:
            words.append(f"loss={self.loss[-1]:.4g}")
        if self.held_out:
            words.append(f"held_out={self.held_out[-1]:.4g}")
            if self.best_epoch is not None:
                best = self.held_out[self.best_epoch]
                words += [f"best={best:.4g}", f"best_epoch={self.best_epoch}"]
        words.append(f"seconds={sum(self.seconds):.1f}")
        if self.interrupted:
            words.append("interrupted=True")
        return f"History({', '.join(words)})"

    @property
    def epochs(self) -> int:
        """Epochs completed."""
        return len(self.loss)

    @property
    def best_epoch(self) -> int | None:
        """The first epoch (from 0) with the best held-out figure; NaN is never the best."""
        sign = -1 if self.maximize else 1
        figures = [(sign * v, epoch) for epoch, v in enumerate(self.held_out) if v == v]
        return min(figures)[1] if figures else None

    def reaches(self, goal: float) -> bool:
        """Whether the best held-out figure is at the goal, or better."""
        best = self.best_epoch
        if best is None:
            return False
        return self.held_out[best] >= goal if self.maximize else self.held_out[best] <= goal

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
        """Plain lists, as JSON takes them; `maximize` only where it is true."""
        return {name: v for name, v in asdict(self).items() if name != "maximize" or v}

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
        maximize = stored.get("maximize", False)
        if not isinstance(maximize, bool):
            raise ValueError("the stored history is damaged")
        return cls(loss, norm, held_out, seconds, maximize=maximize)
