# Which thread does what in a call of the engine. See plan.pyx.

cdef enum:
    MOST_PIECES = 64   # of a call
    FOLLOWED_ROWS = 3  # of a batch: steps of more are shared as well as what follows them


cdef Py_ssize_t cache_of_core  # bytes of its L2 cache; more than there are where the system does not say


cdef struct Split:
    # How a call is spread over threads.
    int threads
    int groups    # of threads: each has layers or directions of its own
    bint by_rows  # each thread of a group has batch rows of its own; else units, and a barrier per step
    bint followed   # one thread of a group computes the steps, and the others what goes before or comes after
    bint in_pieces  # of rows, a slab of time each, or of units, a step each: helpers take them as they come

cdef Split plan(int jobs, bint chained, int bands, Py_ssize_t steps, Py_ssize_t rows, bint ragged, Py_ssize_t panels,
                size_t weights, double step_work, double total_work, int meetings, bint adaptive,
                bint backward) noexcept

# Time steps of a piece that are taken at once, if no more than so many may be.
cdef Py_ssize_t slab_of(Py_ssize_t steps, Py_ssize_t most) noexcept

# How the packing of so many panels is spread.
cdef Split plan_packing(Py_ssize_t panels, size_t size) noexcept
# The same of any work of so many multiply-adds, in shares that do not depend on one another.
cdef Split plan_shares(Py_ssize_t shares, double work) noexcept


cdef struct Place:
    # Where a thread works: its group, its share of the work of the group, and the jobs of the group.
    int group, part, parts
    Py_ssize_t first_job, end_job

cdef Place place(int thread, int threads, int groups, int jobs) noexcept nogil

cdef inline void share(Py_ssize_t count, int part, int parts, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil:
    """Part `part` of `parts` of 0 .. count - 1, as equal as possible."""
    first[0] = count * part // parts
    end[0] = count * (part + 1) // parts
