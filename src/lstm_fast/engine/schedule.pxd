# The threads of a call of the engine. See schedule.pyx.

from lstm_fast.engine.plan cimport MOST_PIECES, Place, Split
from lstm_fast.engine.runtime.kernels cimport lf_counter

cdef enum:
    MOST_KNOWN = 64  # threads of a team that may be brought, and numbers of helpers


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
    const double *cost         # of the units of a period, as multiples of one another; NULL: all cost the same
    int period
    lf_counter[MOST_PIECES] taken  # slabs of each piece that somebody has taken,
    lf_counter[MOST_PIECES] slabs  # and that are done
    lf_counter done            # slabs of all pieces
    # What threads tell of their time, in nanoseconds since the call began
    lf_counter cpu             # of the first thread
    lf_counter[MOST_KNOWN] name   # of each thread, once it has begun
    lf_counter[MOST_KNOWN] holds  # the piece of a slab that it computes; or that it has none, or is not there
    lf_counter ran             # on a core: of all threads of a team
    lf_counter waited          # for one another: of all threads
    lf_counter stood_by        # the same, of those who follow one that computes the steps: not for want of a core
    lf_counter late            # until they began
    lf_counter ended           # until they had nothing more to do
    lf_counter last            # the last of these
    lf_counter finished        # threads of a team
    lf_counter at_the_end      # that the first thread waited for the others
    lf_counter least           # with pieces: of what all of it would take each thread alone

cdef void begin(Schedule *schedule, Split split, int jobs, Py_ssize_t count, double work, void *call,
                void (*run)(void *, Py_ssize_t, Py_ssize_t, const Place *) noexcept nogil) noexcept
cdef void run_all(Schedule *schedule, bint blas) except *
