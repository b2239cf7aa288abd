# csrc/rnnfast.h, which says what everything means. Only `config` links the C code: functions that are called by name
# (rnnfast_alloc and so on) are for it alone, others find them in config.pxd.

cimport numpy as cnp  # its headers come first
from libc.stdint cimport uint8_t

cdef extern from *:
    """
    #undef I  /* of complex.h, which NumPy's headers include: here it is the input size */
    """

cdef extern from "rnnfast.h" nogil:
    int RNNFAST_RNN, RNNFAST_GRU, RNNFAST_GRU_RESET_BEFORE, RNNFAST_LSTM
    int RNNFAST_FORWARD, RNNFAST_ONE_STEP, RNNFAST_BACKWARD
    int RNNFAST_TANH, RNNFAST_RELU, RNNFAST_SIGMOID, RNNFAST_IDENTITY

    ctypedef struct rnnfast_cell:
        const char *name
        int gates, slots, has_c, has_w_hn

    ctypedef struct rnnfast_weights:
        int cell, act
        Py_ssize_t I, H, P
        const void *w_ih
        const void *w_hh
        const void *b_ih
        const void *b_hh
        const void *w_hr

    ctypedef struct rnnfast_packed:
        int cell, act
        Py_ssize_t I, H, P
        const void *w_hr

    ctypedef struct rnnfast_step:
        Py_ssize_t rows
        const Py_ssize_t *row_index
        const void *x
        const void *x_projected
        void *h
        void *h_next
        void *y
        const void *c
        void *c_next
        void *gates
        const uint8_t *reset
        int preactivations_ready
        int outputs_cold
        int reverse_panels
        void *work
        Py_ssize_t x_stride, x_projected_stride, h_stride, h_next_stride, y_stride, c_stride, gates_stride, work_stride

    ctypedef struct rnnfast_dstep:
        Py_ssize_t rows
        const Py_ssize_t *row_index
        void *gates
        const rnnfast_dstep *next
        const void *h
        const void *c
        const void *c_next
        const void *dy
        void *dh
        void *dc
        const uint8_t *reset
        void *h_raw
        void *dh_sum
        void *work
        Py_ssize_t gates_stride, h_stride, c_stride, dy_stride, dh_stride, dc_stride, h_raw_stride, dh_sum_stride, work_stride

    ctypedef struct rnnfast_term:
        const void *b
        const Py_ssize_t *row_index
        Py_ssize_t b_stride, n, vec_stride
        void *c
        Py_ssize_t c_stride
        int first_slot, slots
        int gate[4]

    ctypedef struct rnnfast_wgrad:
        Py_ssize_t K, H
        const void *dz
        Py_ssize_t dz_stride
        int slots, terms
        rnnfast_term term[3]
        void *bias

    ctypedef struct rnnfast_instruction:
        pass

    ctypedef struct rnnfast_array:
        void *at
        Py_ssize_t stride
        int local

    ctypedef struct rnnfast_factor:
        const void *a
        const Py_ssize_t *row_index
        Py_ssize_t stride, K
        const void *weights

    ctypedef struct rnnfast_product:
        Py_ssize_t rows, columns
        const rnnfast_factor *factor
        Py_ssize_t factors
        const void *init
        Py_ssize_t init_stride
        void *c
        const Py_ssize_t *c_row_index
        Py_ssize_t c_stride
        int whole_vectors

    ctypedef struct rnnfast_kernels:
        const char *isa
        int size, lanes, tile_rows
        size_t (*packed_size)(const rnnfast_weights *, int) noexcept nogil
        void (*pack)(const rnnfast_weights *, int, void *, rnnfast_packed *, int, int) noexcept nogil
        void (*step[4])(const rnnfast_packed *, const rnnfast_step *) noexcept nogil
        void (*dstep[4])(const rnnfast_packed *, const rnnfast_dstep *) noexcept nogil
        void (*one_step)(const rnnfast_weights *, const rnnfast_packed *, const void *, const void *,
                         void *) noexcept nogil
        void (*project)(const rnnfast_packed *, Py_ssize_t, const void *, const Py_ssize_t *,
                        void *) noexcept nogil
        void (*dinput)(const rnnfast_packed *, Py_ssize_t, const void *, void *,
                       const Py_ssize_t *) noexcept nogil
        void (*wgrad_plan)(const rnnfast_packed *, Py_ssize_t, const void *, const void *,
                           const Py_ssize_t *, const void *, Py_ssize_t, const Py_ssize_t *, void *, void *,
                           void *, rnnfast_wgrad *) noexcept nogil
        void (*bias_grads)(const rnnfast_packed *, const void *, void *, void *) noexcept nogil
        size_t (*wgrad_scratch)(const rnnfast_wgrad *) noexcept nogil
        void (*wgrad)(const rnnfast_wgrad *, Py_ssize_t, Py_ssize_t, void *) noexcept nogil
        void (*math)(int, Py_ssize_t, const void *, void *) noexcept nogil
        double (*peak)(long) noexcept nogil
        void (*run_program)(const rnnfast_instruction *, Py_ssize_t, const rnnfast_array *, Py_ssize_t,
                            Py_ssize_t) noexcept nogil
        void (*copy_rows)(Py_ssize_t, Py_ssize_t, const void *, Py_ssize_t, const Py_ssize_t *, void *,
                          Py_ssize_t) noexcept nogil
        void (*pack_weights)(const void *const *, Py_ssize_t, Py_ssize_t, void *) noexcept nogil
        void (*pack_weights_back)(const void *const *, Py_ssize_t, Py_ssize_t, void *) noexcept nogil
        void (*multiply)(const rnnfast_product *) noexcept nogil

    const char *const *rnnfast_isas()
    const rnnfast_cell *rnnfast_cell_of(int)
    const rnnfast_kernels *rnnfast_table(const char *, int)
    void *rnnfast_alloc(size_t)
    void *rnnfast_alloc_result(size_t)
    void rnnfast_free(void *)
    ctypedef struct rnnfast_memory:
        size_t used, kept
        int blocks
    rnnfast_memory rnnfast_memory_now()
    long rnnfast_memory_refuse(long)
    void rnnfast_memory_hold(int)
    int RNNFAST_MAX_THREADS
    ctypedef int rnnfast_task(void *, Py_ssize_t) noexcept nogil
    int rnnfast_share(Py_ssize_t, int, int, rnnfast_task *, void *)
    ctypedef struct rnnfast_shared:
        long calls, tasks, threads
    rnnfast_shared rnnfast_shared_so_far()
    int rnnfast_paying_threads(int)
    const char *rnnfast_compiler()

cdef extern from "float_state.h" nogil:
    unsigned long rnnfast_flush_enter()
    void rnnfast_flush_leave(unsigned long)
