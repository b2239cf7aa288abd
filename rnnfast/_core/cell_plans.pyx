# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""Plans of cells for the driver, and their weights packed for one direction."""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from .abi cimport rnnfast_instruction, rnnfast_kernels
from .arrays cimport Arrays, Block, Rows, arrays_of, new, row, rows_in, rows_of
from .cells cimport Code, Operand, Stage
from .config cimport alloc, free, padded, table

import numpy as np

cnp.import_array()


cdef class Plan:
    def __cinit__(self, plan):
        self.plan, self.kept = plan, []
        self.operands = sum(len(stage.runs) for stage in plan.stages)
        self.forward = self.code(plan.forward)
        self.taped = self.code(plan.taped)
        self.backward = self.code(plan.backward)

    cdef Code code(self, programs) except *:
        cdef Code code
        ends = np.array(programs.ends, np.intp)
        names = list(self.plan.graph.extra)
        offsets = [programs.inputs[name].offset if name in programs.inputs else -1 for name in names]
        extra = np.array(offsets, np.intp)
        self.kept += [programs.table, ends, extra]
        code.table = <const rnnfast_instruction *>data_of(programs.table)
        code.ends, code.extra = <const Py_ssize_t *>data_of(ends), <const Py_ssize_t *>data_of(extra)
        code.local, code.block, code.rows_at_a_time = programs.local, programs.block, programs.rows
        code.x = programs.inputs["x"].offset if "x" in programs.inputs else -1
        code.dy = programs.inputs["dy"].offset if "dy" in programs.inputs else -1
        return code


def empty(tuple shape, dtype):
    """Return an array of two or three axes, as `numpy.empty` does. Large ones lie in memory that is used again (M40)."""
    cdef Arrays a = arrays_of(cnp.NPY_FLOAT if dtype == np.float32 else cnp.NPY_DOUBLE)
    cdef void *data
    return new(&a, &data, len(shape), shape[0], shape[1], shape[2] if len(shape) == 3 else 0)


def lanes_of(dtype):
    """Return the lanes of a vector of the instruction set in use, and a name of both."""
    cdef const rnnfast_kernels *k = table(cnp.NPY_FLOAT if dtype == np.float32 else cnp.NPY_DOUBLE)
    return k.lanes


cdef class Packed:
    def __dealloc__(self):
        free(self.memory)


cdef Packed pack(Plan compiled, const rnnfast_kernels *k, dict params, bint back, bint taped):
    """Pack the weights of all stages."""
    cdef Packed p = Packed.__new__(Packed)
    cdef Py_ssize_t bytes_needed = divide_packed(compiled, k, back, NULL, p)
    p.memory = alloc(bytes_needed)
    if p.memory == NULL:
        raise MemoryError()
    divide_packed(compiled, k, back, <char *>p.memory, p)
    describe(compiled, k, params, back, taped, p)
    pack_constants(compiled, k, params, p)
    return p


cdef Py_ssize_t divide_packed(Plan compiled, const rnnfast_kernels *k, bint back, char *memory, Packed p) except -1:
    """Divide a block of memory; returns the bytes it takes."""
    cdef Block b
    cdef Py_ssize_t i = 0, K, n
    plan = compiled.plan
    b.start, b.used = memory, 0
    p.stage = <Stage *>rows_in(&b, len(plan.stages), sizeof(Stage), 1).data
    p.operand = <Operand *>rows_in(&b, compiled.operands, sizeof(Operand), 1).data
    b.used = (b.used + 63) // 64 * 64
    p.constants = rows_in(&b, 1, sum(padded(k, v.size) for v in plan.constants), k.size).data
    for s, stage in enumerate(plan.stages):
        bias = rows_in(&b, 1, stage.columns, k.size).data
        if memory != NULL:
            p.stage[s].bias = bias
        for run in stage.runs:
            K = run.source.value.size
            n = (padded(k, K) if back else K) * run.columns
            weights = rows_in(&b, 1, (n + k.lanes - 1) // k.lanes * k.lanes, k.size).data
            if memory != NULL:
                p.operand[i].weights = weights
            i += 1
    return b.used


cdef int describe(Plan compiled, const rnnfast_kernels *k, dict params, bint back, bint taped, Packed p) except -1:
    """Fill the stages and operands, and pack their weights."""
    cdef Py_ssize_t i = 0
    cdef Operand *o
    plan = compiled.plan
    for s, stage in enumerate(plan.stages):
        p.stage[s].columns, p.stage[s].sums, p.stage[s].dz = stage.columns, stage.sums, stage.dz
        if not back:
            pack_biases(plan, stage, k, params, <void *>p.stage[s].bias)
        for run in stage.runs:
            o, source = &p.operand[i], run.source
            place = source.taped if taped else source.place
            o.stage, o.K, o.back = s, source.value.size, -1 if source.back is None else source.back.offset
            o.array, o.offset = (-1, 0) if place is None else (place.array, place.offset)
            o.first, o.columns, o.begins, o.begins_back = run.first, run.columns, run.begins, run.begins_back
            pack_run(plan, stage, source, k, params, back, o)
            i += 1
    return 0


cdef int pack_run(plan, stage, source, const rnnfast_kernels *k, dict params, bint back, Operand *o) except -1:
    """Pack the weights of a source for some columns."""
    cdef Py_ssize_t u, first, size
    cdef Rows rows
    cdef const void **row_of = <const void **>alloc((stage.columns + 1) * sizeof(void *))
    if row_of == NULL:
        raise MemoryError()
    memset(row_of, 0, (stage.columns + 1) * sizeof(void *))
    for name, column in zip(stage.linears, stage.first):
        first, linear = column, plan.graph.linears[name]
        size = linear.size
        for label, value in linear.sources.items():
            if value is source.value:
                rows = rows_of(data_of(params[f"{name}.weight_{label}"]), o.K, k.size)
                for u in range(size):
                    row_of[first + u] = row(&rows, u)
                # One unit is in all lanes of its column, so that the result can be used with any others.
                for u in range(1, k.lanes if size == 1 and not back else 0):
                    row_of[first + u] = row(&rows, 0)
    if back:
        k.pack_weights_back(row_of + o.first, o.columns, o.K, <void *>o.weights)
    else:
        k.pack_weights(row_of + o.first, o.columns, o.K, <void *>o.weights)
    free(row_of)
    return 0


cdef int pack_biases(plan, stage, const rnnfast_kernels *k, dict params, void *bias) except -1:
    dtype = np.float32 if k.size == 4 else np.float64
    values = np.zeros(stage.columns, dtype)
    for name, column in zip(stage.linears, stage.first):
        linear = plan.graph.linears[name]
        if linear.bias:
            wide = k.lanes if linear.size == 1 else linear.size
            values[column:column + wide] = params[f"{name}.bias"]
    memcpy(bias, data_of(values), values.nbytes)
    return 0


cdef int pack_constants(Plan compiled, const rnnfast_kernels *k, dict params, Packed p) except -1:
    dtype = np.float32 if k.size == 4 else np.float64
    at = 0
    total = sum(padded(k, v.size) for v in compiled.plan.constants)
    values = np.zeros(total, dtype)
    for v in compiled.plan.constants:
        wide = k.lanes if v.size == 1 else v.size
        values[at:at + wide] = v.number if v.kind == "const" else params[v.name]
        at += padded(k, v.size)
    if total:
        memcpy(p.constants, data_of(values), values.nbytes)
    return 0
