# A variant of the cell, forward: see forward_variant.pyx.

from lstm_fast.engine.cell cimport Cell
from lstm_fast.engine.forward_job cimport ForwardJob
from lstm_fast.engine.runtime.kernels cimport lf_cell_forward
from lstm_fast.engine.tape cimport Noise, Tape

cdef void set_up_variant(ForwardJob *job, Cell cell, Noise noise, Tape tape) except *
cdef void normalise_input(ForwardJob *job, Py_ssize_t chunk_t, Py_ssize_t first_t, Py_ssize_t end_t,
                          Py_ssize_t first_row, Py_ssize_t end_row, char *projected) noexcept nogil
cdef void variant_rows(ForwardJob *job, const lf_cell_forward *step, Py_ssize_t row_at_t, Py_ssize_t first_row,
                       int part, int parts, char *operands) noexcept nogil
