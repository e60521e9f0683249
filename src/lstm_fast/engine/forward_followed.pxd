# Forward where one thread computes the steps, and others project the input. See forward_followed.pyx.

from lstm_fast.engine.following cimport Following
from lstm_fast.engine.forward_job cimport ForwardJob
from lstm_fast.engine.plan cimport Place

cdef enum:
    ROOMS = 4  # for chunks of projected input, in turn

cdef void run_followed(ForwardJob *job, Following *following, char *projected, size_t room, Py_ssize_t first_chunk,
                       Py_ssize_t end_chunk, const Place *here) noexcept nogil
cdef Py_ssize_t chunks_of(const ForwardJob *job) noexcept nogil
