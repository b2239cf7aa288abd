from .abi cimport rnnfast_weights
from .arrays cimport Arrays

cdef class Weights:
    cdef readonly object w_ih, w_hh, b_ih, b_hh, w_hr


cdef bint take_weights(Arrays *a, rnnfast_weights *w, int cell, int act, Py_ssize_t I, Weights given) noexcept
