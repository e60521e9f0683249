"""How long two threads take to meet: what it costs to share each time step, besides the work.

A line of the cache goes from core to core and back, which takes cores more or less time by their distance, and in
virtual machines, which move their cores about. It is measured at the first call for which it matters, and again for
one that comes a second later.
"""

from cython.parallel cimport parallel, threadid

from lstm_fast.engine.runtime.cores cimport lf_cpu, lf_keep_off
from lstm_fast.engine.runtime.kernels cimport (lf_barrier, lf_barrier_init, lf_barrier_wait, lf_counter, lf_counter_set,
                                               lf_now)
from lstm_fast.engine.runtime.threads cimport startable, team_size

cdef enum:
    BATCHES = 24  # the best one counts, in which no core was lost
    MEETINGS = 8  # in each

# Nanoseconds: what takes longer is no meeting of two cores, one of which another program may have had.
cdef long long MOST = 300

# And for how long it holds.
cdef long long VALID = 250_000_000

cdef long long _known = -1
cdef long long _until = 0


cdef void meet(lf_barrier *barrier, int cpu, int thread, int threads, long long *least) noexcept nogil:
    """One thread's part of all batches, off the core of the caller."""
    cdef long long since
    cdef int _batch, _n
    if thread > 0:
        lf_keep_off(cpu)
    for _batch in range(BATCHES):
        since = lf_now()
        for _n in range(MEETINGS):
            lf_barrier_wait(barrier, threads)
        if thread == 0:
            least[0] = min(least[0], (lf_now() - since) // MEETINGS)


cdef long long meeting(bint anew) noexcept:
    """Nanoseconds; 0 if there is no second thread. `anew`: whether it may be measured again."""
    global _known, _until
    cdef lf_barrier barrier
    cdef lf_counter waited
    cdef long long least = 1 << 62
    cdef int cpu = lf_cpu()
    if (_known < 0 or anew) and lf_now() >= _until and startable(2) == 2:
        lf_counter_set(&waited, 0)
        lf_barrier_init(&barrier, &waited)
        with nogil, parallel(num_threads=2):
            meet(&barrier, cpu, threadid(), team_size(), &least)
        _known, _until = min(least, MOST), lf_now() + VALID
    return max(_known, 0)


def assume_meeting(nanoseconds):
    """Take it to be so long; -1: measure it again. Returns what it was taken for. For tests."""
    global _known, _until
    before, _known, _until = _known, nanoseconds, 0 if nanoseconds < 0 else 1 << 62
    return before
