# How many threads are worth using now. See watch.pyx.


cdef struct Watch:
    # Of one way to share the work of a call.
    int limit           # threads that a call may use; 0: no limit
    long long until     # when one more is tried, on the clock of lf_now
    long long hold      # how long before, in nanoseconds
    double rest         # nanoseconds that calls have to take before that, too
    long long tries     # calls that have tried it since
    long long credit    # nanoseconds saved lately
    long long calls     # that told of their time

cdef Watch of_teams     # equal shares
cdef Watch of_pieces    # small ones

cdef bint watching() noexcept
cdef inline bint unlimited(const Watch *watch) noexcept:
    """Whether calls may use two threads, and not just to try."""
    return watch.limit == 0 or watch.limit > 1
cdef int usable(Watch *watch, int threads, double work) noexcept
cdef void learn(Watch *watch, int threads, long long time, long long alone, long long late) noexcept
