from .sequence cimport Pass

cdef struct Gradients:           # where those of one call go; NULL: not wanted
    void *x
    void *w_ih
    void *w_hh
    void *b_ih
    void *b_hh
    void *w_hr


cdef int add_up_gradients(const Pass *f, const Gradients *to, int threads) except -1
