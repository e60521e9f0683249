"""Which thread does what in a call of the engine, forward or backward."""

from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid

from lstm_fast.engine.runtime.gemm import held_to_one_thread
from lstm_fast.engine.runtime.kernels cimport lf_fpenv, lf_fpenv_enter, lf_fpenv_leave
from lstm_fast.engine.runtime.threads cimport available, startable, team_size


# Multiply-adds below which another thread does not pay: in a call, since it has to be woken, and in one
# thread's part of a time step, since threads meet after it. A call of 3e5 takes 15 to 25 microseconds on
# one thread; a step of 1.6e4 takes 1.0, and 0.6 on two.
cdef double CALL_WORK = 3e5
cdef double STEP_WORK = 6e3
# Batch rows that fill a register tile well enough.
cdef Py_ssize_t TILE_ROWS = 3
# Recurrent weights that every core can keep in its own L2 cache beside the rest.
cdef size_t CACHED_WEIGHTS = 1 << 19
# Time steps from which a pipeline of layers is worth filling.
cdef Py_ssize_t PIPELINE_STEPS = 8


cdef Split plan(int jobs, bint chained, Py_ssize_t steps, Py_ssize_t rows, bint ragged, Py_ssize_t panels,
                size_t weights, double step_work, double total_work) noexcept:
    """How to split a call over threads.

    It has so many jobs: layers that are chained, each the input of the next, or directions of one layer.
    `step_work` counts the multiply-adds of a time step of one job, `total_work` those of the call.

    Two directions are independent: each gets half of the threads, and every core reads the weights of one.

    Batch rows are independent: with enough of them each thread runs its own through all time steps and
    meets nobody, which tolerates a preempted core. But then every core reads all recurrent weights
    (`weights` bytes) at every step, and in a `ragged` batch few long rows are as much work as many short
    ones, but fill tiles less well. Otherwise threads share the units of each step (`panels` of them) and wait
    for one another after it.

    Where the steps are too short for that, chained layers form a pipeline (a wavefront): each group of
    threads has layers of its own and runs a chunk of time behind the group below.

    Measured with AVX-512 on two cores, speed on two threads over one, for (T, B, I, H):

        (100, 1, 64, 64)      units 1.65                (100, 8, 128, 256)    rows 1.94, units 1.99
        (100, 1, 256, 256)    units 2.08                (50, 16, 16, 16)      rows 1.54, units 0.97
        (100, 4, 32, 32)      rows 1.48, units 1.39     (50, 32, 16, 32)      rows 1.81, units 1.79
        (100, 8, 64, 64)      rows 1.84, units 1.83     (5, 64, 1024, 1024)   rows 1.92, units 2.01
        (100, 1, 16, 32)      units 0.70: one thread
    """
    cdef Split split
    cdef int most = available() if total_work >= CALL_WORK else 1, each
    split.groups = min(jobs, most) if not chained else 1
    most //= split.groups
    cdef Py_ssize_t by_rows = min(most, rows // TILE_ROWS)
    cdef Py_ssize_t by_units = min(most, panels, <Py_ssize_t>(step_work / STEP_WORK))
    if ragged or weights > CACHED_WEIGHTS:
        split.by_rows = by_rows > 1 and by_units < 2
    else:
        split.by_rows = by_rows > 1 and by_rows >= by_units
    each = <int>max(1, by_rows if split.by_rows else by_units)
    if chained and not split.by_rows and steps >= PIPELINE_STEPS:
        split.groups = max(1, min(jobs, most // each))
    split.threads = each * split.groups
    return split


cdef Place place(int thread, int threads, int groups, int jobs) noexcept nogil:
    """Where a thread works: groups share the threads and the jobs. There may be fewer threads than groups."""
    cdef Place found
    cdef Py_ssize_t first = 0, end = 0
    groups = min(groups, threads)
    found.group = 0
    share(threads, 0, groups, &first, &end)
    while thread >= end:
        found.group += 1
        share(threads, found.group, groups, &first, &end)
    found.part, found.parts = thread - <int>first, <int>(end - first)
    share(jobs, found.group, groups, &found.first_job, &found.end_job)
    return found


# Multiply-adds of one thread between two looks at signals: 0.1 to 0.3 s.
cdef double WORK_PER_SIGNAL_CHECK = 4e9


cdef void run_on(const Schedule *schedule, Py_ssize_t first, Py_ssize_t end, int thread, int threads) noexcept nogil:
    """One thread's share of some units of time, in the floating-point environment of the kernels."""
    cdef lf_fpenv saved = lf_fpenv_enter()
    cdef Place here = place(thread, threads, schedule.split.groups, schedule.jobs)
    schedule.run(schedule.call, first, end, &here)
    lf_fpenv_leave(saved)


cdef void run(const Schedule *schedule, Py_ssize_t first, Py_ssize_t end) noexcept:
    """Some units of time, without the GIL."""
    cdef int threads = schedule.split.threads
    if threads > 1:
        threads = startable(threads)
    if threads == 1:
        with nogil:
            run_on(schedule, first, end, 0, 1)
    else:
        with nogil, parallel(num_threads=threads):
            run_on(schedule, first, end, threadid(), team_size())


cdef void run_segments(const Schedule *schedule) except *:
    """All units of time, looking at signals after every segment."""
    cdef Py_ssize_t first = 0, count = schedule.count
    cdef double units = WORK_PER_SIGNAL_CHECK * schedule.split.threads * count / (schedule.work + 1)
    cdef Py_ssize_t segment = <Py_ssize_t>min(<double>count, 1 + units)
    while first < count:
        run(schedule, first, min(first + segment, count))
        first += segment
        PyErr_CheckSignals()


cdef void run_all(const Schedule *schedule, bint blas) except *:
    """Run a call. With `blas`, our threads call BLAS, each on its slice."""
    if blas:
        with held_to_one_thread():
            run_segments(schedule)
    else:
        run_segments(schedule)
