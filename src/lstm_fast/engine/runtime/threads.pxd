# How many threads there are. See threads.pyx.

cdef int available() noexcept
cdef void at_most(int n) noexcept
cdef int startable(int threads) noexcept
cdef int team_size() noexcept nogil
