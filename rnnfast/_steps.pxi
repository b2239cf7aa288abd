# Streaming: part of _kernels.pyx.

def pack(int cell, int act, w_ih, w_hh, b_ih, b_hh, w_hr):
    """Return the packed weights and the lanes of a vector. The arrays are plain and fit each other."""
    cdef Arrays a = arrays_of(ANY)
    cdef rnnfast_weights w
    if not take_weights(&a, &w, cell, act, w_ih.shape[1], w_ih, w_hh, b_ih, b_hh, w_hr):
        raise ValueError("arrays that do not fit each other")
    cdef Packed p = packed(table(a.type), &w, RNNFAST_FORWARD, 1)
    return p, p.k.lanes


cdef class Steps:
    """Steps through stacked layers; `rnnfast.stream.Stream` owns the arrays and the checks.

    `layers` has for each layer a dict of its `Packed` weights and its arrays: h (2, B, Pp), used in
    turn (`turn` says which one holds the state), y (B, P) and, as the cell needs, c, work and gates.
    """
    cdef list layers
    cdef rnnfast_step *steps
    cdef const rnnfast_packed **w
    cdef const rnnfast_kernels *k
    cdef Py_ssize_t B
    cdef int n
    cdef double flops
    cdef readonly object dtype
    cdef readonly int turn, threads
    cdef readonly bint rows_first  # chunks are (B, T, I)

    def __cinit__(self, list layers, Py_ssize_t batch_size, int threads, dtype, bint rows_first):
        cdef Packed p
        cdef rnnfast_step *s
        cdef Py_ssize_t l
        self.layers, self.B, self.n, self.threads = layers, batch_size, len(layers), threads
        self.dtype, self.rows_first = dtype, rows_first
        self.steps = <rnnfast_step *>rnnfast_alloc(self.n * sizeof(rnnfast_step))
        self.w = <const rnnfast_packed **>rnnfast_alloc(self.n * sizeof(void *))
        if self.steps == NULL or self.w == NULL:
            raise MemoryError()
        memset(self.steps, 0, self.n * sizeof(rnnfast_step))
        for l, layer in enumerate(layers):
            p = layer["weights"]
            self.k, self.w[l], s = p.k, &p.w, &self.steps[l]
            s.rows, s.ldx, s.ldy = batch_size, p.w.I, p.w.P
            s.ldh = s.ldh_next = padded(p.k, p.w.P)
            s.ldc = s.ldwork = padded(p.k, p.w.H)
            s.ldgates = slots_of(p.w.cell) * s.ldc
            s.h, s.h_next = address(layer["h"][0]), address(layer["h"][1])
            s.y, s.c_next = address(layer["y"]), address(layer["c"])
            s.c, s.work, s.gates = s.c_next, address(layer["work"]), address(layer["gates"])
            self.flops += flops_of(batch_size, p.w.cell, p.w.I, p.w.H, p.w.P)

    def __dealloc__(self):
        rnnfast_free(self.steps)
        rnnfast_free(self.w)

    def step(self, x, out=None):
        """Take one time step and return its output.

        Parameters
        ----------
        x : ndarray, shape (B, I), or (I,) if the batch size is 1
        out : ndarray, shape (B, P), or (P,) with x (I,), optional
            Where to put the output: C-contiguous, writeable, apart from x. With it nothing is
            allocated.

        Returns
        -------
        ndarray
            `out`, or a new array of its shape.

        Raises
        ------
        TypeError
            `x` or `out` is not an ndarray of the layer's dtype.
        ValueError
            A shape does not fit, or `out` cannot be written to.
        """
        cdef Arrays a = self.arrays()
        cdef Py_ssize_t P = self.w[self.n - 1].P
        cdef const void *xs = take(&a, x, ANY, ANY)
        cdef void *ys
        cdef int ndim
        if xs == NULL or not self.fits(x, 1, self.w[0].I):
            x = self.accept_x(x)
            a = self.arrays()
            xs = take(&a, x, ANY, ANY)
        ndim = cnp.PyArray_NDIM(<cnp.ndarray>x)
        if out is None:
            out = new(&a, &ys, ndim, P if ndim == 1 else self.B, P)
        else:
            ys = take(&a, out, ndim, ANY)
            if ys == NULL or not self.fits(out, 1, P) or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>out):
                self.accept_out(out, ndim)
            if overlap(<cnp.ndarray>x, <cnp.ndarray>out):
                raise ValueError("out overlaps x, expected memory of its own")
        self.advance(xs, ys)
        return out

    def run(self, x):
        """Take a chunk of steps, going on from the state and carrying it further.

        Parameters
        ----------
        x : ndarray, shape (T, B, I), or (B, T, I) if the layer is `batch_first`, or (T, I) if the
            batch size is 1

        Returns
        -------
        ndarray
            The outputs, with the axes of x and P for I. A transposed view if `batch_first`.

        Raises
        ------
        TypeError, ValueError
            `x` is not an ndarray of the layer's dtype and of that shape.
        """
        cdef Arrays a = self.arrays()
        cdef Py_ssize_t P = self.w[self.n - 1].P, T
        cdef const void *xs = take(&a, x, ANY, ANY)
        cdef void *ys
        cdef int ndim
        if self.rows_first or xs == NULL or not self.fits(x, 2, self.w[0].I):
            x = self.accept_chunk(x)
            a = self.arrays()
            xs = take(&a, x, ANY, ANY)
        ndim, T = cnp.PyArray_NDIM(<cnp.ndarray>x), shape_of(x)[0]
        y = new(&a, &ys, ndim, T, P if ndim == 2 else self.B, P)
        self.run_layers(T, <const char *>xs, <char *>ys)
        return y.swapaxes(0, 1) if self.rows_first and ndim == 3 else y

    cdef int run_layers(self, Py_ssize_t T, const char *x, char *y) except -1:
        cdef Py_ssize_t l, size = T * self.B * self.w[0].P * self.k.size
        cdef char *between = <char *>rnnfast_alloc(min(self.n - 1, 2) * size) if self.n > 1 else NULL
        cdef char *to
        cdef Run f
        cdef Run *runs[2]
        runs[0], runs[1] = &f, NULL
        if self.n > 1 and between == NULL:
            raise MemoryError()
        try:
            for l in range(self.n):
                to = y if l == self.n - 1 else between + l % 2 * size
                f = start(self.k, self.w[l], T, self.B, T * self.B)
                f.x, f.y = x, to
                f.h_n, f.ldh0 = <char *>self.steps[l].h, f.Pp
                f.c_n, f.ldc0 = <char *>self.steps[l].c_next, f.Hp
                f.h0, f.c0 = f.h_n, f.c_n
                over_blocks(runs, forward_block, self.threads)
                x = to
        finally:
            rnnfast_free(between)
        return 0

    cdef inline Arrays arrays(self) noexcept:
        return arrays_of(cnp.NPY_FLOAT if self.k.size == 4 else cnp.NPY_DOUBLE)

    cdef bint fits(self, object given, int inner, Py_ssize_t n) noexcept:
        """Whether the shape is (..., n) with `inner` axes at its end, or, before n, (..., B, n)."""
        cdef cnp.ndarray array = <cnp.ndarray>given
        cdef int ndim = cnp.PyArray_NDIM(array)
        cdef const cnp.npy_intp *shape = cnp.PyArray_DIMS(array)
        if ndim == inner + 1:
            return shape[inner - 1] == self.B and shape[inner] == n
        return ndim == inner and self.B == 1 and shape[inner - 1] == n

    cdef void advance(self, const void *x, void *y) noexcept:
        if self.B == 0:
            return
        if self.flops < GIL_FLOPS:
            self.advance_layers(x, y)
        else:
            with nogil:
                self.advance_layers(x, y)
        self.turn = 1 - self.turn

    cdef void advance_layers(self, const void *x, void *y) noexcept nogil:
        cdef int l
        cdef rnnfast_step *s
        for l in range(self.n):
            s = &self.steps[l]
            s.x, s.turned = x, self.turn
            if l == self.n - 1:
                s.y = y  # the layers below it write to memory of the stream
            self.advance_rows(self.w[l], s)
            s.h, s.h_next = s.h_next, s.h
            x = s.y

    cdef void advance_rows(self, const rnnfast_packed *w, const rnnfast_step *s) noexcept nogil:
        cdef int threads = min(useful_threads(self.flops, self.threads), self.B)
        cdef unsigned long flush
        cdef Rows job
        if threads == 1:
            flush = rnnfast_flush_enter()
            self.k.step[w.cell](w, s)  # not a copy, which would wait for the stores just made to s
            rnnfast_flush_leave(flush)
        else:
            job.k, job.w, job.step, job.parts = self.k, w, s, threads
            rnnfast_share(threads, threads, True, step_rows, &job)


cdef inline bint overlap(cnp.ndarray a, cnp.ndarray b) noexcept:
    cdef char *at = <char *>cnp.PyArray_DATA(a)
    cdef char *bt = <char *>cnp.PyArray_DATA(b)
    return at < bt + cnp.PyArray_NBYTES(b) and bt < at + cnp.PyArray_NBYTES(a)


cdef void *address(array) except? NULL:
    return NULL if array is None else <void *><size_t>array.ctypes.data


cdef struct Rows:
    const rnnfast_kernels *k
    const rnnfast_packed *w
    const rnnfast_step *step     # of all rows
    Py_ssize_t parts


cdef int step_rows(void *to_do, Py_ssize_t part) noexcept nogil:
    cdef const Rows *job = <const Rows *>to_do
    cdef const rnnfast_kernels *k = job.k
    cdef const rnnfast_packed *w = job.w
    cdef rnnfast_step s = job.step[0]
    cdef Py_ssize_t b0 = part * s.rows // job.parts, b1 = (part + 1) * s.rows // job.parts
    cdef Py_ssize_t at = b0 * k.size
    cdef unsigned long flush = rnnfast_flush_enter()
    s.rows = b1 - b0
    s.x = <const char *>s.x + at * s.ldx
    s.y = <char *>s.y + at * s.ldy
    s.h, s.h_next = <char *>s.h + at * s.ldh, <char *>s.h_next + at * s.ldh
    if s.c != NULL:
        s.c = s.c_next = <char *>s.c_next + at * s.ldc
    if s.work != NULL:
        s.work = <char *>s.work + at * s.ldwork
    if s.gates != NULL:
        s.gates = <char *>s.gates + at * s.ldgates
    k.step[w.cell](w, &s)
    rnnfast_flush_leave(flush)
    return 0
