# How one call is spread over threads. See _threads.pyx.

cdef struct Split:
    int threads
    int groups    # of threads: each has layers or directions of its own
    bint by_rows  # each thread of a group has batch rows of its own; else units, and a barrier per step

cdef int available() noexcept
cdef Split plan(int jobs, bint chained, Py_ssize_t steps, Py_ssize_t rows, bint ragged, Py_ssize_t panels,
                size_t weights, double step_work, double total_work) noexcept
cdef struct Place:
    int group, part, parts        # of a thread: its group, and its share of the work of the group
    Py_ssize_t first_job, last_job

cdef Place place(int thread, int threads, int groups, int jobs) noexcept nogil
cdef void share(Py_ssize_t count, int part, int parts, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil
cdef void used_threads() noexcept
cdef int team_size() noexcept nogil
