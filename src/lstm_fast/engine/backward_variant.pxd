# A variant of the cell, backward: see backward_variant.pyx.

from lstm_fast.engine.backward_job cimport BackwardJob, Scratch
from lstm_fast.engine.runtime.kernels cimport lf_product
from lstm_fast.engine.tape cimport Tape

cdef void set_up_variant(BackwardJob *job, Tape tape, dict grads) except *
cdef void masked_product(BackwardJob *job, lf_product *p, Py_ssize_t first_row) noexcept nogil
cdef void variant_rows(BackwardJob *job, const Scratch *scratch, lf_product *p, Py_ssize_t row_at_t,
                       Py_ssize_t in_chunk, Py_ssize_t before, Py_ssize_t first_row, bint goes_on, int part,
                       int parts) noexcept nogil
cdef void variant_gradients(const BackwardJob *job, const Scratch *scratch, Py_ssize_t rows, int part,
                            int parts) noexcept nogil
