# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""The loop over time of a cell of the user's own, for blocks of rows, without the GIL.

A step is a program, the products of a stage, the next program, and so on. sequence.pyx explains data rows, saved states
and blocks, which are the same here.
"""

from libc.string cimport memset

from .abi cimport rnnfast_array, rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_product
from .arrays cimport Block, Rows, copy_row, from_column, from_row, indices_in, row, rows_in, rows_of, zero_row
from .cells cimport (
    AFTER, BEFORE, BLOCK, CONSTANTS, DZ, FIRST_STATE_ARRAY, GRADIENTS, LOCAL, NEXT, PREVIOUS, SAVED, STATE_ARRAYS,
    CellPass, Extra, Operand,
)
from .config cimport alloc, free, padded
from .sequence cimport (
    Pass, data_row, give_states, rows_in_step, state_after, state_before, take_states, zero_padding,
)


# What a block works in.
cdef struct Scratch:
    rnnfast_array *arrays
    Rows local, block
    Rows *turn                   # (2 * states,) states of forward without a tape, or gradients, used in turn
    Py_ssize_t *index            # which row of an extra input each row has


cdef Py_ssize_t divide(const CellPass *c, Py_ssize_t rows, bint turns, char *memory, Scratch *s) noexcept nogil:
    """Divide a block of memory; returns the bytes it takes."""
    cdef Block b
    cdef int i, size = c.f.k.size
    b.start, b.used = memory, 0
    s.arrays = <rnnfast_array *>rows_in(&b, FIRST_STATE_ARRAY + STATE_ARRAYS * c.states, sizeof(rnnfast_array), 1).data
    s.turn = <Rows *>rows_in(&b, 2 * c.states, sizeof(Rows), 1).data
    s.index = indices_in(&b, rows)
    b.used = (b.used + 63) // 64 * 64
    s.local = rows_in(&b, c.code.rows_at_a_time, c.code.local, size)
    s.block = rows_in(&b, rows, c.code.block, size)
    for i in range(2 * c.states if turns else 0):
        if memory == NULL:
            rows_in(&b, rows, padded(c.f.k, c.size[i // 2]), size)
        else:
            s.turn[i] = rows_in(&b, rows, padded(c.f.k, c.size[i // 2]), size)
    return b.used


cdef inline void set_array(rnnfast_array *array, const Rows *rows, bint local=False) noexcept nogil:
    array.at, array.stride, array.local = rows.data, rows.stride // max(rows.size, 1), local


cdef inline rnnfast_array *state_array(const Scratch *s, int state, int which) noexcept nogil:
    return &s.arrays[FIRST_STATE_ARRAY + STATE_ARRAYS * state + which]


cdef void begin(const CellPass *c, const Scratch *s) noexcept nogil:
    """Set what is the same in all steps."""
    memset(s.arrays, 0, (FIRST_STATE_ARRAY + STATE_ARRAYS * c.states) * sizeof(rnnfast_array))
    set_array(&s.arrays[LOCAL], &s.local, True)
    set_array(&s.arrays[BLOCK], &s.block)
    s.arrays[CONSTANTS].at = <void *>c.constants
    set_array(&s.arrays[SAVED], &c.saved)
    set_array(&s.arrays[DZ], &c.dz)
    set_array(&s.arrays[GRADIENTS], &c.gradients)


cdef inline void move(rnnfast_array *array, const Rows *rows, Py_ssize_t first) noexcept nogil:
    if rows.data != NULL:
        array.at = row(rows, first)


cdef void run_segment(const CellPass *c, const Scratch *s, Py_ssize_t rows, int segment) noexcept nogil:
    cdef Py_ssize_t first = c.code.ends[segment - 1] if segment else 0
    cdef Py_ssize_t n = c.code.ends[segment] - first
    if n:
        c.f.k.run_program(c.code.table + first, n, s.arrays, rows, c.code.rows_at_a_time)


cdef void copy_inputs(const CellPass *c, const Scratch *s, Py_ssize_t rows, Py_ssize_t data) noexcept nogil:
    """Copy what the programs read of x and the extra inputs, for the data rows from `data` on."""
    cdef int i
    cdef Rows to
    if c.code.x >= 0:
        to = from_column(&s.block, c.code.x)
        copy_given(c, rows, data, &c.f.x, &to)
    for i in range(c.extras):
        if c.code.extra[i] >= 0:
            to = from_column(&s.block, c.code.extra[i])
            copy_extra(c, &c.extra[i], s.index, rows, data, &to)


cdef void copy_given(const CellPass *c, Py_ssize_t rows, Py_ssize_t data, const Rows *source,
                     const Rows *to) noexcept nogil:
    """Copy rows of the caller's x or dy."""
    cdef const Py_ssize_t *index = NULL
    cdef Py_ssize_t n = c.input_size if source == &c.f.x else c.output_size
    if c.f.row_index != NULL:
        index = c.f.row_index + data
    c.f.k.copy_rows(rows, n, source.data if index != NULL else row(source, data), source.stride // c.f.k.size, index,
                    to.data, to.stride // c.f.k.size)


cdef void copy_extra(const CellPass *c, const Extra *extra, Py_ssize_t *index, Py_ssize_t rows, Py_ssize_t data,
                     const Rows *to) noexcept nogil:
    cdef Py_ssize_t i, place
    for i in range(rows):
        place = data + i if c.f.row_index == NULL else c.f.row_index[data + i]
        index[i] = place // c.f.B * extra.by_step + place % c.f.B * extra.by_row
    c.f.k.copy_rows(rows, extra.n, extra.data, extra.n, index, to.data, to.stride // c.f.k.size)


cdef void reset_rows(const CellPass *c, const Rows *states, int state, Py_ssize_t rows, Py_ssize_t data) noexcept nogil:
    """Zero the rows of a state, or of its gradient, where an episode begins."""
    cdef Py_ssize_t r
    if c.f.resets == NULL:
        return
    for r in range(rows):
        if c.f.resets[data + r]:
            zero_row(states, r, padded(c.f.k, c.size[state]))


cdef void enter_states(const CellPass *c, int state, const Rows *to, Py_ssize_t b0, Py_ssize_t rows) noexcept nogil:
    """Take a state, or the gradient of a final one, from the caller. One number goes to all lanes of its vector."""
    cdef Py_ssize_t stride = to.stride // c.f.k.size
    take_states(&c.f, to, &c.first[state], b0, rows, c.size[state])
    if c.size[state] == 1:
        c.f.k.copy_rows(rows, 1, to.data, stride, NULL, to.data, stride)


# ---- Forward.

cdef int cell_forward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 through all steps. Returns nonzero if there is no memory."""
    cdef const CellPass *c = <const CellPass *>f
    cdef bint turns = c.state == NULL
    cdef Scratch scratch
    cdef unsigned long flush
    cdef void *memory = alloc(divide(c, b1 - b0, turns, NULL, &scratch))
    if memory == NULL:
        return 1
    divide(c, b1 - b0, turns, <char *>memory, &scratch)
    flush = rnnfast_flush_enter()
    begin(c, &scratch)
    forward_steps(c, &scratch, b0, b1)
    rnnfast_flush_leave(flush)
    free(memory)
    return 0


cdef Rows state_rows(const CellPass *c, const Scratch *s, int state, Py_ssize_t saved, int turn) noexcept nogil:
    """The rows of a state: in the tape from row `saved` on, or in scratch."""
    if c.state != NULL:
        return from_row(&c.state[state], saved)
    return s.turn[2 * state + turn]


cdef void forward_steps(const CellPass *c, const Scratch *scratch, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    cdef const Pass *f = &c.f
    cdef Py_ssize_t rows = b1 - b0, remaining = b1 - b0, s, n, data, first = f.paddings * b0 // max(f.B, 1)
    cdef int turn = 0, i
    cdef Rows before, after
    for i in range(c.states):
        before = state_rows(c, scratch, i, state_before(f, 0) + b0, 0)
        enter_states(c, i, &before, b0, rows)
    s = 0
    while s < f.T and remaining > 0:
        n = rows_in_step(f, s, b0, b1)
        if n < remaining:
            end_rows(c, scratch, b0, n, remaining, s, turn)
            remaining = n
        if n == 0:
            break
        data = data_row(f, s) + b0
        for i in range(c.states):
            before = state_rows(c, scratch, i, state_before(f, s) + b0, turn)
            after = state_rows(c, scratch, i, state_after(f, data), 1 - turn)
            reset_rows(c, &before, i, n, data)
            set_array(state_array(scratch, i, BEFORE), &before)
            set_array(state_array(scratch, i, AFTER), &after)
        move(&scratch.arrays[SAVED], &c.saved, data)
        copy_inputs(c, scratch, n, data)
        take_step(c, scratch, n, data)
        give_outputs(c, scratch, n, data)
        turn = 1 - turn
        s += 1
    end_rows(c, scratch, b0, 0, remaining, s, turn)
    zero_padding(f, &f.y, c.output_size, first, f.paddings * b1 // max(f.B, 1))


cdef void end_rows(const CellPass *c, const Scratch *scratch, Py_ssize_t b0, Py_ssize_t first, Py_ssize_t end,
                   Py_ssize_t s, int turn) noexcept nogil:
    """Give the final states of rows first .. end of the block, those before step s."""
    cdef Rows states
    cdef Py_ssize_t saved = 0
    cdef int i
    if c.state != NULL and end > first:
        saved = (state_before(&c.f, s) if s < c.f.T else state_after(&c.f, data_row(&c.f, s - 1)) if s else
                 state_before(&c.f, 0)) + b0
    for i in range(c.states):
        states = state_rows(c, scratch, i, saved, turn)
        states = from_row(&states, first)
        give_states(&c.f, &c.last[i], &states, b0 + first, end - first, c.size[i])


cdef void take_step(const CellPass *c, const Scratch *scratch, Py_ssize_t rows, Py_ssize_t data) noexcept nogil:
    cdef int stage, i = 0
    cdef const Operand *o
    cdef Rows bias
    cdef rnnfast_product p
    run_segment(c, scratch, rows, 0)
    memset(&p, 0, sizeof(p))
    p.rows, p.whole_vectors, p.c_stride = rows, True, c.code.block
    for stage in range(c.stages):
        bias = rows_of(c.stage[stage].bias, 0, c.f.k.size)
        while i < c.operands and c.operand[i].stage == stage:
            o = &c.operand[i]
            p.columns, p.c = o.columns, from_column(&scratch.block, c.stage[stage].sums + o.first).data
            p.init = from_column(&bias, o.first).data if o.begins else p.c
            p.init_stride = 0 if o.begins else p.c_stride
            set_operand(c, scratch, o, data, &p)
            c.f.k.multiply(&p)
            i += 1
        run_segment(c, scratch, rows, stage + 1)


cdef void set_operand(const CellPass *c, const Scratch *scratch, const Operand *o, Py_ssize_t data,
                      rnnfast_product *p) noexcept nogil:
    cdef const rnnfast_array *array
    cdef Rows rows
    p.K, p.weights, p.a_row_index = o.K, o.weights, NULL
    if o.array >= 0:
        array = &scratch.arrays[o.array]
        rows = rows_of(array.at, array.stride, c.f.k.size)
        p.a, p.a_stride = from_column(&rows, o.offset).data, array.stride
    elif c.f.row_index != NULL:
        p.a, p.a_stride, p.a_row_index = c.f.x.data, c.f.x.stride // c.f.k.size, c.f.row_index + data
    else:
        p.a, p.a_stride = row(&c.f.x, data), c.f.x.stride // c.f.k.size


cdef void give_outputs(const CellPass *c, const Scratch *scratch, Py_ssize_t rows, Py_ssize_t data) noexcept nogil:
    cdef const rnnfast_array *array = &scratch.arrays[c.output_array]
    cdef Rows source = rows_of(array.at, array.stride, c.f.k.size)
    cdef Py_ssize_t r
    source = from_column(&source, c.output_offset)
    for r in range(rows):
        copy_row(&c.f.y, data + r if c.f.row_index == NULL else c.f.row_index[data + r], &source, r, c.output_size)


# ---- Backward.

cdef int cell_backward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 back through all steps: dz, and the gradients of the initial states."""
    cdef const CellPass *c = <const CellPass *>f
    cdef Scratch scratch
    cdef unsigned long flush
    cdef void *memory = alloc(divide(c, b1 - b0, True, NULL, &scratch))
    if memory == NULL:
        return 1
    divide(c, b1 - b0, True, <char *>memory, &scratch)
    flush = rnnfast_flush_enter()
    begin(c, &scratch)
    backward_steps(c, &scratch, b0, b1)
    rnnfast_flush_leave(flush)
    free(memory)
    return 0


cdef void backward_steps(const CellPass *c, const Scratch *scratch, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    cdef const Pass *f = &c.f
    cdef Py_ssize_t rows = b1 - b0, s, n, data, r
    cdef int turn = 0, i
    cdef Rows dy = from_column(&scratch.block, max(c.code.dy, 0)), states
    for i in range(2 * c.states):  # both, for the rows of longer sequences wait in them for their last step
        enter_states(c, i // 2, &scratch.turn[i], b0, rows)
    for r in range(rows if f.dy.data == NULL and c.code.dy >= 0 else 0):
        zero_row(&dy, r, padded(f.k, c.output_size))
    for s in range(f.T - 1 if rows > 0 else -1, -1, -1):
        n = rows_in_step(f, s, b0, b1)
        if n == 0:
            continue
        data = data_row(f, s) + b0
        for i in range(c.states):
            states = from_row(&c.state[i], state_before(f, s) + b0)
            set_array(state_array(scratch, i, BEFORE), &states)
            states = from_row(&c.state[i], state_after(f, data))
            set_array(state_array(scratch, i, AFTER), &states)
            set_array(state_array(scratch, i, NEXT), &scratch.turn[2 * i + turn])
            set_array(state_array(scratch, i, PREVIOUS), &scratch.turn[2 * i + 1 - turn])
        move(&scratch.arrays[SAVED], &c.saved, data)
        move(&scratch.arrays[DZ], &c.dz, data)
        move(&scratch.arrays[GRADIENTS], &c.gradients, data)
        copy_inputs(c, scratch, n, data)
        if f.dy.data != NULL and c.code.dy >= 0:
            copy_given(c, n, data, &f.dy, &dy)
        step_back(c, scratch, n)
        for i in range(c.states):
            reset_rows(c, &scratch.turn[2 * i + 1 - turn], i, n, data)
        turn = 1 - turn
    for i in range(c.states):
        give_states(f, &c.last[i], &scratch.turn[2 * i + turn], b0, rows, c.size[i])


cdef void step_back(const CellPass *c, const Scratch *scratch, Py_ssize_t rows) noexcept nogil:
    cdef const rnnfast_array *dz = &scratch.arrays[DZ]
    cdef int stage, i = c.operands - 1
    cdef const Operand *o
    cdef rnnfast_product p
    cdef Rows of_dz = rows_of(dz.at, dz.stride, c.f.k.size)
    run_segment(c, scratch, rows, 0)
    memset(&p, 0, sizeof(p))
    p.rows, p.whole_vectors, p.a_stride, p.c_stride = rows, True, dz.stride, c.code.block
    for stage in range(c.stages - 1, -1, -1):
        while i >= 0 and c.operand[i].stage == stage:
            o = &c.operand[i]
            if o.back >= 0:
                p.a, p.K = from_column(&of_dz, c.stage[stage].dz + o.first).data, o.columns
                p.weights, p.columns = o.weights, o.K
                p.c = from_column(&scratch.block, o.back).data
                p.init, p.init_stride = NULL if o.begins_back else p.c, p.c_stride
                c.f.k.multiply(&p)
            i -= 1
        run_segment(c, scratch, rows, c.stages - stage)
