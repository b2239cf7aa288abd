# The tape and the two passes: part of _kernels.pyx.

NO_COPY_OF_A_TAPE = ("a tape cannot be pickled or copied: it serves one backward, in the process of its forward. "
                     "Keep the inputs and call forward again")


# The tapes whose memory is lent, by its address; without a reference, each leaves when it goes.
TAPES = {}
cdef dict lent = TAPES


def tape_at(size_t address):
    """Return the tape that has this memory, or None. Whoever asks must hold that memory."""
    tape = lent.get(address)
    return None if tape is None else <object><void *><size_t>tape


cdef class Tape:
    """What backward needs, saved by forward. Backward works in this memory, so it can run once."""
    cdef Run f
    cdef Packed weights
    cdef void *block
    cdef Py_ssize_t size         # of the block
    cdef void *raw               # what backward of a projection needs in addition
    cdef object x, resets
    cdef readonly object packing
    cdef readonly bint used
    cdef bint is_lent
    cdef readonly bint b_ih, b_hh, w_hr

    def __dealloc__(self):
        if self.is_lent:
            lent.pop(<size_t>self.block, None)
        rnnfast_free(self.block)
        rnnfast_free(self.raw)

    def __reduce__(self):
        raise TypeError(NO_COPY_OF_A_TAPE)

    @property
    def memory(self):
        """What it holds, as an array of bytes, from whose address `tape_at` gets back to the tape."""
        cdef cnp.npy_intp size = self.size
        self.is_lent = True
        lent[<size_t>self.block] = <size_t><void *>self
        array = cnp.PyArray_SimpleNewFromData(1, &size, cnp.NPY_UINT8, self.block)
        cnp.set_array_base(array, self)
        return array

    @property
    def cell(self):
        return self.f.w.cell

    @property
    def dtype(self):
        return FLOAT32 if self.f.k.size == 4 else FLOAT64

    @property
    def shape(self):
        """(T, B, I, H, P), T and B as x has them."""
        return *self.x.shape[:2], self.f.w.I, self.f.w.H, self.f.w.P

    @property
    def directions(self):
        return self.f.y_stride // self.f.w.P

    cdef int allocate(self, Run *f) except -1:
        """Memory for the states and gates of f."""
        cdef Py_ssize_t states = (f.B + f.N) * f.Pp * f.k.size
        cdef Py_ssize_t cells = (f.B + f.N) * f.Hp * f.k.size if f.w.cell == RNNFAST_LSTM else 0
        self.size = states + cells + f.N * f.gates_stride * f.k.size
        self.block = rnnfast_alloc(self.size)
        if self.block == NULL:
            raise MemoryError()
        f.states = <char *>self.block
        f.cells = f.states + states if cells else NULL
        f.gates = f.states + states + cells
        return 0

    cdef int allocate_raw(self, Run *f) except -1:
        """Memory for the outputs before a projection and the whole gradients after it."""
        if f.w.w_hr != NULL:
            self.raw = rnnfast_alloc(f.N * (f.Hp + f.Pp) * f.k.size)
            if self.raw == NULL:
                raise MemoryError()
            f.h_raw = <char *>self.raw
            f.dh_sum = f.h_raw + f.N * f.Hp * f.k.size
        return 0


cdef inline const rnnfast_kernels *table(int type) noexcept nogil:
    return table_f32 if type == cnp.NPY_FLOAT else table_f64


cdef Run start(const rnnfast_kernels *k, const rnnfast_packed *w, Py_ssize_t T, Py_ssize_t B,
               Py_ssize_t N) noexcept:
    cdef Run f
    memset(&f, 0, sizeof(f))
    f.k, f.w = k, w
    f.T, f.B, f.N = T, B, N
    f.Hp, f.Pp = padded(k, w.H), padded(k, w.P)
    f.gates_stride = slots_of(w.cell) * f.Hp
    f.y_stride = f.h0_stride = w.P
    f.c0_stride = w.H
    return f


cdef bint take_weights(Arrays *a, rnnfast_weights *w, int cell, int act, Py_ssize_t I, object w_ih,
                       object w_hh, object b_ih, object b_hh, object w_hr) noexcept:
    """False if they are not plain arrays that fit each other."""
    cdef Py_ssize_t rows, gates = gates_of(cell)
    memset(w, 0, sizeof(rnnfast_weights))
    w.cell, w.act, w.I = cell, act, I
    w.w_hh = take(a, w_hh, 2, ANY)
    if w.w_hh == NULL:
        return False
    rows, w.P = shape_of(w_hh)[0], shape_of(w_hh)[1]
    w.H = rows // gates
    w.w_ih = take(a, w_ih, 2, rows, I)
    w.b_ih, w.b_hh = take(a, b_ih, 1, rows), take(a, b_hh, 1, rows)
    w.w_hr = take(a, w_hr, 2, w.P, w.H)
    if w_hr is None and w.P != w.H:
        return False
    return a.plain and w.w_ih != NULL and I > 0 and 0 < w.P <= w.H and w.H * gates == rows


cdef class Forward:
    """A forward pass that is ready to run, and all that it refers to."""
    cdef Run f
    cdef rnnfast_weights given
    cdef Packed weights
    cdef Tape tape
    cdef object x, h0, c0, y, h_n, c_n, packing, resets

    cdef bint prepare(self, tuple call, tuple out, int threads, int directions, Forward first) except -1:
        """False if an array is not as the kernels need it. Its y is beside that of the `first` direction, of
        the same P. Its results go to `out`, (y, h_n, c_n), if that is not None."""
        (cell, act, self.x, (self.h0, self.c0), (w_ih, w_hh, b_ih, b_hh, w_hr),
         self.packing, self.resets, reverse, need_tape) = call
        cdef Arrays a = arrays_of(ANY)
        cdef const void *x = take(&a, self.x, 3, ANY)
        if x == NULL:
            return False
        cdef const cnp.npy_intp *shape = shape_of(self.x)
        cdef Py_ssize_t T = shape[0], B = shape[1], steps = T, batch = B
        cdef rnnfast_weights *w = &self.given
        cdef const Py_ssize_t[::1] active, offset, order, rows, padding
        cdef const uint8_t[::1] flags
        if self.packing is not None:
            active, offset, order = self.packing.active, self.packing.offset, self.packing.order
            steps, batch = len(active), len(order)
        if not take_weights(&a, w, cell, act, shape[2], w_ih, w_hh, b_ih, b_hh, w_hr):
            return False
        cdef const void *h0 = take(&a, self.h0, 2, batch, w.P)
        cdef const void *c0 = take(&a, self.c0, 2, batch, w.H)
        if not a.plain or (first is not None and first.f.w.P != w.P):
            return False

        cdef const rnnfast_kernels *k = table(a.type)
        cdef Run *f = &self.f
        cdef bint once = (T * B == 1 and self.packing is None and self.resets is None and w.w_hr == NULL
                          and w.cell != RNNFAST_GRU_RESET_BEFORE)
        threads = useful_threads(flops_of(T * B, w.cell, w.I, w.H, w.P), threads)
        self.weights = packed(k, w, RNNFAST_ONE_STEP if once else RNNFAST_FORWARD, threads)
        f[0] = start(k, &self.weights.w, steps, batch, T * B)
        f.given = w if once else NULL
        f.y_stride = directions * w.P
        if first is None:
            self.y = result(&a, out, 0, <void **>&f.y, 3, T, B, f.y_stride)
        else:
            self.y, f.y = first.y, first.f.y + w.P * k.size
        f.x, f.h0, f.c0 = <const char *>x, <const char *>h0, <const char *>c0
        f.reverse = reverse
        if self.packing is not None:
            f.active, f.offset, f.order = &active[0], &offset[0], &order[0]
            if self.packing.rows is not None:
                rows, padding = self.packing.rows, self.packing.padding
                f.N, f.rows = len(rows), &rows[0]
                f.paddings, f.padding = len(padding), &padding[0]
        if self.resets is not None:
            flags = self.resets
            f.resets = &flags[0]
        self.h_n = result(&a, out, 1, <void **>&f.h_n, 2, batch, w.P)
        if w.cell == RNNFAST_LSTM:
            self.c_n = result(&a, out, 2, <void **>&f.c_n, 2, batch, w.H)
        if need_tape:
            self.tape = tape_of(self, threads)
        return True


cdef Tape tape_of(Forward call, int threads):
    cdef Tape tape = Tape.__new__(Tape)
    cdef const rnnfast_weights *w = &call.given
    tape.x, tape.packing, tape.resets = call.x, call.packing, call.resets
    tape.b_ih, tape.b_hh, tape.w_hr = w.b_ih != NULL, w.b_hh != NULL, w.w_hr != NULL
    tape.weights = packed(call.f.k, w, RNNFAST_BACKWARD, threads)
    tape.allocate(&call.f)
    tape.f = call.f
    tape.f.w = &tape.weights.w
    return tape


def run_forward(list calls not None, int threads, list outs=None):
    """Run one call, or both directions of a layer side by side: (y, h_n, c_n, tape) of each, or None
    if an array is not as the kernels need it. Both have the same y (T, B, 2P), one beside the other.

    A call is (cell, act, x, (h0, c0), (w_ih, w_hh, b_ih, b_hh, w_hr), packing, resets, reverse, need_tape).
    x is (T, B, I), or (1, N, I) if it has the data rows of `packing` in their order. `resets` are uint8, a
    flag per data row. `outs` has for each call where (y, h_n, c_n) go; each may be None.
    """
    cdef Run *runs[2]
    cdef Forward f, first = None
    cdef list ready = []
    runs[1] = NULL
    for call in calls:
        f = Forward.__new__(Forward)
        if not f.prepare(call, None if outs is None else outs[len(ready)], threads, len(calls), first):
            return None
        first = f
        runs[len(ready)] = &f.f
        ready.append(f)
    over_blocks(runs, forward_block, threads)
    results = []
    for f in ready:
        results.append((f.y, f.h_n, f.c_n, f.tape))
    return results


cdef class Backward:
    """A backward pass that is ready to run, and all that it refers to."""
    cdef Run f
    cdef Gradients to
    cdef Tape tape
    cdef object dy, dh_n, dc_n
    cdef tuple results

    cdef bint prepare(self, tuple call, tuple out, int direction) except -1:
        """False if the tape is not a fresh one of this cell or an array not as the kernels need it. The
        gradients go to `out`, those of (x, h0, c0, w_ih, w_hh, b_ih, b_hh, w_hr), if that is not None."""
        cell, tape, self.dy, (self.dh_n, self.dc_n) = call
        if type(tape) is not Tape:
            return False
        self.tape = tape
        self.f = self.tape.f
        cdef Run *f = &self.f
        cdef const cnp.npy_intp *shape = shape_of(self.tape.x)
        cdef Py_ssize_t T = shape[0], B = shape[1]
        if self.tape.used or gates_of(f.w.cell) != gates_of(cell):
            return False
        cdef Arrays a = arrays_of(cnp.NPY_FLOAT if f.k.size == 4 else cnp.NPY_DOUBLE)
        f.dy = <const char *>take(&a, self.dy, 3, T, B, f.y_stride)
        if f.dy != NULL:
            f.dy += direction * f.w.P * f.k.size
        f.dh_n = <const char *>take(&a, self.dh_n, 2, f.B, f.w.P)
        f.dc_n = <const char *>take(&a, self.dc_n, 2, f.B, f.w.H)
        if a.plain:
            self.make_results(&a, out, T, B)
        return a.plain

    cdef int make_results(self, Arrays *a, tuple out, Py_ssize_t T, Py_ssize_t B) except -1:
        cdef Run *f = &self.f
        cdef Gradients *to = &self.to
        cdef Py_ssize_t I = f.w.I, H = f.w.H, P = f.w.P, rows = gates_of(f.w.cell) * H
        x = result(a, out, 0, &to.x, 3, T, B, I)
        h0 = result(a, out, 1, <void **>&f.dh0, 2, f.B, P)
        c0 = result(a, out, 2, <void **>&f.dc0, 2, f.B, H) if f.w.cell == RNNFAST_LSTM else None
        w_ih = result(a, out, 3, &to.w_ih, 2, rows, I)
        w_hh = result(a, out, 4, &to.w_hh, 2, rows, P)
        b_ih = result(a, out, 5, &to.b_ih, 1, rows) if self.tape.b_ih else None
        b_hh = result(a, out, 6, &to.b_hh, 1, rows) if self.tape.b_hh else None
        w_hr = result(a, out, 7, &to.w_hr, 2, P, H) if self.tape.w_hr else None
        self.results = x, h0, c0, (w_ih, w_hh, b_ih, b_hh, w_hr)
        return 0


def run_backward(list calls not None, int threads, list outs=None):
    """Run one call, or both directions of a layer, their loops over time side by side. Of each, the
    gradients of x, h0, c0 and the weights (None for what was not given); or None if a tape is not a fresh
    one of the cell or an array is not as the kernels need it.

    A call is (cell, tape, dy, (dh_n, dc_n)), shapes as in `run_forward`: dy is that of the y of both
    directions. It uses the tape up. `outs` has for each call where the gradients of (x, h0, c0, w_ih, w_hh,
    b_ih, b_hh, w_hr) go; each may be None.
    """
    cdef Run *runs[2]
    cdef Backward b
    cdef list ready = []
    runs[1] = NULL
    for call in calls:
        b = Backward.__new__(Backward)
        if not b.prepare(call, None if outs is None else outs[len(ready)], len(ready)):
            return None
        runs[len(ready)] = &b.f
        ready.append(b)
    for b in ready:
        b.tape.used = True
        b.tape.allocate_raw(&b.f)
    over_blocks(runs, backward_block, threads)
    results = []
    for b in ready:
        backward_products(&b.f, &b.to, threads)
        results.append(b.results)
    return results
