from .arrays cimport Rows
from .cell_plans cimport Packed, Plan
from .cells cimport CellPass, Code

cdef class Call:
    """What forward and backward of one call have in common."""
    cdef CellPass c
    cdef Plan compiled
    cdef Packed packed
    cdef void *memory            # of the descriptions of states and extra inputs
    cdef list kept               # the arrays that they point to
    cdef int start(self, Plan compiled, object dtype, int states, int extras) except -1
    cdef int take_states(self, Rows *to, list arrays) except -1
    cdef int use(self, Packed packed, const Code *code) except -1


cdef class Tape:
    """What backward needs. It serves one backward."""
    cdef Call forward
    cdef void *memory
    cdef Packed packed           # for backward
    cdef readonly bint used
    cdef readonly object dtype, shape
