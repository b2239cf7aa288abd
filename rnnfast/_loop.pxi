# The loop over time, for blocks of rows: part of _kernels.pyx.

# What forward and backward know about one call. Pointers are to bytes: the precision is k.size.
cdef struct Run:
    const rnnfast_kernels *k
    const rnnfast_packed *w
    const rnnfast_weights *given # read instead of w where one row takes one step; or NULL
    Py_ssize_t T, B, N, Hp, Pp, gates_stride
    const Py_ssize_t *active     # (T,) rows of each step, NULL if dense
    const Py_ssize_t *offset     # (T,) first data row of each step
    const Py_ssize_t *order      # (B,) where each row is in the initial and final states; NULL: there
    const Py_ssize_t *rows       # (N,) where each data row is in x, y and their gradients; NULL: there
    const Py_ssize_t *padding    # (paddings,) the other rows of x and y
    Py_ssize_t paddings
    const uint8_t *resets        # (N,) or NULL
    bint reverse
    char *states                 # (B + N, Pp)
    char *cells                  # (B + N, Hp)
    char *gates                  # (N, ldgates)
    const char *x
    const char *h0
    const char *c0
    char *y
    char *h_n
    char *c_n
    Py_ssize_t y_stride               # of y and its gradient, in reals
    Py_ssize_t h0_stride, c0_stride        # of the initial and the final states
    # backward
    const char *dy
    const char *dh_n
    const char *dc_n
    char *dh0
    char *dc0
    char *h_raw
    char *dh_sum


cdef inline Py_ssize_t rows_of(const Run *f, Py_ssize_t s, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Rows of block b0 .. b1 in step s (of processing order)."""
    cdef Py_ssize_t last = b1 if f.active == NULL else min(f.active[s], b1)
    return max(last - b0, 0)


cdef inline Py_ssize_t data_row(const Run *f, Py_ssize_t s) noexcept nogil:
    if f.active != NULL:
        return f.offset[s]
    return (f.T - 1 - s if f.reverse else s) * f.B


cdef inline Py_ssize_t state_before(const Run *f, Py_ssize_t s) noexcept nogil:
    if f.active != NULL:
        return f.B + f.offset[s - 1] if s > 0 else 0
    return (f.T - s if f.reverse else s) * f.B


cdef inline Py_ssize_t state_after(const Run *f, Py_ssize_t row) noexcept nogil:
    """The state after a step, by its data row."""
    return row if f.reverse else f.B + row


cdef void zero_padding(const Run *f, char *array, Py_ssize_t stride, Py_ssize_t n, Py_ssize_t first,
                       Py_ssize_t last) noexcept nogil:
    """Zero n bytes of the rows of an array, ld apart, that are padding, from the first of them to the last."""
    cdef Py_ssize_t i
    for i in range(first, last):
        memset(array + f.padding[i] * stride, 0, n)


cdef inline Py_ssize_t state_row(const Run *f, Py_ssize_t b) noexcept nogil:
    """Where row b is in the caller's initial and final states."""
    return b if f.order == NULL else f.order[b]


cdef void take_states(const Run *f, char *to, Py_ssize_t to_stride, const char *states, Py_ssize_t stride, Py_ssize_t b,
                      Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    """Copy n bytes of each state from row b on (all in bytes); zero up to ldto; NULL is zeros."""
    cdef Py_ssize_t r
    for r in range(rows):
        if states != NULL:
            memcpy(to + r * to_stride, states + state_row(f, b + r) * stride, n)
            memset(to + r * to_stride + n, 0, to_stride - n)
        else:
            memset(to + r * to_stride, 0, to_stride)


cdef void give_states(const Run *f, char *states, Py_ssize_t stride, const char *source, Py_ssize_t from_stride,
                      Py_ssize_t b, Py_ssize_t rows, Py_ssize_t n) noexcept nogil:
    """Undo `take_states`."""
    cdef Py_ssize_t r
    cdef char *to
    for r in range(rows):
        to = states + state_row(f, b + r) * stride
        memcpy(to, source + r * from_stride, n)
        memset(to + n, 0, stride - n)


cdef struct Parts:  # layout of a block's scratch, in bytes
    Py_ssize_t h, c, gates, work, init, ahead, size


cdef inline Py_ssize_t weight_bytes(const Run *f) noexcept nogil:
    return f.k.size * slots_of(f.w.cell) * f.w.H * (f.w.I + f.w.P)


cdef inline bint projects_ahead(const Run *f, Py_ssize_t rows) noexcept nogil:
    """Where rows are few, the way of the weights decides, for w_ih is then read once for many steps.
    With tiles of up to 3 rows, less than a whole one, this pays for writing and reading what comes of it
    if the weights do not fit the first cache: 10 to 40 per cent less time from I = H = 64 on, below it 10
    to 15 more. With more rows, if they do not fit the second or, up to 11 rows, leave it little room: with
    12 to 18 rows mostly 3 to 13 less at H = 384 to 768, from 24 on, when the weights come in time, up to 7
    more. And where 4 vectors of w_ih and w_hh together would crowd that one, each has it for itself: at
    I = H = 1024 an LSTM takes 5 to 7 per cent less time with 64 and 128 rows, a GRU or RNN 1 to 4, at 512
    up to 7 more."""
    cdef Py_ssize_t panel = 4 * f.k.lanes * f.k.size * (f.w.I + f.w.P), weights = weight_bytes(f)
    cdef Py_ssize_t tile = rows // max((rows + f.k.tile_rows - 1) // f.k.tile_rows, 1)  # of the lower ones
    cdef Py_ssize_t least = SMALL if tile < min(f.k.tile_rows, 4) else MIDDLE if rows < 12 else LARGE
    return f.T > 1 and ((rows < 20 and weights > least) or panel > LARGE_PANEL)


cdef inline Py_ssize_t projected_rows(const Run *f, Py_ssize_t rows) noexcept nogil:
    return min(max(PROJECT_ROWS // max(rows, 1), 1), f.T) * rows


cdef Parts forward_parts(const Run *f, Py_ssize_t rows) noexcept nogil:
    cdef Parts p
    cdef Py_ssize_t size = f.k.size
    cdef Py_ssize_t ahead = 1 if f.given != NULL else projected_rows(f, rows) if projects_ahead(f, rows) else 0
    p.h = 0                                                     # two slots, used in turn
    p.c = p.h + (0 if f.states != NULL else 2 * rows * f.Pp * size)
    p.gates = p.c + (0 if f.cells != NULL else rows * f.Hp * size)
    p.work = p.gates + (rows * f.gates_stride * size
                        if f.gates == NULL and f.w.cell == RNNFAST_GRU_RESET_BEFORE else 0)
    p.init = p.work + (rows * f.Hp * size if f.w.w_hr != NULL else 0)
    p.ahead = p.init + ahead * f.gates_stride * size
    p.size = p.ahead + ahead * sizeof(Py_ssize_t)
    return p


ctypedef void (*step_function)(const rnnfast_packed *, const rnnfast_step *) noexcept nogil
ctypedef void (*step_back_function)(const rnnfast_packed *, const rnnfast_dstep *) noexcept nogil


cdef int forward_block(const Run *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 through all steps. Returns nonzero if there is no memory."""
    cdef const rnnfast_packed *w = f.w
    cdef Py_ssize_t size = f.k.size, rows = b1 - b0, s, n, left, row, ahead_until = 0, ahead_rows = 0
    cdef Py_ssize_t pads = f.paddings * b0 // max(f.B, 1), pads_end = f.paddings * b1 // max(f.B, 1), share
    cdef Py_ssize_t I = w.I * size, P = w.P * size, Pp = f.Pp * size, Hp = f.Hp * size, y_stride = f.y_stride * size
    cdef Py_ssize_t gates = f.gates_stride * size
    cdef Parts part = forward_parts(f, rows)
    cdef char *scratch = <char *>rnnfast_alloc(part.size)
    if scratch == NULL:
        return 1
    cdef unsigned long flush = rnnfast_flush_enter()
    cdef rnnfast_step step
    memset(&step, 0, sizeof(step))
    step.x_stride, step.y_stride = w.I, f.y_stride
    step.h_stride = step.h_next_stride = f.Pp
    step.c_stride = step.work_stride = f.Hp
    step.gates_stride = step.x_projected_stride = f.gates_stride
    step.work = scratch + part.work

    cdef bint tape = f.states != NULL, ahead = projects_ahead(f, rows)
    cdef Py_ssize_t across = -f.B if f.reverse else f.B  # from step to step of a dense sequence
    cdef step_function take_step = f.k.step[w.cell]
    step.outputs_cold = f.N * size * (f.gates_stride + 2 * f.Hp if tape else w.P) > MIDDLE
    cdef char *h = f.states + (state_before(f, 0) + b0) * Pp if tape else scratch + part.h
    cdef char *h_other = scratch + part.h + rows * Pp
    cdef char *c = scratch + part.c
    take_states(f, h, Pp, f.h0, f.h0_stride * size, b0, rows, P)
    if w.cell == RNNFAST_LSTM:
        if f.cells != NULL:
            c = f.cells + (state_before(f, 0) + b0) * Hp
        take_states(f, c, Hp, f.c0, f.c0_stride * size, b0, rows, w.H * size)
    if not tape and w.cell == RNNFAST_GRU_RESET_BEFORE:
        step.gates = scratch + part.gates
    left = rows  # rows that have not ended
    row = b0 + ((f.T - 1) * f.B if f.reverse else 0)
    step.rows, step.x, step.y = rows, f.x, f.y
    # Every instruction in here counts: 40 more cost a single row at I = 1, H = 32 28 of 470 cycles (LSTM, Zen 4),
    # for those that wait for its activations already fill what the processor keeps in flight.
    for s in range(f.T if rows > 0 else 0):
        if f.active != NULL:
            n = rows_of(f, s, b0, b1)
            if n < left:
                end_rows(f, b0 + n, left - n, h + n * Pp, c + n * Hp)
                left = n
            if n == 0:
                break
            step.rows, row = n, f.offset[s] + b0
        if f.rows != NULL:
            step.row_index = f.rows + row
        else:
            step.x, step.y = f.x + row * I, f.y + row * y_stride
        if ahead:
            if s == ahead_until:
                ahead_until = project_ahead(f, b0, b1, s, <Py_ssize_t *>(scratch + part.ahead),
                                            scratch + part.init)
                ahead_rows = 0
            step.x_projected = scratch + part.init + ahead_rows * gates
            ahead_rows += step.rows
        if f.resets != NULL:
            step.reset = f.resets + row
        step.h, step.c, step.reverse_panels = h, c, s & 1
        if tape:
            h_other = f.states + state_after(f, row) * Pp
            step.gates = f.gates + row * gates
            if f.cells != NULL:
                c = f.cells + state_after(f, row) * Hp
        step.h_next, step.c_next = h_other, c
        if f.given != NULL:
            f.k.one_step(f.given, w, step.x, h, scratch + part.init)
            step.x_projected, step.preactivations_ready = scratch + part.init, True
        take_step(w, &step)
        h, h_other = h_other, h
        row += across
        if pads < pads_end:
            share = (pads_end - pads) // (f.T - s)
            zero_padding(f, f.y, y_stride, P, pads, pads + share)
            pads += share
    end_rows(f, b0, left, h, c)
    zero_padding(f, f.y, y_stride, P, pads, pads_end)
    rnnfast_flush_leave(flush)
    rnnfast_free(scratch)
    return 0


cdef void end_rows(const Run *f, Py_ssize_t b, Py_ssize_t rows, const char *h, const char *c) noexcept nogil:
    """The final states of `rows` rows from b on."""
    cdef Py_ssize_t size = f.k.size
    give_states(f, f.h_n, f.h0_stride * size, h, f.Pp * size, b, rows, f.w.P * size)
    if f.w.cell == RNNFAST_LSTM:
        give_states(f, f.c_n, f.c0_stride * size, c, f.Hp * size, b, rows, f.w.H * size)


cdef Py_ssize_t project_ahead(const Run *f, Py_ssize_t b0, Py_ssize_t b1, Py_ssize_t s, Py_ssize_t *at,
                              char *init) noexcept nogil:
    """bias + w_ih x of the steps from s on that fit; returns the first that does not. `at` has room for
    where their rows of x are."""
    cdef Py_ssize_t most = projected_rows(f, b1 - b0), rows = 0, n, row, i
    while s < f.T:
        n = rows_of(f, s, b0, b1)
        if rows + n > most:
            break
        row = data_row(f, s) + b0
        for i in range(n):
            at[rows + i] = row + i if f.rows == NULL else f.rows[row + i]
        rows += n
        s += 1
    f.k.project(f.w, rows, f.x, at, init)
    return s


cdef inline void back_to(const Run *f, Py_ssize_t s, Py_ssize_t b0, rnnfast_dstep *step) noexcept nogil:
    """What the step back from s reads and writes from row b0 on, but for what stays the same."""
    cdef Py_ssize_t size = f.k.size, row = data_row(f, s) + b0, before = state_before(f, s) + b0
    cdef Py_ssize_t Pp = f.Pp * size, Hp = f.Hp * size
    step.gates = f.gates + row * f.gates_stride * size
    if f.rows != NULL:
        step.row_index = f.rows + row
    elif f.dy != NULL:
        step.dy = f.dy + row * f.y_stride * size
    if f.resets != NULL:
        step.reset = f.resets + row
    step.h = f.states + before * Pp
    if f.cells != NULL:
        step.c = f.cells + before * Hp
        step.c_next = f.cells + state_after(f, row) * Hp
    if f.h_raw != NULL:
        step.h_raw, step.dh_sum = f.h_raw + row * Hp, f.dh_sum + row * Pp


cdef int backward_block(const Run *f, Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    """Run rows b0 .. b1 back through all steps: dz into the gates, gradients of the initial state."""
    cdef const rnnfast_packed *w = f.w
    cdef bint lstm = w.cell == RNNFAST_LSTM
    cdef Py_ssize_t size = f.k.size, rows = b1 - b0, s
    cdef Py_ssize_t P = w.P * size, H = w.H * size, Pp = f.Pp * size, Hp = f.Hp * size
    cdef char *scratch = <char *>rnnfast_alloc(rows * (Pp + 2 * Hp))
    if scratch == NULL:
        return 1
    cdef unsigned long flush = rnnfast_flush_enter()
    cdef char *dc = scratch + rows * Pp
    cdef rnnfast_dstep step, next
    memset(&step, 0, sizeof(step))
    step.dh, step.dc, step.work = scratch, dc, dc + rows * Hp
    step.gates_stride = f.gates_stride
    step.dy_stride = f.y_stride
    step.h_stride = step.dh_stride = step.dh_sum_stride = f.Pp
    step.c_stride = step.dc_stride = step.h_raw_stride = step.work_stride = f.Hp
    take_states(f, scratch, Pp, f.dh_n, P, b0, rows, P)
    if lstm:
        take_states(f, dc, Hp, f.dc_n, H, b0, rows, H)
    cdef bint fetch = f.N * size * (f.gates_stride + 2 * f.Hp) > NEAR
    cdef step_back_function step_back = f.k.dstep[w.cell]
    step.rows, step.dy = rows, f.dy
    for s in range(f.T - 1 if rows > 0 else -1, -1, -1):
        if f.active != NULL:
            step.rows = rows_of(f, s, b0, b1)
            if step.rows == 0:
                continue
        back_to(f, s, b0, &step)
        step.next = NULL
        if fetch and s > 0:
            next = step
            back_to(f, s - 1, b0, &next)
            if f.active != NULL:
                next.rows = rows_of(f, s - 1, b0, b1)
            step.next = &next
        step_back(w, &step)
    give_states(f, f.dh0, P, scratch, Pp, b0, rows, P)
    if lstm:
        give_states(f, f.dc0, H, dc, Hp, b0, rows, H)
    rnnfast_flush_leave(flush)
    rnnfast_free(scratch)
    return 0


ctypedef int (*block_function)(const Run *, Py_ssize_t, Py_ssize_t) noexcept nogil


cdef double flops(const Run *f) noexcept nogil:
    return flops_of(f.N, f.w.cell, f.w.I, f.w.H, f.w.P)


cdef int useful_threads(double flops, int threads) noexcept nogil:
    """A negative number of threads is at most so many: as many of them as pay."""
    if in_forked_child or not HAVE_OPENMP or flops < serial_flops:
        return 1
    return threads if threads > 0 else rnnfast_paying_threads(-threads)


cdef int over_blocks(Run **runs, block_function run, int threads) except -1:
    """All rows of one or two passes, in blocks of about equal size; a thread takes one after another."""
    cdef Run *f = runs[0]
    cdef int passes = 1 if runs[1] == NULL else 2, failed
    cdef double work = flops(f) + (flops(runs[1]) if passes == 2 else 0)
    cdef Py_ssize_t blocks, rows = BLOCK_ROWS_LARGE if weight_bytes(f) > LARGE else BLOCK_ROWS
    threads = min(useful_threads(work, threads), max(passes * f.B, 1))
    blocks = max((f.B + rows - 1) // rows, 1)
    if threads > passes:  # ragged rows: twice the blocks, so that the longest do not decide alone
        blocks = (blocks + threads - 1) // threads * threads * (1 if f.active == NULL else 2)
    blocks = min(blocks, max(f.B, 1))
    if work < GIL_FLOPS:
        failed = run_blocks(runs, passes, blocks, run, threads)
    else:
        with nogil:
            failed = run_blocks(runs, passes, blocks, run, threads)
    if failed:
        raise MemoryError()
    return 0


cdef struct Blocks:
    Run **runs
    Py_ssize_t of_each           # pass
    block_function run


cdef int run_blocks(Run **runs, int passes, Py_ssize_t blocks, block_function run,
                    int threads) noexcept nogil:
    cdef Blocks job
    job.runs, job.of_each, job.run = runs, blocks, run
    # Dense: the same rows on the same thread in every call, for they are in its cache.
    return rnnfast_share(passes * blocks, threads, runs[0].active == NULL, run_block, &job)


cdef int run_block(void *to_do, Py_ssize_t i) noexcept nogil:
    cdef const Blocks *job = <const Blocks *>to_do
    cdef const Run *f = job.runs[i // job.of_each]
    cdef Py_ssize_t block = i % job.of_each
    return job.run(f, block * f.B // job.of_each, (block + 1) * f.B // job.of_each)
