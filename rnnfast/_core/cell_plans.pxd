# Plans of cells (rnnfast/cells/_plan.py) for the driver, and packed weights.
cimport numpy as cnp

from .abi cimport rnnfast_kernels
from .cells cimport Code, Part

cdef class Plan:
    """A plan for the driver: tables of whole numbers instead of objects."""
    cdef readonly object plan
    cdef Code forward, taped, backward
    cdef list kept               # the arrays that the codes and tables point into
    cdef list names              # of the parameters
    cdef const Part *vector      # parameters that programs read, and biases of products, by their place in `given`
    cdef const Part *bias
    cdef Py_ssize_t vectors, biases, given
    cdef Py_ssize_t first_bias, columns  # of all products: their biases, and their places in dz, are in one order
    cdef dict numbers            # by the bytes of a real: the constants of the programs, in their places
    cdef Code code(self, programs) except *


cdef class Packed:
    """The weights of a cell packed for one direction, and what its programs and products begin with."""
    cdef void *memory
    cdef void *weights
    cdef void *constants


cdef Packed pack(Plan compiled, const rnnfast_kernels *k, dict params, const Code *code, bint back)


cdef inline const void *data_of(object array) except? NULL:
    """The data of an array; NULL of None."""
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray?>array)
