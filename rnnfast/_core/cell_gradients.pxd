from .cell_plans cimport Plan
from .cells cimport CellPass

cdef object input_gradient(const CellPass *c, plan, shape, dtype, int threads)
cdef dict weight_gradients(const CellPass *c, Plan compiled, dtype, int threads)
