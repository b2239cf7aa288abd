# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""The loops over time and over blocks of rows, without the GIL; the mathematics is in csrc/.

Data of one call lies in N *data rows*. A dense sequence has N = T*B of them, row t*B + b as the
caller stores it. A packed one (`active` given) has the rows of step 0, then those of step 1, ...,
where row b takes part in steps 0 .. lengths[b] - 1 and rows come longest first, so that the rows of
a step are a prefix of the rows of the step before and padding does not exist.

Saved states have B more rows than the data: in the order of time, slot t holds the state before
step t (reverse: after it), one slot more than there are steps, so that no step is special.

A *block* is a range of batch rows. One thread runs a block through all steps; there is no barrier
in the loop over time, and no result depends on how the rows are cut.
"""

from cython.parallel cimport prange
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

import os
import time

ctypedef fused real:
    float
    double

cdef extern from *:
    """
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
# Rows of a block: enough to amortise the weights' way from the second cache (or the third, when they
# are larger than it), few enough that the block's states stay there.
cdef Py_ssize_t BLOCK_ROWS = 64, BLOCK_ROWS_LARGE = 128
cdef Py_ssize_t LARGE = 1500000
# Columns of x and h that one weight gradient reads at a time: half a MiB in blocks of 256 rows.
cdef enum:
    COLUMNS = 512
# Rows of input projected at a time when a block has too few of them to fill tiles step by step.
cdef Py_ssize_t PROJECT_ROWS = 96

cdef bint in_forked_child = False
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


cdef class Packed:
    """Weights packed for the kernels: an immutable copy."""
    cdef rnnfast_packed w
    cdef const rnnfast_kernels *k
    cdef void *block

    def __dealloc__(self):
        rnnfast_free(self.block)

    cdef make(self, const rnnfast_kernels *k, const rnnfast_weights *w, bint backward):
        self.k = k
        self.block = rnnfast_alloc(k.packed_size(w, backward) * k.size)
        if self.block == NULL:
            raise MemoryError()
        with nogil:
            k.pack(w, backward, self.block, &self.w)


cdef Packed packed(const rnnfast_kernels *k, const rnnfast_weights *w, bint backward):
    cdef Packed p = Packed.__new__(Packed)
    p.make(k, w, backward)
    return p

include "_loop.pxi"        # the loop over time: forward_block, backward_block, over_blocks
include "_products.pxi"    # after it: dx and the weight gradients


cdef class Tape:
    """What backward needs, saved by forward. Backward works in this memory, so it can run once."""
    cdef Run f
    cdef Packed weights
    cdef void *block
    cdef object x, active, offset, resets
    cdef readonly object dtype
    cdef readonly bint used
    cdef readonly bint b_ih, b_hh, w_hr
    cdef public object packing

    def __dealloc__(self):
        rnnfast_free(self.block)

    @property
    def cell(self):
        return self.f.w.cell

    @property
    def shape(self):
        """(T, B, N, I, H, P)"""
        return self.f.T, self.f.B, self.f.N, self.f.w.I, self.f.w.H, self.f.w.P


cdef inline const rnnfast_kernels *table(real one) noexcept nogil:
    if real is float:
        return table_f32
    else:
        return table_f64


cdef rnnfast_weights weights(int cell, int act, const real[:, ::1] w_ih, const real[:, ::1] w_hh,
                             const real[::1] b_ih, const real[::1] b_hh, const real[:, ::1] w_hr) noexcept:
    cdef rnnfast_weights w
    w.cell, w.act = cell, act
    w.I, w.P = w_ih.shape[1], w_hh.shape[1]
    w.H = w_hr.shape[1] if w_hr is not None else w.P
    w.w_ih, w.w_hh = &w_ih[0, 0], &w_hh[0, 0]
    w.b_ih = &b_ih[0] if b_ih is not None else NULL
    w.b_hh = &b_hh[0] if b_hh is not None else NULL
    w.w_hr = &w_hr[0, 0] if w_hr is not None else NULL
    return w


cdef Run start(Packed p, Py_ssize_t T, Py_ssize_t B, Py_ssize_t N) noexcept:
    cdef Run f
    memset(&f, 0, sizeof(f))
    f.k, f.w = p.k, &p.w
    f.T, f.B, f.N = T, B, N
    f.Hp, f.Pp = padded(p.k, p.w.H), padded(p.k, p.w.P)
    f.ldgates = slots_of(p.w.cell) * f.Hp
    return f


def forward(int cell, int act, Py_ssize_t T, const real[:, ::1] x not None, const real[:, ::1] h0,
            const real[:, ::1] c0, const real[:, ::1] w_ih not None, const real[:, ::1] w_hh not None,
            const real[::1] b_ih, const real[::1] b_hh, const real[:, ::1] w_hr,
            const Py_ssize_t[::1] active, const Py_ssize_t[::1] offset, const uint8_t[::1] resets,
            bint reverse, bint need_tape, int threads,
            real[:, ::1] y not None, real[:, ::1] h_n not None, real[:, ::1] c_n):
    """Fill y (N, P), h_n (B, P) and c_n (B, H); return a Tape or None. Everything is checked."""
    cdef const rnnfast_kernels *k = table[real](0)
    cdef rnnfast_weights w = weights[real](cell, act, w_ih, w_hh, b_ih, b_hh, w_hr)
    cdef Packed p = packed(k, &w, False)
    cdef Run f = start(p, T, h_n.shape[0], x.shape[0])
    cdef Tape tape = None
    cdef Py_ssize_t states, cells
    if active is not None:
        f.active, f.offset = &active[0], &offset[0]
    if resets is not None:
        f.resets = &resets[0]
    f.reverse = reverse
    f.x, f.y, f.h_n = <const char *>&x[0, 0], <char *>&y[0, 0], <char *>&h_n[0, 0]
    if h0 is not None:
        f.h0 = <const char *>&h0[0, 0]
    if c0 is not None:
        f.c0 = <const char *>&c0[0, 0]
    if c_n is not None:
        f.c_n = <char *>&c_n[0, 0]
    if need_tape:
        tape = Tape.__new__(Tape)
        states = (f.B + f.N) * f.Pp * k.size
        cells = (f.B + f.N) * f.Hp * k.size if cell == RNNFAST_LSTM else 0
        tape.block = rnnfast_alloc(states + cells + f.N * f.ldgates * k.size)
        if tape.block == NULL:
            raise MemoryError()
        f.states = <char *>tape.block
        f.cells = f.states + states if cells else NULL
        f.gates = f.states + states + cells
        tape.weights = packed(k, &w, True)
        tape.x, tape.active, tape.offset, tape.resets = x, active, offset, resets
        tape.dtype = "float32" if real is float else "float64"
        tape.b_ih, tape.b_hh, tape.w_hr = b_ih is not None, b_hh is not None, w_hr is not None
    over_blocks(&f, forward_block, threads)
    if tape is not None:
        tape.f = f
        tape.f.w = &tape.weights.w
    return tape


def backward(Tape tape not None, const real[:, ::1] dy, const real[:, ::1] dh_n, const real[:, ::1] dc_n,
             int threads, real[:, ::1] dx not None, real[:, ::1] dh0 not None, real[:, ::1] dc0,
             real[:, ::1] dw_ih not None, real[:, ::1] dw_hh not None, real[::1] db_ih,
             real[::1] db_hh, real[:, ::1] dw_hr):
    """Fill the gradients, all shapes as their variables, x and dy in data rows."""
    cdef Run f = tape.f
    cdef const rnnfast_kernels *k = f.k
    if tape.used:  # by another thread, since it was checked
        raise RuntimeError("tape was used by an earlier backward")
    tape.used = True
    if dy is not None:
        f.dy = <const char *>&dy[0, 0]
    if dh_n is not None:
        f.dh_n = <const char *>&dh_n[0, 0]
    if dc_n is not None:
        f.dc_n = <const char *>&dc_n[0, 0]
    f.dh0 = <char *>&dh0[0, 0]
    if dc0 is not None:
        f.dc0 = <char *>&dc0[0, 0]
    cdef Py_ssize_t s, rows, projected = f.w.r != NULL, panels = f.Hp // k.lanes
    cdef Py_ssize_t raw = projected * f.N * f.Hp * k.size, sums = projected * f.N * f.Pp * k.size
    cdef Py_ssize_t compact = f.N * f.Pp * k.size if f.active != NULL else 0
    cdef char *block = <char *>rnnfast_alloc(raw + sums + compact + f.ldgates * k.size)
    if block == NULL:
        raise MemoryError()
    cdef char *h = f.states + (f.B * f.Pp * k.size if f.reverse else 0)
    cdef char *bias = block + raw + sums + compact
    if projected:
        f.h_raw, f.dh_sum = block, block + raw
    cdef rnnfast_wgrad whole
    cdef int n
    cdef Py_ssize_t most = 4 + (2 * f.w.I + 3 * f.w.H + f.w.P) // COLUMNS
    cdef rnnfast_wgrad *jobs = <rnnfast_wgrad *>rnnfast_alloc(most * sizeof(rnnfast_wgrad))
    if jobs == NULL:
        rnnfast_free(block)
        raise MemoryError()
    try:
        over_blocks(&f, backward_block, threads)
        if f.active != NULL:  # the states before each step, as data rows
            h = block + raw + sums
            for s in range(f.T):
                memcpy(h + f.offset[s] * f.Pp * k.size, f.states + state_before(&f, s) * f.Pp * k.size,
                       f.active[s] * f.Pp * k.size)
        k.wgrad_plan(f.w, f.N, f.gates, f.x, h, f.Pp, &dw_ih[0, 0], &dw_hh[0, 0], bias, &whole)
        n = by_columns(k, &whole, jobs)
        if projected:
            memset(&whole, 0, sizeof(whole))
            whole.K, whole.H, whole.dz, whole.lddz = f.N, f.w.P, f.dh_sum, f.Pp
            whole.slots = whole.terms = whole.term[0].slots = 1
            whole.term[0].b, whole.term[0].ldb, whole.term[0].vec = f.h_raw, f.Hp, k.lanes
            whole.term[0].c, whole.term[0].ldc = &dw_hr[0, 0], f.w.H
            whole.term[0].n = f.w.H
            n += by_columns(k, &whole, jobs + n)
        over_products(&f, jobs, n, &dx[0, 0], useful_threads(&f, threads))
        k.bias_grads(f.w, bias, &db_ih[0] if db_ih is not None else NULL,
                     &db_hh[0] if db_hh is not None else NULL)
    finally:
        rnnfast_free(block)
        rnnfast_free(jobs)


def vmath(str name, const real[::1] x not None):
    """The kernels' own tanh, sigmoid, relu or identity of each element of x."""
    import numpy as np
    cdef real[::1] y = np.empty_like(x)
    cdef int act = ACTIVATIONS[name]
    with nogil:
        table[real](0).math(act, x.shape[0], &x[0], &y[0])
    return np.asarray(y)


def fma_peak(str dtype, double seconds):
    """FLOP/s of independent multiply-adds in registers on one core: the best of runs of 2 ms."""
    cdef const rnnfast_kernels *k = table_f32 if dtype == "float32" else table_f64
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
