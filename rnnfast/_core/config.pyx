# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""The C code itself: instruction sets, memory, threads, packed weights.

It is the only module that links csrc/. What it decides holds for the whole process.
"""

cimport numpy as cnp
from libc.stdint cimport uint64_t

from .abi cimport (
    RNNFAST_GRU, RNNFAST_GRU_RESET_BEFORE, RNNFAST_IDENTITY, RNNFAST_LSTM, RNNFAST_MAX_THREADS, RNNFAST_RELU,
    RNNFAST_RNN, RNNFAST_SIGMOID, RNNFAST_TANH, rnnfast_alloc, rnnfast_alloc_result, rnnfast_cell, rnnfast_cell_of,
    rnnfast_compiler, rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_free, rnnfast_isas, rnnfast_kernels,
    rnnfast_memory, rnnfast_memory_hold, rnnfast_memory_now, rnnfast_memory_refuse, rnnfast_packed,
    rnnfast_paying_threads, rnnfast_share, rnnfast_shared, rnnfast_shared_so_far, rnnfast_table, rnnfast_task,
    rnnfast_weights,
)

import os
import time

import numpy as np

cnp.import_array()

cdef extern from *:
    """
    #include <dlfcn.h>
    #ifdef _OPENMP
    #include <omp.h>
    #define HAVE_OPENMP 1
    static int omp_limit(void) {
      int n = omp_get_max_threads(), limit = omp_get_thread_limit();
      return n < limit ? n : limit;
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

MAX_THREADS = RNNFAST_MAX_THREADS  # libgomp ends the process when it is asked for more than it can start
RNN, GRU, GRU_RESET_BEFORE, LSTM = RNNFAST_RNN, RNNFAST_GRU, RNNFAST_GRU_RESET_BEFORE, RNNFAST_LSTM
ACTIVATIONS = {"tanh": RNNFAST_TANH, "relu": RNNFAST_RELU, "sigmoid": RNNFAST_SIGMOID,
               "identity": RNNFAST_IDENTITY}

# ---- Instruction sets.

cdef const rnnfast_kernels *table_f32
cdef const rnnfast_kernels *table_f64


def _isas():
    names, i = [], 0
    while rnnfast_isas()[i] != NULL:
        names.append(rnnfast_isas()[i].decode())
        i += 1
    return names


ISAS = _isas()


def use_isa(str isa, str name="isa"):
    """From now on run the kernels of this instruction set. For tests: weights that were packed and tapes that were
    saved before cannot be used after."""
    global table_f32, table_f64, isa_in_use
    if isa not in ISAS:
        raise ValueError(f"{name} is {isa!r}, expected one of {', '.join(ISAS)} on this machine")
    encoded = isa.encode()
    table_f32, table_f64 = rnnfast_table(encoded, 4), rnnfast_table(encoded, 8)
    isa_in_use = isa


isa_in_use = None
use_isa(os.environ.get("RNNFAST_ISA") or ISAS[0], "RNNFAST_ISA")


def build_info():
    return {"openmp": bool(HAVE_OPENMP), "compiler": rnnfast_compiler().decode(), "isa": isa_in_use,
            "isas": list(ISAS)}


cdef const rnnfast_kernels *table(int dtype) noexcept nogil:
    return table_f32 if dtype == cnp.NPY_FLOAT else table_f64


# ---- Cells.

cdef const rnnfast_cell *cell_of(int cell) noexcept nogil:
    return rnnfast_cell_of(cell)


cdef double flops_of(Py_ssize_t rows, int cell, Py_ssize_t I, Py_ssize_t H, Py_ssize_t P) noexcept nogil:
    return 2.0 * rows * rnnfast_cell_of(cell).slots * H * (I + P)


def gates_of(int cell):
    """Return how many row blocks the weights of a cell have."""
    return rnnfast_cell_of(cell).gates


def name_of(int cell):
    """Return what a message calls a cell."""
    return rnnfast_cell_of(cell).name.decode()


# ---- Threads.

# Calls with less work than this stay on the caller's thread. A parallel region takes some microseconds on a quiet
# machine, and a time slice of the scheduler where the other core is busy. (M37)
SERIAL_FLOPS = 1e7
cdef double serial_flops = SERIAL_FLOPS
cdef bint in_forked_child = False


cdef int useful_threads(double flops, int threads) noexcept nogil:
    """How many threads a call takes. A negative number means at most so many: as many of them as pay."""
    if in_forked_child or not HAVE_OPENMP or flops < serial_flops:
        return 1
    return threads if threads > 0 else rnnfast_paying_threads(-threads)


cdef int share(Py_ssize_t n, int threads, bint in_turn, rnnfast_task *task, void *job) noexcept nogil:
    return rnnfast_share(n, threads, in_turn, task, job)


def omp_max_threads():
    return omp_limit()


def paying_threads(int most):
    return rnnfast_paying_threads(most)


def pause_openmp():
    omp_pause()


def forked_child():
    global in_forked_child
    in_forked_child = True


# ---- Memory.

cdef void *alloc(size_t size) noexcept nogil:
    return rnnfast_alloc(size)


cdef void *alloc_result(size_t size) noexcept nogil:
    return rnnfast_alloc_result(size)


cdef void free(void *block) noexcept nogil:
    rnnfast_free(block)


# ---- Packed weights.

# With fewer reals, packing keeps the GIL: to release and take it would cost more.
cdef size_t GIL_REALS = 10000


cdef class Packed:
    def __dealloc__(self):
        rnnfast_free(self.block)


cdef struct PackJob:
    const rnnfast_kernels *k
    const rnnfast_weights *w
    rnnfast_packed *out
    void *block
    int use, parts


cdef int pack_part(void *to_do, Py_ssize_t part) noexcept nogil:
    cdef PackJob *job = <PackJob *>to_do
    job.k.pack(job.w, job.use, job.block, job.out, part, job.parts)
    return 0


cdef Packed packed(const rnnfast_kernels *k, const rnnfast_weights *w, int use, int threads):
    """Pack weights for one use. All threads take part, because each needs the packed weights in its cache. (M38)"""
    cdef Packed p = Packed.__new__(Packed)
    cdef size_t reals = k.packed_size(w, use)
    cdef PackJob job
    p.k, p.block = k, rnnfast_alloc(reals * k.size)
    if p.block == NULL:
        raise MemoryError()
    if reals < GIL_REALS:
        k.pack(w, use, p.block, &p.w, 0, 1)
    else:
        job.k, job.w, job.use, job.block, job.out, job.parts = k, w, use, p.block, &p.w, threads
        with nogil:
            rnnfast_share(threads, threads, True, pack_part, &job)
    return p


# ---- The kernels' own arithmetic.

def vmath(str name, x not None):
    """Return tanh, sigmoid, relu or identity of each element of x, as the kernels compute it."""
    cdef cnp.ndarray given = np.ascontiguousarray(x, np.float32 if x.dtype == np.float32 else np.float64)
    cdef cnp.ndarray found = np.empty_like(given)
    cdef const rnnfast_kernels *k = table(cnp.PyArray_TYPE(given))
    cdef int act = ACTIVATIONS[name]
    cdef Py_ssize_t n = cnp.PyArray_SIZE(given)
    cdef const void *source = cnp.PyArray_DATA(given)
    cdef void *to = cnp.PyArray_DATA(found)
    with nogil:
        k.math(act, n, source, to)
    return found


def fma_peak(str precision, double seconds):
    """Return FLOP/s of independent multiply-adds in registers on one core: the best of runs of 2 ms."""
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


# ---- What only tests ask for.

def shared_so_far():
    """Of all calls that were shared among threads so far: their number, their tasks, and the threads that did one."""
    cdef rnnfast_shared done = rnnfast_shared_so_far()
    return done.calls, done.tasks, done.threads


def memory_now():
    """Bytes of the blocks in use, and the bytes and the number of blocks kept for later calls (csrc/memory.c)."""
    cdef rnnfast_memory now = rnnfast_memory_now()
    return now.used, now.kept, now.blocks


def refuse_memory(long n):
    """Let the n-th allocation of a block from now on fail; 0: none. Return how far the count of the last call had
    come: 0 or less if its allocation has failed."""
    return rnnfast_memory_refuse(n)


def hold_kept_memory(bint hold):
    """Take the lock of the kept blocks, or release it. A fork may leave it taken."""
    rnnfast_memory_hold(hold)


cdef struct FloatStates:
    uint64_t *state              # of each thread
    unsigned long new
    bint change


def float_states(int threads, new=None):
    """Return the register that controls floating-point arithmetic (x86: mxcsr, ARM: fpcr) of this thread and of
    OpenMP's others, `threads` in all. Then set it to `new` unless that is None."""
    cdef cnp.ndarray[uint64_t, mode="c"] found = np.zeros(threads, np.uint64)
    cdef FloatStates job
    job.state, job.change, job.new = &found[0], new is not None, new or 0
    with nogil:
        rnnfast_share(threads, threads, True, float_state, &job)
    return found.tolist()


cdef int float_state(void *to_do, Py_ssize_t i) noexcept nogil:
    cdef const FloatStates *job = <const FloatStates *>to_do
    job.state[i] = rnnfast_flush_enter()
    rnnfast_flush_leave(job.new if job.change else job.state[i])
    return 0
