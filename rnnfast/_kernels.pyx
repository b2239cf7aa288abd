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

# A parallel region costs 2 to 5 us to enter and leave: about 1 MFLOP.
cdef double SERIAL_FLOPS = 1e6
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


# What forward and backward know about one call. Pointers are to bytes: the precision is k.size.
cdef struct Run:
    const rnnfast_kernels *k
    const rnnfast_packed *w
    Py_ssize_t T, B, N, Hp, Pp, ldgates
    const Py_ssize_t *active     # (T,) rows of each step, NULL if dense
    const Py_ssize_t *offset     # (T,) first data row of each step
    const uint8_t *resets        # (N,) or NULL
    bint reverse
    char *states                 # (B + N, Pp)
    char *cells                  # (B + N, Hp)
    char *gates                  # (N, ldgates)
    const char *x
    const char *h0
    const char *c0
    char *y
    char *h_n
    char *c_n
    # backward
    const char *dy
    const char *dh_n
    const char *dc_n
    char *dh0
    char *dc0
    char *h_raw
    char *dh_sum


cdef inline Py_ssize_t rows_of(const Run *f, Py_ssize_t s, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Rows of block b0 .. b1 in step s (of processing order)."""
    cdef Py_ssize_t last = b1 if f.active == NULL else min(f.active[s], b1)
    return max(last - b0, 0)


cdef inline Py_ssize_t data_row(const Run *f, Py_ssize_t s) noexcept nogil:
    if f.active != NULL:
        return f.offset[s]
    return (f.T - 1 - s if f.reverse else s) * f.B


cdef inline Py_ssize_t state_before(const Run *f, Py_ssize_t s) noexcept nogil:
    if f.reverse:
        return (f.T - s) * f.B
    return 0 if s == 0 else f.B + data_row(f, s - 1)


cdef inline Py_ssize_t state_after(const Run *f, Py_ssize_t s) noexcept nogil:
    return data_row(f, s) if f.reverse else f.B + data_row(f, s)


cdef void copy_rows(char *to, Py_ssize_t ldto, const char *source, Py_ssize_t ldfrom, Py_ssize_t rows,
                    Py_ssize_t n) noexcept nogil:
    """Copy n bytes of each row (all in bytes); zero up to ldto; a NULL source is zeros."""
    cdef Py_ssize_t r
    for r in range(rows):
        if source != NULL:
            memcpy(to + r * ldto, source + r * ldfrom, n)
            memset(to + r * ldto + n, 0, ldto - n)
        else:
            memset(to + r * ldto, 0, ldto)


cdef struct Parts:  # layout of a block's scratch, in bytes
    Py_ssize_t h, c, gates, work, init, x, size


cdef inline Py_ssize_t weight_bytes(const Run *f) noexcept nogil:
    return f.k.size * slots_of(f.w.cell) * f.w.H * (f.w.I + f.w.P)


cdef inline bint projects_ahead(const Run *f, Py_ssize_t rows) noexcept nogil:
    """With few rows the input part of many steps at once fills the tiles, and w_ih is read once for
    all of them, which counts when the weights are larger than the second cache."""
    return f.T > 1 and (rows < 2 * f.k.rows or (rows < 48 and weight_bytes(f) > LARGE))


cdef inline Py_ssize_t projected_rows(const Run *f, Py_ssize_t rows) noexcept nogil:
    return min(max(PROJECT_ROWS // max(rows, 1), 1), f.T) * rows


cdef Parts forward_parts(const Run *f, Py_ssize_t rows) noexcept nogil:
    cdef Parts p
    cdef Py_ssize_t size = f.k.size, ahead = projected_rows(f, rows) if projects_ahead(f, rows) else 0
    p.h = 0                                                     # two slots, used in turn
    p.c = p.h + (0 if f.states != NULL else 2 * rows * f.Pp * size)
    p.gates = p.c + (0 if f.cells != NULL else rows * f.Hp * size)
    p.work = p.gates + (rows * f.ldgates * size
                        if f.gates == NULL and f.w.cell == RNNFAST_GRU_RESET_BEFORE else 0)
    p.init = p.work + (rows * f.Hp * size if f.w.r != NULL else 0)
    p.x = p.init + ahead * f.ldgates * size
    p.size = p.x + ahead * f.w.I * size
    return p


cdef int forward_block(const Run *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 through all steps. Returns nonzero if there is no memory."""
    cdef const rnnfast_packed *w = f.w
    cdef Py_ssize_t size = f.k.size, rows = b1 - b0, s, n, left, row, ahead_until = 0, ahead_rows = 0
    cdef Py_ssize_t I = w.I * size, P = w.P * size, Pp = f.Pp * size, Hp = f.Hp * size
    cdef Py_ssize_t gates = f.ldgates * size
    cdef Parts part = forward_parts(f, rows)
    cdef char *scratch = <char *>rnnfast_alloc(part.size)
    if scratch == NULL:
        return 1
    cdef unsigned long flush = rnnfast_flush_enter()
    cdef rnnfast_step step
    memset(&step, 0, sizeof(step))
    step.ldx, step.ldy = w.I, w.P
    step.ldh = step.ldh_next = f.Pp
    step.ldc = step.ldwork = f.Hp
    step.ldgates = step.ldinit = f.ldgates
    step.work = scratch + part.work

    cdef bint tape = f.states != NULL
    cdef char *h = f.states + (state_before(f, 0) + b0) * Pp if tape else scratch + part.h
    cdef char *h_other = scratch + part.h + rows * Pp
    cdef char *c = scratch + part.c
    copy_rows(h, Pp, f.h0 + b0 * P if f.h0 != NULL else NULL, P, rows, P)
    if w.cell == RNNFAST_LSTM:
        if f.cells != NULL:
            c = f.cells + (state_before(f, 0) + b0) * Hp
        copy_rows(c, Hp, f.c0 + b0 * w.H * size if f.c0 != NULL else NULL, w.H * size, rows, w.H * size)
    left = rows  # rows that have not ended
    for s in range(f.T):
        n = rows_of(f, s, b0, b1)
        end_rows(f, b0 + n, left - n, h + n * Pp, c + n * Hp)
        left = n
        if n == 0:
            break
        row = data_row(f, s) + b0
        if projects_ahead(f, rows):
            if s == ahead_until:
                ahead_until = project_ahead(f, b0, b1, s, scratch + part.x, scratch + part.init)
                ahead_rows = 0
            step.init = scratch + part.init + ahead_rows * gates
            ahead_rows += n
        step.rows, step.x, step.y = n, f.x + row * I, f.y + row * P
        step.reset = f.resets + row if f.resets != NULL else NULL
        step.h, step.c = h, c
        if tape:
            h_other = f.states + (state_after(f, s) + b0) * Pp
            step.gates = f.gates + row * gates
            if f.cells != NULL:
                c = f.cells + (state_after(f, s) + b0) * Hp
        elif w.cell == RNNFAST_GRU_RESET_BEFORE:
            step.gates = scratch + part.gates
        step.h_next, step.c_next = h_other, c
        f.k.step[w.cell](w, &step)
        h, h_other = h_other, h
    end_rows(f, b0, left, h, c)
    rnnfast_flush_leave(flush)
    rnnfast_free(scratch)
    return 0


cdef void end_rows(const Run *f, Py_ssize_t b, Py_ssize_t rows, const char *h, const char *c) noexcept nogil:
    """The final states of `rows` rows from b on."""
    cdef Py_ssize_t P = f.w.P * f.k.size, H = f.w.H * f.k.size
    copy_rows(f.h_n + b * P, P, h, f.Pp * f.k.size, rows, P)
    if f.w.cell == RNNFAST_LSTM:
        copy_rows(f.c_n + b * H, H, c, f.Hp * f.k.size, rows, H)


cdef Py_ssize_t project_ahead(const Run *f, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t s, char *x,
                              char *init) noexcept nogil:
    """bias + w_ih x of the steps from s on that fit; returns the first that does not."""
    cdef Py_ssize_t most = projected_rows(f, b1 - b0), I = f.w.I * f.k.size, rows = 0, n
    while s < f.T:
        n = rows_of(f, s, b0, b1)
        if rows + n > most:
            break
        memcpy(x + rows * I, f.x + (data_row(f, s) + b0) * I, n * I)
        rows += n
        s += 1
    f.k.project(f.w, rows, x, f.w.I, init)
    return s


cdef int backward_block(const Run *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 back through all steps: dz into the gates, gradients of the initial state."""
    cdef const rnnfast_packed *w = f.w
    cdef bint lstm = w.cell == RNNFAST_LSTM
    cdef Py_ssize_t size = f.k.size, rows = b1 - b0, s, n, row
    cdef Py_ssize_t P = w.P * size, H = w.H * size, Pp = f.Pp * size, Hp = f.Hp * size
    cdef char *scratch = <char *>rnnfast_alloc(rows * (Pp + 2 * Hp))
    if scratch == NULL:
        return 1
    cdef unsigned long flush = rnnfast_flush_enter()
    cdef char *dc = scratch + rows * Pp
    cdef rnnfast_dstep step
    memset(&step, 0, sizeof(step))
    step.dh, step.dc, step.work = scratch, dc, dc + rows * Hp
    step.ldgates = f.ldgates
    step.lddy = w.P
    step.ldh = step.lddh = step.lddh_sum = f.Pp
    step.ldc = step.lddc = step.ldh_raw = step.ldwork = f.Hp
    copy_rows(scratch, Pp, f.dh_n + b0 * P if f.dh_n != NULL else NULL, P, rows, P)
    if lstm:
        copy_rows(dc, Hp, f.dc_n + b0 * H if f.dc_n != NULL else NULL, H, rows, H)
    for s in range(f.T - 1, -1, -1):
        n = rows_of(f, s, b0, b1)
        if n == 0:
            continue
        row = data_row(f, s) + b0
        step.rows = n
        step.gates = f.gates + row * f.ldgates * size
        step.dy = f.dy + row * P if f.dy != NULL else NULL
        step.reset = f.resets + row if f.resets != NULL else NULL
        step.h = f.states + (state_before(f, s) + b0) * Pp
        if lstm:
            step.c = f.cells + (state_before(f, s) + b0) * Hp
            step.c_next = f.cells + (state_after(f, s) + b0) * Hp
        if f.h_raw != NULL:
            step.h_raw, step.dh_sum = f.h_raw + row * Hp, f.dh_sum + row * Pp
        f.k.dstep[w.cell](w, &step)
    copy_rows(f.dh0 + b0 * P, P, scratch, Pp, rows, P)
    if lstm:
        copy_rows(f.dc0 + b0 * H, H, dc, Hp, rows, H)
    rnnfast_flush_leave(flush)
    rnnfast_free(scratch)
    return 0


ctypedef int (*block_function)(const Run *, Py_ssize_t, Py_ssize_t) noexcept nogil


cdef double flops(const Run *f) noexcept nogil:
    return 2.0 * f.N * slots_of(f.w.cell) * f.w.H * (f.w.I + f.w.P)


cdef int useful_threads(const Run *f, int threads) noexcept nogil:
    return 1 if in_forked_child or not HAVE_OPENMP or flops(f) < SERIAL_FLOPS else threads


cdef int over_blocks(const Run *f, block_function run, int threads) except -1:
    """All rows, in blocks of about equal size; one thread takes a block after the other."""
    cdef Py_ssize_t blocks, b, rows = BLOCK_ROWS_LARGE if weight_bytes(f) > LARGE else BLOCK_ROWS
    cdef int failed = 0
    threads = min(useful_threads(f, threads), max(f.B, 1))
    blocks = max((f.B + rows - 1) // rows, 1)
    if threads > 1:  # ragged rows: twice the blocks, so that the longest ones do not decide alone
        blocks = (blocks + threads - 1) // threads * threads * (1 if f.active == NULL else 2)
    blocks = min(blocks, max(f.B, 1))
    with nogil:
        if threads == 1:
            for b in range(blocks):
                failed |= run(f, b * f.B // blocks, (b + 1) * f.B // blocks)
        else:
            for b in prange(blocks, num_threads=threads, schedule="dynamic", chunksize=1):
                failed |= run(f, b * f.B // blocks, (b + 1) * f.B // blocks)
    if failed:
        raise MemoryError()
    return 0


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


cdef int by_columns(const rnnfast_kernels *k, const rnnfast_wgrad *g, rnnfast_wgrad *to) noexcept:
    """Cut weight gradients so that what they read of x and h fits the second cache; returns how many."""
    cdef Py_ssize_t columns = 0, j
    cdef int i, n = 0
    cdef rnnfast_term *t
    for i in range(g.terms):
        columns += g.term[i].n
    if columns <= COLUMNS:
        to[0] = g[0]
        return 1
    for i in range(g.terms):
        for j in range(0, g.term[i].n, COLUMNS):
            to[n] = g[0]
            to[n].terms = 1
            t = &to[n].term[0]
            t[0] = g.term[i]
            t.b = <const char *>t.b + j // k.lanes * t.vec * k.size
            t.c = <char *>t.c + j * k.size
            t.n = min(t.n - j, COLUMNS)
            if n > 0:
                to[n].bias = NULL
            n += 1
    return n


cdef int over_products(const Run *f, const rnnfast_wgrad *g, int n, void *dx, int threads) except -1:
    """dx in stretches of rows and the weight gradients in stretches of panels: independent outputs."""
    cdef Py_ssize_t dx_parts = 1 if threads == 1 else min(max(f.N // 64, 1), 4 * threads)
    cdef Py_ssize_t parts = 1 if threads == 1 else 2 * threads
    cdef Py_ssize_t i, scratch = 0
    cdef int failed = 0, j
    for j in range(n):
        scratch = max(scratch, <Py_ssize_t>f.k.wgrad_scratch(&g[j]))
    with nogil:
        if threads == 1:
            for i in range(1 + n):
                failed |= product(f, g, dx, dx_parts, parts, i, scratch)
        else:
            for i in prange(dx_parts + n * parts, num_threads=threads, schedule="dynamic", chunksize=1):
                failed |= product(f, g, dx, dx_parts, parts, i, scratch)
    if failed:
        raise MemoryError()
    return 0


cdef int product(const Run *f, const rnnfast_wgrad *g, void *dx, Py_ssize_t dx_parts, Py_ssize_t parts,
                 Py_ssize_t i, Py_ssize_t scratch) noexcept nogil:
    """Part i: first those of dx, then those of each weight gradient."""
    cdef const rnnfast_kernels *k = f.k
    cdef Py_ssize_t first, last, panels, part
    cdef unsigned long flush
    cdef char *memory
    if i < dx_parts:
        first, last = i * f.N // dx_parts, (i + 1) * f.N // dx_parts
        flush = rnnfast_flush_enter()
        k.dinput(f.w, last - first, f.gates + first * f.ldgates * k.size,
                 <char *>dx + first * f.w.I * k.size)
        rnnfast_flush_leave(flush)
        return 0
    g += (i - dx_parts) // parts
    part = (i - dx_parts) % parts
    panels = padded(k, g.H) // k.lanes
    first, last = part * panels // parts, (part + 1) * panels // parts
    if first == last:
        return 0
    memory = <char *>rnnfast_alloc(scratch * k.size)
    if memory == NULL:
        return 1
    flush = rnnfast_flush_enter()
    k.wgrad(g, first, last, memory)
    rnnfast_flush_leave(flush)
    rnnfast_free(memory)
    return 0


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


# ------------------------------------------------------------------------------------- streaming

cdef extern from "Python.h":
    int PyBUF_FORMAT, PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)


def pack(int cell, int act, const real[:, ::1] w_ih not None, const real[:, ::1] w_hh not None,
         const real[::1] b_ih, const real[::1] b_hh, const real[:, ::1] w_hr):
    cdef const rnnfast_kernels *k = table[real](0)
    cdef rnnfast_weights w = weights[real](cell, act, w_ih, w_hh, b_ih, b_hh, w_hr)
    return packed(k, &w, False), k.lanes


def run_packed(Packed p not None, Py_ssize_t T, const real[:, ::1] x not None,
               const real[:, ::1] h0 not None, const real[:, ::1] c0, int threads,
               real[:, ::1] y not None, real[:, ::1] h_n not None, real[:, ::1] c_n):
    """`forward` of a dense sequence with packed weights."""
    cdef Run f = start(p, T, h_n.shape[0], x.shape[0])
    f.x, f.y = <const char *>&x[0, 0], <char *>&y[0, 0]
    f.h0, f.h_n = <const char *>&h0[0, 0], <char *>&h_n[0, 0]
    if c0 is not None:
        f.c0, f.c_n = <const char *>&c0[0, 0], <char *>&c_n[0, 0]
    over_blocks(&f, forward_block, threads)


cdef class Steps:
    """Steps through stacked layers; `rnnfast.stream.Stream` owns the arrays and the checks.

    `layers` has for each layer a dict of its `Packed` weights and its arrays: h (2, B, Pp), used in
    turn (`turn` says which one holds the state), y (B, P) and, as the cell needs, c, work and gates.
    """
    cdef list layers
    cdef rnnfast_step *steps
    cdef const rnnfast_packed **w
    cdef const rnnfast_kernels *k
    cdef Py_ssize_t B
    cdef int n, threads
    cdef double flops
    cdef object ndarray, empty
    cdef readonly object dtype
    cdef readonly int turn

    def __cinit__(self, list layers, Py_ssize_t batch_size, int threads, dtype, type ndarray, empty):
        cdef Packed p
        cdef rnnfast_step *s
        cdef Py_ssize_t l
        self.layers, self.B, self.n, self.threads = layers, batch_size, len(layers), threads
        self.dtype, self.ndarray, self.empty = dtype, ndarray, empty
        self.steps = <rnnfast_step *>rnnfast_alloc(self.n * sizeof(rnnfast_step))
        self.w = <const rnnfast_packed **>rnnfast_alloc(self.n * sizeof(void *))
        if self.steps == NULL or self.w == NULL:
            raise MemoryError()
        memset(self.steps, 0, self.n * sizeof(rnnfast_step))
        for l, layer in enumerate(layers):
            p = layer["weights"]
            self.k, self.w[l], s = p.k, &p.w, &self.steps[l]
            s.rows, s.ldx, s.ldy = batch_size, p.w.I, p.w.P
            s.ldh = s.ldh_next = padded(p.k, p.w.P)
            s.ldc = s.ldwork = padded(p.k, p.w.H)
            s.ldgates = slots_of(p.w.cell) * s.ldc
            s.h, s.h_next = address(layer["h"][0]), address(layer["h"][1])
            s.y, s.c_next = address(layer["y"]), address(layer["c"])
            s.c, s.work, s.gates = s.c_next, address(layer["work"]), address(layer["gates"])
            self.flops += 2.0 * batch_size * slots_of(p.w.cell) * p.w.H * (p.w.I + p.w.P)

    def __dealloc__(self):
        rnnfast_free(self.steps)
        rnnfast_free(self.w)

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
        cdef Py_buffer xv, yv
        cdef Py_ssize_t I = self.w[0].I, P = self.w[self.n - 1].P
        if type(x) is not self.ndarray:
            x = self.accept_x(x)
        try:
            PyObject_GetBuffer(x, &xv, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        except (ValueError, BufferError):
            x = self.accept_x(x)
            PyObject_GetBuffer(x, &xv, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        try:
            if not self.fits(&xv, I):
                self.accept_x(x)
            if out is None:
                out = self.empty(P if xv.ndim == 1 else <object>(self.B, P), self.dtype)
            elif type(out) is not self.ndarray:
                self.accept_out(out, xv.ndim)
            try:
                PyObject_GetBuffer(out, &yv, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
            except (ValueError, BufferError):
                self.accept_out(out, xv.ndim)
                raise
            try:
                if not self.fits(&yv, P) or yv.ndim != xv.ndim:
                    self.accept_out(out, xv.ndim)
                if <char *>yv.buf < <char *>xv.buf + xv.len and <char *>xv.buf < <char *>yv.buf + yv.len:
                    raise ValueError("out overlaps x, expected memory of its own")
                self.advance(xv.buf, yv.buf)
            finally:
                PyBuffer_Release(&yv)
        finally:
            PyBuffer_Release(&xv)
        return out

    cdef bint fits(self, Py_buffer *v, Py_ssize_t n) noexcept:
        if v.format[0] != (c"f" if self.k.size == 4 else c"d") or v.format[1] != 0:
            return False
        if v.ndim == 2:
            return v.shape[0] == self.B and v.shape[1] == n
        return v.ndim == 1 and self.B == 1 and v.shape[0] == n

    cdef void advance(self, const void *x, void *y) noexcept:
        """Letting go of the GIL costs as much as a small step."""
        if self.flops < 1e5:
            self.advance_layers(x, y)
        else:
            with nogil:
                self.advance_layers(x, y)
        self.turn = 1 - self.turn

    cdef void advance_layers(self, const void *x, void *y) noexcept nogil:
        cdef int l
        cdef rnnfast_step *s
        cdef void *own
        for l in range(self.n):
            s = &self.steps[l]
            own, s.x = s.y, x
            if l == self.n - 1:
                s.y = y
            self.advance_rows(self.w[l], s)
            s.h, s.h_next = s.h_next, s.h
            x, s.y = s.y, own

    cdef void advance_rows(self, const rnnfast_packed *w, const rnnfast_step *s) noexcept nogil:
        cdef int b, threads = min(self.threads, self.B)
        if threads == 1 or self.flops < SERIAL_FLOPS or in_forked_child or not HAVE_OPENMP:
            step_rows(self.k, w, s, 0, self.B)
        else:
            for b in prange(threads, num_threads=threads, schedule="static"):
                step_rows(self.k, w, s, b * self.B // threads, (b + 1) * self.B // threads)


cdef void *address(array) except? NULL:
    return NULL if array is None else <void *><size_t>array.ctypes.data


cdef void step_rows(const rnnfast_kernels *k, const rnnfast_packed *w, const rnnfast_step *all_rows,
                    Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    cdef rnnfast_step s = all_rows[0]
    cdef Py_ssize_t at = b0 * k.size
    cdef unsigned long flush = rnnfast_flush_enter()
    s.rows = b1 - b0
    s.x = <const char *>s.x + at * s.ldx
    s.y = <char *>s.y + at * s.ldy
    s.h, s.h_next = <char *>s.h + at * s.ldh, <char *>s.h_next + at * s.ldh
    if s.c != NULL:
        s.c = s.c_next = <char *>s.c_next + at * s.ldc
    if s.work != NULL:
        s.work = <char *>s.work + at * s.ldwork
    if s.gates != NULL:
        s.gates = <char *>s.gates + at * s.ldgates
    k.step[w.cell](w, &s)
    rnnfast_flush_leave(flush)
