# Backward where one thread computes the steps, and others follow it. See backward_followed.pyx.

from lstm_fast.engine.backward_job cimport BackwardJob, Scratch
from lstm_fast.engine.plan cimport Place
from lstm_fast.engine.runtime.kernels cimport lf_counter


cdef struct Following:
    # Units of work that the steps of a group's layers leave, in their order
    lf_counter taken      # so many,
    lf_counter finished   # and so many; from the first one on, where units wait for others
    lf_counter *waited    # nanoseconds, of all threads: for one another,
    lf_counter *stood_by  # and for the steps

cdef void begin_following(Following *following, lf_counter *waited, lf_counter *stood_by) noexcept
cdef void run_followed(BackwardJob *jobs, const Scratch *scratch, Following *following, Py_ssize_t first_chunk,
                       Py_ssize_t end_chunk, const Place *here) noexcept nogil
