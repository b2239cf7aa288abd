# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""Sequences of different length without their padding.

It does without NumPy's functions, which are slow when they are called once in a while. (M41)
"""

cimport numpy as cnp

import numpy as np

cnp.import_array()


def extremes(cnp.ndarray[Py_ssize_t, mode="c"] lengths not None):
    """Return the least and the greatest of some lengths; (0, 0) of none."""
    cdef Py_ssize_t n = lengths.shape[0], b
    cdef Py_ssize_t least = lengths[0] if n else 0, greatest = least
    for b in range(1, n):
        least, greatest = min(least, lengths[b]), max(greatest, lengths[b])
    return least, greatest


def order_by_length(cnp.ndarray[Py_ssize_t, mode="c"] lengths not None, Py_ssize_t T, bint reverse):
    """Return the fields of `Ragged` for sequences that lie in (T, B)."""
    cdef Py_ssize_t B = lengths.shape[0], steps = extremes(lengths)[1], N = 0, i = 0, b, r, t
    cdef cnp.ndarray[Py_ssize_t, mode="c"] order = np.empty(B, np.intp)
    cdef cnp.ndarray[Py_ssize_t, mode="c"] place = np.zeros(steps + 1, np.intp)
    cdef cnp.ndarray[Py_ssize_t, mode="c"] active = np.empty(steps, np.intp)
    cdef cnp.ndarray[Py_ssize_t, mode="c"] offset = np.empty(steps, np.intp)
    for b in range(B):
        N += lengths[b]
        place[lengths[b]] += 1
    cdef cnp.ndarray[Py_ssize_t, mode="c"] rows = np.empty(N, np.intp)
    cdef cnp.ndarray[Py_ssize_t, mode="c"] padding = np.empty(T * B - N, np.intp)
    for t in range(steps, -1, -1):  # sort by counting: place[t] becomes how many are longer than t
        place[t], i = i, i + place[t]
    i = 0
    for t in range(steps):
        active[t], offset[t] = place[t], i
        i += place[t]
    for b in range(B):
        order[place[lengths[b]]] = b
        place[lengths[b]] += 1
    for r in range(B):
        b = order[r]
        for t in range(lengths[b]):
            rows[offset[t] + r] = (lengths[b] - 1 - t if reverse else t) * B + b
    i = 0
    for t in range(T):
        for b in range(B):
            if lengths[b] <= t:
                padding[i] = t * B + b
                i += 1
    return order, active, offset, rows, padding
