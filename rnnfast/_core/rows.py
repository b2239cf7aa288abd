"""Sequences of different length as the kernels take them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from . import ragged

Index = NDArray[np.intp]


class Ragged(NamedTuple):
    """Sequences of different length without their padding, longest first, step after step."""

    order: Index  # (B,) which sequence of the batch stands where
    active: Index  # rows of each step
    offset: Index  # first data row of each step
    rows: Index | None  # (N,) where in (T*B) each data row is; None: x and y have them in order
    padding: Index  # the other rows of (T*B), which are zeroed


def ragged_of(lengths: Index, T: int, reverse: bool) -> Ragged:
    """Return the rows of sequences that lie in (T, B)."""
    return Ragged._make(ragged.order_by_length(lengths, T, reverse))
