# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""What Python calls: one call of one layer in one direction, forward or back, and the tape between them.

A call is an object with named fields. Fields for results may be set beforehand to arrays of the caller, which the
results then go to. Arrays that are as the kernels need them go straight there. Only where one is not, or with lengths or
resets, does `checks` look at each, to copy it or to raise.
"""

cimport numpy as cnp
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from .abi cimport (
    RNNFAST_BACKWARD, RNNFAST_FORWARD, RNNFAST_ONE_STEP, rnnfast_kernels, rnnfast_packed, rnnfast_weights,
)
from .arrays cimport ANY, Arrays, Block, Rows, arrays_of, from_column, no_rows, result, rows_in, rows_of, shape_of, take
from .config cimport Packed, alloc, cell_of, flops_of, free, packed, table, useful_threads
from .gradients cimport Gradients, add_up_gradients
from .sequence cimport Pass, backward_block, forward_block, run_blocks, start_pass

import numpy as np

from . import checks

cnp.import_array()

cdef object FLOAT32 = np.dtype("float32"), FLOAT64 = np.dtype("float64")

NO_COPY_OF_A_TAPE = ("a tape cannot be pickled or copied: it serves one backward, in the process of its forward. "
                     "Keep the inputs and call forward again")

# The tapes whose memory is lent, by its address; without a reference, each leaves when it goes.
TAPES = {}
cdef dict lent = TAPES


def tape_at(size_t address):
    """Return the tape that has this memory, or None. Whoever asks must hold that memory."""
    tape = lent.get(address)
    return None if tape is None else <object><void *><size_t>tape


cdef class Weights:
    """The weights of one cell, or their gradients, named as in `rnnfast.functional`; None for what is not there."""
    def __cinit__(self, w_ih, w_hh, b_ih=None, b_hh=None, w_hr=None):
        self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr = w_ih, w_hh, b_ih, b_hh, w_hr

    def __iter__(self):
        return iter((self.w_ih, self.w_hh, self.b_ih, self.b_hh, self.w_hr))

    def __reduce__(self):
        return Weights, tuple(self)


cdef class Tape:
    """What backward needs, saved by forward. Backward works in this memory, so it can run once."""
    cdef Pass f
    cdef Packed weights
    cdef void *block
    cdef Py_ssize_t size         # of the block, in bytes
    cdef void *raw               # what backward of a projection needs in addition
    cdef object x, resets
    cdef readonly object ragged
    cdef readonly bint used, b_ih, b_hh, w_hr
    cdef bint is_lent

    def __dealloc__(self):
        if self.is_lent:
            lent.pop(<size_t>self.block, None)
        free(self.block)
        free(self.raw)

    def __reduce__(self):
        raise TypeError(NO_COPY_OF_A_TAPE)

    @property
    def memory(self):
        """What it holds, as an array of bytes, from whose address `tape_at` gets back to the tape."""
        cdef cnp.npy_intp size = self.size
        self.is_lent = True
        lent[<size_t>self.block] = <size_t><void *>self
        array = cnp.PyArray_SimpleNewFromData(1, &size, cnp.NPY_UINT8, self.block)
        cnp.set_array_base(array, self)
        return array

    @property
    def cell(self):
        return self.f.w.cell

    @property
    def dtype(self):
        return FLOAT32 if self.f.k.size == 4 else FLOAT64

    @property
    def shape(self):
        """(T, B, I, H, P), T and B as x has them."""
        return *self.x.shape[:2], self.f.w.I, self.f.w.H, self.f.w.P

    @property
    def directions(self):
        """How many directions the rows of y have."""
        return self.f.y.stride // self.f.k.size // self.f.w.P

    cdef int allocate(self, Pass *f) except -1:
        """Memory for the states and gates of f."""
        self.size = divide_tape(f, NULL)
        self.block = alloc(self.size)
        if self.block == NULL:
            raise MemoryError()
        divide_tape(f, <char *>self.block)
        return 0

    cdef int allocate_raw(self, Pass *f) except -1:
        """Memory for the outputs before a projection and the complete gradients after it."""
        if f.w.w_hr != NULL:
            self.raw = alloc(divide_raw(f, NULL))
            if self.raw == NULL:
                raise MemoryError()
            divide_raw(f, <char *>self.raw)
        return 0


cdef Py_ssize_t divide_tape(Pass *f, char *block) noexcept:
    """Divide a block of memory into the parts of a tape; returns the bytes it takes."""
    cdef Block b
    b.start, b.used = block, 0
    f.states = rows_in(&b, f.B + f.N, f.Pp, f.k.size)
    f.cells = rows_in(&b, f.B + f.N, f.Hp, f.k.size) if f.cell.has_c else no_rows()
    f.gates = rows_in(&b, f.N, f.gates_stride, f.k.size)
    return b.used


def tape_size(int cell, dtype, Py_ssize_t T, Py_ssize_t B, Py_ssize_t H, Py_ssize_t P):
    """Return how many bytes a tape of these sizes holds; with lengths it has no more."""
    cdef rnnfast_packed w
    cdef Pass f
    memset(&w, 0, sizeof(w))
    w.cell, w.H, w.P = cell, H, P
    f = start_pass(table(cnp.NPY_FLOAT if dtype == np.float32 else cnp.NPY_DOUBLE), &w, T, B, T * B)
    return divide_tape(&f, NULL)


cdef Py_ssize_t divide_raw(Pass *f, char *block) noexcept:
    cdef Block b
    b.start, b.used = block, 0
    f.h_raw = rows_in(&b, f.N, f.Hp, f.k.size)
    f.dh_sum = rows_in(&b, f.N, f.Pp, f.k.size)
    return b.used


cdef bint take_weights(Arrays *a, rnnfast_weights *w, int cell, int act, Py_ssize_t I, Weights given) noexcept:
    """False if they are not plain arrays that fit each other."""
    cdef Py_ssize_t rows, gates = cell_of(cell).gates
    memset(w, 0, sizeof(rnnfast_weights))
    w.cell, w.act, w.I = cell, act, I
    w.w_hh = take(a, given.w_hh, 2, ANY)
    if w.w_hh == NULL:
        return False
    rows, w.P = shape_of(given.w_hh)[0], shape_of(given.w_hh)[1]
    w.H = rows // gates
    w.w_ih = take(a, given.w_ih, 2, rows, I)
    w.b_ih, w.b_hh = take(a, given.b_ih, 1, rows), take(a, given.b_hh, 1, rows)
    w.w_hr = take(a, given.w_hr, 2, w.P, w.H)
    if given.w_hr is None and w.P != w.H:
        return False
    return a.plain and w.w_ih != NULL and I > 0 and 0 < w.P <= w.H and w.H * gates == rows


# ---- Forward.

cdef class ForwardCall:
    """One call of one layer in one direction, and its results.

    The caller gives lengths and resets unchecked. Instead of them it may set `ragged`, and `flags`, uint8 per data row.
    x is (T, B, I), or (1, N, I) if it has the data rows of `ragged` in their order. If `saved` is set, to the bytes of an
    earlier tape of this call, nothing is computed: the tape gets a copy of them, and the other results stay empty.
    """
    cdef readonly int cell, act
    cdef public object x, h0, c0, lengths, resets, ragged, flags, saved
    cdef public Weights weights
    cdef public bint reverse
    cdef readonly bint need_tape
    cdef readonly Tape tape                         # results; the tape is the first to go
    cdef public object y, h_n, c_n                  # set before, they say where results go
    cdef Pass f
    cdef rnnfast_weights given
    cdef Packed packed

    def __cinit__(self, int cell, int act, x, h0, c0, Weights weights, lengths, resets, bint reverse, bint need_tape):
        self.cell, self.act, self.x, self.h0, self.c0, self.weights = cell, act, x, h0, c0, weights
        self.lengths, self.resets, self.reverse, self.need_tape = lengths, resets, reverse, need_tape

    cdef bint is_plain(self, Arrays *a, Pass *shape) except -1:
        """Whether all arrays are as the kernels need them. Then `given` has the weights, and `shape` T, B and where x
        and the initial states are."""
        cdef const cnp.npy_intp *n
        cdef const void *x
        if self.lengths is not None or self.resets is not None:
            return False
        x = take(a, self.x, 3, ANY)
        if x == NULL:
            return False
        n = shape_of(self.x)
        if not take_weights(a, &self.given, self.cell, self.act, n[2], self.weights):
            return False
        shape.T, shape.B, shape.N = n[0], n[1], n[0] * n[1]
        if self.ragged is not None:
            shape.T, shape.B = len(self.ragged.active), len(self.ragged.order)
        size = 4 if a.dtype == cnp.NPY_FLOAT else 8
        shape.x = rows_of(x, n[2], size)
        shape.h0 = rows_of(take(a, self.h0, 2, shape.B, self.given.P), self.given.P, size)
        shape.c0 = rows_of(take(a, self.c0, 2, shape.B, self.given.H), self.given.H, size)
        return a.plain

    cdef int prepare(self, Arrays *a, const Pass *shape, int threads, int directions, ForwardCall first) except -1:
        """Pack the weights and make the results. y is beside that of the `first` direction, if there is one."""
        cdef rnnfast_weights *w = &self.given
        cdef const rnnfast_kernels *k = table(a.dtype)
        cdef Pass *f = &self.f
        cdef bint once = (shape.N == 1 and self.ragged is None and self.flags is None and w.w_hr == NULL
                          and not cell_of(w.cell).has_w_hn)
        threads = useful_threads(flops_of(shape.N, w.cell, w.I, w.H, w.P), threads)
        use = RNNFAST_BACKWARD if self.saved is not None else RNNFAST_ONE_STEP if once else RNNFAST_FORWARD
        self.packed = packed(k, w, use, threads)
        f[0] = start_pass(k, &self.packed.w, shape.T, shape.B, shape.N)
        f.caller_weights = w if once else NULL
        f.x, f.h0, f.c0, f.reverse = shape.x, shape.h0, shape.c0, self.reverse
        self.take_indices()
        self.make_results(a, directions, first)
        if self.need_tape:
            self.tape = tape_of(self, threads)
        return 0

    cdef int take_indices(self) except -1:
        """Where data rows are, and which of them begin anew."""
        cdef cnp.ndarray[Py_ssize_t, mode="c"] active, offset, order, rows, padding
        cdef cnp.ndarray[uint8_t, mode="c"] flags
        cdef Pass *f = &self.f
        if self.ragged is not None:
            active, offset, order = self.ragged.active, self.ragged.offset, self.ragged.order
            f.active, f.offset, f.order = &active[0], &offset[0], &order[0]
            if self.ragged.rows is not None:
                rows, padding = self.ragged.rows, self.ragged.padding
                f.N, f.row_index = len(rows), &rows[0]
                f.paddings, f.padding = len(padding), &padding[0]
        if self.flags is not None:
            flags = self.flags
            f.resets = &flags[0]
        return 0

    cdef int make_results(self, Arrays *a, int directions, ForwardCall first) except -1:
        cdef Pass *f = &self.f
        cdef Py_ssize_t P = f.w.P, H = f.w.H
        cdef const cnp.npy_intp *n = shape_of(self.x)
        cdef void *data
        if first is None:
            self.y = result(a, self.y, &data, 3, n[0], n[1], directions * P)
            f.y = rows_of(data, directions * P, f.k.size)
        else:
            self.y, f.y = first.y, from_column(&first.f.y, P)
        self.h_n = result(a, self.h_n, &data, 2, f.B, P)
        f.h_n = rows_of(data, P, f.k.size)
        if f.cell.has_c:
            self.c_n = result(a, self.c_n, &data, 2, f.B, H)
            f.c_n = rows_of(data, H, f.k.size)
        return 0


cdef Tape tape_of(ForwardCall call, int threads):
    cdef Tape tape = Tape.__new__(Tape)
    cdef const rnnfast_weights *w = &call.given
    tape.x, tape.ragged, tape.resets = call.x, call.ragged, call.flags
    tape.b_ih, tape.b_hh, tape.w_hr = w.b_ih != NULL, w.b_hh != NULL, w.w_hr != NULL
    tape.weights = packed(call.f.k, w, RNNFAST_BACKWARD, threads) if call.saved is None else call.packed
    tape.allocate(&call.f)
    if call.saved is not None:
        if call.saved.nbytes < tape.size:
            raise ValueError("saved is not what a tape of this call has held")
        memcpy(tape.block, cnp.PyArray_DATA(<cnp.ndarray?>call.saved), tape.size)
    tape.f = call.f
    tape.f.w = &tape.weights.w
    return tape


def run_forward(list calls not None, int threads):
    """Run one call, or both directions of a layer side by side, whose x, lengths and resets are the same.

    Both have the same y (T, B, 2P), one direction beside the other.
    """
    cdef Pass *passes[2]
    cdef Pass shape
    cdef Arrays a
    cdef ForwardCall call, first = None
    cdef int n = 0
    passes[1] = NULL
    for call in calls:
        a = arrays_of(ANY)
        if not call.is_plain(&a, &shape):
            checks.make_forward_plain(call)
            a = arrays_of(ANY)
            if not call.is_plain(&a, &shape):
                raise SystemError("checked arguments are not plain")
        if first is not None and first.f.w.P != call.given.P:
            raise ValueError("the two directions have outputs of different sizes")
        call.prepare(&a, &shape, threads, len(calls), first)
        first = call
        passes[n] = &call.f
        n += 1
    if call.saved is None:
        run_blocks(passes, forward_block, threads)


# ---- Backward.

cdef class BackwardCall:
    """One call of backward, and its results. `cell` is the kind that the caller expects; both GRUs are one kind.

    dy is the gradient of the y of both directions. The call uses the tape up.
    """
    cdef readonly int cell
    cdef readonly object tape
    cdef public object dy, dh_n, dc_n
    cdef public object dx, dh0, dc0                 # results; set before, they say where results go
    cdef public Weights dweights
    cdef Pass f
    cdef Gradients to
    cdef Tape checked

    def __cinit__(self, int cell, tape, dy, dh_n, dc_n):
        self.cell, self.tape, self.dy, self.dh_n, self.dc_n = cell, tape, dy, dh_n, dc_n

    cdef bint is_plain(self, Arrays *a, int direction) except -1:
        """Whether the tape is a fresh one of this cell and all arrays are as the kernels need them."""
        cdef const cnp.npy_intp *n
        cdef Pass *f = &self.f
        cdef Rows dy
        cdef int size
        if type(self.tape) is not Tape:
            return False
        self.checked = self.tape
        f[0] = self.checked.f
        if self.checked.used or f.cell.gates != cell_of(self.cell).gates:
            return False
        n, size = shape_of(self.checked.x), f.k.size
        a[0] = arrays_of(cnp.NPY_FLOAT if size == 4 else cnp.NPY_DOUBLE)
        dy = rows_of(take(a, self.dy, 3, n[0], n[1], self.checked.directions * f.w.P), 1, size)
        dy.stride = f.y.stride
        f.dy = from_column(&dy, direction * f.w.P) if dy.data != NULL else dy
        f.dh_n = rows_of(take(a, self.dh_n, 2, f.B, f.w.P), f.w.P, size)
        f.dc_n = rows_of(take(a, self.dc_n, 2, f.B, f.w.H), f.w.H, size)
        return a.plain

    cdef int make_results(self, Arrays *a) except -1:
        cdef const cnp.npy_intp *n = shape_of(self.checked.x)
        cdef Pass *f = &self.f
        cdef Gradients *to = &self.to
        cdef Py_ssize_t H = f.w.H, P = f.w.P, rows = f.cell.gates * H
        cdef Tape tape = self.checked
        cdef Weights given = self.dweights if self.dweights is not None else NO_WEIGHTS
        cdef void *data
        self.dx = result(a, self.dx, &to.x, 3, n[0], n[1], f.w.I)
        self.dh0 = result(a, self.dh0, &data, 2, f.B, P)
        f.dh0 = rows_of(data, P, f.k.size)
        if f.cell.has_c:
            self.dc0 = result(a, self.dc0, &data, 2, f.B, H)
            f.dc0 = rows_of(data, H, f.k.size)
        w_ih = result(a, given.w_ih, &to.w_ih, 2, rows, f.w.I)
        w_hh = result(a, given.w_hh, &to.w_hh, 2, rows, P)
        b_ih = result(a, given.b_ih, &to.b_ih, 1, rows) if tape.b_ih else None
        b_hh = result(a, given.b_hh, &to.b_hh, 1, rows) if tape.b_hh else None
        w_hr = result(a, given.w_hr, &to.w_hr, 2, P, H) if tape.w_hr else None
        self.dweights = Weights(w_ih, w_hh, b_ih, b_hh, w_hr)
        return 0


cdef Weights NO_WEIGHTS = Weights(None, None)


def run_backward(list calls not None, int threads):
    """Run one call, or both directions of a layer, their loops over time side by side."""
    cdef Pass *passes[2]
    cdef Arrays a
    cdef BackwardCall call
    cdef int n = 0
    passes[1] = NULL
    for call in calls:
        if not call.is_plain(&a, n):
            checks.make_backward_plain(call, type(call.tape) is Tape)
            if not call.is_plain(&a, n):
                raise SystemError("checked arguments are not plain")
        call.make_results(&a)
        passes[n] = &call.f
        n += 1
    for call in calls:
        call.checked.used = True
        call.checked.allocate_raw(&call.f)
    run_blocks(passes, backward_block, threads)
    for call in calls:
        add_up_gradients(&call.f, &call.to, threads)
