# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""After the loop over time of a cell of the user's own: dx and the gradients of the parameters, from dz."""

cimport numpy as cnp
from libc.string cimport memset

from .abi cimport (
    rnnfast_factor, rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_kernels, rnnfast_product, rnnfast_wgrad,
)
from .arrays cimport Block, Rows, copy_row, from_column, from_row, row, rows_in, rows_of, zero_row
from .cell_plans cimport Plan, data_of
from .cells cimport AFTER, CONSTANTS, FIRST_STATE_ARRAY, SAVED, STATE_ARRAYS, CellPass, Code, Factor, Part, Product
from .config cimport alloc, free, padded, share, useful_threads
from .sequence cimport Pass, flops, state_before, zero_padding

import numpy as np

from .cell_plans import empty

cnp.import_array()


cdef object input_gradient(const CellPass *c, plan, shape, dtype, int threads):
    """dx: what programs computed of it, and dz times the weights of x."""
    cdef InputJob job
    dx = empty(shape, dtype)
    job.c, job.dx = c, rows_of(data_of(dx), c.input_size, c.f.k.size)
    x_gradient = plan.x_gradient
    job.own = -1 if x_gradient is None else x_gradient
    job.parts = max(c.f.N // 128, 1)
    threads = useful_threads(flops(&c.f), threads)
    with nogil:
        failed = share(job.parts, threads, False, input_part, &job)
    if failed:
        raise MemoryError()
    return dx


cdef struct InputJob:
    const CellPass *c
    Rows dx
    Py_ssize_t own, parts        # where in a row of `gradients` the programs' part is; -1: nowhere


cdef int input_part(void *to_do, Py_ssize_t part) noexcept nogil:
    """dx of some rows. Returns nonzero if there is no memory."""
    cdef const InputJob *job = <const InputJob *>to_do
    cdef const CellPass *c = job.c
    cdef Py_ssize_t first = part * c.f.N // job.parts, last = (part + 1) * c.f.N // job.parts, r
    cdef bint begun = job.own >= 0
    cdef Rows own = from_column(&c.gradients, max(job.own, 0))
    cdef rnnfast_factor *factor = <rnnfast_factor *>alloc((c.code.most_factors + 1) * sizeof(rnnfast_factor))
    cdef unsigned long flush
    if factor == NULL:
        return 1
    flush = rnnfast_flush_enter()
    for r in range(first, last):
        if begun:
            copy_row(&job.dx, data_place(c, r), &own, r, c.input_size)
        else:
            zero_row(&job.dx, data_place(c, r), c.input_size)
    add_products_of_dz(c, &c.code.product[c.code.products - 1], job, first, last - first, factor)
    zero_padding(&c.f, &job.dx, c.input_size, part * c.f.paddings // job.parts, (part + 1) * c.f.paddings // job.parts)
    rnnfast_flush_leave(flush)
    free(factor)
    return 0


cdef void add_products_of_dz(const CellPass *c, const Product *product, const InputJob *job, Py_ssize_t first,
                             Py_ssize_t rows, rnnfast_factor *factor) noexcept nogil:
    """dx += dz times the weights of x, of the linears that have it."""
    cdef rnnfast_product p
    cdef const Factor *f
    cdef Rows dz, weights = rows_of(c.weights, 0, c.f.k.size)
    cdef Py_ssize_t i
    for i in range(product.factors):
        f = &c.code.factor[product.first_factor + i]
        dz = from_column(&c.dz, f.offset)
        factor[i].a, factor[i].stride, factor[i].K = row(&dz, first), dz.stride // c.f.k.size, f.K
        factor[i].row_index, factor[i].weights = NULL, from_column(&weights, f.weights).data
    p.rows, p.columns, p.factor, p.factors = rows, c.input_size, factor, product.factors
    p.whole_vectors, p.c_row_index = c.input_size % c.f.k.lanes == 0, NULL
    p.c = row(&job.dx, first)
    if c.f.row_index != NULL:
        p.c_row_index, p.c = c.f.row_index + first, job.dx.data
    p.init, p.init_stride, p.c_stride = p.c, c.input_size, c.input_size
    c.f.k.multiply(&p)


cdef inline Py_ssize_t data_place(const CellPass *c, Py_ssize_t r) noexcept nogil:
    return r if c.f.row_index == NULL else c.f.row_index[r]


# ---- Weight gradients: one product for each product of forward, and a sum for each vector.

# Panels first .. last of dz in one of the products.
cdef struct WeightPart:
    rnnfast_wgrad *g
    Py_ssize_t first, last

cdef struct WeightJob:
    const CellPass *c
    rnnfast_wgrad *g
    WeightPart *part
    Py_ssize_t products, parts, scratch  # the scratch of one part, in reals


cdef dict weight_gradients(const CellPass *c, Plan compiled, dtype, int threads):
    """The gradients of all parameters, by name: views of a few arrays, for linears side by side have one product."""
    cdef const Code *code = &compiled.taped
    cdef WeightJob job
    cdef Py_ssize_t i, first = compiled.first_bias
    cdef Part part
    cdef void *memory
    gradients = {}
    sums = np.empty(compiled.plan.dz, dtype)  # of dz, over all its rows: gradients of biases and vectors
    threads = useful_threads(flops(&c.f), threads)
    memory = divide_job(&job, c, code.factors + 1, threads)
    try:
        h_index = states_before(&c.f)
        for i in range(code.products):
            add_product(&job, code, &code.product[i], compiled, gradients, sums, h_index)
        start_product(&job, compiled.columns, compiled.plan.dz - compiled.columns, sums)
        cut(&job, threads)
        with nogil:
            failed = share(job.parts, threads, False, weight_part, &job)
    finally:
        free(memory)
    if failed:
        raise MemoryError()
    for i in range(compiled.biases):
        part = compiled.bias[i]
        gradients[compiled.names[part.parameter]] = sums[part.first - first:part.first - first + part.size]
    for name, column in compiled.plan.vector_dz.items():
        gradients[name] = sums[column:column + compiled.plan.graph.vectors[name].size]
    if len(gradients) < len(compiled.names):  # nothing that is returned depends on the others
        shapes = compiled.plan.graph.shapes()
        return {name: gradients[name] if name in gradients else np.zeros(shapes[name], dtype) for name in shapes}
    return {name: gradients[name] for name in compiled.names}


cdef void *divide_job(WeightJob *job, const CellPass *c, Py_ssize_t most, int threads) except NULL:
    """Memory for so many products and their parts."""
    cdef Block b
    cdef void *memory
    b.start, b.used = NULL, 0
    rows_in(&b, most, sizeof(rnnfast_wgrad), 1)
    rows_in(&b, most * threads, sizeof(WeightPart), 1)
    memory = alloc(b.used + 64)
    if memory == NULL:
        raise MemoryError()
    b.start, b.used = <char *>memory, 0
    job.g = <rnnfast_wgrad *>rows_in(&b, most, sizeof(rnnfast_wgrad), 1).data
    job.part = <WeightPart *>rows_in(&b, most * threads, sizeof(WeightPart), 1).data
    job.c, job.products, job.parts, job.scratch = c, 0, 0, 0
    return memory


cdef object states_before(const Pass *f):
    """Where the state before each data row is, of sequences of different length."""
    cdef Py_ssize_t *index
    cdef Py_ssize_t s, r
    if f.active == NULL:
        return None
    found = np.empty(f.N, np.intp)
    index = <Py_ssize_t *>data_of(found)
    for s in range(f.T):
        for r in range(f.active[s]):
            index[f.offset[s] + r] = state_before(f, s) + r
    return found


cdef rnnfast_wgrad *start_product(WeightJob *job, Py_ssize_t column, Py_ssize_t columns, sums) except NULL:
    """A product without terms yet: the sums of dz in some columns, if `sums` is not None."""
    cdef rnnfast_wgrad *g = &job.g[job.products]
    cdef const rnnfast_kernels *k = job.c.f.k
    cdef Rows dz = from_column(&job.c.dz, column), to
    memset(g, 0, sizeof(rnnfast_wgrad))
    g.K, g.H, g.dz, g.dz_stride, g.slots = job.c.f.N, columns, dz.data, dz.stride // k.size, 1
    if sums is not None:
        to = rows_of(data_of(sums), 0, k.size)
        g.bias = from_column(&to, column).data
    job.products += 1
    return g


cdef int add_product(WeightJob *job, const Code *code, const Product *product, Plan compiled, dict gradients, sums,
                     h_index) except -1:
    """The products for the weights of some linears with the same sources, up to three sources in one."""
    cdef rnnfast_wgrad *g = NULL
    cdef Py_ssize_t i, j
    cdef const Factor *factor
    cdef const Part *part
    for i in range(product.factors):
        factor = &code.factor[product.first_factor + i]
        if i % 3 == 0:
            g = start_product(job, product.bias - compiled.first_bias, product.columns, None if i else sums)
        weights = np.empty((product.columns, factor.K), sums.dtype)
        set_term(job.c, g, i % 3, factor, data_of(weights), h_index)
        for j in range(factor.first_part, factor.first_part + factor.parts):
            part = &code.part[j]
            gradients[compiled.names[part.parameter]] = weights[part.first:part.first + part.size]
    return 0


cdef int set_term(const CellPass *c, rnnfast_wgrad *g, Py_ssize_t t, const Factor *factor, const void *gradient,
                  h_index) except -1:
    """The source of a weight's gradient: x, or the array that its place is in."""
    cdef Rows rows
    cdef Py_ssize_t state, which
    g.terms = t + 1
    g.term[t].n, g.term[t].vec_stride, g.term[t].slots = factor.K, c.f.k.lanes, 1
    g.term[t].c, g.term[t].c_stride = <void *>gradient, factor.K
    if factor.array < 0:
        rows, g.term[t].row_index = c.f.x, c.f.row_index
    elif factor.array == SAVED:
        rows = from_column(&c.saved, factor.offset)
    elif factor.array == CONSTANTS:
        rows = rows_of(c.constants, 0, c.f.k.size)
        rows = from_column(&rows, factor.offset)
    else:
        state, which = divmod(factor.array - FIRST_STATE_ARRAY, STATE_ARRAYS)
        rows = c.state[state]
        if which == AFTER:
            rows = from_row(&rows, 0 if c.f.reverse else c.f.B)
        elif h_index is not None:
            g.term[t].row_index = <const Py_ssize_t *>data_of(h_index)
        else:
            rows = from_row(&rows, c.f.B if c.f.reverse else 0)
    g.term[t].b, g.term[t].b_stride = rows.data, rows.stride // c.f.k.size
    return 0


cdef void cut(WeightJob *job, int threads) noexcept:
    """Cut each product into parts, one for each thread, of at least four panels of dz."""
    cdef const rnnfast_kernels *k = job.c.f.k
    cdef Py_ssize_t i, j, panels, n
    cdef WeightPart *part
    for i in range(job.products):
        job.scratch = max(job.scratch, <Py_ssize_t>k.wgrad_scratch(&job.g[i]))
        panels = padded(k, job.g[i].H) // k.lanes
        n = min(<Py_ssize_t>threads, (panels + 3) // 4)
        for j in range(n):
            part = &job.part[job.parts]
            part.g, part.first, part.last = &job.g[i], panels * j // n, panels * (j + 1) // n
            job.parts += 1


cdef int weight_part(void *to_do, Py_ssize_t i) noexcept nogil:
    """Some panels of one product. Returns nonzero if there is no memory."""
    cdef const WeightJob *job = <const WeightJob *>to_do
    cdef const WeightPart *part = &job.part[i]
    cdef const rnnfast_kernels *k = job.c.f.k
    cdef unsigned long flush
    cdef void *scratch = alloc(job.scratch * k.size)
    if scratch == NULL:
        return 1
    flush = rnnfast_flush_enter()
    k.wgrad(part.g, part.first, part.last, scratch)
    rnnfast_flush_leave(flush)
    free(scratch)
    return 0
