# Backward where one thread computes the steps, and others follow it. See backward_followed.pyx.

from lstm_fast.engine.backward_job cimport BackwardJob, Scratch
from lstm_fast.engine.following cimport Following
from lstm_fast.engine.plan cimport Place

cdef void run_followed(BackwardJob *jobs, const Scratch *scratch, Following *following, Py_ssize_t first_chunk,
                       Py_ssize_t end_chunk, const Place *here) noexcept nogil
