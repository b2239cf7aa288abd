# Plans of cells (rnnfast/cells/_plan.py) for the driver, and packed weights.
cimport numpy as cnp

from .abi cimport rnnfast_kernels
from .cells cimport Code, Operand, Stage

cdef class Plan:
    """A plan for the driver: tables of whole numbers instead of objects."""
    cdef readonly object plan
    cdef Code forward, taped, backward
    cdef list kept               # the arrays that the codes point into
    cdef readonly int operands
    cdef Code code(self, programs) except *


cdef class Packed:
    """The weights of a cell packed for one direction, its biases and its constants."""
    cdef void *memory
    cdef Stage *stage
    cdef Operand *operand
    cdef void *constants


cdef Packed pack(Plan compiled, const rnnfast_kernels *k, dict params, bint back, bint taped)


cdef inline const void *data_of(object array) except? NULL:
    """The data of an array; NULL of None."""
    return NULL if array is None else cnp.PyArray_DATA(<cnp.ndarray?>array)
