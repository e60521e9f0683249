# How many threads there are. See threads.pyx.

cdef int available() noexcept
cdef void at_most(int n) noexcept
cdef int startable(int threads) noexcept
cdef int team_size() noexcept nogil
cdef int cpu() noexcept nogil
cdef void keep_off(int cpu) noexcept nogil
cdef int own_name() noexcept nogil
cdef long long time_of_thread(int thread) noexcept nogil
cdef void bring(int thread) noexcept nogil
