# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""Plans of cells for the driver, and their weights packed for one direction."""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from .abi cimport rnnfast_instruction, rnnfast_kernels
from .arrays cimport Arrays, Block, Rows, arrays_of, from_column, new, row, rows_in, rows_of
from .cells cimport Code, Factor, Part, Product
from .config cimport alloc, free, table

import numpy as np

cnp.import_array()


cdef class Plan:
    def __cinit__(self, plan):
        self.plan, self.kept = plan, []
        self.forward = self.code(plan.forward)
        self.taped = self.code(plan.taped)
        self.backward = self.code(plan.backward)
        self.names, self.given = plan.parameters, plan.given
        self.columns = sum(stage.columns for stage in plan.stages)
        self.first_bias = plan.given - self.columns
        self.kept += [plan.vectors, plan.biases]
        self.vector, self.vectors = <const Part *>data_of(plan.vectors), len(plan.vectors)
        self.bias, self.biases = <const Part *>data_of(plan.biases), len(plan.biases)
        self.numbers = {4: self.constants(np.float32), 8: self.constants(np.float64)}

    def constants(self, dtype):
        """The constants of the programs in their places, and zeros where parameters go."""
        numbers = np.zeros(self.given, dtype)
        for place, number in self.plan.numbers:
            numbers[place:place + self.plan.lanes] = number
        return numbers

    cdef Code code(self, programs) except *:
        cdef Code code
        ends = np.array(programs.ends, np.intp)
        names = list(self.plan.graph.extra)
        offsets = [programs.inputs[name].offset if name in programs.inputs else -1 for name in names]
        extra = np.array(offsets, np.intp)
        products, factors, parts = programs.products.tables()
        self.kept += [programs.table, ends, extra, products, factors, parts]
        code.table = <const rnnfast_instruction *>data_of(programs.table)
        code.ends, code.extra = <const Py_ssize_t *>data_of(ends), <const Py_ssize_t *>data_of(extra)
        code.local, code.block, code.rows_at_a_time = programs.local, programs.block, programs.rows
        code.x = programs.inputs["x"].offset if "x" in programs.inputs else -1
        code.dy = programs.inputs["dy"].offset if "dy" in programs.inputs else -1
        code.product, code.factor = <const Product *>data_of(products), <const Factor *>data_of(factors)
        code.part, code.products, code.factors = <const Part *>data_of(parts), len(products), len(factors)
        code.most_factors = max([product[7] for product in programs.products.products], default=0)
        code.weights, code.projected = programs.products.weights, programs.products.projected
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


cdef Packed pack(Plan compiled, const rnnfast_kernels *k, dict params, const Code *code, bint back):
    """Pack the weights of all products, and lay out the constants."""
    cdef Packed p = Packed.__new__(Packed)
    cdef Block b
    cdef const void **parameter
    cdef const void **row_of
    cdef Py_ssize_t i, columns = 0
    for i in range(code.products):
        columns = max(columns, most_columns(code, &code.product[i], back))
    b.start, b.used = NULL, 0
    divide(compiled, k, code, columns, &b, p, &parameter, &row_of)
    p.memory = alloc(b.used)
    if p.memory == NULL:
        raise MemoryError()
    b.start, b.used = <char *>p.memory, 0
    divide(compiled, k, code, columns, &b, p, &parameter, &row_of)
    for i, name in enumerate(compiled.names):
        parameter[i] = data_of(params[name])
    memcpy(p.constants, data_of(compiled.numbers[k.size]), compiled.given * k.size)
    fill(k, compiled.vector, compiled.vectors, parameter, p.constants)
    fill(k, compiled.bias, compiled.biases, parameter, p.constants)
    for i in range(code.products):
        pack_product(k, code, &code.product[i], parameter, row_of, back, p.weights)
    return p


cdef Py_ssize_t most_columns(const Code *code, const Product *product, bint back) noexcept:
    """The most columns that a factor of a product has rows of weights for."""
    cdef Py_ssize_t most = product.columns, i
    for i in range(product.first_factor, product.first_factor + product.factors if back else 0):
        most = max(most, code.factor[i].K)
    return most


cdef int divide(Plan compiled, const rnnfast_kernels *k, const Code *code, Py_ssize_t columns, Block *b, Packed p,
                const void ***parameter, const void ***row_of) except -1:
    """Divide a block of memory."""
    p.weights = rows_in(b, 1, code.weights, k.size).data
    p.constants = rows_in(b, 1, compiled.given, k.size).data
    b.used = (b.used + 63) // 64 * 64
    parameter[0] = <const void **>rows_in(b, len(compiled.names), sizeof(void *), 1).data
    row_of[0] = <const void **>rows_in(b, columns, sizeof(void *), 1).data
    return 0


cdef void fill(const rnnfast_kernels *k, const Part *part, Py_ssize_t n, const void **parameter, void *to) noexcept:
    """Copy vectors to their places. One number goes to all lanes."""
    cdef Py_ssize_t i
    cdef Rows rows = rows_of(to, 0, k.size), place
    for i in range(n):
        place = from_column(&rows, part[i].first)
        k.copy_rows(1, part[i].size, parameter[part[i].parameter], 0, NULL, place.data, 0)


cdef void pack_product(const rnnfast_kernels *k, const Code *code, const Product *product, const void **parameter,
                       const void **row_of, bint back, void *weights) noexcept:
    """Pack the weights of each factor of a product: a row of the parameters for each column."""
    cdef Py_ssize_t i, j, u, n, wide
    cdef const Factor *factor
    cdef const Part *part
    cdef Rows rows, to = rows_of(weights, 0, k.size), place
    for i in range(product.first_factor, product.first_factor + product.factors):
        factor = &code.factor[i]
        n = factor.K if back else product.columns
        memset(row_of, 0, n * sizeof(void *))
        for j in range(factor.first_part, factor.first_part + factor.parts):
            part = &code.part[j]
            rows = rows_of(parameter[part.parameter], product.columns if back else factor.K, k.size)
            # One unit is in all lanes of its column, so that the result can be used with any others.
            wide = k.lanes if part.size == 1 and not back else part.size
            for u in range(wide):
                row_of[part.first + u] = row(&rows, u if part.size > 1 else 0)
        place = from_column(&to, factor.weights)
        if back:
            k.pack_weights_back(row_of, n, product.columns, place.data)
        else:
            k.pack_weights(row_of, n, factor.K, place.data)
