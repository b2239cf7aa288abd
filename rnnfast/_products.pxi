# The products after the loop over time: part of _kernels.pyx.

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
            t.b = <const char *>t.b + j // k.lanes * t.vec * k.size
            t.c = <char *>t.c + j * k.size
            t.n = min(t.n - j, COLUMNS)
            if n > 0:
                to[n].bias = NULL
            n += 1
    return n


cdef int over_products(const Run *f, const rnnfast_wgrad *g, int n, void *dx, int threads) except -1:
    """dx in stretches of rows and the weight gradients in stretches of panels: independent outputs."""
    cdef Py_ssize_t dx_parts = max(f.N // 128, 1)
    cdef Py_ssize_t parts = 1 if threads == 1 else 2 * threads
    cdef Py_ssize_t i, scratch = 0
    cdef int failed = 0, j
    for j in range(n):
        scratch = max(scratch, <Py_ssize_t>f.k.wgrad_scratch(&g[j]))
    with nogil:
        if threads == 1:
            for i in range(dx_parts + n):
                failed |= product(f, g, dx, dx_parts, parts, i, scratch)
        else:
            for i in prange(dx_parts + n * parts, num_threads=threads, schedule="dynamic", chunksize=1):
                failed |= product(f, g, dx, dx_parts, parts, i, scratch)
    if failed:
        raise MemoryError()
    return 0


cdef int product(const Run *f, const rnnfast_wgrad *g, void *dx, Py_ssize_t dx_parts, Py_ssize_t parts,
                 Py_ssize_t i, Py_ssize_t scratch) noexcept nogil:
    """Part i: first those of dx, then those of each weight gradient."""
    cdef const rnnfast_kernels *k = f.k
    cdef Py_ssize_t first, last, panels, part
    cdef unsigned long flush
    cdef char *memory
    if i < dx_parts:
        first, last = i * f.N // dx_parts, (i + 1) * f.N // dx_parts
        flush = rnnfast_flush_enter()
        k.dinput(f.w, last - first, f.gates + first * f.ldgates * k.size,
                 <char *>dx + first * f.w.I * k.size)
        rnnfast_flush_leave(flush)
        return 0
    g += (i - dx_parts) // parts
    part = (i - dx_parts) % parts
    panels = padded(k, g.H) // k.lanes
    first, last = part * panels // parts, (part + 1) * panels // parts
    if first == last:
        return 0
    memory = <char *>rnnfast_alloc(scratch * k.size)
    if memory == NULL:
        return 1
    flush = rnnfast_flush_enter()
    k.wgrad(g, first, last, memory)
    rnnfast_flush_leave(flush)
    rnnfast_free(memory)
    return 0
