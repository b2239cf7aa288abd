"""Examples from long series: windows that overlap, parts to train and to judge by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .._core import checks
from ._array import Array


def sliding_windows(
    series: Array, window: int, horizon: int, stride: int = 1, *, batch_first: bool = False
) -> tuple[Array, Array]:
    """Cut a series into overlapping examples: some steps, and those that follow them.

    Parameters
    ----------
    series : ndarray (T, ...)
        Any dtype. The trailing axes stay: give `series[:, None]` for layers, which want features.
    window : int
        `W`, the steps that an example sees.
    horizon : int
        `K`, the steps after them that are to be predicted.
    stride : int
        From the beginning of one example to that of the next.
    batch_first : bool
        Whether the examples are on axis 0 of the results, as layers with `batch_first` want them.

    Returns
    -------
    inputs : ndarray (W, N, ...), or (N, W, ...) with `batch_first`
        `inputs[t, n] = series[n stride + t]`, `N = (T - W - K) // stride + 1`.
    targets : ndarray (K, N, ...), or (N, K, ...) with `batch_first`
        `targets[k, n] = series[n stride + W + k]`.

    Raises
    ------
    TypeError, ValueError
        A number of the wrong kind or too small, or a series that is shorter than one example.

    Notes
    -----
    Both are views, which cannot be written to: they take no memory. What is taken from them by
    indices, `inputs[:, batch]`, is an array of its own.
    """
    array = checks.plain("series", series)
    window, horizon = checks.integer("window", window, 1), checks.integer("horizon", horizon, 1)
    stride, steps = checks.integer("stride", stride, 1), window + horizon
    if array.ndim == 0 or len(array) < steps:
        raise ValueError(
            f"series has shape {array.shape}, expected at least window + horizon = {steps} steps "
            "along its first axis"
        )
    examples = np.lib.stride_tricks.sliding_window_view(array, steps, axis=0)[::stride]
    by_step = np.moveaxis(examples, -1, int(batch_first))
    if batch_first:
        return by_step[:, :window], by_step[:, window:]
    return by_step[:window], by_step[window:]


def split_by_time(
    *arrays: Array, fractions: Sequence[float] = (0.8, 0.2), axis: int | Sequence[int] = 0
) -> tuple[Any, ...]:
    """Cut arrays into consecutive parts, the earliest first.

    Parameters
    ----------
    *arrays : ndarray
        As long as each other along `axis`.
    fractions : sequence of float
        How much each part gets of that length; their sum is 1.
    axis : int, or one for each array
        The axis of the time.

    Returns
    -------
    parts : tuple
        One for each fraction: an array if one is given, else a tuple of them. They are views.

    Raises
    ------
    TypeError, ValueError
        Arrays or fractions that do not fit, or a part that would be empty.

    Examples
    --------
    >>> past, future = split_by_time(np.arange(5), fractions=(0.6, 0.4))
    >>> past, future
    (array([0, 1, 2]), array([3, 4]))

    Notes
    -----
    Split a series before it is cut into windows: windows that overlap would have a part of what
    they are judged by in training.
    """
    axes, length = _axes(arrays, axis)
    parts = [slice(start, stop) for start, stop in _cuts(fractions, length)]
    return tuple(_taken(arrays, axes, part) for part in parts)


def split_at_random(
    *arrays: Array,
    fractions: Sequence[float] = (0.8, 0.2),
    axis: int | Sequence[int],
    rng: int | np.random.Generator | None = None,
    stratify: Any = None,
) -> tuple[Any, ...]:
    """Deal the examples of arrays out to parts, at random.

    Parameters
    ----------
    *arrays : ndarray
        With as many examples as each other along `axis`.
    fractions : sequence of float
        How many of the examples each part gets; their sum is 1.
    axis : int, or one for each array
        The axis of the examples: 1 in time-major batches, 0 where the batch is the first axis and
        in labels of shape (B,). There is no default: the wrong axis would deal out time steps.
    rng : int or numpy.random.Generator, optional
        The source of the order.
    stratify : ndarray (N,), optional
        A class of each example. Every part gets its share of each class, to about one example.

    Returns
    -------
    parts : tuple
        One for each fraction: an array if one is given, else a tuple of them. They are copies, and
        their examples are in random order.

    Raises
    ------
    TypeError, ValueError
        Arrays or fractions that do not fit, or a part that would be empty.

    Examples
    --------
    >>> x, labels = np.zeros((20, 10, 3)), np.arange(10) % 2
    >>> parts = split_at_random(x, labels, axis=(1, 0), rng=0, stratify=labels)
    >>> (x_train, labels_train), (x_test, labels_test) = parts
    >>> x_train.shape, x_test.shape, np.sort(labels_test)
    ((20, 8, 3), (20, 2, 3), array([0, 1]))
    """
    axes, count = _axes(arrays, axis)
    cuts = _cuts(fractions, count)
    rng = np.random.default_rng(rng)
    order = rng.permutation(count)
    if stratify is not None:
        classes = checks.readable("stratify", stratify)
        checks.of_shape("stratify", classes, (count,), "(N,)")
        order = order[np.argsort(_places(classes[order], rng), kind="stable")]
    parts = [rng.permutation(order[start:stop]) for start, stop in cuts]
    return tuple(_taken(arrays, axes, part) for part in parts)


def _places(classes: Array, rng: np.random.Generator) -> Array:
    """A place from 0 to 1 of each example, at which those of every class are evenly spread."""
    _, numbers, counts = np.unique(classes, return_inverse=True, return_counts=True)
    rank = np.empty(len(classes))
    by_class = np.argsort(numbers, kind="stable")
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    rank[by_class] = np.arange(len(classes)) - starts
    places: Array = (rank + rng.random(len(counts))[numbers]) / counts[numbers]
    return places


def _axes(arrays: tuple[Array, ...], axis: int | Sequence[int]) -> tuple[list[int], int]:
    """The axis of each array, and the length that all have there."""
    if not arrays:
        raise ValueError("arrays is empty, expected at least one array")
    axes = list(axis) if isinstance(axis, Sequence) else [axis] * len(arrays)
    if len(axes) != len(arrays):
        raise ValueError(f"axis is {axis}, expected one for each of {len(arrays)} arrays")
    lengths = []
    for n, (array, one) in enumerate(zip(arrays, axes, strict=True)):
        checks.integer("axis", one, 0)
        if checks.plain(f"arrays[{n}]", array).ndim <= one:
            raise ValueError(
                f"arrays[{n}] has shape {array.shape}, which has no axis {one}; axis takes one for "
                "each array"
            )
        lengths.append(array.shape[one])
    if len(set(lengths)) != 1:
        raise ValueError(f"arrays have {lengths} entries along axis {axis}, expected equal numbers")
    return axes, lengths[0]


def _cuts(fractions: Sequence[float], length: int) -> list[tuple[int, int]]:
    """Where each part begins and ends."""
    if not isinstance(fractions, Sequence):
        kind = type(fractions).__name__
        raise TypeError(f"fractions has type {kind}, expected a sequence such as (0.8, 0.2)")
    shares = [checks.real(f"fractions[{n}]", share) for n, share in enumerate(fractions)]
    if not (shares and min(shares) > 0 and math.isclose(sum(shares), 1)):
        raise ValueError(f"fractions is {fractions}, expected numbers above 0 whose sum is 1")
    ends = [round(length * sum(shares[: n + 1])) for n in range(len(shares))]
    cuts = list(zip([0, *ends], ends, strict=False))
    if any(start == stop for start, stop in cuts):
        raise ValueError(
            f"fractions is {fractions}, which leaves a part of {length} entries empty; give more "
            "entries or other fractions"
        )
    return cuts


def _taken(arrays: tuple[Array, ...], axes: list[int], part: Any) -> Any:
    """What `part` takes of each array along its axis; the array alone if there is one."""
    taken = tuple(
        array[(slice(None),) * axis + (part,)] for array, axis in zip(arrays, axes, strict=True)
    )
    return taken if len(taken) > 1 else taken[0]
