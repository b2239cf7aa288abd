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
    double row_flops             # of a data row
    Py_ssize_t weight_bytes
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
cdef Py_ssize_t projected_rows(const Pass *f, Py_ssize_t rows) noexcept nogil
cdef Py_ssize_t steps_ahead(const Pass *f, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t s, Py_ssize_t *x_index,
                            Py_ssize_t *rows) noexcept nogil
cdef bint worth_projecting(const Pass *f, Py_ssize_t rows) noexcept nogil
cdef void zero_padding(const Pass *f, const Rows *array, Py_ssize_t n, Py_ssize_t first,
                       Py_ssize_t last) noexcept nogil

# One block of rows through all steps; nonzero if there is no memory.
ctypedef int (*block_function)(const Pass *, Py_ssize_t, Py_ssize_t) noexcept nogil

cdef void take_states(const Pass *f, const Rows *to, const Rows *states, Py_ssize_t b, Py_ssize_t rows,
                      Py_ssize_t n) noexcept nogil
cdef void give_states(const Pass *f, const Rows *states, const Rows *source, Py_ssize_t b, Py_ssize_t rows,
                      Py_ssize_t n) noexcept nogil
cdef int forward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil
cdef int backward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil
cdef int run_blocks(Pass **passes, block_function run, int threads) except -1


# ---- Where the rows of a step are.

cdef inline Py_ssize_t rows_in_step(const Pass *f, Py_ssize_t s, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Rows of block b0 .. b1 in step s (of processing order)."""
    cdef Py_ssize_t last = b1 if f.active == NULL else min(f.active[s], b1)
    return max(last - b0, 0)


cdef inline Py_ssize_t data_row(const Pass *f, Py_ssize_t s) noexcept nogil:
    """The first data row of step s."""
    if f.active != NULL:
        return f.offset[s]
    return (f.T - 1 - s if f.reverse else s) * f.B


cdef inline Py_ssize_t state_before(const Pass *f, Py_ssize_t s) noexcept nogil:
    """The first saved state before step s."""
    if f.active != NULL:
        return f.B + f.offset[s - 1] if s > 0 else 0
    return (f.T - s if f.reverse else s) * f.B


cdef inline Py_ssize_t state_after(const Pass *f, Py_ssize_t data_row) noexcept nogil:
    """The saved state after a step, by its data row."""
    return data_row if f.reverse else f.B + data_row


cdef inline Py_ssize_t state_row(const Pass *f, Py_ssize_t b) noexcept nogil:
    """Where row b is in the caller's initial and final states."""
    return b if f.order == NULL else f.order[b]
