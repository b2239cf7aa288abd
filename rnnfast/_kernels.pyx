# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""The loops over time and over blocks of rows, without the GIL; the mathematics is in csrc/.

Data of one call lies in N *data rows*. A dense sequence has N = T*B of them, row t*B + b as the
caller stores it. A packed one (`active` given) has the rows of step 0, then those of step 1, ...,
where row b takes part in steps 0 .. lengths[b] - 1 and rows come longest first, so that the rows of
a step are a prefix of the rows of the step before and padding does not exist. With `rows` x, y and
their gradients have them elsewhere, and the kernels find them by these indices.

Saved states have B more rows than the data: in the order of time, slot t holds the state before
step t (reverse: after it), one slot more than there are steps, so that no step is special.

A *block* is a range of batch rows. One thread runs a block through all steps; there is no barrier
in the loop over time, and no result depends on how the rows are cut.
"""

cimport numpy as cnp
from cython.parallel cimport prange
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

import os
import time

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #undef I  /* of complex.h, which NumPy's headers include: here it is the input size */
    #include <dlfcn.h>
    #ifdef _OPENMP
    #include <omp.h>
    #define HAVE_OPENMP 1
    static int omp_limit(void) {
      int n = omp_get_max_threads(), most = omp_get_thread_limit();
      return n < most ? n : most;
    }
    /* OpenMP 5.0; looked up because older run-time libraries lack it. omp_pause_soft is 1. */
    static void omp_pause(void) {
      int (*pause_all)(int) = (int (*)(int))dlsym(RTLD_DEFAULT, "omp_pause_resource_all");
      if (pause_all) pause_all(1);
    }
    #else
    #define HAVE_OPENMP 0
    static int omp_limit(void) { return 1; }
    static void omp_pause(void) {}
    #endif
    """
    const bint HAVE_OPENMP
    int omp_limit() nogil
    void omp_pause() nogil

RNN, GRU, GRU_RESET_BEFORE, LSTM = RNNFAST_RNN, RNNFAST_GRU, RNNFAST_GRU_RESET_BEFORE, RNNFAST_LSTM
ACTIVATIONS = {"tanh": RNNFAST_TANH, "relu": RNNFAST_RELU, "sigmoid": RNNFAST_SIGMOID,
               "identity": RNNFAST_IDENTITY}

# Calls with less work than this stay on the caller's thread. Entering and leaving a parallel region
# costs 2 to 5 us on a quiet machine, but a scheduler's time slice (up to 10 ms) where the other core
# is busy; 10 MFLOP take about 50 us.
SERIAL_FLOPS = 1e7
cdef double serial_flops = SERIAL_FLOPS
# Letting go of the GIL and taking it again costs 0.1 us: not for work of one or two.
cdef double GIL_FLOPS = 1e5
cdef size_t GIL_REALS = 10000
# Rows of a block: enough to amortise the weights' way from the second cache (or the third, when they
# are larger than it), few enough that the block's states stay there.
cdef Py_ssize_t BLOCK_ROWS = 64, BLOCK_ROWS_LARGE = 128
# Bytes of weights that fit the first cache (48 KiB), that leave the second (2 MiB) some room, and none;
# the last of 4 vectors. Nor do outputs of MIDDLE stay in one of 1 MiB.
cdef Py_ssize_t SMALL = 48000, MIDDLE = 750000, LARGE = 1500000, LARGE_PANEL = 400000
# Of a tape of more bytes backward fetches what the next step reads: less is near since forward, and nothing was
# gained (Zen 4).
cdef Py_ssize_t NEAR = 350000
# Columns of x and h that one weight gradient reads at a time: half a MiB in blocks of 256 rows.
cdef enum:
    COLUMNS = 512
# Rows of input projected at a time.
cdef Py_ssize_t PROJECT_ROWS = 96

cdef bint in_forked_child = False
# A module's global is looked up by name at every use, a C variable is not.
cdef object ndarray = np.ndarray, FLOAT32 = np.dtype("float32"), FLOAT64 = np.dtype("float64")
cdef const rnnfast_kernels *table_f32
cdef const rnnfast_kernels *table_f64


def _select_isa():
    global table_f32, table_f64
    names, i = [], 0
    while rnnfast_isas()[i] != NULL:
        names.append(rnnfast_isas()[i].decode())
        i += 1
    isa = os.environ.get("RNNFAST_ISA") or names[0]
    if isa not in names:
        raise ValueError(f"RNNFAST_ISA is {isa!r}, expected one of {', '.join(names)} on this machine")
    encoded = isa.encode()
    table_f32, table_f64 = rnnfast_table(encoded, 4), rnnfast_table(encoded, 8)
    return isa, names


_ISA, _ISAS = _select_isa()


def build_info():
    return {"openmp": bool(HAVE_OPENMP), "compiler": rnnfast_compiler().decode(), "isa": _ISA,
            "isas": list(_ISAS)}


def omp_max_threads():
    return omp_limit()


def pause_openmp():
    omp_pause()


def forked_child():
    global in_forked_child
    in_forked_child = True


cdef inline Py_ssize_t padded(const rnnfast_kernels *k, Py_ssize_t n) noexcept nogil:
    return (n + k.lanes - 1) // k.lanes * k.lanes


cdef inline int slots_of(int cell) noexcept nogil:
    return 1 if cell == RNNFAST_RNN else 4


cdef inline double flops_of(Py_ssize_t rows, int cell, Py_ssize_t I, Py_ssize_t H, Py_ssize_t P) noexcept nogil:
    return 2.0 * rows * slots_of(cell) * H * (I + P)


cdef inline int gates_of(int cell) noexcept nogil:
    return 1 if cell == RNNFAST_RNN else 4 if cell == RNNFAST_LSTM else 3


cdef class Packed:
    """Weights packed for the kernels: an immutable copy."""
    cdef rnnfast_packed w
    cdef const rnnfast_kernels *k
    cdef void *block

    def __dealloc__(self):
        rnnfast_free(self.block)

    cdef make(self, const rnnfast_kernels *k, const rnnfast_weights *w, int use, int threads):
        """All threads pack, for each needs all of it and would wait for another's cache: with two 4 (LSTM) to
        22 per cent (RNN) less time for 4 steps of 64 rows at H = 512, up to 1 for 64 of 32 at 128 (Zen 4)."""
        self.k = k
        cdef size_t size = k.packed_size(w, use)
        cdef int part
        self.block = rnnfast_alloc(size * k.size)
        if self.block == NULL:
            raise MemoryError()
        if size < GIL_REALS:
            k.pack(w, use, self.block, &self.w, 0, 1)
        elif threads == 1:
            with nogil:
                k.pack(w, use, self.block, &self.w, 0, 1)
        else:
            for part in prange(threads, num_threads=threads, schedule="static", chunksize=1, nogil=True):
                k.pack(w, use, self.block, &self.w, part, threads)


cdef Packed packed(const rnnfast_kernels *k, const rnnfast_weights *w, int use, int threads):
    cdef Packed p = Packed.__new__(Packed)
    p.make(k, w, use, threads)
    return p

include "_arrays.pxi"      # NumPy arrays in and out
include "_packing.pxi"     # data rows of unequal lengths
include "_loop.pxi"        # the loop over time: forward_block, backward_block, over_blocks
include "_products.pxi"    # after it: dx and the weight gradients


cdef class Tape:
    """What backward needs, saved by forward. Backward works in this memory, so it can run once."""
    cdef Run f
    cdef Packed weights
    cdef void *block
    cdef void *raw               # what backward of a projection needs in addition
    cdef object x, resets
    cdef readonly object packing
    cdef readonly bint used
    cdef readonly bint b_ih, b_hh, w_hr

    def __dealloc__(self):
        rnnfast_free(self.block)
        rnnfast_free(self.raw)

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

    cdef int allocate(self, Run *f) except -1:
        """Memory for the states and gates of f."""
        cdef Py_ssize_t states = (f.B + f.N) * f.Pp * f.k.size
        cdef Py_ssize_t cells = (f.B + f.N) * f.Hp * f.k.size if f.w.cell == RNNFAST_LSTM else 0
        self.block = rnnfast_alloc(states + cells + f.N * f.ldgates * f.k.size)
        if self.block == NULL:
            raise MemoryError()
        f.states = <char *>self.block
        f.cells = f.states + states if cells else NULL
        f.gates = f.states + states + cells
        return 0

    cdef int allocate_raw(self, Run *f) except -1:
        """Memory for the outputs before a projection and the whole gradients after it."""
        if f.w.r != NULL:
            self.raw = rnnfast_alloc(f.N * (f.Hp + f.Pp) * f.k.size)
            if self.raw == NULL:
                raise MemoryError()
            f.h_raw = <char *>self.raw
            f.dh_sum = f.h_raw + f.N * f.Hp * f.k.size
        return 0


cdef inline const rnnfast_kernels *table(int type) noexcept nogil:
    return table_f32 if type == cnp.NPY_FLOAT else table_f64


cdef Run start(const rnnfast_kernels *k, const rnnfast_packed *w, Py_ssize_t T, Py_ssize_t B,
               Py_ssize_t N) noexcept:
    cdef Run f
    memset(&f, 0, sizeof(f))
    f.k, f.w = k, w
    f.T, f.B, f.N = T, B, N
    f.Hp, f.Pp = padded(k, w.H), padded(k, w.P)
    f.ldgates = slots_of(w.cell) * f.Hp
    f.ldh0, f.ldc0 = w.P, w.H
    return f


cdef bint take_weights(Arrays *a, rnnfast_weights *w, int cell, int act, Py_ssize_t I, object w_ih,
                       object w_hh, object b_ih, object b_hh, object w_hr) noexcept:
    """False if they are not plain arrays that fit each other."""
    cdef Py_ssize_t rows, gates = gates_of(cell)
    memset(w, 0, sizeof(rnnfast_weights))
    w.cell, w.act, w.I = cell, act, I
    w.w_hh = take(a, w_hh, 2, ANY)
    if w.w_hh == NULL:
        return False
    rows, w.P = shape_of(w_hh)[0], shape_of(w_hh)[1]
    w.H = rows // gates
    w.w_ih = take(a, w_ih, 2, rows, I)
    w.b_ih, w.b_hh = take(a, b_ih, 1, rows), take(a, b_hh, 1, rows)
    w.w_hr = take(a, w_hr, 2, w.P, w.H)
    if w_hr is None and w.P != w.H:
        return False
    return a.plain and w.w_ih != NULL and I > 0 and 0 < w.P <= w.H and w.H * gates == rows


cdef class Forward:
    """A forward pass that is ready to run, and all that it refers to."""
    cdef Run f
    cdef rnnfast_weights given
    cdef Packed weights
    cdef Tape tape
    cdef object x, h0, c0, y, h_n, c_n, packing, resets

    cdef bint prepare(self, tuple call, int threads) except -1:
        """False if an array is not as the kernels need it."""
        (cell, act, self.x, (self.h0, self.c0), (w_ih, w_hh, b_ih, b_hh, w_hr),
         self.packing, self.resets, reverse, need_tape) = call
        cdef Arrays a = arrays_of(ANY)
        cdef const void *x = take(&a, self.x, 3, ANY)
        if x == NULL:
            return False
        cdef const cnp.npy_intp *shape = shape_of(self.x)
        cdef Py_ssize_t T = shape[0], B = shape[1], steps = T, batch = B
        cdef rnnfast_weights *w = &self.given
        cdef const Py_ssize_t[::1] active, offset, order, rows, padding
        cdef const uint8_t[::1] flags
        if self.packing is not None:
            active, offset, order = self.packing.active, self.packing.offset, self.packing.order
            steps, batch = len(active), len(order)
        if not take_weights(&a, w, cell, act, shape[2], w_ih, w_hh, b_ih, b_hh, w_hr):
            return False
        cdef const void *h0 = take(&a, self.h0, 2, batch, w.P)
        cdef const void *c0 = take(&a, self.c0, 2, batch, w.H)
        if not a.plain:
            return False

        cdef const rnnfast_kernels *k = table(a.type)
        cdef Run *f = &self.f
        cdef bint once = (T * B == 1 and self.packing is None and self.resets is None and w.w_hr == NULL
                          and w.cell != RNNFAST_GRU_RESET_BEFORE)
        threads = useful_threads(flops_of(T * B, w.cell, w.I, w.H, w.P), threads)
        self.weights = packed(k, w, RNNFAST_ONE_STEP if once else RNNFAST_FORWARD, threads)
        f[0] = start(k, &self.weights.w, steps, batch, T * B)
        f.given = w if once else NULL
        self.y = new(&a, <void **>&f.y, 3, T, B, w.P)
        f.x, f.h0, f.c0 = <const char *>x, <const char *>h0, <const char *>c0
        f.reverse = reverse
        if self.packing is not None:
            f.active, f.offset, f.order = &active[0], &offset[0], &order[0]
            if self.packing.rows is not None:
                rows, padding = self.packing.rows, self.packing.padding
                f.N, f.rows = len(rows), &rows[0]
                f.paddings, f.padding = len(padding), &padding[0]
        if self.resets is not None:
            flags = self.resets
            f.resets = &flags[0]
        self.h_n = new(&a, <void **>&f.h_n, 2, batch, w.P)
        if w.cell == RNNFAST_LSTM:
            self.c_n = new(&a, <void **>&f.c_n, 2, batch, w.H)
        if need_tape:
            self.tape = tape_of(self, threads)
        return True


cdef Tape tape_of(Forward call, int threads):
    cdef Tape tape = Tape.__new__(Tape)
    cdef const rnnfast_weights *w = &call.given
    tape.x, tape.packing, tape.resets = call.x, call.packing, call.resets
    tape.b_ih, tape.b_hh, tape.w_hr = w.b_ih != NULL, w.b_hh != NULL, w.w_hr != NULL
    tape.weights = packed(call.f.k, w, RNNFAST_BACKWARD, threads)
    tape.allocate(&call.f)
    tape.f = call.f
    tape.f.w = &tape.weights.w
    return tape


def run_forward(list calls not None, int threads):
    """Run one call, or both directions of a layer side by side: (y, h_n, c_n, tape) of each, or None
    if an array is not as the kernels need it.

    A call is (cell, act, x, (h0, c0), (w_ih, w_hh, b_ih, b_hh, w_hr), packing, resets, reverse, need_tape).
    x is (T, B, I), or (1, N, I) if it has the data rows of `packing` in their order. `resets` are uint8, a
    flag per data row.
    """
    cdef Run *runs[2]
    cdef Forward f
    cdef list ready = []
    runs[1] = NULL
    for call in calls:
        f = Forward.__new__(Forward)
        if not f.prepare(call, threads):
            return None
        runs[len(ready)] = &f.f
        ready.append(f)
    over_blocks(runs, forward_block, threads)
    results = []
    for f in ready:
        results.append((f.y, f.h_n, f.c_n, f.tape))
    return results


cdef class Backward:
    """A backward pass that is ready to run, and all that it refers to."""
    cdef Run f
    cdef Gradients to
    cdef Tape tape
    cdef object dy, dh_n, dc_n
    cdef tuple results

    cdef bint prepare(self, tuple call) except -1:
        """False if the tape is not a fresh one of this cell or an array not as the kernels need it."""
        cell, tape, self.dy, (self.dh_n, self.dc_n) = call
        if type(tape) is not Tape:
            return False
        self.tape = tape
        self.f = self.tape.f
        cdef Run *f = &self.f
        cdef const cnp.npy_intp *shape = shape_of(self.tape.x)
        cdef Py_ssize_t T = shape[0], B = shape[1]
        if self.tape.used or gates_of(f.w.cell) != gates_of(cell):
            return False
        cdef Arrays a = arrays_of(cnp.NPY_FLOAT if f.k.size == 4 else cnp.NPY_DOUBLE)
        f.dy = <const char *>take(&a, self.dy, 3, T, B, f.w.P)
        f.dh_n = <const char *>take(&a, self.dh_n, 2, f.B, f.w.P)
        f.dc_n = <const char *>take(&a, self.dc_n, 2, f.B, f.w.H)
        if a.plain:
            self.make_results(&a, T, B)
        return a.plain

    cdef int make_results(self, const Arrays *a, Py_ssize_t T, Py_ssize_t B) except -1:
        cdef Run *f = &self.f
        cdef Gradients *to = &self.to
        cdef Py_ssize_t I = f.w.I, H = f.w.H, P = f.w.P, rows = gates_of(f.w.cell) * H
        x = new(a, &to.x, 3, T, B, I)
        h0 = new(a, <void **>&f.dh0, 2, f.B, P)
        c0 = new(a, <void **>&f.dc0, 2, f.B, H) if f.w.cell == RNNFAST_LSTM else None
        w_ih, w_hh = new(a, &to.w_ih, 2, rows, I), new(a, &to.w_hh, 2, rows, P)
        b_ih = new(a, &to.b_ih, 1, rows) if self.tape.b_ih else None
        b_hh = new(a, &to.b_hh, 1, rows) if self.tape.b_hh else None
        w_hr = new(a, &to.w_hr, 2, P, H) if self.tape.w_hr else None
        self.results = x, h0, c0, (w_ih, w_hh, b_ih, b_hh, w_hr)
        return 0


def run_backward(list calls not None, int threads):
    """Run one call, or both directions of a layer, their loops over time side by side. Of each, the
    gradients of x, h0, c0 and the weights (None for what was not given); or None if a tape is not a fresh
    one of the cell or an array is not as the kernels need it.

    A call is (cell, tape, dy, (dh_n, dc_n)), shapes as in `run_forward`. It uses the tape up.
    """
    cdef Run *runs[2]
    cdef Backward b
    cdef list ready = []
    runs[1] = NULL
    for call in calls:
        b = Backward.__new__(Backward)
        if not b.prepare(call):
            return None
        runs[len(ready)] = &b.f
        ready.append(b)
    for b in ready:
        b.tape.used = True
        b.tape.allocate_raw(&b.f)
    over_blocks(runs, backward_block, threads)
    results = []
    for b in ready:
        backward_products(&b.f, &b.to, threads)
        results.append(b.results)
    return results


ctypedef fused real:
    float
    double


def vmath(str name, const real[::1] x not None):
    """The kernels' own tanh, sigmoid, relu or identity of each element of x."""
    cdef real[::1] y = np.empty_like(x)
    cdef int act = ACTIVATIONS[name]
    cdef const rnnfast_kernels *k = table_f32 if real is float else table_f64
    with nogil:
        k.math(act, x.shape[0], &x[0], &y[0])
    return np.asarray(y)


def fma_peak(str precision, double seconds):
    """FLOP/s of independent multiply-adds in registers on one core: the best of runs of 2 ms."""
    cdef const rnnfast_kernels *k = table_f32 if precision == "float32" else table_f64
    cdef long repeats = 100000
    cdef double done, best = 0
    end = time.perf_counter() + seconds
    while True:
        start = time.perf_counter()
        with nogil:
            done = k.peak(repeats)
        now = time.perf_counter()
        if now - start < 2e-3:
            repeats *= 2
        else:
            best = max(best, done / (now - start))
            if now > end:
                return best


include "_steps.pxi"       # streaming
