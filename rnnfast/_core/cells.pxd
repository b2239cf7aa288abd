# A plan of a cell (rnnfast/cells/_plan.py) in C.
from libc.stdint cimport uint8_t

from .abi cimport rnnfast_array, rnnfast_instruction, rnnfast_kernels
from .arrays cimport Rows
from .sequence cimport Pass

cdef enum:
    # The arrays of a program, as in rnnfast/cells/_program.py.
    LOCAL, BLOCK, CONSTANTS, SAVED, DZ, GRADIENTS, FIRST_STATE_ARRAY
cdef enum:
    BEFORE, AFTER, NEXT, PREVIOUS, STATE_ARRAYS

# A product (rnnfast/cells/_products.py): columns of a stage, or backward the gradient of a source. They go to a place in
# the rows of an array. Places of the bias and of what is projected are -1 where there is none.
cdef struct Product:
    Py_ssize_t stage, array, offset, columns, bias, projected, first_factor, factors
# One of its factors: K reals of each row of an array (-1: x). `weights` is where in the packed ones its own are.
cdef struct Factor:
    Py_ssize_t array, offset, K, weights, first_part, parts
# The weights of one linear: a parameter, and its columns in the product.
cdef struct Part:
    Py_ssize_t parameter, first, size

# The programs and products of a pass.
cdef struct Code:
    const rnnfast_instruction *table
    const Py_ssize_t *ends       # of each segment
    Py_ssize_t local, block      # reals of a row of scratch
    Py_ssize_t rows_at_a_time
    Py_ssize_t x, dy             # where in the block's scratch they are copied to; -1: not at all
    const Py_ssize_t *extra      # the same of each extra input
    const Product *product       # by stage, in the order in which they are computed
    const Factor *factor
    const Part *part
    Py_ssize_t products, factors, most_factors
    Py_ssize_t weights, projected  # reals of all weights; columns in which x has a part

cdef struct Extra:
    const void *data             # rows of n reals
    Py_ssize_t n, by_step, by_row  # row t by_step + b by_row belongs to step t, batch row b

# A call of a cell. `f` says what sequence it is; the cell and the weights in `f` are not used.
cdef struct CellPass:
    Pass f                       # the first, so that a pointer to it is one to the call
    int states, stages, extras
    const Code *code
    const void *weights          # packed
    const void *constants        # of the programs, and behind them the biases
    const Extra *extra           # (extras,)
    const Py_ssize_t *size       # (states,)
    int output_array
    Py_ssize_t output_offset, output_size, input_size
    Rows *first                  # (states,) initial states, or the gradients of the final ones
    Rows *last                   # (states,) final states, or the gradients of the initial ones
    Rows *state                  # (states,) of the tape, (B + N, size)
    Rows saved, dz, gradients    # (N, ...)


cdef int cell_forward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil
cdef int cell_backward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil
