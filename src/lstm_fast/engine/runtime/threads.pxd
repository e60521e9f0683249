# How many threads there are. See threads.pyx.

cdef int available() noexcept
cdef int startable(int threads) noexcept
cdef int team_size() noexcept nogil
