# How one call is spread over threads. See _threads.pyx.

cdef struct Split:
    int threads
    bint by_rows  # each thread has batch rows of its own; else units of its own, and a barrier per step

cdef int available() noexcept
cdef Split plan(Py_ssize_t rows, Py_ssize_t panels, size_t weights, double step_work,
                double total_work) noexcept
cdef void share(Py_ssize_t count, int part, int parts, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil
cdef void used_threads() noexcept
cdef int team_size() noexcept nogil
