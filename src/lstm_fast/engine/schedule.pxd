# Which thread does what in a call of the engine. See schedule.pyx.


cdef struct Split:
    # How a call is spread over threads.
    int threads
    int groups    # of threads: each has layers or directions of its own
    bint by_rows  # each thread of a group has batch rows of its own; else units, and a barrier per step

cdef Split plan(int jobs, bint chained, Py_ssize_t steps, Py_ssize_t rows, bint ragged, Py_ssize_t panels,
                size_t weights, double step_work, double total_work) noexcept


cdef struct Place:
    # Where a thread works: its group, its share of the work of the group, and the jobs of the group.
    int group, part, parts
    Py_ssize_t first_job, end_job

cdef inline void share(Py_ssize_t count, int part, int parts, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil:
    """Part `part` of `parts` of 0 .. count - 1, as equal as possible."""
    first[0] = count * part // parts
    end[0] = count * (part + 1) // parts


cdef struct Schedule:
    # A call: units of time (steps or chunks) that threads go through together.
    Split split
    int jobs                   # layers or directions
    Py_ssize_t count           # units of time
    double work                # multiply-adds of all of it
    const void *call           # what `run` knows of the call
    void (*run)(const void *call, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil

cdef void run_all(const Schedule *schedule, bint blas) except *
