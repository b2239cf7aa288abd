"""What sequences of different lengths mean for a layer.

A PackedSequence has its rows as the kernels take them: the first steps of all sequences, longest
first, then all second steps, and so on. So its data are used as they are; only the reverse
direction, in which each sequence starts at its own last step, reads them in another order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .._core import checks
from .._core.ragged import extremes
from .._core.rows import ragged_of
from ._layer import Direction, array

Index = NDArray[np.intp]


def as_array(value: Any) -> Any:
    """Return a tensor as an array, anything else as it is."""
    if not isinstance(value, Tensor):
        return value
    if torch._C._are_functorch_transforms_active():  # there a tensor's memory is out of reach
        return np.array(value.tolist())
    return array(value)


def lengths_of_padded(lengths: Any, T: int, B: int) -> Index | None:
    """Check `lengths`. None if no sequence is shorter than T."""
    checked = checks.lengths(as_array(lengths), T, B)
    return checked if B and extremes(checked)[0] < T else None


def lengths_of_packed(packed: Any) -> tuple[Index, Index]:
    """Return the lengths, longest first, and which sequence of the batch each of them is of."""
    sizes, order = as_array(packed.batch_sizes), as_array(packed.sorted_indices)
    n = len(packed.data)
    if sizes[-1] < 1 or np.any(sizes[1:] > sizes[:-1]) or sizes.sum() != n:
        raise ValueError(f"batch_sizes does not describe the {n} rows of a PackedSequence")
    places = np.arange(sizes[0])
    if order is None:
        order = places
    elif not np.array_equal(np.sort(order), places):
        raise ValueError(f"sorted_indices does not order the {len(places)} sequences")
    return np.searchsorted(-sizes, -places), order


def direction_of(
    mode: str,
    reverse: bool,
    T: int,
    lengths: Index | None,
    order: Index | None,
    resets: NDArray[np.uint8] | None,
) -> Direction:
    """Return a direction for (T, B, I), or with `order` for packed data. Resets are (T, B)."""
    if lengths is None:
        return Direction(mode, reverse, resets=None if resets is None else resets.reshape(-1))
    ragged = ragged_of(lengths, T, reverse)
    if resets is not None:
        resets = (resets if order is None else resets[:, order]).reshape(-1)[ragged.rows]
    if order is None:
        return Direction(mode, reverse, ragged, resets)
    assert ragged.rows is not None
    step, place = np.divmod(ragged.rows, len(order))
    rows = ragged.offset[step] + place if reverse else None
    ragged = ragged._replace(order=order, rows=rows, padding=ragged.padding[:0])
    return Direction(mode, reverse, ragged, resets)
