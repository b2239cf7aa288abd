# Sequences of different length without their padding: part of _kernels.pyx.

def packing(const Py_ssize_t[::1] lengths not None, Py_ssize_t T, bint reverse):
    """Return the fields of a `Packing` of sequences that lie in (T, B)."""
    cdef Py_ssize_t B = lengths.shape[0], N = 0, longest = 0, rows = B, i = 0, t, b, r
    for b in range(B):
        N += lengths[b]
        longest = max(longest, lengths[b])
    order = np.argsort(-np.asarray(lengths), kind="stable")
    cdef const Py_ssize_t[::1] row_at = order
    cdef Py_ssize_t[::1] active = np.empty(longest, np.intp), offset = np.empty(longest, np.intp)
    cdef Py_ssize_t[::1] at = np.empty(N, np.intp), padding = np.empty(T * B - N, np.intp)
    for t in range(longest):
        while lengths[row_at[rows - 1]] <= t:
            rows -= 1
        active[t], offset[t] = rows, i
        for r in range(rows):
            b = row_at[r]
            at[i] = (lengths[b] - 1 - t if reverse else t) * B + b
            i += 1
    i = 0
    for t in range(T):
        for b in range(B):
            if lengths[b] <= t:
                padding[i] = t * B + b
                i += 1
    return order, active.base, offset.base, at.base, padding.base
