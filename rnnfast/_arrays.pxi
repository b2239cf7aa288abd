# NumPy arrays by the buffer protocol: part of _kernels.pyx.
#
# A typed memoryview argument costs 150 ns, a buffer 35 ns, and a training step of one layer passes
# twenty arrays (Xeon, Cython 3.3, limited API). The views below are those of exact ndarrays, aligned,
# C-contiguous and native, or there is none: `_check` explains or converts everything else.

cdef extern from "Python.h":
    int PyBUF_FORMAT, PyBUF_C_CONTIGUOUS, PyBUF_WRITABLE
    int PyObject_GetBuffer(object, Py_buffer *, int)
    int PyBuffer_FillInfo(Py_buffer *, object, void *, Py_ssize_t, int, int) except -1
    void PyBuffer_Release(Py_buffer *)
    void PyErr_Clear()

cdef enum:
    ANY = -1

# The views of one call: all of one precision, which the first one decides unless `code` is set.
cdef struct Views:
    Py_buffer view[12]
    int n
    char code                    # f, d, or 0: not yet known
    bint plain                   # so far


cdef void *take(Views *v, object array, int ndim, Py_ssize_t n0, Py_ssize_t n1=ANY, Py_ssize_t n2=ANY,
                int access=0) noexcept:
    """The data of an array of that shape. For None, NULL; for anything else too, and `plain` is lost."""
    cdef Py_buffer *b = &v.view[v.n]
    if array is None:
        return NULL
    if not v.plain or type(array) is not ndarray:
        v.plain = False
        return NULL
    if PyObject_GetBuffer(array, b, PyBUF_FORMAT | PyBUF_C_CONTIGUOUS | access) < 0:
        PyErr_Clear()
        v.plain = False
        return NULL
    v.n += 1
    if v.code == 0:
        v.code = b.format[0]
    v.plain = (b.format[0] == v.code and (v.code == c"f" or v.code == c"d") and b.format[1] == 0
               and (ndim == ANY or b.ndim == ndim) and <size_t>b.buf % b.itemsize == 0
               and (n0 == ANY or b.shape[0] == n0)
               and (ndim < 2 or n1 == ANY or b.shape[1] == n1)
               and (ndim < 3 or n2 == ANY or b.shape[2] == n2))
    return b.buf if v.plain else NULL


cdef inline void start_views(Views *v, char code) noexcept:
    v.n, v.code, v.plain = 0, code, True


cdef void release(Views *v) noexcept:
    cdef int i
    for i in range(v.n):
        PyBuffer_Release(&v.view[i])


cdef inline object dtype_of(const Views *v):
    return FLOAT32 if v.code == c"f" else FLOAT64


cdef object new(Views *v, void **data, object shape, int ndim):
    """A new array of the views' precision, and its data."""
    array = empty(shape, dtype_of(v))
    data[0] = take(v, array, ndim, ANY, ANY, ANY, PyBUF_WRITABLE)
    return array


cdef class Block:
    """Memory from memory.c as a buffer."""
    cdef void *data
    cdef Py_ssize_t size

    def __cinit__(self, Py_ssize_t size):
        self.size = size
        self.data = rnnfast_alloc(size)
        if self.data == NULL:
            raise MemoryError()

    def __dealloc__(self):
        rnnfast_free(self.data)

    def __getbuffer__(self, Py_buffer *view, int flags):
        PyBuffer_FillInfo(view, self, self.data, self.size, 0, flags)


cdef object new_inside(Views *v, void **data, Py_ssize_t rows, Py_ssize_t n):
    """As `new`, (1, rows, n), in memory that is reused: for what is in use only within a call, or, of
    the data of a PackedSequence, as long as the caller keeps it. In NumPy's memory the pages may be
    mapped and cleared each time: an RNN with lengths then takes longer than one without."""
    dtype = dtype_of(v)
    array = ndarray((1, rows, n), dtype, Block(rows * n * (4 if v.code == c"f" else 8)))
    data[0] = take(v, array, 3, ANY, ANY, ANY, PyBUF_WRITABLE)
    return array
