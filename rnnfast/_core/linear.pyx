# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""y = x weight^T + bias for many rows, and its gradients, by the products of csrc/product.h.

Arrays are C-contiguous and of one dtype, which the caller has checked. Rows are shared out to threads: no sum is cut.
"""

cimport numpy as cnp
from libc.string cimport memset

from .abi cimport (
    rnnfast_factor, rnnfast_flush_enter, rnnfast_flush_leave, rnnfast_kernels, rnnfast_product, rnnfast_wgrad,
)
from .arrays cimport ANY, Arrays, Rows, arrays_of, new, row, rows_of, shape_of, take
from .cell_plans cimport data_of
from .config cimport alloc, free, padded, share, table, useful_threads

import numpy as np

from .cell_plans import empty

cnp.import_array()

cdef Py_ssize_t ROWS = 128  # of a part, at least


cdef class Weights:
    """Weights packed for one direction, a copy."""
    cdef void *memory

    def __dealloc__(self):
        free(self.memory)


cdef Weights pack(const rnnfast_kernels *k, weight, bint back):
    """Pack (O, I) weights: for x times them, or for dy."""
    cdef Py_ssize_t O = weight.shape[0], I = weight.shape[1], i, rows = padded(k, O)
    cdef Rows given = rows_of(data_of(weight), I, k.size)
    cdef Weights w = Weights.__new__(Weights)
    cdef const void **row_of = <const void **>alloc(rows * sizeof(void *))
    w.memory = alloc((O * padded(k, I) if back else rows * I) * k.size + 64)
    if row_of == NULL or w.memory == NULL:
        free(row_of)
        raise MemoryError()
    memset(row_of, 0, rows * sizeof(void *))
    for i in range(O):
        row_of[i] = row(&given, i)
    if back:
        k.pack_weights_back(row_of, O, I, w.memory)
    else:
        k.pack_weights(row_of, O, I, w.memory)
    free(row_of)
    return w


cdef struct Job:
    const rnnfast_kernels *k
    Rows source, to
    Py_ssize_t rows, K, columns, parts
    const void *weights
    const void *bias             # or NULL
    rnnfast_wgrad g              # of the weights' gradient


cdef object run(const rnnfast_kernels *k, source, Weights weights, bias, Py_ssize_t columns, int threads):
    """Source (N, K) times packed weights, plus a bias: (N, columns)."""
    to = empty((source.shape[0], columns), source.dtype)
    multiply(k, data_of(source), source.shape[0], source.shape[1], weights, bias, <void *>data_of(to), columns, threads)
    return to


cdef int multiply(const rnnfast_kernels *k, const void *source, Py_ssize_t N, Py_ssize_t K, Weights weights, bias,
                  void *to, Py_ssize_t columns, int threads) except -1:
    """`to` (N, columns) = source (N, K) times packed weights, plus a bias or None."""
    cdef Job job
    job.k, job.rows, job.K, job.columns, job.parts = k, N, K, columns, max(N // ROWS, 1)
    job.source, job.to = rows_of(source, K, k.size), rows_of(to, columns, k.size)
    job.weights, job.bias = weights.memory, data_of(bias)
    threads = useful_threads(2.0 * N * K * columns, threads)
    with nogil:
        share(job.parts, threads, False, product_part, &job)
    return 0


cdef int product_part(void *to_do, Py_ssize_t part) noexcept nogil:
    cdef const Job *job = <const Job *>to_do
    cdef Py_ssize_t first = part * job.rows // job.parts, last = (part + 1) * job.rows // job.parts
    cdef unsigned long flush = rnnfast_flush_enter()
    cdef rnnfast_factor factor
    cdef rnnfast_product p
    factor.a, factor.stride, factor.K, factor.row_index = row(&job.source, first), job.K, job.K, NULL
    factor.weights = job.weights
    p.rows, p.columns, p.factor, p.factors, p.init, p.init_stride = last - first, job.columns, &factor, 1, job.bias, 0
    p.c, p.c_stride, p.c_row_index = row(&job.to, first), job.columns, NULL
    p.whole_vectors = job.columns % job.k.lanes == 0
    job.k.multiply(&p)
    rnnfast_flush_leave(flush)
    return 0


cdef class Packed:
    """A weight and a bias as they were, packed once for many calls."""
    cdef const rnnfast_kernels *k
    cdef Weights weights
    cdef object bias             # or None
    cdef Py_ssize_t I, O
    cdef int dtype

    def __init__(self, weight, bias):
        self.dtype = cnp.NPY_FLOAT if weight.dtype == np.float32 else cnp.NPY_DOUBLE
        self.k = table(self.dtype)
        self.weights, self.bias = pack(self.k, weight, False), None if bias is None else bias.copy()
        self.O, self.I = weight.shape

    def __call__(self, x, int threads):
        """Return y (..., O) for x (..., I). For an x that is not plain, or of another dtype or shape, return None."""
        cdef Arrays a = arrays_of(self.dtype)
        cdef const void *data = take(&a, x, ANY, ANY)
        cdef const cnp.npy_intp *n
        cdef void *to
        cdef int ndim
        if not a.plain or data == NULL:
            return None
        ndim, n = cnp.PyArray_NDIM(<cnp.ndarray>x), shape_of(x)
        if not 1 <= ndim <= 3 or n[ndim - 1] != self.I:
            return None
        if ndim == 1:
            y = new(&a, &to, 1, self.O)
        elif ndim == 2:
            y = new(&a, &to, 2, n[0], self.O)
        else:
            y = new(&a, &to, 3, n[0], n[1], self.O)
        multiply(self.k, data, cnp.PyArray_SIZE(<cnp.ndarray>x) // self.I, self.I, self.weights, self.bias, to, self.O,
                 threads)
        return y


cdef class Tape:
    """What backward needs: x, and the weights as they were."""
    cdef object x
    cdef Weights weights
    cdef readonly bint used


def forward(x, weight, bias, bint need_tape, int threads):
    """Return y (N, O) for x (N, I), and a tape or None."""
    cdef const rnnfast_kernels *k = table(cnp.NPY_FLOAT if x.dtype == np.float32 else cnp.NPY_DOUBLE)
    cdef Tape tape = None
    if need_tape:
        tape = Tape.__new__(Tape)
        tape.x, tape.weights = x, pack(k, weight, True)
    return run(k, x, pack(k, weight, False), bias, weight.shape[0], threads), tape


def backward(Tape tape not None, dy, int threads):
    """Return the gradients of x, the weight and the bias, for dy (N, O)."""
    cdef const rnnfast_kernels *k = table(cnp.NPY_FLOAT if dy.dtype == np.float32 else cnp.NPY_DOUBLE)
    cdef Py_ssize_t N = dy.shape[0], O = dy.shape[1], I = tape.x.shape[1], panels = padded(k, O) // k.lanes
    cdef Rows given = rows_of(data_of(dy), O, k.size), whole
    cdef rnnfast_wgrad *g
    cdef Job job
    tape.used = True
    dx = run(k, dy, tape.weights, None, I, threads)
    dweight, dbias, dz = np.empty((O, I), dy.dtype), np.empty(padded(k, O), dy.dtype), dy
    if O % k.lanes:  # rows of whole vectors
        dz = empty((N, padded(k, O)), dy.dtype)
        whole = rows_of(data_of(dz), padded(k, O), k.size)
        k.copy_rows(N, O, given.data, O, NULL, whole.data, padded(k, O))
    g = &job.g
    memset(g, 0, sizeof(rnnfast_wgrad))
    g.K, g.H, g.dz, g.dz_stride, g.slots, g.terms = N, O, data_of(dz), padded(k, O), 1, 1
    g.bias = <void *>data_of(dbias)
    g.term[0].n, g.term[0].vec_stride, g.term[0].slots = I, k.lanes, 1
    g.term[0].b, g.term[0].b_stride = data_of(tape.x), I
    g.term[0].c, g.term[0].c_stride = <void *>data_of(dweight), I
    threads = useful_threads(2.0 * N * I * O, threads)
    job.k, job.parts = k, min(threads, max((panels + 3) // 4, 1))
    job.columns = panels
    with nogil:
        failed = share(job.parts, threads, False, weight_part, &job)
    if failed:
        raise MemoryError()
    return dx, dweight, dbias[:O]


cdef int weight_part(void *to_do, Py_ssize_t part) noexcept nogil:
    """Some panels of the weights' gradient. Returns nonzero if there is no memory."""
    cdef const Job *job = <const Job *>to_do
    cdef unsigned long flush
    cdef void *scratch = alloc(job.k.wgrad_scratch(&job.g) * job.k.size)
    if scratch == NULL:
        return 1
    flush = rnnfast_flush_enter()
    job.k.wgrad(&job.g, job.columns * part // job.parts, job.columns * (part + 1) // job.parts, scratch)
    rnnfast_flush_leave(flush)
    free(scratch)
    return 0
