# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""The loop over time of a cell of the user's own, for blocks of rows, without the GIL.

A step is a program, the products of a stage, the next program, and so on. sequence.pyx explains data rows, saved states
and blocks, which are the same here.
"""

from libc.string cimport memset

from .abi cimport rnnfast_array, rnnfast_factor, rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_product
from .arrays cimport Block, Rows, copy_row, from_column, from_row, indices_in, no_rows, row, rows_in, rows_of, zero_row
from .cells cimport (
    AFTER, BEFORE, BLOCK, CONSTANTS, DZ, FIRST_STATE_ARRAY, GRADIENTS, LOCAL, NEXT, PREVIOUS, SAVED, STATE_ARRAYS,
    CellPass, Extra, Factor, Product,
)
from .config cimport alloc, free, padded
from .sequence cimport (
    Pass, data_row, give_states, projected_rows, rows_in_step, state_after, state_before, steps_ahead, take_states,
    worth_projecting, zero_padding,
)


# What a block works in.
cdef struct Scratch:
    rnnfast_array *arrays
    Rows local, block
    Rows *turn                   # (2 * states,) states of forward without a tape, or gradients, used in turn
    Py_ssize_t *index            # which row of an extra input each row has
    rnnfast_factor *factor       # of the product that is computed
    Rows projected               # what x adds to the sums of the steps to come, their biases included
    Py_ssize_t *x_index          # where the rows of x of these steps are


cdef Py_ssize_t divide(const CellPass *c, Py_ssize_t rows, bint turns, char *memory, Scratch *s) noexcept nogil:
    """Divide a block of memory; returns the bytes it takes."""
    cdef Block b
    cdef int i, size = c.f.k.size
    cdef Py_ssize_t ahead = projected_rows(&c.f, rows) if projects(c, rows) else 0
    b.start, b.used = memory, 0
    s.arrays = <rnnfast_array *>rows_in(&b, FIRST_STATE_ARRAY + STATE_ARRAYS * c.states, sizeof(rnnfast_array), 1).data
    s.turn = <Rows *>rows_in(&b, 2 * c.states, sizeof(Rows), 1).data
    s.factor = <rnnfast_factor *>rows_in(&b, c.code.most_factors, sizeof(rnnfast_factor), 1).data
    s.index = indices_in(&b, rows)
    s.x_index = indices_in(&b, ahead)
    b.used = (b.used + 63) // 64 * 64
    s.local = rows_in(&b, c.code.rows_at_a_time, c.code.local, size)
    s.block = rows_in(&b, rows, c.code.block, size)
    s.projected = rows_in(&b, ahead, c.code.projected, size)
    for i in range(2 * c.states if turns else 0):
        if memory == NULL:
            rows_in(&b, rows, padded(c.f.k, c.size[i // 2]), size)
        else:
            s.turn[i] = rows_in(&b, rows, padded(c.f.k, c.size[i // 2]), size)
    return b.used


cdef inline bint projects(const CellPass *c, Py_ssize_t rows) noexcept nogil:
    """Whether x is multiplied by its weights for many steps at once. Backward has no such columns."""
    return c.code.projected > 0 and worth_projecting(&c.f, rows)


cdef inline Py_ssize_t stride_of(const Rows *rows) noexcept nogil:
    """In reals, of 4 or 8 bytes. A division would take as long as a small step."""
    return rows.stride >> (2 if rows.size == 4 else 3)


cdef inline void set_array(rnnfast_array *array, const Rows *rows, bint local=False) noexcept nogil:
    array.at, array.stride, array.local = rows.data, stride_of(rows), local


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
    c.f.k.copy_rows(rows, n, source.data if index != NULL else row(source, data), stride_of(source), index,
                    to.data, stride_of(to))


cdef void copy_extra(const CellPass *c, const Extra *extra, Py_ssize_t *index, Py_ssize_t rows, Py_ssize_t data,
                     const Rows *to) noexcept nogil:
    cdef Py_ssize_t i, place
    for i in range(rows):
        place = data + i if c.f.row_index == NULL else c.f.row_index[data + i]
        index[i] = place // c.f.B * extra.by_step + place % c.f.B * extra.by_row
    c.f.k.copy_rows(rows, extra.n, extra.data, extra.n, index, to.data, stride_of(to))


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
    cdef Py_ssize_t stride = stride_of(to)
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
    cdef Py_ssize_t projected_until = 0 if projects(c, rows) else -1
    cdef int turn = 0, i
    cdef Rows before, after, projected = no_rows()
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
        if s == projected_until:
            projected_until = project(c, scratch, b0, b1, s)
            projected = scratch.projected
        take_step(c, scratch, n, data, &projected)
        if projected.data != NULL:
            projected = from_row(&projected, n)
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


cdef void take_step(const CellPass *c, const Scratch *scratch, Py_ssize_t rows, Py_ssize_t data,
                    const Rows *projected) noexcept nogil:
    """One step. `projected` has no data, or what x adds to the sums."""
    cdef int stage
    cdef Py_ssize_t i = 0
    run_segment(c, scratch, rows, 0)
    for stage in range(c.stages):
        while i < c.code.products and c.code.product[i].stage == stage:
            multiply(c, scratch, &c.code.product[i], rows, data, projected)
            i += 1
        run_segment(c, scratch, rows, stage + 1)


cdef void multiply(const CellPass *c, const Scratch *scratch, const Product *product, Py_ssize_t rows, Py_ssize_t data,
                   const Rows *projected) noexcept nogil:
    """One product, forward or back, of the rows of a step."""
    cdef rnnfast_product p
    cdef const rnnfast_array *array = &scratch.arrays[product.array]
    cdef Rows to = rows_of(array.at, array.stride, c.f.k.size)
    cdef bint ahead = projected.data != NULL and product.projected >= 0
    cdef Py_ssize_t i, first = product.first_factor + ahead
    p.rows, p.columns, p.factor, p.factors = rows, product.columns, scratch.factor, product.factors - ahead
    p.c, p.c_stride = from_column(&to, product.offset).data, array.stride
    p.whole_vectors, p.c_row_index = True, NULL
    begin_sums(c, product, projected, ahead, &p)
    for i in range(p.factors):
        set_factor(c, scratch, &c.code.factor[first + i], data, &scratch.factor[i])
    c.f.k.multiply(&p)


cdef inline void begin_sums(const CellPass *c, const Product *product, const Rows *projected, bint ahead,
                            rnnfast_product *p) noexcept nogil:
    """What the sums begin with: nothing, the biases, or what x adds to them."""
    cdef Rows constants = rows_of(c.constants, 0, c.f.k.size)
    p.init, p.init_stride = NULL, 0
    if ahead:
        p.init, p.init_stride = from_column(projected, product.projected).data, c.code.projected
    elif product.bias >= 0:
        p.init = from_column(&constants, product.bias).data


cdef inline const void *packed_weights(const CellPass *c, const Factor *factor) noexcept nogil:
    cdef Rows weights = rows_of(c.weights, 0, c.f.k.size)
    return from_column(&weights, factor.weights).data


cdef inline void set_factor(const CellPass *c, const Scratch *scratch, const Factor *factor, Py_ssize_t data,
                            rnnfast_factor *f) noexcept nogil:
    cdef const rnnfast_array *array
    cdef Rows rows
    f.K, f.weights, f.row_index = factor.K, packed_weights(c, factor), NULL
    if factor.array >= 0:
        array = &scratch.arrays[factor.array]
        rows = rows_of(array.at, array.stride, c.f.k.size)
        f.a, f.stride = from_column(&rows, factor.offset).data, array.stride
    elif c.f.row_index != NULL:
        f.a, f.stride, f.row_index = c.f.x.data, stride_of(&c.f.x), c.f.row_index + data
    else:
        f.a, f.stride = row(&c.f.x, data), stride_of(&c.f.x)


cdef Py_ssize_t project(const CellPass *c, const Scratch *scratch, Py_ssize_t b0, Py_ssize_t b1,
                        Py_ssize_t s) noexcept nogil:
    """Begin the sums of the steps from s on that fit, with what x adds to them; returns the first step that does not."""
    cdef Py_ssize_t rows, i, until = steps_ahead(&c.f, b0, b1, s, scratch.x_index, &rows)
    cdef rnnfast_product p
    p.rows, p.factors, p.factor, p.whole_vectors, p.c_row_index = rows, 1, scratch.factor, True, NULL
    p.c_stride = c.code.projected
    for i in range(c.code.products):
        if c.code.product[i].projected >= 0:
            p.columns, p.c = c.code.product[i].columns, from_column(&scratch.projected, c.code.product[i].projected).data
            begin_sums(c, &c.code.product[i], NULL, False, &p)
            scratch.factor.a, scratch.factor.stride = c.f.x.data, stride_of(&c.f.x)
            scratch.factor.row_index, scratch.factor.K = scratch.x_index, c.input_size
            scratch.factor.weights = packed_weights(c, &c.code.factor[c.code.product[i].first_factor])
            c.f.k.multiply(&p)
    return until


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
    cdef Rows projected = no_rows()
    cdef int stage
    cdef Py_ssize_t i = 0
    run_segment(c, scratch, rows, 0)
    for stage in range(c.stages - 1, -1, -1):
        while i < c.code.products and c.code.product[i].stage == stage:
            multiply(c, scratch, &c.code.product[i], rows, 0, &projected)
            i += 1
        run_segment(c, scratch, rows, c.stages - stage)
