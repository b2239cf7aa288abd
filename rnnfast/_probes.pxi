# What only tests ask for: part of _kernels.pyx.

def memory_now():
    """Bytes of the blocks in use, and the bytes and the number of blocks kept for later calls (csrc/memory.c)."""
    cdef rnnfast_memory now = rnnfast_memory_now()
    return now.used, now.kept, now.blocks


def refuse_memory(long n):
    """Let the n-th allocation of a block from now on fail; 0: none. Return how far the count of the last call had
    come: 0 or less if its allocation has failed."""
    return rnnfast_memory_refuse(n)


def hold_kept_memory(bint hold):
    """Take the lock of the kept blocks, or release it. A fork may leave it taken."""
    rnnfast_memory_hold(hold)


cdef struct FloatStates:
    uint64_t *state              # of each thread
    unsigned long new
    bint change


def float_states(int threads, new=None):
    """Return the register that controls floating-point arithmetic (x86: mxcsr, ARM: fpcr) of this thread and of
    OpenMP's others, `threads` in all. Then set it to `new` unless that is None."""
    cdef uint64_t[::1] found = np.zeros(threads, np.uint64)
    cdef FloatStates job
    job.state, job.change, job.new = &found[0], new is not None, new or 0
    with nogil:
        rnnfast_share(threads, threads, True, float_state, &job)
    return list(found)


cdef int float_state(void *to_do, Py_ssize_t i) noexcept nogil:
    cdef const FloatStates *job = <const FloatStates *>to_do
    job.state[i] = rnnfast_flush_enter()
    rnnfast_flush_leave(job.new if job.change else job.state[i])
    return 0
