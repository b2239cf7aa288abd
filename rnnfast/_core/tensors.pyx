# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, freethreading_compatible=True
"""PyTorch's tensors as arrays.

DLPack's exchange API tells where the numbers of a tensor are without a change to the tensor. It is version 1 of the C
interface that `torch.Tensor.__dlpack_c_exchange_api__` points to. `Tensor.numpy()` would forbid for good that its storage is
resized, which FSDP and PyTorch's `out=` do. Source: https://dmlc.github.io/dlpack/latest/c_api.html.
"""

cimport numpy as cnp
from libc.stdint cimport int64_t, uint64_t

from .arrays cimport ANY

import numpy as np

cnp.import_array()

cdef object ndarray = np.ndarray

cdef extern from *:
    """
    typedef struct { int32_t type, id; } dl_device;
    typedef struct { uint8_t code, bits; uint16_t lanes; } dl_dtype;
    typedef struct { uint32_t major, minor; void *older; } dl_header;

    typedef struct {
      void *data;
      dl_device device;
      int32_t ndim;
      dl_dtype dtype;
      int64_t *shape, *strides;
      uint64_t byte_offset;
    } dl_tensor;

    typedef struct {
      dl_header header;
      void *allocate, *export_owned, *import_owned;
      int (*look_at)(void *object, dl_tensor *to);
      void *stream;
    } dl_exchange;

    enum { DL_CPU = 1, DL_FLOAT = 2, DL_VERSION = 1, AXES = 4 };
    """
    ctypedef struct dl_device:
        int type
    ctypedef struct dl_dtype:
        int code, bits, lanes
    ctypedef struct dl_tensor:
        void *data
        dl_device device
        dl_dtype dtype
        int ndim
        int64_t *shape
        int64_t *strides
        uint64_t byte_offset
    ctypedef struct dl_header:
        unsigned int major
    ctypedef struct dl_exchange:
        dl_header header
        int (*look_at)(void *, dl_tensor *) except -1
    enum:
        DL_CPU, DL_FLOAT, DL_VERSION, AXES

cdef extern from "numpy/arrayobject.h":
    object view_of "PyArray_New"(void *, int, const cnp.npy_intp *, int, const cnp.npy_intp *, void *, int, int,
                                 void *)

cdef extern from "Python.h":
    void *PyCapsule_GetPointer(object, const char *) except NULL


cdef class Tensors:
    """Tensors of the two classes of PyTorch, as arrays that share their memory.

    `capsule` is PyTorch's exchange API.
    """
    cdef const dl_exchange *api
    cdef object plain, parameter

    def __cinit__(self, capsule, plain, parameter):
        self.api = <const dl_exchange *>PyCapsule_GetPointer(capsule, "dlpack_exchange_api")
        if self.api.header.major != DL_VERSION or self.api.look_at == NULL:
            raise ImportError(f"DLPack's exchange API has version {self.api.header.major}, expected {DL_VERSION}")
        self.plain, self.parameter = plain, parameter

    def arrays(self, given):
        """Return the arrays, None for None. Or None if not all are on the CPU, of these very classes, with
        plain strides, and all float32 or all float64."""
        cdef list found = []
        cdef int dtype = ANY
        for tensor in given:
            if tensor is not None:
                tensor = self.array(tensor, &dtype)
                if tensor is None:
                    return None
            found.append(tensor)
        return found

    cdef object array(self, object tensor, int *dtype):
        """The array, of `dtype` unless that is ANY, which it sets; or None."""
        cdef dl_tensor t
        cdef cnp.npy_intp shape[AXES]
        cdef cnp.npy_intp strides[AXES]
        cdef int found, size, i
        cdef bint empty = False
        if type(tensor) is not self.parameter and type(tensor) is not self.plain:
            return None
        try:
            self.api.look_at(<void *>tensor, &t)
        except Exception:  # of a sparse tensor, say
            return None
        size = t.dtype.bits // 8
        found = cnp.NPY_FLOAT if size == 4 else cnp.NPY_DOUBLE if size == 8 else ANY
        if dtype[0] == ANY:
            dtype[0] = found
        if (t.device.type != DL_CPU or t.dtype.code != DL_FLOAT or t.dtype.lanes != 1 or t.ndim > AXES
                or found == ANY or found != dtype[0] or tensor.is_neg()):
            return None
        for i in range(t.ndim):
            shape[i], strides[i] = t.shape[i], t.strides[i] * size
            empty |= t.shape[i] == 0
        if t.data == NULL and not empty:  # a tensor of zeros that has no memory
            return None
        array = view_of(<void *>ndarray, t.ndim, shape, found, strides, <char *>t.data + t.byte_offset, 0,
                        cnp.NPY_ARRAY_WRITEABLE | cnp.NPY_ARRAY_ALIGNED, NULL)
        cnp.set_array_base(array, tensor)
        return array
