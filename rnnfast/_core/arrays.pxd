# Arrays in and out: the one place that knows of bytes.
#
# A typed memoryview costs 124 ns an argument, a look at a plain array by NumPy's C interface 13 ns (M39). A training
# step of one layer passes twenty arrays, so the calls of a layer go through `take`. Everywhere else, where a call is
# not in microseconds, there are buffers, `cnp.ndarray[real]`. They are not memoryviews, whose code Cython writes into
# every module that has one, several times what the module itself takes. *Plain* are exact ndarrays: aligned,
# C-contiguous, native. What is not plain is explained or converted by checks.py.
#
# Inside, an array is a `Rows`: rows of reals, some distance apart.
cimport numpy as cnp
from libc.string cimport memcpy, memset

cdef enum:
    ANY = -1

# The arrays of one call. All have one precision, which the first one decides unless `dtype` is set.
cdef struct Arrays:
    int dtype                    # NPY_FLOAT, NPY_DOUBLE, or ANY: not yet known
    bint plain                   # so far


cdef inline Arrays arrays_of(int dtype) noexcept nogil:
    cdef Arrays a
    a.dtype, a.plain = dtype, True
    return a


cdef void *take(Arrays *a, object given, int ndim, Py_ssize_t n0, Py_ssize_t n1=*, Py_ssize_t n2=*) noexcept
cdef object new(const Arrays *a, void **data, int ndim, Py_ssize_t n0, Py_ssize_t n1=*, Py_ssize_t n2=*)
cdef object result(Arrays *a, object given, void **data, int ndim, Py_ssize_t n0, Py_ssize_t n1=*, Py_ssize_t n2=*)


cdef inline const cnp.npy_intp *shape_of(object array) noexcept:
    return cnp.PyArray_DIMS(<cnp.ndarray>array)


cdef inline bint fits(object array, Py_ssize_t B, int inner, Py_ssize_t n) noexcept:
    """Whether the shape is (..., n) with `inner` axes at its end, or, before n, (..., B, n)."""
    cdef int ndim = cnp.PyArray_NDIM(<cnp.ndarray>array)
    cdef const cnp.npy_intp *shape = shape_of(array)
    if ndim == inner + 1:
        return shape[inner - 1] == B and shape[inner] == n
    return ndim == inner and B == 1 and shape[inner - 1] == n


cdef inline bint overlap(object one, object other) noexcept:
    """Whether two C-contiguous arrays share memory."""
    cdef const char *a = cnp.PyArray_BYTES(<cnp.ndarray>one)
    cdef const char *b = cnp.PyArray_BYTES(<cnp.ndarray>other)
    return a < b + cnp.PyArray_NBYTES(<cnp.ndarray>other) and b < a + cnp.PyArray_NBYTES(<cnp.ndarray>one)


# ---- Rows.

cdef struct Rows:
    char *data                   # NULL: there is no such array
    Py_ssize_t stride            # from row to row, in bytes
    int size                     # of a real


cdef inline Rows rows_of(const void *data, Py_ssize_t stride, int size) noexcept nogil:
    """Rows with so many reals from one to the next."""
    cdef Rows r
    r.data, r.stride, r.size = <char *>data, stride * size, size
    return r


cdef inline Rows no_rows() noexcept nogil:
    return rows_of(NULL, 0, 0)


cdef inline void *row(const Rows *r, Py_ssize_t i) noexcept nogil:
    return r.data + i * r.stride


cdef inline Rows from_row(const Rows *r, Py_ssize_t i) noexcept nogil:
    """The rows from row i on."""
    cdef Rows t = r[0]
    t.data += i * r.stride
    return t


cdef inline Rows from_column(const Rows *r, Py_ssize_t reals) noexcept nogil:
    """The rows without their first reals."""
    cdef Rows t = r[0]
    t.data += reals * r.size
    return t


cdef inline void copy_row(const Rows *to, Py_ssize_t i, const Rows *source, Py_ssize_t j, Py_ssize_t n) noexcept nogil:
    """Copy the first n reals of a row."""
    memcpy(row(to, i), row(source, j), n * to.size)


cdef inline void zero_row(const Rows *to, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """Zero the first n reals of a row."""
    memset(row(to, i), 0, n * to.size)


cdef inline void zero_behind(const Rows *to, Py_ssize_t i, Py_ssize_t n) noexcept nogil:
    """Zero a row from its n-th real on, up to the next row."""
    memset(<char *>row(to, i) + n * to.size, 0, to.stride - n * to.size)


cdef inline Py_ssize_t bytes_of(Py_ssize_t reals, int size) noexcept nogil:
    return reals * size


# ---- Blocks of memory that are divided into rows and indices.

cdef struct Block:
    char *start                  # NULL while the size is counted
    Py_ssize_t used              # bytes so far


cdef inline Rows rows_in(Block *b, Py_ssize_t n, Py_ssize_t stride, int size) noexcept nogil:
    """The next n rows of a block."""
    cdef Rows r = rows_of(b.start + b.used if b.start != NULL else NULL, stride, size)
    b.used += n * stride * size
    return r


cdef inline Py_ssize_t *indices_in(Block *b, Py_ssize_t n) noexcept nogil:
    """The next n indices of a block. Rows before them must have filled whole vectors."""
    cdef char *first = b.start + b.used if b.start != NULL else NULL
    b.used += n * sizeof(Py_ssize_t)
    return <Py_ssize_t *>first
