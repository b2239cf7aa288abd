# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""After the loop over time: dx and the gradients of the weights, from the dz that it left in the gates."""

from libc.string cimport memset

from .abi cimport rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_kernels, rnnfast_term, rnnfast_wgrad
from .arrays cimport Block, Rows, bytes_of, from_column, from_row, indices_in, row, rows_in, rows_of
from .config cimport alloc, free, padded, share, useful_threads
from .gradients cimport Gradients
from .sequence cimport Pass, flops, state_before, zero_padding

# Columns of x and h that one weight gradient reads at a time: half a MiB in blocks of 256 rows.
cdef enum:
    COLUMNS = 512
# Work below which the GIL is kept.
cdef double GIL_FLOPS = 1e5


cdef struct Plan:
    rnnfast_wgrad *products      # (n,)
    Rows bias                    # (1, gates_stride)
    Py_ssize_t *h_index          # where the state before each data row is; NULL: one row further each
    int n


cdef int add_up_gradients(const Pass *f, const Gradients *to, int threads) except -1:
    cdef Plan plan
    cdef void *block = alloc(divide(f, NULL, &plan))
    if block == NULL:
        raise MemoryError()
    divide(f, <char *>block, &plan)
    try:
        plan_weights(f, to, &plan)
        run_products(f, &plan, to.x, useful_threads(flops(f), threads))
        f.k.bias_grads(f.w, plan.bias.data, to.b_ih, to.b_hh)
    finally:
        free(block)
    return 0


cdef Py_ssize_t divide(const Pass *f, char *block, Plan *plan) noexcept:
    """Divide a block of memory; returns the bytes it takes."""
    cdef Block b
    cdef Py_ssize_t most = 4 + (2 * f.w.I + 3 * f.w.H + f.w.P) // COLUMNS
    b.start, b.used = block, 0
    plan.bias = rows_in(&b, 1, f.gates_stride, f.k.size)
    plan.products = <rnnfast_wgrad *>rows_in(&b, most, sizeof(rnnfast_wgrad), 1).data
    plan.h_index = indices_in(&b, f.N if f.active != NULL else 0)
    plan.n = 0
    return b.used


cdef void plan_weights(const Pass *f, const Gradients *to, Plan *plan) noexcept:
    """The products for all weights that are there."""
    cdef rnnfast_wgrad g
    cdef Rows h = from_row(&f.states, f.B if f.reverse else 0)
    if f.active != NULL:
        states_before(f, plan.h_index)
    f.k.wgrad_plan(f.w, f.N, f.gates.data, f.x.data, f.row_index, h.data, f.Pp,
                   plan.h_index if f.active != NULL else NULL, to.w_ih, to.w_hh, plan.bias.data, &g)
    cut_by_columns(f.k, &g, plan)
    if f.w.w_hr != NULL:
        memset(&g, 0, sizeof(g))
        g.K, g.H, g.dz, g.dz_stride = f.N, f.w.P, f.dh_sum.data, f.Pp
        g.slots = g.terms = g.term[0].slots = 1
        g.term[0].b, g.term[0].b_stride, g.term[0].vec_stride = f.h_raw.data, f.Hp, f.k.lanes
        g.term[0].c, g.term[0].c_stride, g.term[0].n = to.w_hr, f.w.H, f.w.H
        cut_by_columns(f.k, &g, plan)


cdef void states_before(const Pass *f, Py_ssize_t *index) noexcept nogil:
    """Where the state before each data row is."""
    cdef Py_ssize_t s, r
    for s in range(f.T):
        for r in range(f.active[s]):
            index[f.offset[s] + r] = state_before(f, s) + r


cdef void cut_by_columns(const rnnfast_kernels *k, const rnnfast_wgrad *g, Plan *plan) noexcept:
    """Add g to the plan, cut so that what it reads of x and h fits the second-level cache."""
    cdef Py_ssize_t columns = 0, j
    cdef int i, first = plan.n
    cdef rnnfast_wgrad *part
    for i in range(g.terms):
        columns += g.term[i].n
    if columns <= COLUMNS:
        plan.products[plan.n] = g[0]
        plan.n += 1
        return
    for i in range(g.terms):
        for j in range(0, g.term[i].n, COLUMNS):
            part = &plan.products[plan.n]
            part[0] = g[0]
            part.terms = 1
            part.term[0] = columns_from(k, &g.term[i], j)
            if plan.n > first:
                part.bias = NULL
            plan.n += 1


cdef rnnfast_term columns_from(const rnnfast_kernels *k, const rnnfast_term *t, Py_ssize_t j) noexcept:
    """At most COLUMNS columns of a term, from column j on."""
    cdef rnnfast_term part = t[0]
    cdef Rows b = rows_of(t.b, t.b_stride, k.size), c = rows_of(t.c, t.c_stride, k.size)
    part.b = from_column(&b, j // k.lanes * t.vec_stride).data
    part.c = from_column(&c, j).data
    part.n = min(t.n - j, COLUMNS)
    return part


# ---- Independent outputs, shared among threads: dx in stretches of rows, weight gradients in stretches of panels.

cdef struct Products:
    const Pass *f
    const rnnfast_wgrad *g       # (n,)
    Rows dx
    Py_ssize_t n, parts, dx_parts, scratch


cdef int run_products(const Pass *f, const Plan *plan, void *dx, int threads) except -1:
    cdef Products job
    cdef Py_ssize_t tasks
    cdef int failed, j
    job.f, job.g, job.n, job.dx = f, plan.products, plan.n, rows_of(dx, f.w.I, f.k.size)
    job.parts, job.dx_parts, job.scratch = threads, max(f.N // 128, 1), 0
    for j in range(plan.n):
        job.scratch = max(job.scratch, <Py_ssize_t>f.k.wgrad_scratch(&plan.products[j]))
    tasks = plan.n * threads + job.dx_parts
    if flops(f) < GIL_FLOPS:
        failed = share(tasks, threads, False, run_product, &job)
    else:
        with nogil:
            failed = share(tasks, threads, False, run_product, &job)
    if failed:
        raise MemoryError()
    return 0


cdef int run_product(void *to_do, Py_ssize_t i) noexcept nogil:
    """Part i: first those of each weight gradient, then the smaller ones of dx, which even out how long the threads
    take."""
    cdef const Products *job = <const Products *>to_do
    if i >= job.n * job.parts:
        input_gradient(job.f, &job.dx, i - job.n * job.parts, job.dx_parts)
        return 0
    return weight_gradient(job, &job.g[i // job.parts], i % job.parts)


cdef int weight_gradient(const Products *job, const rnnfast_wgrad *g, Py_ssize_t part) noexcept nogil:
    """One part of the panels. Returns nonzero if there is no memory."""
    cdef const rnnfast_kernels *k = job.f.k
    cdef Py_ssize_t panels = padded(k, g.H) // k.lanes
    cdef Py_ssize_t first = part * panels // job.parts, last = (part + 1) * panels // job.parts
    cdef unsigned long flush
    cdef void *scratch
    if first == last:
        return 0
    scratch = alloc(bytes_of(job.scratch, k.size))
    if scratch == NULL:
        return 1
    flush = rnnfast_flush_enter()
    k.wgrad(g, first, last, scratch)
    rnnfast_flush_leave(flush)
    free(scratch)
    return 0


cdef void input_gradient(const Pass *f, const Rows *dx, Py_ssize_t i, Py_ssize_t parts) noexcept nogil:
    """dx of the data rows of part i, and as large a part of its padding."""
    cdef Py_ssize_t first = i * f.N // parts, last = (i + 1) * f.N // parts
    cdef const void *dz = row(&f.gates, first)
    cdef unsigned long flush = rnnfast_flush_enter()
    if f.row_index != NULL:
        f.k.dinput(f.w, last - first, dz, dx.data, f.row_index + first)
    else:
        f.k.dinput(f.w, last - first, dz, row(dx, first), NULL)
    rnnfast_flush_leave(flush)
    zero_padding(f, dx, f.w.I, i * f.paddings // parts, (i + 1) * f.paddings // parts)
