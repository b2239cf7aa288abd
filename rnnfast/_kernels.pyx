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
from libc.stdint cimport int64_t, uint8_t, uint64_t
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

MAX_THREADS = RNNFAST_MAX_THREADS  # libgomp ends the process when it is asked for more than it can start
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


def shared_so_far():
    """Of all calls that were shared among threads so far: their number, their tasks, and the threads that did one."""
    cdef rnnfast_shared done = rnnfast_shared_so_far()
    return done.calls, done.tasks, done.threads


def omp_max_threads():
    return omp_limit()


def paying_threads(int most):
    return rnnfast_paying_threads(most)


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
        self.block = rnnfast_alloc(size * k.size)
        if self.block == NULL:
            raise MemoryError()
        cdef PackJob job
        if size < GIL_REALS:
            k.pack(w, use, self.block, &self.w, 0, 1)
        else:
            job.k, job.w, job.use, job.block, job.out, job.parts = k, w, use, self.block, &self.w, threads
            with nogil:
                rnnfast_share(threads, threads, True, pack_part, &job)


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
    cdef Packed p = Packed.__new__(Packed)
    p.make(k, w, use, threads)
    return p

include "_arrays.pxi"      # NumPy arrays in and out
include "_packing.pxi"     # data rows of unequal lengths
include "_loop.pxi"        # the loop over time: forward_block, backward_block, over_blocks
include "_products.pxi"    # after it: dx and the weight gradients
include "_passes.pxi"      # the tape, and the two passes that Python calls


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
include "_tensors.pxi"     # PyTorch's tensors
include "_probes.pxi"      # for tests
