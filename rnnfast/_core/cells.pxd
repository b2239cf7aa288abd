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

# The programs of a pass.
cdef struct Code:
    const rnnfast_instruction *table
    const Py_ssize_t *ends       # of each segment
    Py_ssize_t local, block      # reals of a row of scratch
    Py_ssize_t rows_at_a_time
    Py_ssize_t x, dy             # where in the block's scratch they are copied to; -1: not at all
    const Py_ssize_t *extra      # the same of each extra input

# A product of a stage: a source times the weights of linears that have it.
cdef struct Operand:
    int stage, array             # array -1: x
    Py_ssize_t offset, K         # where in a row of the array it is, and its size
    const void *weights          # packed, of forward or backward
    Py_ssize_t first, columns    # of the stage, which have this source
    bint begins, begins_back     # whether the sums of these columns, and of the source, begin here
    Py_ssize_t back              # where in the block's scratch its gradient goes

cdef struct Stage:
    Py_ssize_t columns, sums, dz
    const void *bias

cdef struct Extra:
    const void *data             # rows of n reals
    Py_ssize_t n, by_step, by_row  # row t by_step + b by_row belongs to step t, batch row b

# A call of a cell. `f` says what sequence it is; the cell and the weights in `f` are not used.
cdef struct CellPass:
    Pass f                       # the first, so that a pointer to it is one to the call
    int states, stages, operands, extras
    const Code *code
    const Stage *stage           # (stages,)
    const Operand *operand       # (operands,) by stage
    const Extra *extra           # (extras,)
    const Py_ssize_t *size       # (states,)
    const void *constants
    int output_array
    Py_ssize_t output_offset, output_size, input_size
    Rows *first                  # (states,) initial states, or the gradients of the final ones
    Rows *last                   # (states,) final states, or the gradients of the initial ones
    Rows *state                  # (states,) of the tape, (B + N, size)
    Rows saved, dz, gradients    # (N, ...)


cdef int cell_forward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil
cdef int cell_backward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil
