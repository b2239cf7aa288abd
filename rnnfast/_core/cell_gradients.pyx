# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""After the loop over time of a cell of the user's own: dx and the gradients of the parameters, from dz."""

cimport numpy as cnp
from libc.string cimport memset

from .abi cimport rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_kernels, rnnfast_product, rnnfast_wgrad
from .arrays cimport Rows, copy_row, from_column, from_row, row, rows_of, zero_row
from .cell_plans cimport data_of
from .cells cimport AFTER, CONSTANTS, FIRST_STATE_ARRAY, SAVED, STATE_ARRAYS, CellPass
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
        share(job.parts, threads, False, input_part, &job)
    return dx


cdef struct InputJob:
    const CellPass *c
    Rows dx
    Py_ssize_t own, parts        # where in a row of `gradients` the programs' part is; -1: nowhere


cdef int input_part(void *to_do, Py_ssize_t part) noexcept nogil:
    cdef const InputJob *job = <const InputJob *>to_do
    cdef const CellPass *c = job.c
    cdef Py_ssize_t first = part * c.f.N // job.parts, last = (part + 1) * c.f.N // job.parts, r
    cdef unsigned long flush = rnnfast_flush_enter()
    cdef bint begun = job.own >= 0
    cdef Rows own = from_column(&c.gradients, max(job.own, 0)), dz
    cdef rnnfast_product p
    cdef int i
    memset(&p, 0, sizeof(p))
    p.rows, p.columns = last - first, c.input_size
    p.c_stride, p.a_stride = c.input_size, c.dz.stride // c.f.k.size
    if c.f.row_index != NULL:
        p.c_row_index = c.f.row_index + first
    p.c = job.dx.data if c.f.row_index != NULL else row(&job.dx, first)
    for r in range(first, last):
        if begun:
            copy_row(&job.dx, data_place(c, r), &own, r, c.input_size)
        else:
            zero_row(&job.dx, data_place(c, r), c.input_size)
    for i in range(c.operands):
        if c.operand[i].array < 0 and last > first:
            dz = from_column(&c.dz, c.stage[c.operand[i].stage].dz + c.operand[i].first)
            p.a, p.K, p.weights = row(&dz, first), c.operand[i].columns, c.operand[i].weights
            p.init, p.init_stride = p.c, p.c_stride
            c.f.k.multiply(&p)
    zero_padding(&c.f, &job.dx, c.input_size, part * c.f.paddings // job.parts, (part + 1) * c.f.paddings // job.parts)
    rnnfast_flush_leave(flush)
    return 0


cdef inline Py_ssize_t data_place(const CellPass *c, Py_ssize_t r) noexcept nogil:
    return r if c.f.row_index == NULL else c.f.row_index[r]


# ---- Weight gradients: one product for each linear, and a sum for each vector.

cdef struct WeightJob:
    const CellPass *c
    rnnfast_wgrad *g
    Py_ssize_t scratch           # reals


cdef dict weight_gradients(const CellPass *c, plan, dtype, int threads):
    """The gradients of all parameters, by name."""
    cdef const rnnfast_kernels *k = c.f.k
    cdef Py_ssize_t n = 0, most, i
    cdef WeightJob job
    cdef void *memory
    graph = plan.graph
    gradients = {name: np.zeros(shape, dtype) for name, shape in graph.shapes().items()}
    most = sum((len(linear.sources) + 2) // 3 for linear in graph.linears.values()) + len(graph.vectors) + 1
    memory = alloc(most * sizeof(rnnfast_wgrad))
    if memory == NULL:
        raise MemoryError()
    job.c, job.g, job.scratch = c, <rnnfast_wgrad *>memory, 0
    sums = []
    try:
        h_index = states_before(&c.f)
        for stage in plan.stages:
            for name, column in zip(stage.linears, stage.first):
                n = add_products(c, graph.linears[name], stage, stage.dz + column, gradients, h_index, sums, &job, n)
        for name, column in plan.vector_dz.items():
            start_product(c, &job.g[n], graph.vectors[name].size, column, gradients[name], sums)
            n += 1
        for i in range(n):
            job.scratch = max(job.scratch, <Py_ssize_t>k.wgrad_scratch(&job.g[i]))
        threads = useful_threads(flops(&c.f), threads)
        with nogil:
            failed = share(n, threads, False, weight_part, &job)
    finally:
        free(memory)
    if failed:
        raise MemoryError()
    for target, values in sums:
        target[...] = values[:len(target)]
    return gradients


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


cdef int start_product(const CellPass *c, rnnfast_wgrad *g, Py_ssize_t size, Py_ssize_t column, bias,
                       list sums) except -1:
    """A product without terms: the sums of dz from a column on."""
    cdef Rows dz = from_column(&c.dz, column)
    memset(g, 0, sizeof(rnnfast_wgrad))
    g.K, g.H, g.dz, g.dz_stride, g.slots = c.f.N, size, dz.data, dz.stride // c.f.k.size, 1
    if bias is not None:
        values = np.zeros(padded(c.f.k, size), bias.dtype)
        g.bias = <void *>data_of(values)
        sums.append((bias, values))
    return 0


cdef Py_ssize_t add_products(const CellPass *c, linear, stage, Py_ssize_t column, dict gradients, h_index, list sums,
                             WeightJob *job, Py_ssize_t n) except -1:
    """The products for the weights of a linear, up to three sources in one."""
    cdef rnnfast_wgrad *g
    cdef int t
    sources = list(linear.sources.items())
    for at in range(0, len(sources), 3):
        g = &job.g[n]
        bias = gradients.get(f"{linear.name}.bias") if at == 0 else None
        start_product(c, g, linear.size, column, bias, sums)
        for t, (label, value) in enumerate(sources[at:at + 3]):
            [source] = [source for source in stage.sources if source.value is value]
            set_term(c, g, t, source.taped, value.size, gradients[f"{linear.name}.weight_{label}"], h_index)
        n += 1
    return n


cdef int set_term(const CellPass *c, rnnfast_wgrad *g, int t, place, Py_ssize_t size, gradient, h_index) except -1:
    """The source of a weight's gradient: x, or the array that its place is in."""
    cdef Rows rows
    cdef int state, which
    g.terms = t + 1
    g.term[t].n, g.term[t].vec_stride, g.term[t].slots = size, c.f.k.lanes, 1
    g.term[t].c, g.term[t].c_stride = <void *>data_of(gradient), size
    if place is None:
        rows, g.term[t].row_index = c.f.x, c.f.row_index
    elif place.array == SAVED:
        rows = from_column(&c.saved, place.offset)
    elif place.array == CONSTANTS:
        rows = rows_of(c.constants, 0, c.f.k.size)
        rows = from_column(&rows, place.offset)
    else:
        state, which = divmod(place.array - FIRST_STATE_ARRAY, STATE_ARRAYS)
        rows = c.state[state]
        if which == AFTER:
            rows = from_row(&rows, 0 if c.f.reverse else c.f.B)
        elif h_index is not None:
            g.term[t].row_index = <const Py_ssize_t *>data_of(h_index)
        else:
            rows = from_row(&rows, c.f.B if c.f.reverse else 0)
    g.term[t].b, g.term[t].b_stride = rows.data, rows.stride // c.f.k.size
    return 0


cdef int weight_part(void *to_do, Py_ssize_t i) noexcept nogil:
    """One product. Returns nonzero if there is no memory."""
    cdef const WeightJob *job = <const WeightJob *>to_do
    cdef const rnnfast_kernels *k = job.c.f.k
    cdef unsigned long flush
    cdef void *scratch = alloc(job.scratch * k.size)
    if scratch == NULL:
        return 1
    flush = rnnfast_flush_enter()
    k.wgrad(&job.g[i], 0, padded(k, job.g[i].H) // k.lanes, scratch)
    rnnfast_flush_leave(flush)
    free(scratch)
    return 0
