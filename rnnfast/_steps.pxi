# Streaming: part of _kernels.pyx.

cdef extern from "Python.h":
    int PyBUF_FORMAT, PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE
    int PyObject_GetBuffer(object, Py_buffer *, int) except -1
    void PyBuffer_Release(Py_buffer *)


def pack(int cell, int act, const real[:, ::1] w_ih not None, const real[:, ::1] w_hh not None,
         const real[::1] b_ih, const real[::1] b_hh, const real[:, ::1] w_hr):
    cdef const rnnfast_kernels *k = table[real](0)
    cdef rnnfast_weights w = weights[real](cell, act, w_ih, w_hh, b_ih, b_hh, w_hr)
    return packed(k, &w, False), k.lanes


def run_packed(Packed p not None, Py_ssize_t T, const real[:, ::1] x not None,
               const real[:, ::1] h0 not None, const real[:, ::1] c0, int threads,
               real[:, ::1] y not None, real[:, ::1] h_n not None, real[:, ::1] c_n):
    """`forward` of a dense sequence with packed weights."""
    cdef Run f = start(p, T, h_n.shape[0], x.shape[0])
    f.x, f.y = <const char *>&x[0, 0], <char *>&y[0, 0]
    f.h0, f.h_n = <const char *>&h0[0, 0], <char *>&h_n[0, 0]
    if c0 is not None:
        f.c0, f.c_n = <const char *>&c0[0, 0], <char *>&c_n[0, 0]
    over_blocks(&f, forward_block, threads)


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
    cdef int n, threads
    cdef double flops
    cdef object ndarray, empty
    cdef readonly object dtype
    cdef readonly int turn

    def __cinit__(self, list layers, Py_ssize_t batch_size, int threads, dtype, type ndarray, empty):
        cdef Packed p
        cdef rnnfast_step *s
        cdef Py_ssize_t l
        self.layers, self.B, self.n, self.threads = layers, batch_size, len(layers), threads
        self.dtype, self.ndarray, self.empty = dtype, ndarray, empty
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
            self.flops += 2.0 * batch_size * slots_of(p.w.cell) * p.w.H * (p.w.I + p.w.P)

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
        cdef Py_buffer xv, yv
        cdef Py_ssize_t I = self.w[0].I, P = self.w[self.n - 1].P
        if type(x) is not self.ndarray:
            x = self.accept_x(x)
        try:
            PyObject_GetBuffer(x, &xv, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        except (ValueError, BufferError):
            x = self.accept_x(x)
            PyObject_GetBuffer(x, &xv, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS)
        try:
            if not self.fits(&xv, I):
                self.accept_x(x)
            if out is None:
                out = self.empty(P if xv.ndim == 1 else <object>(self.B, P), self.dtype)
            elif type(out) is not self.ndarray:
                self.accept_out(out, xv.ndim)
            try:
                PyObject_GetBuffer(out, &yv, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE)
            except (ValueError, BufferError):
                self.accept_out(out, xv.ndim)
                raise
            try:
                if not self.fits(&yv, P) or yv.ndim != xv.ndim:
                    self.accept_out(out, xv.ndim)
                if <char *>yv.buf < <char *>xv.buf + xv.len and <char *>xv.buf < <char *>yv.buf + yv.len:
                    raise ValueError("out overlaps x, expected memory of its own")
                self.advance(xv.buf, yv.buf)
            finally:
                PyBuffer_Release(&yv)
        finally:
            PyBuffer_Release(&xv)
        return out

    cdef bint fits(self, Py_buffer *v, Py_ssize_t n) noexcept:
        if v.format[0] != (c"f" if self.k.size == 4 else c"d") or v.format[1] != 0:
            return False
        if v.ndim == 2:
            return v.shape[0] == self.B and v.shape[1] == n
        return v.ndim == 1 and self.B == 1 and v.shape[0] == n

    cdef void advance(self, const void *x, void *y) noexcept:
        """Letting go of the GIL costs as much as a small step."""
        if self.flops < 1e5:
            self.advance_layers(x, y)
        else:
            with nogil:
                self.advance_layers(x, y)
        self.turn = 1 - self.turn

    cdef void advance_layers(self, const void *x, void *y) noexcept nogil:
        cdef int l
        cdef rnnfast_step *s
        cdef void *own
        for l in range(self.n):
            s = &self.steps[l]
            own, s.x = s.y, x
            if l == self.n - 1:
                s.y = y
            self.advance_rows(self.w[l], s)
            s.h, s.h_next = s.h_next, s.h
            x, s.y = s.y, own

    cdef void advance_rows(self, const rnnfast_packed *w, const rnnfast_step *s) noexcept nogil:
        cdef int b, threads = min(self.threads, self.B)
        if threads == 1 or self.flops < serial_flops or in_forked_child or not HAVE_OPENMP:
            step_rows(self.k, w, s, 0, self.B)
        else:
            for b in prange(threads, num_threads=threads, schedule="static"):
                step_rows(self.k, w, s, b * self.B // threads, (b + 1) * self.B // threads)


cdef void *address(array) except? NULL:
    return NULL if array is None else <void *><size_t>array.ctypes.data


cdef void step_rows(const rnnfast_kernels *k, const rnnfast_packed *w, const rnnfast_step *all_rows,
                    Py_ssize_t b0, Py_ssize_t b1) noexcept nogil:
    cdef rnnfast_step s = all_rows[0]
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
