# The C code and what is decided once per process. Other modules reach the C code through these names.
from .abi cimport rnnfast_cell, rnnfast_kernels, rnnfast_packed, rnnfast_task, rnnfast_weights

cdef const rnnfast_kernels *table(int dtype) noexcept nogil  # of NPY_FLOAT or NPY_DOUBLE
cdef const rnnfast_cell *cell_of(int cell) noexcept nogil
cdef double flops_of(Py_ssize_t rows, int cell, Py_ssize_t I, Py_ssize_t H, Py_ssize_t P) noexcept nogil
cdef int useful_threads(double flops, int threads) noexcept nogil
cdef int share(Py_ssize_t n, int threads, bint in_turn, rnnfast_task *task, void *job) noexcept nogil
cdef void *alloc(size_t size) noexcept nogil
cdef void *alloc_result(size_t size) noexcept nogil
cdef void free(void *block) noexcept nogil

cdef inline Py_ssize_t padded(const rnnfast_kernels *k, Py_ssize_t n) noexcept nogil:
    return (n + k.lanes - 1) // k.lanes * k.lanes


cdef class Packed:
    """Weights packed for the kernels: an immutable copy."""
    cdef rnnfast_packed w
    cdef const rnnfast_kernels *k
    cdef void *block


cdef Packed packed(const rnnfast_kernels *k, const rnnfast_weights *w, int use, int threads)
