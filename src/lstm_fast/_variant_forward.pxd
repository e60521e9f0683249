# A variant of the cell, forward: see _variant_forward.pyx.

from ._kernels cimport lf_cell_forward
from ._layer_forward cimport Job

cdef void normalise_input(Job *job, Py_ssize_t first_t, Py_ssize_t last_t, Py_ssize_t first_row,
                          Py_ssize_t last_row, char *projected) noexcept nogil
cdef void variant_rows(Job *job, const lf_cell_forward *step, Py_ssize_t row_at_t, Py_ssize_t first_row,
                       int part) noexcept nogil
