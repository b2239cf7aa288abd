"""Sequences of different length as padded, time-major batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .._core import checks
from ._array import Array


def pad(
    sequences: Sequence[Any],
    value: Any = 0,
    *,
    batch_first: bool = False,
    dtype: DTypeLike | None = None,
) -> tuple[Array, Array]:
    """Put sequences of different length side by side.

    Parameters
    ----------
    sequences : sequence of array_like (T_b, ...)
        All with the same trailing axes, and of one dtype if none is given.
    value : scalar
        What stands beyond each sequence's end.
    batch_first : bool
        Whether the batch is to be the first axis.
    dtype : dtype, optional
        Of the result, such as np.float32, the layers' own default; None: that of the sequences.

    Returns
    -------
    padded : ndarray (T, B, ...), or (B, T, ...) if `batch_first`
        `T` is the longest length.
    lengths : ndarray (B,), int64
        As the layers take them.
    """
    if not len(sequences):
        raise ValueError("sequences is empty, expected at least one")
    arrays = [np.asarray(sequence, dtype) for sequence in sequences]
    kinds = {f"{a.dtype} with trailing shape {a.shape[1:]}" for a in arrays}
    if len(kinds) != 1 or arrays[0].ndim == 0:
        raise ValueError(f"sequences differ in dtype or trailing shape: {'; '.join(sorted(kinds))}")
    lengths = np.array([len(a) for a in arrays])
    sizes = (len(arrays), lengths.max()) if batch_first else (lengths.max(), len(arrays))
    padded = np.full((*sizes, *arrays[0].shape[1:]), value, arrays[0].dtype)
    rows = padded if batch_first else padded.swapaxes(0, 1)
    for row, array in zip(rows, arrays, strict=True):
        row[: len(array)] = array
    return padded, lengths


def minibatches(
    count: int,
    batch: int,
    rng: np.random.Generator,
    *,
    lengths: Array | None = None,
) -> Iterator[Array]:
    """Random batches of the indices `0 .. count - 1`, each index once.

    Parameters
    ----------
    count, batch : int
        Number of examples and examples per batch (the last may be smaller).
    rng : numpy.random.Generator
        The source of the order.
    lengths : ndarray (count,), optional
        If given, a batch holds sequences of similar length, which saves padding: equal lengths are
        in random order, and so are the batches.

    Yields
    ------
    indices : ndarray (<= batch,)
    """
    batch = checks.integer("batch", batch, 1)
    if lengths is not None:
        lengths = checks.readable("lengths", lengths)
        checks.of_shape("lengths", lengths, (count,), "(count,)")
    order = rng.permutation(count)
    if lengths is not None:
        order = order[np.argsort(lengths[order], kind="stable")]
    starts = np.arange(0, count, batch)
    if lengths is not None:
        rng.shuffle(starts)
    for start in starts:
        yield order[start : start + batch]
