/* Which core a thread runs on, how long it has run, and how it is moved: what Linux tells; elsewhere nothing is known. */
#ifndef LSTM_FAST_CORES_H
#define LSTM_FAST_CORES_H

#include <sched.h>
#include <stdatomic.h>
#include <time.h>

#ifdef __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* The CPU of the calling thread, or -1. */
static inline int lf_cpu(void)
{
#ifdef CPU_COUNT
    return sched_getcpu();
#else
    return -1;
#endif
}

/* What the system calls the calling thread, or 0. */
static inline int lf_thread_name(void)
{
#ifdef SYS_gettid
    return (int)syscall(SYS_gettid);
#else
    return 0;
#endif
}

/* How long a thread has run on any CPU, in nanoseconds, by the clock that Linux keeps for it (see
 * pthread_getcpuclockid). */
static inline long long lf_time_of(int thread)
{
    struct timespec t = {0, 0};
#ifdef SYS_gettid
    clock_gettime((clockid_t)(~(unsigned)thread << 3 | 6), &t);
#endif
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* The same of the calling thread. */
static inline long long lf_own_time(void)
{
    struct timespec t = {0, 0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Move a thread to this CPU, or away from it, if its affinity mask allows that. The mask is another one for a moment,
 * in which nobody else moves the thread: the names of those that are being moved have flags. */
static inline void lf_move(int thread, int cpu, int away)
{
#ifdef CPU_COUNT
    static atomic_flag moving[64];
    atomic_flag *flag = &moving[thread % 64];
    cpu_set_t all, some;
    if (cpu < 0 || cpu >= CPU_SETSIZE || thread == 0 || atomic_flag_test_and_set(flag))
        return;
    if (sched_getaffinity(thread, sizeof all, &all) == 0 && CPU_ISSET(cpu, &all)) {
        CPU_ZERO(&some);
        CPU_SET(cpu, &some);
        if (away)
            CPU_XOR(&some, &all, &some);
        if (CPU_COUNT(&some) > 0 && sched_setaffinity(thread, sizeof some, &some) == 0)
            sched_setaffinity(thread, sizeof all, &all);
    }
    atomic_flag_clear(flag);
#endif
}

/* Whether the calling thread is on this CPU. */
static inline int lf_is_on(int cpu)
{
    return cpu >= 0 && lf_cpu() == cpu;
}

/* Move it to another one then. */
static inline void lf_keep_off(int cpu)
{
    if (lf_is_on(cpu))
        lf_move(lf_thread_name(), cpu, 1);
}

/* Move another thread to the CPU of the calling one, which lets it run. */
static inline void lf_bring(int thread)
{
    lf_move(thread, lf_cpu(), 0);
    sched_yield();
}

#endif
