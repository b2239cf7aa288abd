# A block of rows through all time steps, forward and back.
from libc.stdint cimport uint8_t

from .abi cimport rnnfast_cell, rnnfast_kernels, rnnfast_packed, rnnfast_weights
from .arrays cimport Rows

# What forward and backward know of one call. Rows without data are not there.
cdef struct Pass:
    const rnnfast_kernels *k
    const rnnfast_cell *cell
    const rnnfast_packed *w
    const rnnfast_weights *caller_weights  # read instead of w where one row takes one step; or NULL
    Py_ssize_t T, B, N, Hp, Pp, gates_stride
    const Py_ssize_t *active     # (T,) rows of each step, NULL if dense
    const Py_ssize_t *offset     # (T,) first data row of each step
    const Py_ssize_t *order      # (B,) where each row is in the initial and final states; NULL: in its place
    const Py_ssize_t *row_index  # (N,) where each data row is in x, y and their gradients; NULL: in its place
    const Py_ssize_t *padding    # (paddings,) the other rows of x and y
    Py_ssize_t paddings
    const uint8_t *resets        # (N,) or NULL
    bint reverse
    Rows x
    Rows y
    Rows h0, c0, h_n, c_n        # initial and final states, (B, P) and (B, H)
    Rows states                  # (B + N, Pp) of the tape
    Rows cells                   # (B + N, Hp)
    Rows gates                   # (N, gates_stride)
    # backward
    Rows dy
    Rows dh_n, dc_n, dh0, dc0
    Rows h_raw                   # of a projection: outputs before it, (N, Hp)
    Rows dh_sum                  # and the complete gradients of those after it, (N, Pp)


cdef Pass start_pass(const rnnfast_kernels *k, const rnnfast_packed *w, Py_ssize_t T, Py_ssize_t B,
                     Py_ssize_t N) noexcept
cdef double flops(const Pass *f) noexcept nogil
cdef Py_ssize_t state_before(const Pass *f, Py_ssize_t s) noexcept nogil
cdef void zero_padding(const Pass *f, const Rows *array, Py_ssize_t n, Py_ssize_t first,
                       Py_ssize_t last) noexcept nogil
cdef int run_passes_forward(Pass **passes, int threads) except -1
cdef int run_passes_back(Pass **passes, int threads) except -1
