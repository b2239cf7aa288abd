"""What is measured: cells, shapes, directions, their arithmetic and their inputs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .._core import config

Arrays: TypeAlias = dict[str, np.ndarray[Any, Any]]

CELLS = ("rnn", "gru", "lstm")
GATES = {cell: config.gates_of(getattr(config, cell.upper())) for cell in CELLS}
DIRECTIONS = ("forward", "training")
DTYPES = ("float32", "float64")

# (T, B, I, H): time steps, batch, input size, hidden size.
SHAPES = {
    "step": (1, 1, 32, 64),
    "tiny": (16, 1, 8, 20),
    "audio": (256, 1, 1, 32),
    "small": (32, 16, 32, 64),
    "medium": (64, 32, 128, 128),
    "long": (1000, 4, 64, 128),
    "large": (50, 64, 256, 256),
    "xl": (50, 64, 512, 512),
    "xxl": (20, 128, 1024, 1024),
}
QUICK_SHAPES = ("tiny", "audio", "small", "medium")


@dataclass(frozen=True)
class Case:
    """One cell at one shape in one direction, `forward` or `training` (forward and backward)."""

    cell: str
    shape: str
    direction: str
    dtype: str = "float32"

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """`(T, B, I, H)`."""
        return SHAPES[self.shape]

    @property
    def flops(self) -> int:
        """Arithmetic of the matrix products, a multiply-add counted as two.

        Forward multiplies `T*B` rows by `w_ih (G*H, I)` and `w_hh (G*H, H)`; backward does that
        twice more, once for the gradients of the rows and once for those of the weights.
        """
        T, B, I, H = self.sizes
        forward = 2 * T * B * GATES[self.cell] * H * (I + H)
        return forward if self.direction == "forward" else 3 * forward

    @property
    def results(self) -> tuple[str, ...]:
        """Names of what every library returns: `y`, for training also the gradient of each input.

        All of them are compared: who left one out would do less work than the others.
        """
        return ("y",) if self.direction == "forward" else ("y", *(f"d{n}" for n in arguments(self)))


def all_cases(
    cells: Iterable[str], shapes: Iterable[str], directions: Iterable[str], dtype: str
) -> list[Case]:
    """Every combination, grouped by shape, then cell."""
    cells, directions = tuple(cells), tuple(directions)
    return [Case(c, s, d, dtype) for s in shapes for c in cells for d in directions]


def arguments(case: Case) -> tuple[str, ...]:
    """Names of the arguments of the forward function, in their order."""
    states = ("h0", "c0") if case.cell == "lstm" else ("h0",)
    return ("x", *states, "w_ih", "w_hh", "b_ih", "b_hh")


def inputs(case: Case) -> Arrays:
    """Arguments of the forward function in their order, then `dy`, the same for every library.

    Weights follow PyTorch's uniform(-1/sqrt(H), 1/sqrt(H)), so that gates neither saturate nor die.
    """
    T, B, I, H = case.sizes
    GH = GATES[case.cell] * H
    rng = np.random.default_rng([T, B, I, H, GH])
    bound = H**-0.5
    a = {"x": rng.standard_normal((T, B, I)), "h0": rng.uniform(-1, 1, (B, H))}
    if case.cell == "lstm":
        a["c0"] = rng.uniform(-1, 1, (B, H))
    for name, shape in {"w_ih": (GH, I), "w_hh": (GH, H), "b_ih": (GH,), "b_hh": (GH,)}.items():
        a[name] = rng.uniform(-bound, bound, shape)
    a["dy"] = rng.standard_normal((T, B, H))
    return {name: value.astype(case.dtype) for name, value in a.items()}
