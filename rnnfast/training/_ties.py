"""Arrays that share memory: one array under several names, and what must not pass for it.

A model may use one array in two places, as an embedding and an output layer that are tied do. Such
an array has two names, and a gradient under each. It is to move once, by the sum of the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ._array import Array, Arrays


def ties(arrays: Arrays) -> dict[str, str]:
    """Of every name whose array is an earlier one, or a view of just its entries: that one's name.

    Arrays without entries are never tied.
    """
    first: dict[Any, str] = {}
    found = {}
    for name, a in arrays.items():
        if a.size:
            strides = tuple(s for s, n in zip(a.strides, a.shape, strict=True) if n > 1)
            earlier = first.setdefault((_address(a), a.dtype, a.shape, strides), name)
            if earlier != name:
                found[name] = earlier
    return found


def summed(grads: Arrays, tied: Mapping[str, str]) -> dict[str, Array]:
    """Return gradients by array: those of tied names added up, under the first name of each."""
    sums = dict(grads)
    for name, first in tied.items():
        sums[first] = sums[first] + sums.pop(name)
    return sums


def check_overlaps(what: str, arrays: Arrays) -> None:
    """Refuse arrays that share memory; those that `ties` finds are not to be among them."""
    spans = []
    for name, a in arrays.items():
        if a.size:
            _check_within(f"{what}[{name!r}]", a)
            extents = [s * (n - 1) for s, n in zip(a.strides, a.shape, strict=True)]
            start = _address(a) + sum(e for e in extents if e < 0)
            spans.append((start, start + sum(map(abs, extents)) + a.itemsize, name))
    near: list[tuple[int, str]] = []  # the ends and names of the spans that the next may reach
    for start, end, name in sorted(spans):
        near = [span for span in near if span[0] > start]
        for _, other in near:
            if np.shares_memory(arrays[name], arrays[other]):
                raise ValueError(
                    f"{what}[{name!r}] shares memory with {what}[{other!r}] in another layout, and "
                    "a step would move it twice; leave one out, and add its gradient to the other's"
                )
        near.append((end, name))


def _check_within(name: str, a: Array) -> None:
    """Refuse an array of which two entries may be one place in memory."""
    reach = a.itemsize
    for stride, n in sorted((abs(s), n) for s, n in zip(a.strides, a.shape, strict=True) if n > 1):
        if stride < reach:
            raise ValueError(f"{name} has entries that share memory; pass a copy")
        reach += stride * (n - 1)


def _address(a: Array) -> int:
    address: int = a.__array_interface__["data"][0]
    return address
