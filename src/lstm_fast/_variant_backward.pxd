# A variant of the cell, backward: see _variant_backward.pyx.

from ._kernels cimport lf_product
from ._layer_backward cimport Job, Scratch

cdef void masked_product(Job *job, lf_product *p, Py_ssize_t first_row) noexcept nogil
cdef void variant_rows(Job *job, const Scratch *scratch, lf_product *p, Py_ssize_t row_at_t, Py_ssize_t in_chunk,
                       Py_ssize_t before, Py_ssize_t first_row, bint goes_on, int part, int parts) noexcept nogil
cdef void variant_gradients(const Job *job, const Scratch *scratch, Py_ssize_t rows, int part,
                            int parts) noexcept nogil
