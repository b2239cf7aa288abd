# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""Steps and chunks of steps through stacked layers, whose weights are packed once and whose state stays here."""

cimport numpy as cnp
from libc.string cimport memset

from .abi cimport (
    RNNFAST_FORWARD, rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_kernels, rnnfast_packed, rnnfast_step,
    rnnfast_weights,
)
from .arrays cimport (
    ANY, Arrays, Block, Rows, arrays_of, fits, from_row, new, no_rows, overlap, row, rows_in, rows_of, shape_of, take,
)
from .config cimport Packed, alloc, cell_of, flops_of, free, packed, padded, share, table, useful_threads
from .passes cimport Weights, take_weights
from .sequence cimport Pass, forward_block, run_blocks, start_pass

import numpy as np

from . import checks

cnp.import_array()

# Work below which the GIL is kept.
cdef double GIL_FLOPS = 1e5


cdef class LayerState:
    """One of the stacked layers: its packed weights and the arrays that a step reads and writes."""
    cdef Packed packed
    cdef readonly object h       # (2, B, Pp), used in turn
    cdef readonly object c       # (B, Hp) of an LSTM, or None
    cdef object y, work, gates
    cdef readonly Py_ssize_t H, P
    cdef rnnfast_step step

    def __cinit__(self, int cell, int act, Weights weights, Py_ssize_t B, zeros):
        """`zeros` makes arrays, as `numpy.zeros` does."""
        cdef Arrays a = arrays_of(ANY)
        cdef rnnfast_weights w
        cdef const rnnfast_kernels *k
        cdef Py_ssize_t Hp, Pp
        if not take_weights(&a, &w, cell, act, weights.w_ih.shape[1], weights):
            raise ValueError("arrays that do not fit each other")
        k = table(a.dtype)
        self.packed = packed(k, &w, RNNFAST_FORWARD, 1)
        self.H, self.P = w.H, w.P
        Hp, Pp, dtype = padded(k, w.H), padded(k, w.P), weights.w_hh.dtype
        self.h, self.y = zeros((2, B, Pp), dtype), zeros((B, w.P), dtype)
        self.c = zeros((B, Hp), dtype) if cell_of(cell).has_c else None
        self.work = zeros((B, Hp), dtype) if w.w_hr != NULL else None
        self.gates = zeros((B, cell_of(cell).slots * Hp), dtype) if cell_of(cell).has_w_hn else None
        self.point_to_arrays(B, Hp, Pp)

    cdef void point_to_arrays(self, Py_ssize_t B, Py_ssize_t Hp, Py_ssize_t Pp):
        cdef rnnfast_step *s = &self.step
        memset(s, 0, sizeof(rnnfast_step))
        s.rows, s.x_stride, s.y_stride = B, self.packed.w.I, self.P
        s.h_stride = s.h_next_stride = Pp
        s.c_stride = s.work_stride = Hp
        s.gates_stride = cell_of(self.packed.w.cell).slots * Hp
        s.h, s.h_next = data_of(self.h[0]), data_of(self.h[1])
        s.y, s.c, s.c_next = data_of(self.y), data_of(self.c), data_of(self.c)
        s.work, s.gates = data_of(self.work), data_of(self.gates)


cdef void *data_of(object array) except? NULL:
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray?>array)


# One stacked layer as the loop over layers sees it.
cdef struct LayerStep:
    rnnfast_step step
    const rnnfast_packed *w


cdef class Steps:
    """Steps through stacked layers; `rnnfast.stream.Stream` adds what needs the layer itself.

    `layers` are LayerStates. `turn` says which h of each layer holds the state.
    """
    cdef readonly list layers
    cdef LayerStep *steps        # (n,)
    cdef const rnnfast_kernels *k
    cdef Py_ssize_t B
    cdef int n
    cdef double flops
    cdef readonly object dtype
    cdef readonly int turn, threads
    cdef readonly bint rows_first  # chunks are (B, T, I)

    def __cinit__(self, list layers, Py_ssize_t batch_size, int threads, dtype, bint rows_first):
        cdef LayerState layer
        cdef Py_ssize_t l
        self.layers, self.B, self.n, self.threads = layers, batch_size, len(layers), threads
        self.dtype, self.rows_first = dtype, rows_first
        self.steps = <LayerStep *>alloc(self.n * sizeof(LayerStep))
        if self.steps == NULL:
            raise MemoryError()
        for l, layer in enumerate(layers):
            self.k, self.steps[l].w, self.steps[l].step = layer.packed.k, &layer.packed.w, layer.step
            w = &layer.packed.w
            self.flops += flops_of(batch_size, w.cell, w.I, w.H, w.P)

    def __dealloc__(self):
        free(self.steps)

    def step(self, x, out=None):
        """Take one time step and return its output.

        Parameters
        ----------
        x : ndarray, shape (B, I), or (I,) if the batch size is 1
        out : ndarray, shape (B, P), or (P,) with x (I,), optional
            Where to put the output: C-contiguous, writeable, apart from x. With it nothing is
            allocated.

        Returns
        -------
        ndarray
            `out`, or a new array of its shape.

        Raises
        ------
        TypeError
            `x` or `out` is not an ndarray of the layer's dtype.
        ValueError
            A shape does not fit, or `out` cannot be written to.
        """
        cdef Arrays a = self.arrays()
        cdef Py_ssize_t I = self.steps[0].w.I, P = self.steps[self.n - 1].w.P
        cdef const void *xs = take(&a, x, ANY, ANY)
        cdef void *ys
        cdef int ndim
        if xs == NULL or not fits(x, self.B, 1, I):
            x = checks.step_input(x, self.dtype, self.B, I)
            a = self.arrays()
            xs = take(&a, x, ANY, ANY)
        ndim = cnp.PyArray_NDIM(<cnp.ndarray>x)
        if out is None:
            out = new(&a, &ys, ndim, P if ndim == 1 else self.B, P)
        else:
            ys = take(&a, out, ndim, ANY)
            if ys == NULL or not fits(out, self.B, 1, P) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
                checks.refuse_step_output(out, self.dtype, ndim, self.B, P)
            if overlap(x, out):
                checks.refuse_overlap("out", "x")
        self.advance(xs, ys)
        return out

    def run(self, x):
        """Take a chunk of steps, going on from the state and carrying it further.

        Parameters
        ----------
        x : ndarray, shape (T, B, I), or (B, T, I) if the layer is `batch_first`, or (T, I) if the
            batch size is 1

        Returns
        -------
        ndarray
            The outputs, with the axes of x and P for I. A transposed view if `batch_first`.

        Raises
        ------
        TypeError, ValueError
            `x` is not an ndarray of the layer's dtype and of that shape.
        """
        cdef Arrays a = self.arrays()
        cdef Py_ssize_t I = self.steps[0].w.I, P = self.steps[self.n - 1].w.P, T
        cdef const void *xs = take(&a, x, ANY, ANY)
        cdef void *ys
        cdef int ndim
        if self.rows_first or xs == NULL or not fits(x, self.B, 2, I):
            x = checks.chunk_input(x, self.dtype, self.B, I, self.rows_first)
            a = self.arrays()
            xs = take(&a, x, ANY, ANY)
        ndim, T = cnp.PyArray_NDIM(<cnp.ndarray>x), shape_of(x)[0]
        y = new(&a, &ys, ndim, T, P if ndim == 2 else self.B, P)
        self.run_layers(T, xs, ys)
        return y.swapaxes(0, 1) if self.rows_first and ndim == 3 else y

    cdef int run_layers(self, Py_ssize_t T, const void *x, void *y) except -1:
        """One layer after the other. What is between them goes to two halves of a block in turn."""
        cdef Py_ssize_t l, N = T * self.B, P = self.steps[0].w.P
        cdef Rows halves[2]
        cdef Rows source = rows_of(x, self.steps[0].w.I, self.k.size), to
        cdef Block b
        cdef Pass f
        cdef Pass *passes[2]
        passes[0], passes[1] = &f, NULL
        b.start, b.used = NULL, 0
        rows_in(&b, min(self.n - 1, 2) * N, P, self.k.size)
        b.start, b.used = <char *>alloc(b.used) if self.n > 1 else NULL, 0
        if self.n > 1 and b.start == NULL:
            raise MemoryError()
        halves[0] = rows_in(&b, N, P, self.k.size)
        halves[1] = rows_in(&b, N, P, self.k.size)
        try:
            for l in range(self.n):
                to = rows_of(y, self.steps[l].w.P, self.k.size) if l == self.n - 1 else halves[l % 2]
                f = start_pass(self.k, self.steps[l].w, T, self.B, N)
                f.x, f.y = source, to
                f.h_n = f.h0 = rows_of(self.steps[l].step.h, f.Pp, self.k.size)
                f.c_n = f.c0 = rows_of(self.steps[l].step.c_next, f.Hp, self.k.size)
                run_blocks(passes, forward_block, self.threads)
                source = to
        finally:
            free(b.start)
        return 0

    cdef inline Arrays arrays(self) noexcept:
        return arrays_of(cnp.NPY_FLOAT if self.k.size == 4 else cnp.NPY_DOUBLE)

    cdef void advance(self, const void *x, void *y) noexcept:
        if self.B == 0:
            return
        if self.flops < GIL_FLOPS:
            self.advance_layers(x, y)
        else:
            with nogil:
                self.advance_layers(x, y)
        self.turn = 1 - self.turn

    cdef void advance_layers(self, const void *x, void *y) noexcept nogil:
        cdef int l
        cdef rnnfast_step *s
        for l in range(self.n):
            s = &self.steps[l].step
            s.x, s.reverse_panels = x, self.turn
            if l == self.n - 1:
                s.y = y  # the layers below it write to memory of the stream
            self.advance_rows(self.steps[l].w, s)
            s.h, s.h_next = s.h_next, s.h
            x = s.y

    cdef void advance_rows(self, const rnnfast_packed *w, const rnnfast_step *s) noexcept nogil:
        cdef int threads = min(useful_threads(self.flops, self.threads), self.B)
        cdef unsigned long flush
        cdef RowsJob job
        if threads == 1:
            flush = rnnfast_flush_enter()
            self.k.step[w.cell](w, s)  # not a copy, which would wait for the stores just made to s
            rnnfast_flush_leave(flush)
        else:
            job.k, job.w, job.step, job.parts = self.k, w, s, threads
            share(threads, threads, True, step_rows, &job)


# ---- The rows of a step, shared among threads.

cdef struct RowsJob:
    const rnnfast_kernels *k
    const rnnfast_packed *w
    const rnnfast_step *step     # of all rows
    Py_ssize_t parts


cdef inline void *moved(const void *data, Py_ssize_t row, Py_ssize_t stride, int size) noexcept nogil:
    """The data of a row; NULL stays NULL."""
    cdef Rows r = rows_of(data, stride, size)
    return NULL if data == NULL else from_row(&r, row).data


cdef int step_rows(void *to_do, Py_ssize_t part) noexcept nogil:
    cdef const RowsJob *job = <const RowsJob *>to_do
    cdef const rnnfast_kernels *k = job.k
    cdef rnnfast_step s = job.step[0]
    cdef Py_ssize_t b0 = part * s.rows // job.parts, b1 = (part + 1) * s.rows // job.parts
    cdef unsigned long flush = rnnfast_flush_enter()
    s.rows = b1 - b0
    s.x, s.y = moved(s.x, b0, s.x_stride, k.size), moved(s.y, b0, s.y_stride, k.size)
    s.h, s.h_next = moved(s.h, b0, s.h_stride, k.size), moved(s.h_next, b0, s.h_stride, k.size)
    s.c, s.c_next = moved(s.c, b0, s.c_stride, k.size), moved(s.c_next, b0, s.c_stride, k.size)
    s.work = moved(s.work, b0, s.work_stride, k.size)
    s.gates = moved(s.gates, b0, s.gates_stride, k.size)
    k.step[job.w.cell](job.w, &s)
    rnnfast_flush_leave(flush)
    return 0
