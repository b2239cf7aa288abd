# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""One call of a cell of the user's own, forward or back, the tape between them, and streams.

`rnnfast._cell_calls` has checked the arguments: arrays are C-contiguous and of one dtype. A plan (rnnfast/cells/_plan.py)
says what to compute.
"""

cimport numpy as cnp
from libc.stdint cimport uint8_t
from libc.string cimport memset

from .arrays cimport ANY, Arrays, Block, Rows, arrays_of, fits, from_column, new, no_rows, overlap, rows_in, rows_of, take
from .cell_gradients cimport input_gradient, weight_gradients
from .cell_plans cimport Packed, Plan, data_of, pack
from .cells cimport CellPass, Code, Extra, cell_backward_block, cell_forward_block
from .config cimport alloc, free, padded, table
from .sequence cimport Pass, run_blocks

import numpy as np

from . import checks
from .cell_plans import empty
from .passes import NO_COPY_OF_A_TAPE

cnp.import_array()


cdef class Call:
    def __dealloc__(self):
        free(self.memory)

    cdef int start(self, Plan compiled, object dtype, int states, int extras) except -1:
        cdef Block b
        cdef CellPass *c = &self.c
        cdef int i
        memset(c, 0, sizeof(CellPass))
        self.compiled, self.kept = compiled, []
        c.states, c.extras, c.stages = states, extras, len(compiled.plan.stages)
        c.f.k = table(cnp.NPY_FLOAT if dtype == np.float32 else cnp.NPY_DOUBLE)
        b.start, b.used = NULL, 0
        rows_in(&b, 3 * states, sizeof(Rows), 1)
        rows_in(&b, states + 1, sizeof(Py_ssize_t), 1)
        rows_in(&b, extras, sizeof(Extra), 1)
        self.memory = alloc(b.used)
        if self.memory == NULL:
            raise MemoryError()
        b.start, b.used = <char *>self.memory, 0
        c.first = <Rows *>rows_in(&b, 3 * states, sizeof(Rows), 1).data
        c.last = c.first + states
        c.size = <const Py_ssize_t *>rows_in(&b, states + 1, sizeof(Py_ssize_t), 1).data
        c.extra = <const Extra *>rows_in(&b, extras, sizeof(Extra), 1).data
        for i in range(states):
            (<Py_ssize_t *>c.size)[i] = compiled.plan.states[i]
            c.first[i] = c.last[i] = no_rows()
        return 0

    cdef int take_states(self, Rows *to, list arrays) except -1:
        cdef int i
        for i, array in enumerate(arrays):
            to[i] = rows_of(data_of(array), self.c.size[i], self.c.f.k.size)
        self.kept.append(arrays)
        return 0

    cdef int use(self, Packed packed, const Code *code) except -1:
        self.packed = packed
        self.c.weights, self.c.constants = packed.weights, packed.constants
        self.c.code = code
        return 0


cdef class Tape:
    def __dealloc__(self):
        free(self.memory)

    def __reduce__(self):
        raise TypeError(NO_COPY_OF_A_TAPE)

    @property
    def plan(self):
        return self.forward.compiled.plan


cdef Py_ssize_t divide_tape(CellPass *c, Plan compiled, char *memory) except -1:
    cdef Block b
    cdef int i
    b.start, b.used = memory, 0
    for i in range(c.states):
        rows = rows_in(&b, c.f.B + c.f.N, padded(c.f.k, c.size[i]), c.f.k.size)
        if memory != NULL:
            c.state[i] = rows
    c.saved = rows_in(&b, c.f.N, compiled.plan.saved, c.f.k.size)
    return b.used


cdef double flops_of_row(plan) except -1:
    """The work of a data row: its products, and something for the programs."""
    return 2.0 * plan.taped.products.weights + 50 * sum(plan.states)


def forward(Plan compiled not None, x, list states not None, dict params not None, list extra not None, ragged, flags,
            bint reverse, bint need_tape, int threads, y, Py_ssize_t column):
    """Run a cell over a sequence.

    x is (T, B, I), and each of the states an array or None. `extra` has triples: an array of rows, and how many rows
    further the next step and the next row of the batch are. y is (T, B, columns); the output goes to its columns from
    `column` on. Returns the final states and the tape.
    """
    cdef Call call = Call.__new__(Call)
    cdef CellPass *c
    cdef Pass *passes[2]
    cdef Tape tape = None
    cdef const Code *code
    plan = compiled.plan
    dtype = x.dtype
    call.start(compiled, dtype, len(states), len(extra))
    c = &call.c
    c.f.T, c.f.B, c.f.N, c.f.reverse = x.shape[0], x.shape[1], x.shape[0] * x.shape[1], reverse
    set_rows(call, ragged, flags)
    c.f.row_flops, c.f.weight_bytes = flops_of_row(plan), compiled.forward.weights * c.f.k.size
    c.f.x = rows_of(data_of(x), x.shape[2], c.f.k.size)
    c.input_size = x.shape[2]
    place = plan.output_taped if need_tape else plan.output
    c.output_array, c.output_offset, c.output_size = place.array, place.offset, plan.graph.output.size
    c.f.y = rows_of(data_of(y), y.shape[2], c.f.k.size)
    c.f.y = from_column(&c.f.y, column)
    set_extra(c, extra)
    call.kept.append(extra)
    final = [np.empty((c.f.B, size), dtype) for size in plan.states]
    call.take_states(c.first, states)
    call.take_states(c.last, final)
    call.kept += [x, y]
    code = &compiled.taped if need_tape else &compiled.forward
    call.use(pack(compiled, c.f.k, params, code, False), code)
    if need_tape:
        tape = Tape.__new__(Tape)
        c.state = c.last + c.states
        tape.memory = alloc(divide_tape_size(c, compiled))
        if tape.memory == NULL:
            raise MemoryError()
        divide_tape(c, compiled, <char *>tape.memory)
        tape.forward, tape.dtype, tape.shape = call, dtype, x.shape
        # A copy, because the caller may change the parameters before backward.
        tape.packed = pack(compiled, c.f.k, params, &compiled.backward, True)
    passes[0], passes[1] = &c.f, NULL
    run_blocks(passes, cell_forward_block, threads)
    return final, tape


cdef Py_ssize_t divide_tape_size(CellPass *c, Plan compiled) except -1:
    cdef CellPass counted = c[0]
    return divide_tape(&counted, compiled, NULL)


cdef int set_rows(Call call, ragged, flags) except -1:
    """Where data rows are, and which of them begin anew."""
    cdef Pass *f = &call.c.f
    call.kept += [ragged, flags]
    if ragged is not None:
        f.T, f.N, f.paddings = len(ragged.active), len(ragged.rows), len(ragged.padding)
        f.active, f.offset = <const Py_ssize_t *>data_of(ragged.active), <const Py_ssize_t *>data_of(ragged.offset)
        f.order, f.row_index = <const Py_ssize_t *>data_of(ragged.order), <const Py_ssize_t *>data_of(ragged.rows)
        f.padding = <const Py_ssize_t *>data_of(ragged.padding)
    if flags is not None:
        f.resets = <const uint8_t *>data_of(flags)
    return 0


cdef int set_extra(CellPass *c, list extra) except -1:
    """Where the extra inputs are."""
    cdef Extra *to = <Extra *>c.extra
    cdef int i
    for i, (array, by_step, by_row) in enumerate(extra):
        to[i].data, to[i].n, to[i].by_step, to[i].by_row = data_of(array), array.shape[1], by_step, by_row
    return 0


# ---- Backward.

def backward(Tape tape not None, dy, Py_ssize_t column, list dstates not None, int threads):
    """Run back. dy is an array (T, B, columns) or None, each of dstates an array or None.

    Returns the gradients: of x, of the states, of the parameters by name, and an array with a row for each data row, in
    which those of the extra inputs are where the plan says.
    """
    cdef Call call = Call.__new__(Call), before = tape.forward
    cdef CellPass *c = &call.c
    cdef Plan compiled = before.compiled
    cdef Pass *passes[2]
    cdef Rows *first
    cdef Rows *last
    plan, dtype = compiled.plan, tape.dtype
    call.start(compiled, dtype, before.c.states, before.c.extras)
    first, last = c.first, c.last
    c[0] = before.c
    c.first, c.last = first, last
    call.use(tape.packed, &compiled.backward)
    if dy is not None:
        c.f.dy = rows_of(data_of(dy), dy.shape[2], c.f.k.size)
        c.f.dy = from_column(&c.f.dy, column)
    initial = [np.empty((c.f.B, n), dtype) for n in plan.states]
    call.take_states(c.first, dstates)
    call.take_states(c.last, initial)
    dz, gradients = empty((c.f.N, plan.dz), dtype), empty((c.f.N, plan.gradients), dtype)
    c.dz, c.gradients = rows_of(data_of(dz), plan.dz, c.f.k.size), rows_of(data_of(gradients), plan.gradients, c.f.k.size)
    tape.used = True
    passes[0], passes[1] = &c.f, NULL
    run_blocks(passes, cell_backward_block, threads)
    dx = input_gradient(c, plan, tape.shape, dtype, threads)
    params = weight_gradients(c, compiled, dtype, threads)
    return dx, initial, params, gradients


# ---- Streams.

cdef class StreamCell:
    """A cell with packed weights and a state that stays here from call to call."""
    cdef Call call
    cdef readonly list states    # (B, size) each

    def __cinit__(self, Plan compiled not None, dict params not None, Py_ssize_t B, dtype):
        cdef CellPass *c
        plan = compiled.plan
        self.call = Call.__new__(Call)
        self.call.start(compiled, dtype, len(plan.states), len(plan.graph.extra))
        c = &self.call.c
        self.states = [np.zeros((B, size), dtype) for size in plan.states]
        self.call.take_states(c.first, self.states)
        self.call.take_states(c.last, self.states)
        self.call.use(pack(compiled, c.f.k, params, &compiled.forward, False), &compiled.forward)
        c.f.B, c.input_size = B, plan.graph.x.size
        c.f.row_flops, c.f.weight_bytes = flops_of_row(plan), compiled.forward.weights * c.f.k.size
        c.output_array, c.output_offset, c.output_size = plan.output.array, plan.output.offset, plan.graph.output.size

    cdef int run(self, const void *x, void *y, Py_ssize_t T, list extra, int threads) except -1:
        """Take T steps; x (T, B, I) and y (T, B, size of the output) are plain."""
        cdef CellPass *c = &self.call.c
        cdef Pass *passes[2]
        c.f.T, c.f.N = T, T * c.f.B
        c.f.x, c.f.y = rows_of(x, c.input_size, c.f.k.size), rows_of(y, c.output_size, c.f.k.size)
        set_extra(c, extra)
        passes[0], passes[1] = &c.f, NULL
        return run_blocks(passes, cell_forward_block, threads)


cdef class StreamCells:
    """The layers of a stream, one after the other.

    `extra` has triples, as that of `forward`.
    """
    cdef readonly list cells
    cdef Py_ssize_t B, I, outputs
    cdef object dtype
    cdef int type_number, threads

    def __cinit__(self, list cells not None, Py_ssize_t B, dtype, int threads):
        cdef StreamCell first = cells[0], last = cells[len(cells) - 1]
        self.cells, self.B, self.dtype, self.threads = cells, B, dtype, threads
        self.I, self.outputs = first.call.c.input_size, last.call.c.output_size
        self.type_number = cnp.NPY_FLOAT if dtype == np.float32 else cnp.NPY_DOUBLE

    def step(self, x, out, list extra not None):
        """Take one step of x, (B, I), or (I,) where B is 1; returns `out`, or a new array if it is None."""
        cdef Arrays a = arrays_of(self.type_number)
        cdef const void *xs = take(&a, x, ANY, ANY)
        cdef void *ys
        cdef int ndim
        if xs == NULL or not fits(x, self.B, 1, self.I):
            x = checks.step_input(x, self.dtype, self.B, self.I)
            a = arrays_of(self.type_number)
            xs = take(&a, x, ANY, ANY)
        ndim = cnp.PyArray_NDIM(<cnp.ndarray>x)
        if out is None:
            out = new(&a, &ys, ndim, self.outputs if ndim == 1 else self.B, self.outputs)
        else:
            ys = take(&a, out, ndim, ANY)
            if ys == NULL or not fits(out, self.B, 1, self.outputs) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
                checks.refuse_step_output(out, self.dtype, ndim, self.B, self.outputs)
            if overlap(x, out):
                checks.refuse_overlap("out", "x")
        self.advance(xs, ys, 1, extra)
        return out

    def run(self, x, y, Py_ssize_t T, list extra not None):
        """Take the T steps of x (T, B, I); the outputs go to y (T, B, size)."""
        self.advance(data_of(x), <void *>data_of(y), T, extra)

    cdef int advance(self, const void *x, void *y, Py_ssize_t T, list extra) except -1:
        cdef Py_ssize_t i, n = len(self.cells)
        cdef StreamCell cell
        between = None  # the outputs of a layer, which are the inputs of the next one
        for i in range(n - 1):
            cell = self.cells[i]
            outputs = np.empty((T, self.B, cell.call.c.output_size), self.dtype)
            cell.run(x, <void *>data_of(outputs), T, extra, self.threads)
            between, x = outputs, data_of(outputs)
        cell = self.cells[n - 1]
        return cell.run(x, y, T, extra, self.threads)
