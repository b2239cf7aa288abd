"""Many arrays end to end in one, so that an optimiser steps through all of them at once."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ._array import Array

BLOCK = 1 << 15  # numbers that a rule goes over at a time, ten times and in the second cache


class Flat:
    """The parameters of one dtype, `N` numbers laid end to end.

    Parameters
    ----------
    shapes : dict
        Their names and shapes.
    dtype : dtype
    state : dict
        `state[slot] (N,)`, what the optimiser keeps.

    Attributes
    ----------
    moves : ndarray (N,)
        Gradients, which the optimiser's rule turns into what to subtract from the parameters.
    params : ndarray (N,)
        For a copy of the parameters.
    parts : dict
        `moves` in the parameters' shapes, by name.
    blocks : list of tuples
        One stretch after another of `moves`, `params`, scratch and every slot.
    """

    def __init__(
        self, shapes: dict[str, tuple[int, ...]], dtype: np.dtype[Any], state: dict[str, Array]
    ) -> None:
        self.shapes, self.dtype, self.state = shapes, dtype, state
        size = sum(map(prod, shapes.values()))
        self.moves, self.params = np.empty(size, dtype), np.empty(size, dtype)
        self.parts = self.split(self.moves)
        scratch = np.empty(min(size, BLOCK), dtype)
        self.blocks: list[tuple[Array, ...]] = []
        for start in range(0, size, BLOCK):
            moves, params, *slots = (
                a[start : start + BLOCK] for a in (self.moves, self.params, *state.values())
            )
            self.blocks.append((moves, params, scratch[: moves.size], *slots))

    def split(self, array: Array) -> dict[str, Array]:
        """Views of an `(N,)` array in the parameters' shapes, by name."""
        views, start = {}, 0
        for name, shape in self.shapes.items():
            views[name] = array[start : start + prod(shape)].reshape(shape)
            start += prod(shape)
        return views

    def __reduce__(self) -> Any:
        # A copy makes its own views: views are copied or pickled one by one, each as an array.
        return Flat, (self.shapes, self.dtype, self.state)
