# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""The loop over time, for blocks of rows, without the GIL.

Data of one call lies in N *data rows*. A dense sequence has N = T*B of them, row t*B + b as the caller stores it. A
ragged one (`active` given) has the rows of step 0, then those of step 1, and so on. Row b takes part in steps
0 .. lengths[b] - 1, and rows come longest first. So the rows of a step are a prefix of the rows of the step before, and
padding does not exist. With `row_index` x, y and their gradients have them elsewhere, and the kernels find them there.

Saved states have B more rows than the data. In the order of time, slot t holds the state before step t (reverse: after
it). That is one slot more than there are steps, so that no step is special.

A *block* is a range of batch rows. One thread runs a block through all steps. There is no barrier in the loop over
time, and no result depends on how the rows are cut.
"""

from libc.string cimport memset

from .abi cimport (
    rnnfast_dstep, rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_kernels, rnnfast_packed, rnnfast_step,
)
from .arrays cimport (
    Block, Rows, copy_row, from_row, indices_in, no_rows, row, rows_in, rows_of, zero_behind, zero_row,
)
from .config cimport alloc, cell_of, flops_of, free, padded, share, useful_threads
from .sequence cimport Pass, block_function, data_row, rows_in_step, state_after, state_before, state_row

# Work below which the GIL is kept: to release and take it costs 0.1 us.
cdef double GIL_FLOPS = 1e5
# Rows of a block: enough that weights are used often while they are near, few enough that the states stay there.
cdef Py_ssize_t BLOCK_ROWS = 64, BLOCK_ROWS_LARGE = 128
# Bytes of weights that fit the first-level cache, that leave the second some room, and none; of 4 vectors that crowd it.
cdef Py_ssize_t SMALL = 48000, MIDDLE = 750000, LARGE = 1500000, LARGE_PANEL = 400000
# A tape of fewer bytes is still in the caches from forward, and its rows are not fetched. (M42)
cdef Py_ssize_t TAPE_IN_CACHE = 350000
cdef Py_ssize_t PROJECT_ROWS = 96  # of input, projected at a time


cdef Pass start_pass(const rnnfast_kernels *k, const rnnfast_packed *w, Py_ssize_t T, Py_ssize_t B,
                     Py_ssize_t N) noexcept:
    cdef Pass f
    memset(&f, 0, sizeof(f))
    f.k, f.w, f.cell = k, w, cell_of(w.cell)
    f.T, f.B, f.N = T, B, N
    f.Hp, f.Pp = padded(k, w.H), padded(k, w.P)
    f.gates_stride = f.cell.slots * f.Hp
    f.row_flops = flops_of(1, w.cell, w.I, w.H, w.P)
    f.weight_bytes = k.size * f.cell.slots * w.H * (w.I + w.P)
    return f


cdef double flops(const Pass *f) noexcept nogil:
    return f.N * f.row_flops


# ---- States and padding of the caller.

cdef void take_states(const Pass *f, const Rows *to, const Rows *states, Py_ssize_t b, Py_ssize_t rows,
                      Py_ssize_t n) noexcept nogil:
    """Copy n reals of each state from row b on, and zeros behind them. States without data are zeros."""
    cdef Py_ssize_t r
    for r in range(rows):
        if states.data != NULL:
            copy_row(to, r, states, state_row(f, b + r), n)
            zero_behind(to, r, n)
        else:
            zero_behind(to, r, 0)


cdef void give_states(const Pass *f, const Rows *states, const Rows *source, Py_ssize_t b, Py_ssize_t rows,
                      Py_ssize_t n) noexcept nogil:
    """Undo `take_states`."""
    cdef Py_ssize_t r, i
    for r in range(rows):
        i = state_row(f, b + r)
        copy_row(states, i, source, r, n)
        zero_behind(states, i, n)


cdef void zero_padding(const Pass *f, const Rows *array, Py_ssize_t n, Py_ssize_t first,
                       Py_ssize_t last) noexcept nogil:
    """Zero n reals of the rows that are padding, from the first of them to the last."""
    cdef Py_ssize_t i
    for i in range(first, last):
        zero_row(array, f.padding[i], n)


# ---- What a block works in.

cdef struct ForwardScratch:
    Rows h, h_other              # used in turn, without tape
    Rows c                       # without tape
    Rows gates                   # of the GRU with the reset before, without tape
    Rows work                    # of a projection
    Rows x_projected
    Py_ssize_t *x_index          # where the projected rows of x are


cdef bint worth_projecting(const Pass *f, Py_ssize_t rows) noexcept nogil:
    """Whether w_ih x is computed for many steps at once.

    Where rows are few, the way of the weights decides, and w_ih is then read once for many steps. With tiles of up to 3
    rows that pays if the weights do not fit the first-level cache. With more rows it pays if they do not fit the second
    or, up to 11 rows, leave it little room. (M43)"""
    cdef Py_ssize_t tile = rows // max((rows + f.k.tile_rows - 1) // f.k.tile_rows, 1)  # of the lower ones
    cdef Py_ssize_t least = SMALL if tile < min(f.k.tile_rows, 4) else MIDDLE if rows < 12 else LARGE
    return f.T > 1 and rows < 20 and f.weight_bytes > least


cdef inline bint projects_ahead(const Pass *f, Py_ssize_t rows) noexcept nogil:
    """The same, or whether 4 vectors of w_ih and w_hh together would crowd the second-level cache. (M43)"""
    return worth_projecting(f, rows) or (f.T > 1 and 4 * f.k.lanes * f.k.size * (f.w.I + f.w.P) > LARGE_PANEL)


cdef Py_ssize_t projected_rows(const Pass *f, Py_ssize_t rows) noexcept nogil:
    return min(max(PROJECT_ROWS // max(rows, 1), 1), f.T) * rows


cdef Py_ssize_t divide_forward(const Pass *f, Py_ssize_t rows, char *block, ForwardScratch *s) noexcept nogil:
    """Divide a block of memory; returns the bytes it takes, which is all that is known while it is NULL."""
    cdef Block b
    cdef int size = f.k.size
    cdef bint tape = f.states.data != NULL
    cdef Py_ssize_t projected = projected_rows(f, rows) if projects_ahead(f, rows) else 0
    if f.caller_weights != NULL:
        projected = 1
    b.start, b.used = block, 0
    s.h = rows_in(&b, 0 if tape else rows, f.Pp, size)
    s.h_other = rows_in(&b, 0 if tape else rows, f.Pp, size)
    s.c = rows_in(&b, 0 if f.cells.data != NULL else rows, f.Hp, size)
    s.gates = rows_in(&b, rows if not tape and f.cell.has_w_hn else 0, f.gates_stride, size)
    s.work = rows_in(&b, rows if f.w.w_hr != NULL else 0, f.Hp, size)
    s.x_projected = rows_in(&b, projected, f.gates_stride, size)
    s.x_index = indices_in(&b, projected)
    return b.used


# ---- Forward.

cdef int forward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 through all steps. Returns nonzero if there is no memory."""
    cdef ForwardScratch scratch
    cdef unsigned long flush
    cdef void *block = alloc(divide_forward(f, b1 - b0, NULL, &scratch))
    if block == NULL:
        return 1
    divide_forward(f, b1 - b0, <char *>block, &scratch)
    flush = rnnfast_flush_enter()
    forward_steps(f, b0, b1, &scratch)
    rnnfast_flush_leave(flush)
    free(block)
    return 0


cdef void begin_forward(const Pass *f, const ForwardScratch *scratch, rnnfast_step *step) noexcept nogil:
    """What is the same in all steps."""
    cdef Py_ssize_t written = f.N * f.k.size * (f.gates_stride + 2 * f.Hp if f.states.data != NULL else f.w.P)
    memset(step, 0, sizeof(rnnfast_step))
    step.x_stride, step.y_stride = f.w.I, f.y.stride // f.k.size
    step.h_stride = step.h_next_stride = f.Pp
    step.c_stride = step.work_stride = f.Hp
    step.gates_stride = step.x_projected_stride = f.gates_stride
    step.work = scratch.work.data
    step.outputs_cold = written > MIDDLE
    if f.states.data == NULL and f.cell.has_w_hn:
        step.gates = scratch.gates.data


cdef void forward_steps(const Pass *f, Py_ssize_t b0, Py_ssize_t b1, const ForwardScratch *scratch) noexcept nogil:
    """All steps of rows b0 .. b1.

    Every instruction in the loop counts: those that wait for the activations already fill what the processor keeps in
    flight. (M44)"""
    cdef bint tape = f.states.data != NULL, saves_c = f.cells.data != NULL, ahead = projects_ahead(f, b1 - b0)
    cdef Py_ssize_t rows = b1 - b0, remaining = b1 - b0, data = b0 + ((f.T - 1) * f.B if f.reverse else 0)
    cdef Py_ssize_t to_next = -f.B if f.reverse else f.B  # data rows, of a dense sequence
    cdef Py_ssize_t projected_until = 0, projected = 0, s, n
    cdef Padding padding = padding_of(f, b0, b1)
    cdef Rows h = from_row(&f.states, state_before(f, 0) + b0) if tape else scratch.h
    cdef Rows h_other = scratch.h_other
    cdef Rows c = from_row(&f.cells, state_before(f, 0) + b0) if saves_c else scratch.c
    cdef step_function take_step = f.k.step[f.w.cell]
    cdef rnnfast_step step
    begin_forward(f, scratch, &step)
    take_states(f, &h, &f.h0, b0, rows, f.w.P)
    if f.cell.has_c:
        take_states(f, &c, &f.c0, b0, rows, f.w.H)
    step.rows, step.x, step.y = rows, f.x.data, f.y.data
    for s in range(f.T if rows > 0 else 0):
        if f.active != NULL:
            n = rows_in_step(f, s, b0, b1)
            if n < remaining:
                end_rows(f, b0, n, remaining, &h, &c)
                remaining = n
            if n == 0:
                break
            step.rows, data = n, f.offset[s] + b0
        if f.row_index != NULL:
            step.row_index = f.row_index + data
        else:
            step.x, step.y = row(&f.x, data), row(&f.y, data)
        if ahead:
            if s == projected_until:
                projected_until = steps_ahead(f, b0, b1, s, scratch.x_index, &projected)
                f.k.project(f.w, projected, f.x.data, scratch.x_index, scratch.x_projected.data)
                projected = 0
            step.x_projected = row(&scratch.x_projected, projected)
            projected += step.rows
        if f.resets != NULL:
            step.reset = f.resets + data
        step.h, step.c, step.reverse_panels = h.data, c.data, s & 1
        if tape:
            h_other.data = <char *>row(&f.states, state_after(f, data))
            step.gates = row(&f.gates, data)
            if saves_c:
                c.data = <char *>row(&f.cells, state_after(f, data))
        step.h_next, step.c_next = h_other.data, c.data
        if f.caller_weights != NULL:
            f.k.one_step(f.caller_weights, f.w, step.x, h.data, scratch.x_projected.data)
            step.x_projected, step.preactivations_ready = scratch.x_projected.data, True
        take_step(f.w, &step)
        h.data, h_other.data = h_other.data, h.data
        data += to_next
        if padding.first < padding.end:
            zero_some_padding(f, &padding, f.T - s)
    end_rows(f, b0, 0, remaining, &h, &c)
    zero_padding(f, &f.y, f.w.P, padding.first, padding.end)


cdef void end_rows(const Pass *f, Py_ssize_t b0, Py_ssize_t first, Py_ssize_t end, const Rows *h,
                   const Rows *c) noexcept nogil:
    """Give the final states of rows first .. end of the block."""
    cdef Rows source = from_row(h, first)
    give_states(f, &f.h_n, &source, b0 + first, end - first, f.w.P)
    if f.cell.has_c:
        source = from_row(c, first)
        give_states(f, &f.c_n, &source, b0 + first, end - first, f.w.H)


# The padding of a block is zeroed a share per step, between the steps, so that it does not empty the caches at once.
cdef struct Padding:
    Py_ssize_t first, end


cdef inline Padding padding_of(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    cdef Padding p
    p.first, p.end = f.paddings * b0 // max(f.B, 1), f.paddings * b1 // max(f.B, 1)
    return p


cdef inline void zero_some_padding(const Pass *f, Padding *p, Py_ssize_t steps) noexcept nogil:
    """Zero the share of one of so many steps."""
    cdef Py_ssize_t n = (p.end - p.first) // steps
    zero_padding(f, &f.y, f.w.P, p.first, p.first + n)
    p.first += n


cdef Py_ssize_t steps_ahead(const Pass *f, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t s, Py_ssize_t *x_index,
                            Py_ssize_t *rows) noexcept nogil:
    """The rows of x of the steps from s on that fit; returns the first step that does not."""
    cdef Py_ssize_t limit = projected_rows(f, b1 - b0), n, first, i
    rows[0] = 0
    while s < f.T and rows[0] + rows_in_step(f, s, b0, b1) <= limit:
        n, first = rows_in_step(f, s, b0, b1), data_row(f, s) + b0
        for i in range(n):
            x_index[rows[0] + i] = first + i if f.row_index == NULL else f.row_index[first + i]
        rows[0] += n
        s += 1
    return s


# ---- Backward.

cdef struct BackwardScratch:
    Rows dh, dc, work


cdef Py_ssize_t divide_backward(const Pass *f, Py_ssize_t rows, char *block, BackwardScratch *s) noexcept nogil:
    """Divide a block of memory; returns the bytes it takes."""
    cdef Block b
    b.start, b.used = block, 0
    s.dh = rows_in(&b, rows, f.Pp, f.k.size)
    s.dc = rows_in(&b, rows, f.Hp, f.k.size)
    s.work = rows_in(&b, rows, f.Hp, f.k.size)
    return b.used


cdef int backward_block(const Pass *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 back through all steps: dz into the gates, gradients of the initial state."""
    cdef BackwardScratch scratch
    cdef unsigned long flush
    cdef void *block = alloc(divide_backward(f, b1 - b0, NULL, &scratch))
    if block == NULL:
        return 1
    divide_backward(f, b1 - b0, <char *>block, &scratch)
    flush = rnnfast_flush_enter()
    backward_steps(f, b0, b1, &scratch)
    rnnfast_flush_leave(flush)
    free(block)
    return 0


cdef void backward_steps(const Pass *f, Py_ssize_t b0, Py_ssize_t b1, const BackwardScratch *scratch) noexcept nogil:
    cdef Py_ssize_t rows = b1 - b0, s
    cdef bint fetch = f.N * f.k.size * (f.gates_stride + 2 * f.Hp) > TAPE_IN_CACHE
    cdef step_back_function step_back = f.k.dstep[f.w.cell]
    cdef rnnfast_dstep step, next
    begin_backward(f, scratch, &step)
    take_states(f, &scratch.dh, &f.dh_n, b0, rows, f.w.P)
    if f.cell.has_c:
        take_states(f, &scratch.dc, &f.dc_n, b0, rows, f.w.H)
    step.rows, step.dy = rows, f.dy.data
    for s in range(f.T - 1 if rows > 0 else -1, -1, -1):
        if f.active != NULL:
            step.rows = rows_in_step(f, s, b0, b1)
            if step.rows == 0:
                continue
        move_back(f, s, b0, &step)
        step.next = NULL
        if fetch and s > 0:
            next = step
            move_back(f, s - 1, b0, &next)
            if f.active != NULL:
                next.rows = rows_in_step(f, s - 1, b0, b1)
            step.next = &next
        step_back(f.w, &step)
    give_states(f, &f.dh0, &scratch.dh, b0, rows, f.w.P)
    if f.cell.has_c:
        give_states(f, &f.dc0, &scratch.dc, b0, rows, f.w.H)


cdef void begin_backward(const Pass *f, const BackwardScratch *scratch, rnnfast_dstep *step) noexcept nogil:
    """What is the same in all steps."""
    memset(step, 0, sizeof(rnnfast_dstep))
    step.dh, step.dc, step.work = scratch.dh.data, scratch.dc.data, scratch.work.data
    step.gates_stride = f.gates_stride
    step.dy_stride = f.dy.stride // f.k.size
    step.h_stride = step.dh_stride = step.dh_sum_stride = f.Pp
    step.c_stride = step.dc_stride = step.h_raw_stride = step.work_stride = f.Hp


cdef inline void move_back(const Pass *f, Py_ssize_t s, Py_ssize_t b0, rnnfast_dstep *step) noexcept nogil:
    """What the step back from s reads and writes from row b0 on, but for what stays the same."""
    cdef Py_ssize_t data = data_row(f, s) + b0, before = state_before(f, s) + b0
    step.gates = row(&f.gates, data)
    if f.row_index != NULL:
        step.row_index = f.row_index + data
    elif f.dy.data != NULL:
        step.dy = row(&f.dy, data)
    if f.resets != NULL:
        step.reset = f.resets + data
    step.h = row(&f.states, before)
    if f.cells.data != NULL:
        step.c = row(&f.cells, before)
        step.c_next = row(&f.cells, state_after(f, data))
    if f.h_raw.data != NULL:
        step.h_raw, step.dh_sum = row(&f.h_raw, data), row(&f.dh_sum, data)


# ---- Blocks of rows, shared among threads.

ctypedef void (*step_function)(const rnnfast_packed *, const rnnfast_step *) noexcept nogil
ctypedef void (*step_back_function)(const rnnfast_packed *, const rnnfast_dstep *) noexcept nogil

cdef struct BlockJob:
    Pass **passes
    Py_ssize_t blocks            # of each pass
    block_function run


cdef int run_block(void *to_do, Py_ssize_t i) noexcept nogil:
    cdef const BlockJob *job = <const BlockJob *>to_do
    cdef const Pass *f = job.passes[i // job.blocks]
    cdef Py_ssize_t block = i % job.blocks
    return job.run(f, block * f.B // job.blocks, (block + 1) * f.B // job.blocks)


cdef int run_blocks(Pass **passes, block_function run, int threads) except -1:
    """Run all rows of one or two passes, in blocks of about equal size. A thread takes one after another."""
    cdef Pass *f = passes[0]
    cdef int n = 1 if passes[1] == NULL else 2, failed
    cdef double work = flops(f) + (flops(passes[1]) if n == 2 else 0)
    cdef Py_ssize_t blocks, rows = BLOCK_ROWS_LARGE if f.weight_bytes > LARGE else BLOCK_ROWS
    cdef BlockJob job
    threads = min(useful_threads(work, threads), max(n * f.B, 1))
    blocks = max((f.B + rows - 1) // rows, 1)
    if threads > n:  # ragged rows: twice the blocks, so that the longest do not decide alone
        blocks = (blocks + threads - 1) // threads * threads * (1 if f.active == NULL else 2)
    job.passes, job.blocks, job.run = passes, min(blocks, max(f.B, 1)), run
    # Dense: the same rows on the same thread in every call, because they are in its cache.
    if work < GIL_FLOPS:
        failed = share(n * job.blocks, threads, f.active == NULL, run_block, &job)
    else:
        with nogil:
            failed = share(n * job.blocks, threads, f.active == NULL, run_block, &job)
    if failed:
        raise MemoryError()
    return 0
