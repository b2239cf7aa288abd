# NumPy arrays in and out, by NumPy's C interface: part of _kernels.pyx.
#
# To look at an array costs 13 ns and to make one 85; a typed memoryview 150 (a buffer 50) and
# numpy.empty 215, and a training step of one layer passes twenty arrays (Xeon, Cython 3.3, limited
# API). *Plain* are exact ndarrays, aligned, C-contiguous and native; `_check` explains or converts
# everything else.

cdef enum:
    ANY = -1
    OWN_BYTES = 128 << 10

# The arrays of one call: all of one precision, which the first one decides unless `type` is set.
cdef struct Arrays:
    int type                     # NPY_FLOAT, NPY_DOUBLE, or ANY: not yet known
    bint plain                   # so far


cdef inline Arrays arrays_of(int type) noexcept nogil:
    cdef Arrays a
    a.type, a.plain = type, True
    return a


cdef void *take(Arrays *a, object given, int ndim, Py_ssize_t n0, Py_ssize_t n1=ANY,
                Py_ssize_t n2=ANY) noexcept:
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
    if a.type == ANY:
        a.type = cnp.PyArray_TYPE(array)
    a.plain = (cnp.PyArray_TYPE(array) == a.type and (a.type == cnp.NPY_FLOAT or a.type == cnp.NPY_DOUBLE)
               and cnp.PyArray_ISCARRAY_RO(array) and (ndim == ANY or cnp.PyArray_NDIM(array) == ndim)
               and (n0 == ANY or n[0] == n0)
               and (n1 == ANY or n[1] == n1)
               and (n2 == ANY or n[2] == n2))
    return cnp.PyArray_DATA(array) if a.plain else NULL


def same(a, dict b not None):
    """Whether `a` is a dict of the very objects that `b` has by the same names, and of some."""
    if type(a) is not dict or not b or len(<dict>a) != len(b):
        return False
    for name, value in b.items():
        if (<dict>a).get(name) is not value:
            return False
    return True


def by_name(list names not None, list gradients not None):
    """Weights' gradients, those of each cell a tuple at 3 of its results, as a dict; names as they are."""
    cdef dict found = {}
    cdef tuple weights
    cdef Py_ssize_t cell, i
    for cell in range(len(names)):
        weights = (<tuple>gradients[cell])[3]
        for i, name in enumerate(<tuple>names[cell]):
            if name:
                found[name] = weights[i]
    return found


cdef inline const cnp.npy_intp *shape_of(object array) noexcept:
    return cnp.PyArray_DIMS(<cnp.ndarray>array)


cdef class Memory:
    """A block of our own that an array refers to."""
    cdef void *block

    def __dealloc__(self):
        rnnfast_free(self.block)


cdef object new(const Arrays *a, void **data, int ndim, Py_ssize_t n0, Py_ssize_t n1=0, Py_ssize_t n2=0):
    """A new array of that shape and the precision of the others, and its data. What has OWN_BYTES, malloc may
    give back to the system as soon as the array is gone, and the next one's pages are cleared anew: a sixth of
    a training step of 6 LSTM layers at (8, 16, 256, 256). Whether it does depends on all that the process has
    freed before; where it did, an RNN's at (64, 32, 128, 128) took a fifth less without (Zen 4)."""
    cdef cnp.npy_intp[3] n
    cdef Py_ssize_t size = (4 if a.type == cnp.NPY_FLOAT else 8) * n0 * (n1 if ndim > 1 else 1)
    cdef Memory memory
    n[0], n[1], n[2] = n0, n1, n2
    if ndim == 3:
        size *= n2
    if size >= OWN_BYTES:
        memory = Memory.__new__(Memory)
        memory.block = rnnfast_alloc_result(size)
        if memory.block == NULL:
            raise MemoryError()
        array = cnp.PyArray_SimpleNewFromData(ndim, n, a.type, memory.block)
        cnp.set_array_base(array, memory)
    else:
        array = cnp.PyArray_EMPTY(ndim, n, a.type, 0)
    data[0] = cnp.PyArray_DATA(<cnp.ndarray>array)
    return array


def copied(cnp.ndarray array not None):
    """Return a copy in C order. It reuses memory of earlier ones, for malloc would map and clear new pages."""
    cdef Memory memory = Memory.__new__(Memory)
    memory.block = rnnfast_alloc_result(cnp.PyArray_NBYTES(array))
    if memory.block == NULL:
        raise MemoryError()
    copy = cnp.PyArray_SimpleNewFromData(cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array),
                                         cnp.PyArray_TYPE(array), memory.block)
    cnp.set_array_base(copy, memory)
    copy[...] = array
    return copy


cdef object result(Arrays *a, tuple out, int i, void **data, int ndim, Py_ssize_t n0, Py_ssize_t n1=0,
                   Py_ssize_t n2=0):
    """Entry i of `out` and its data; a new array of that shape where `out` or the entry is None."""
    given = None if out is None else out[i]
    if given is None:
        return new(a, data, ndim, n0, n1, n2)
    data[0] = take(a, given, ndim, n0, n1 if ndim > 1 else ANY, n2 if ndim > 2 else ANY)
    if not a.plain or not cnp.PyArray_ISWRITEABLE(<cnp.ndarray>given):
        raise ValueError("an array for a result does not fit it")
    return given
