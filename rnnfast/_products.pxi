# The products after the loop over time: part of _kernels.pyx.

cdef struct Gradients:           # of one call; NULL: not wanted
    void *x
    void *w_ih
    void *w_hh
    void *b_ih
    void *b_hh
    void *w_hr


cdef int backward_products(Run *f, const Gradients *to, int threads) except -1:
    """dx and the gradients of the weights, from the dz that the loop over time has left in the gates."""
    cdef const rnnfast_kernels *k = f.k
    cdef Py_ssize_t most = 4 + (2 * f.w.I + 3 * f.w.H + f.w.P) // COLUMNS
    cdef Py_ssize_t biases = f.gates_stride * k.size, indices = f.N if f.active != NULL else 0
    cdef char *block = <char *>rnnfast_alloc(biases + most * sizeof(rnnfast_wgrad)
                                             + indices * sizeof(Py_ssize_t))
    if block == NULL:
        raise MemoryError()
    cdef char *h = f.states + (f.B * f.Pp * k.size if f.reverse else 0)
    cdef char *bias = block
    cdef rnnfast_wgrad *jobs = <rnnfast_wgrad *>(bias + biases)
    cdef Py_ssize_t *before = <Py_ssize_t *>(jobs + most) if indices else NULL
    cdef rnnfast_wgrad whole
    cdef int n
    try:
        if before != NULL:
            states_before(f, before)
        k.wgrad_plan(f.w, f.N, f.gates, f.x, f.rows, h, f.Pp, before, to.w_ih, to.w_hh, bias, &whole)
        n = by_columns(k, &whole, jobs)
        if f.w.w_hr != NULL:
            memset(&whole, 0, sizeof(whole))
            whole.K, whole.H, whole.dz, whole.dz_stride = f.N, f.w.P, f.dh_sum, f.Pp
            whole.slots = whole.terms = whole.term[0].slots = 1
            whole.term[0].b, whole.term[0].b_stride, whole.term[0].vec_stride = f.h_raw, f.Hp, k.lanes
            whole.term[0].c, whole.term[0].c_stride, whole.term[0].n = to.w_hr, f.w.H, f.w.H
            n += by_columns(k, &whole, jobs + n)
        over_products(f, jobs, n, to.x, useful_threads(flops(f), threads))
        k.bias_grads(f.w, bias, to.b_ih, to.b_hh)
    finally:
        rnnfast_free(block)
    return 0


cdef void states_before(const Run *f, Py_ssize_t *at) noexcept nogil:
    """Where the state before each data row is."""
    cdef Py_ssize_t s, r
    for s in range(f.T):
        for r in range(f.active[s]):
            at[f.offset[s] + r] = state_before(f, s) + r


cdef int by_columns(const rnnfast_kernels *k, const rnnfast_wgrad *g, rnnfast_wgrad *to) noexcept:
    """Cut weight gradients so that what they read of x and h fits the second cache; returns how many."""
    cdef Py_ssize_t columns = 0, j
    cdef int i, n = 0
    cdef rnnfast_term *t
    for i in range(g.terms):
        columns += g.term[i].n
    if columns <= COLUMNS:
        to[0] = g[0]
        return 1
    for i in range(g.terms):
        for j in range(0, g.term[i].n, COLUMNS):
            to[n] = g[0]
            to[n].terms = 1
            t = &to[n].term[0]
            t[0] = g.term[i]
            t.b = <const char *>t.b + j // k.lanes * t.vec_stride * k.size
            t.c = <char *>t.c + j * k.size
            t.n = min(t.n - j, COLUMNS)
            if n > 0:
                to[n].bias = NULL
            n += 1
    return n


cdef int over_products(const Run *f, const rnnfast_wgrad *g, int n, void *dx, int threads) except -1:
    """dx in stretches of rows and the weight gradients in stretches of panels: independent outputs."""
    cdef Py_ssize_t scratch = 0
    cdef int failed, j
    for j in range(n):
        scratch = max(scratch, <Py_ssize_t>f.k.wgrad_scratch(&g[j]))
    if flops(f) < GIL_FLOPS:
        failed = run_products(f, g, n, dx, threads, scratch)
    else:
        with nogil:
            failed = run_products(f, g, n, dx, threads, scratch)
    if failed:
        raise MemoryError()
    return 0


cdef int run_products(const Run *f, const rnnfast_wgrad *g, int n, void *dx, int threads,
                      Py_ssize_t scratch) noexcept nogil:
    cdef Products job
    job.f, job.g, job.n, job.dx = f, g, n, <char *>dx
    job.parts, job.dx_parts, job.scratch = threads, max(f.N // 128, 1), scratch
    return rnnfast_share(n * threads + job.dx_parts, threads, False, product, &job)


cdef struct Products:
    const Run *f
    const rnnfast_wgrad *g       # (n,)
    char *dx
    Py_ssize_t n, parts, dx_parts, scratch


cdef int product(void *to_do, Py_ssize_t i) noexcept nogil:
    """Part i: first those of each weight gradient, then the smaller ones of dx, which even out how long
    the threads take."""
    cdef const Products *job = <const Products *>to_do
    cdef const rnnfast_kernels *k = job.f.k
    cdef const rnnfast_wgrad *g
    cdef Py_ssize_t first, last, panels, part
    cdef unsigned long flush
    cdef char *memory
    if i >= job.n * job.parts:
        input_gradient(job.f, job.dx, i - job.n * job.parts, job.dx_parts)
        return 0
    g = job.g + i // job.parts
    part = i % job.parts
    panels = padded(k, g.H) // k.lanes
    first, last = part * panels // job.parts, (part + 1) * panels // job.parts
    if first == last:
        return 0
    memory = <char *>rnnfast_alloc(job.scratch * k.size)
    if memory == NULL:
        return 1
    flush = rnnfast_flush_enter()
    k.wgrad(g, first, last, memory)
    rnnfast_flush_leave(flush)
    rnnfast_free(memory)
    return 0


cdef void input_gradient(const Run *f, char *dx, Py_ssize_t i, Py_ssize_t parts) noexcept nogil:
    """dx of the data rows of part i, and as large a part of its padding."""
    cdef Py_ssize_t I = f.w.I * f.k.size, first = i * f.N // parts, last = (i + 1) * f.N // parts
    cdef const char *dz = f.gates + first * f.gates_stride * f.k.size
    cdef unsigned long flush = rnnfast_flush_enter()
    if f.rows != NULL:
        f.k.dinput(f.w, last - first, dz, dx, f.rows + first)
    else:
        f.k.dinput(f.w, last - first, dz, dx + first * I, NULL)
    rnnfast_flush_leave(flush)
    zero_padding(f, dx, I, I, i * f.paddings // parts, (i + 1) * f.paddings // parts)
