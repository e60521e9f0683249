"""Threads: how many, how the work is split over them, and forks. The only module that asks OpenMP."""

import os

cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    #define LF_OPENMP _OPENMP
    #else
    #define LF_OPENMP 0
    static inline int omp_get_max_threads(void) { return 1; }
    static inline int omp_get_num_threads(void) { return 1; }
    static inline int omp_get_num_procs(void) { return 1; }
    #endif
    """
    const int LF_OPENMP
    int omp_get_max_threads() nogil
    int omp_get_num_threads() nogil
    int omp_get_num_procs() nogil

cdef extern from "<pthread.h>" nogil:
    int pthread_atfork(void (*prepare)() noexcept, void (*parent)() noexcept, void (*child)() noexcept)

cdef int _requested = 0        # set_num_threads; 0: as many as the environment allows
cdef int _omp_at_import = omp_get_max_threads()
cdef bint _ask_system = True   # OMP_NUM_THREADS is not set: affinity mask and control group decide
cdef int _quota = 0            # CPUs that the control group grants; 0: no limit
cdef bint _pool_used = False   # GNU OpenMP's pool exists
cdef bint _pool_lost = False   # and did not survive a fork: another parallel region would hang


cdef void _after_fork() noexcept nogil:
    global _pool_lost
    _pool_lost = _pool_used

pthread_atfork(NULL, NULL, _after_fork)


def _read(path):
    with open(path) as file:
        return file.read()


def _cpu_quota():
    """CPUs granted by the control group (version 2 or 1), rounded up; 0 without a limit."""
    base = "/sys/fs/cgroup"
    for paths in ([f"{base}/cpu.max"], [f"{base}/cpu/cpu.cfs_quota_us", f"{base}/cpu/cpu.cfs_period_us"]):
        try:
            words = " ".join(map(_read, paths)).split()
            quota, period = int(words[0]), int(words[1])
        except (OSError, ValueError, IndexError):
            continue
        if quota > 0 and period > 0:
            return -(-quota // period)
    return 0


if os.environ.get("OMP_NUM_THREADS"):
    _ask_system = False
else:
    _quota = _cpu_quota()


cdef int available() noexcept:
    """Threads that a call from this thread may use.

    `set_num_threads` decides, else OpenMP's own number, cut to the affinity mask and the control group
    unless OMP_NUM_THREADS is set. A `threadpoolctl` limit on OpenMP, which shows as a number lower than at
    import, always holds. In a child forked after threads were in use, one.
    """
    if _pool_lost or not LF_OPENMP:
        return 1
    cdef int omp = omp_get_max_threads()
    if _requested:
        return min(_requested, omp) if omp < _omp_at_import else _requested
    if _ask_system:
        omp = min(omp, omp_get_num_procs())
    return min(omp, _quota) if _quota else omp


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
    meets nobody, which also bears with a core that is taken away for a while. But then every core reads all
    recurrent weights (`weights` bytes) at every step, and in a `ragged` batch few long rows are as much work as many
    short ones, but fill tiles less well. Otherwise threads share the units of each step (`panels` of them) and
    wait for one another after it.

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


cdef void share(Py_ssize_t count, int part, int parts, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil:
    """Part `part` of `parts` of 0 .. count - 1, as equal as possible."""
    first[0] = count * part // parts
    last[0] = count * (part + 1) // parts


cdef Place place(int thread, int threads, int groups, int jobs) noexcept nogil:
    """Where a thread works: groups share the threads and the jobs. There may be fewer threads than groups."""
    cdef Place found
    cdef Py_ssize_t first = 0, last = 0
    groups = min(groups, threads)
    found.group = 0
    share(threads, 0, groups, &first, &last)
    while thread >= last:
        found.group += 1
        share(threads, found.group, groups, &first, &last)
    found.part, found.parts = thread - <int>first, <int>(last - first)
    share(jobs, found.group, groups, &found.first_job, &found.last_job)
    return found


cdef void used_threads() noexcept:
    """To be called before a parallel region."""
    global _pool_used
    _pool_used = True


cdef int team_size() noexcept nogil:
    """Threads in the parallel region around the caller: OpenMP may grant fewer than were asked for."""
    return omp_get_num_threads()


def set_num_threads(n):
    """Set the number of threads that later calls, from any Python thread, may use.

    Parameters
    ----------
    n : int
        At least 1. Calls with little work use fewer. Results of ``matmul="packed"`` do not depend on it.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1 or more than 1024.
    """
    global _requested
    if isinstance(n, bool) or not hasattr(n, "__index__"):
        raise TypeError(f"n: expected an integer, got {type(n).__name__}")
    n = n.__index__()
    if not 1 <= n <= 1024:
        raise ValueError(f"n: expected 1 to 1024 threads, got {n}")
    _requested = n


def get_num_threads():
    """Threads that a call from this Python thread may use.

    Returns
    -------
    int
        What `set_num_threads` set, else what ``OMP_NUM_THREADS``, the affinity mask and the control group
        allow; never more than a ``threadpoolctl`` limit on OpenMP. 1 without OpenMP, and in a process forked
        after threads were used (GNU OpenMP does not survive a fork).
    """
    return available()


def openmp():
    """``{"version": date of the OpenMP specification or None, "lost_in_fork": bool}``."""
    return {"version": LF_OPENMP or None, "lost_in_fork": bool(_pool_lost)}
