# Which thread does what in a call of the engine. See schedule.pyx.

from lstm_fast.engine.runtime.kernels cimport lf_counter

cdef enum:
    MOST_PIECES = 64
    MOST_KNOWN = 64  # threads of a team that may be brought, and numbers of helpers


cdef struct Split:
    # How a call is spread over threads.
    int threads
    int groups    # of threads: each has layers or directions of its own
    bint by_rows  # each thread of a group has batch rows of its own; else units, and a barrier per step
    bint in_pieces  # of rows, a slab of time each, or units, a step each: helpers take them as they come

cdef Split plan(int jobs, bint chained, Py_ssize_t steps, Py_ssize_t rows, bint ragged, Py_ssize_t panels,
                size_t weights, double step_work, double total_work, bint adaptive, bint by_steps) noexcept

cdef Py_ssize_t slab_of(Py_ssize_t steps, Py_ssize_t most) noexcept

# How the packing of so many panels is spread.
cdef Split plan_packing(Py_ssize_t panels, size_t size) noexcept
# The same of any work of so many multiply-adds, in shares that do not depend on one another.
cdef Split plan_shares(Py_ssize_t shares, double work) noexcept


cdef struct Place:
    # Where a thread works: its group, its share of the work of the group, and the jobs of the group.
    int group, part, parts
    Py_ssize_t first_job, end_job

cdef inline void share(Py_ssize_t count, int part, int parts, Py_ssize_t *first, Py_ssize_t *end) noexcept nogil:
    """Part `part` of `parts` of 0 .. count - 1, as equal as possible."""
    first[0] = count * part // parts
    end[0] = count * (part + 1) // parts


cdef struct Schedule:
    # A call: units of time (steps, chunks, or phases of these) that threads go through together.
    Split split
    int jobs                   # layers or directions
    Py_ssize_t count           # units of time
    double work                # multiply-adds of all of it
    void *call                 # what `run` knows of the call
    void (*run)(void *call, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil
    # Now: these of the units, begun at that time; 0 where it is not watched
    Py_ssize_t first, end
    long long since
    # With pieces:
    Py_ssize_t slab            # units of time of a piece that are taken at once
    bint meet                  # a slab comes after all pieces of the slab before, else after its own piece of it
    lf_counter taken           # pieces of slabs
    lf_counter done
    lf_counter[MOST_PIECES] slabs  # done, of each piece
    # What threads tell of their time, in nanoseconds since the call began
    lf_counter cpu             # of the first thread
    lf_counter[MOST_KNOWN] name   # of each thread, once it has begun
    lf_counter[MOST_KNOWN] holds  # the piece of a slab that it computes; or that it has none, or is not there
    lf_counter waited          # for one another: of all threads
    lf_counter late            # until they began
    lf_counter ended           # until they had nothing more to do
    lf_counter last            # the last of these
    lf_counter finished        # threads of a team
    lf_counter at_the_end      # that the first thread waited for the others
    lf_counter least           # with pieces: of what all of it would take each thread alone

cdef void begin(Schedule *schedule, Split split, int jobs, Py_ssize_t count, double work, void *call,
                void (*run)(void *, Py_ssize_t, Py_ssize_t, const Place *) noexcept nogil) noexcept
cdef void run_all(Schedule *schedule, bint blas) except *
