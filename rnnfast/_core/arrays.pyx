# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""NumPy arrays in and out, by NumPy's C interface. arrays.pxd has what of it is inline, and the reasons."""

cimport numpy as cnp

from .arrays cimport Arrays
from .config cimport alloc_result, free

import numpy as np

cnp.import_array()

cdef enum:
    OWN_BYTES = 128 << 10

# A module's global is looked up by name at every use, a C variable is not.
cdef object ndarray = np.ndarray


cdef void *take(Arrays *a, object given, int ndim, Py_ssize_t n0, Py_ssize_t n1=ANY, Py_ssize_t n2=ANY) noexcept:
    """The data of an array of that shape. For None, NULL; for anything else too, and `plain` is lost."""
    cdef cnp.ndarray array
    cdef const cnp.npy_intp *n
    if given is None:
        return NULL
    if not a.plain or type(given) is not ndarray:
        a.plain = False
        return NULL
    array = <cnp.ndarray>given
    n = cnp.PyArray_DIMS(array)
    if a.dtype == ANY:
        a.dtype = cnp.PyArray_TYPE(array)
    a.plain = (cnp.PyArray_TYPE(array) == a.dtype and (a.dtype == cnp.NPY_FLOAT or a.dtype == cnp.NPY_DOUBLE)
               and cnp.PyArray_ISCARRAY_RO(array) and (ndim == ANY or cnp.PyArray_NDIM(array) == ndim)
               and (n0 == ANY or n[0] == n0)
               and (n1 == ANY or n[1] == n1)
               and (n2 == ANY or n[2] == n2))
    return cnp.PyArray_DATA(array) if a.plain else NULL


cdef class Memory:
    """A block of our own that an array refers to."""
    cdef void *block

    def __dealloc__(self):
        free(self.block)


cdef object in_own_memory(int ndim, cnp.npy_intp *n, int dtype, Py_ssize_t size):
    cdef Memory memory = Memory.__new__(Memory)
    memory.block = alloc_result(size)
    if memory.block == NULL:
        raise MemoryError()
    array = cnp.PyArray_SimpleNewFromData(ndim, n, dtype, memory.block)
    cnp.set_array_base(array, memory)
    return array


cdef object new(const Arrays *a, void **data, int ndim, Py_ssize_t n0, Py_ssize_t n1=0, Py_ssize_t n2=0):
    """A new array of that shape and the precision of the others, and its data.

    What has OWN_BYTES or more lies in a block of our own. malloc may give it back to the system with the array, and
    the pages of the next one would be cleared anew. (M40)"""
    cdef cnp.npy_intp[3] n
    cdef Py_ssize_t size = (4 if a.dtype == cnp.NPY_FLOAT else 8) * n0 * (n1 if ndim > 1 else 1)
    n[0], n[1], n[2] = n0, n1, n2
    if ndim == 3:
        size *= n2
    if size >= OWN_BYTES:
        array = in_own_memory(ndim, n, a.dtype, size)
    else:
        array = cnp.PyArray_EMPTY(ndim, n, a.dtype, 0)
    data[0] = cnp.PyArray_DATA(<cnp.ndarray>array)
    return array


cdef object result(Arrays *a, object given, void **data, int ndim, Py_ssize_t n0, Py_ssize_t n1=0, Py_ssize_t n2=0):
    """The array that was given for a result and its data, or a new one of that shape if it is None."""
    if given is None:
        return new(a, data, ndim, n0, n1, n2)
    data[0] = take(a, given, ndim, n0, n1 if ndim > 1 else ANY, n2 if ndim > 2 else ANY)
    if not a.plain or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>given):
        raise ValueError("an array for a result does not fit it")
    return given


def copied(cnp.ndarray array not None):
    """Return a copy in C order. It reuses memory of earlier ones, where malloc would map and clear new pages."""
    copy = in_own_memory(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array), cnp.PyArray_TYPE(array),
                         cnp.PyArray_NBYTES(array))
    copy[...] = array
    return copy


def same(a, dict b not None):
    """Whether `a` is a dict of the very objects that `b` has by the same names, and of some."""
    if type(a) is not dict or not b or len(<dict>a) != len(b):
        return False
    for name, value in b.items():
        if (<dict>a).get(name) is not value:
            return False
    return True


def by_name(list names not None, list groups not None):
    """Return the arrays of all groups as a dict; the names of each group are in its order, empty for what it has not."""
    cdef dict found = {}
    cdef tuple own
    for own, group in zip(names, groups):
        for name, array in zip(own, group):
            if name:
                found[name] = array
    return found
