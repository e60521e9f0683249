"""Threads: how many a call may use, whether they can start, and forks. The only module that asks OpenMP."""

import os
from operator import index

from lstm_fast.engine.runtime.kernels cimport lf_now

cdef extern from *:
    """
    #include <pthread.h>
    #include <sched.h>
    #include <stdlib.h>
    #include <sys/mman.h>
    #ifdef _OPENMP
    #include <omp.h>
    #define LF_OPENMP _OPENMP
    #else
    #define LF_OPENMP 0
    static inline int omp_get_max_threads(void) { return 1; }
    static inline int omp_get_num_threads(void) { return 1; }
    static inline int omp_get_num_procs(void) { return 1; }
    #endif

    /* End the pool of threads that OpenMP keeps for the calling thread; not 0 if it may still be there. */
    #if !LF_OPENMP
    static inline int lf_end_pool(void) { return 0; }
    #elif defined(__clang__) || __GNUC__ >= 9
    #pragma weak omp_pause_resource_all
    static inline int lf_end_pool(void)
    {
        return omp_pause_resource_all ? omp_pause_resource_all(omp_pause_soft) : -1;
    }
    #else
    static inline int lf_end_pool(void) { return -1; }
    #endif

    /* CPUs in the affinity mask of the calling thread, as it is now: LLVM's runtime reads it only once. */
    static inline int lf_cpus(void)
    {
    #ifdef CPU_COUNT
        cpu_set_t set;
        if (sched_getaffinity(0, sizeof set, &set) == 0)
            return CPU_COUNT(&set);
    #endif
        return omp_get_num_procs();
    }

    static void *lf_ask(void *n)
    {
        *(int *)n = omp_get_max_threads();
        return NULL;
    }

    /* OpenMP's number of threads as the process started: a new thread still has it, whatever was set in this one. */
    static inline int lf_initial_threads(void)
    {
        pthread_t thread;
        int n = omp_get_max_threads();
        if (pthread_create(&thread, NULL, lf_ask, &n) == 0)
            pthread_join(thread, NULL);
        return n;
    }

    static void *lf_pass(void *gate)
    {
        pthread_mutex_lock(gate);
        pthread_mutex_unlock(gate);
        return NULL;
    }

    /* How many of `wanted` threads can live at the same time, with `spare` bytes of memory left. They have to be mapped
     * meanwhile: the C library keeps the stacks of threads that ended. */
    static inline int lf_startable(int wanted, size_t spare)
    {
        pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
        pthread_t *threads = malloc(wanted * sizeof *threads);
        void *room = mmap(NULL, spare, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        int n = 0;
        if (!threads || room == MAP_FAILED)
            wanted = 0;
        pthread_mutex_lock(&gate);
        while (n < wanted && pthread_create(&threads[n], NULL, lf_pass, &gate) == 0)
            n++;
        pthread_mutex_unlock(&gate);
        for (int i = 0; i < n; i++)
            pthread_join(threads[i], NULL);
        if (room != MAP_FAILED)
            munmap(room, spare);
        free(threads);
        return n;
    }

    static _Thread_local int lf_proven; /* threads of the largest team that this thread is known to get */
    static _Thread_local long long lf_until; /* when a larger team may be tried again, after one did not start */
    static _Thread_local int lf_most;   /* threads that another library allows this thread; 0: it did not say */
    """
    const int LF_OPENMP
    int omp_get_max_threads() nogil
    int omp_get_num_threads() nogil
    int lf_end_pool() nogil
    int lf_cpus()
    int lf_initial_threads()
    int lf_startable(int wanted, size_t spare)
    int lf_proven
    long long lf_until
    int lf_most

cdef extern from "<pthread.h>" nogil:
    int pthread_atfork(void (*prepare)() noexcept, void (*parent)() noexcept, void (*child)() noexcept)

cdef int _requested = 0        # set_num_threads; 0: as many as the environment allows
cdef int _initial = lf_initial_threads()
cdef bint _ask_system = True   # OMP_NUM_THREADS is not set: affinity mask and control group decide
cdef int _quota = 0            # CPUs that the control group grants; 0: no limit
cdef bint _pool_remains = False  # before a fork: GNU OpenMP's pool of the forking thread could not be ended
cdef bint _pool_lost = False   # it did not survive the fork: another parallel region would hang
# Bytes of memory that there must be beside a team, for OpenMP and for calls.
cdef size_t SPARE_BYTES = 32 << 20
# Nanoseconds after which a team is tried again that did not start.
cdef long long TRY_AGAIN = 1_000_000_000


# A thread that forks takes its pool of threads, whoever made it, into the child, where they do not exist: GNU OpenMP
# would wait for them for ever. So the pool ends before; parent and child make a new one when they need it.
cdef void _before_fork() noexcept nogil:
    global _pool_remains
    _pool_remains = lf_end_pool() != 0


cdef void _after_fork() noexcept nogil:
    global _pool_lost
    _pool_lost = _pool_lost or _pool_remains

pthread_atfork(_before_fork, NULL, _after_fork)


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
    """Threads that a call from this thread may use: see `get_num_threads`."""
    if _pool_lost or not LF_OPENMP:
        return 1
    cdef int n = _requested, here = omp_get_max_threads()
    if lf_most:
        here = min(here, lf_most)
    if n == 0:
        n = _initial
        if _ask_system:
            n = min(n, lf_cpus())
        if _quota:
            n = min(n, _quota)
    return min(n, here) if here < _initial else n


cdef void at_most(int n) noexcept:
    """Limit later calls from this thread, as a limit on OpenMP would: for a library with another OpenMP of its own."""
    global lf_most
    lf_most = n


cdef int startable(int threads) noexcept:
    """How many of these threads a parallel region may ask for.

    GNU OpenMP ends the process where it cannot start a thread, as under a limit on memory or on threads. So a larger
    team than any before is tried first: 20 to 50 microseconds for each thread, once, or once a second if it fails.
    """
    global lf_proven, lf_until
    cdef int n
    if threads > lf_proven and lf_now() >= lf_until:
        n = lf_startable(threads - 1, SPARE_BYTES) + 1
        lf_proven = max(lf_proven, n)
        if n < threads:
            lf_until = lf_now() + TRY_AGAIN
    return max(1, min(threads, lf_proven))


cdef int team_size() noexcept nogil:
    """Threads in the parallel region around the caller: OpenMP may grant fewer than were asked for."""
    return omp_get_num_threads()


def set_num_threads(n):
    """Set the number of threads that later calls, from any Python thread, may use.

    Parameters
    ----------
    n : int or None
        At least 1. None: as many as the environment allows, as at the start; see `get_num_threads`. Calls with little
        work use fewer, and so do calls beside limits that do not let so many start. Results of ``matmul="packed"`` do
        not depend on it.

    Raises
    ------
    TypeError
        If `n` is not an integer.
    ValueError
        If `n` is less than 1 or more than 1024.
    """
    global _requested
    if n is None:
        _requested = 0
        return
    try:
        if isinstance(n, bool) or getattr(n, "ndim", 0):
            raise TypeError
        n = index(n)
    except TypeError:
        raise TypeError(f"n: expected an integer, got {type(n).__name__}") from None
    if not 1 <= n <= 1024:
        raise ValueError(f"n: expected 1 to 1024 threads, got {n}")
    _requested = n


def get_num_threads():
    """Threads that a call from this Python thread may use.

    Returns
    -------
    int
        What `set_num_threads` set; else what ``OMP_NUM_THREADS`` says; else the CPUs of the affinity mask and of the
        control group. In each case never more than a limit on OpenMP that holds in this Python thread: such as that of
        ``threadpoolctl``, or of ``torch.set_num_threads``, where PyTorch uses the same OpenMP library. The order of
        imports plays no part. 1 without OpenMP, and in a process forked by a thread whose OpenMP threads could not be
        ended before.
    """
    return available()


def openmp():
    """``{"version": date of the OpenMP specification or None, "lost_in_fork": bool}``."""
    return {"version": LF_OPENMP or None, "lost_in_fork": bool(_pool_lost)}
