/* Where the threads of one parallel region wait for one another, a few microseconds apart: they spin, and
 * yield when the others are long in coming. */
#ifndef LSTM_FAST_BARRIER_H
#define LSTM_FAST_BARRIER_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define LF_PAUSE() _mm_pause()
#else
#define LF_PAUSE() __asm__ volatile("yield")
#endif

#define LF_SPINS 2000 /* about 20 microseconds */
#define LF_WAIT_UNTIL(condition)                    \
    for (int spins = 0; !(condition); spins++)      \
        if (spins < LF_SPINS)                       \
            LF_PAUSE();                             \
        else                                        \
            sched_yield()

/* All threads of a group meet. The counters lie on cache lines of their own. */
typedef struct lf_barrier {
    atomic_int arrived;
    char apart[60];
    atomic_uint passed;
    char apart_from_others[60];
} lf_barrier;

static inline void lf_barrier_init(lf_barrier *b)
{
    atomic_init(&b->arrived, 0);
    atomic_init(&b->passed, 0);
}

static inline void lf_barrier_wait(lf_barrier *b, int threads)
{
    if (threads == 1)
        return;
    const unsigned passed = atomic_load_explicit(&b->passed, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&b->arrived, 1, memory_order_acq_rel) == threads - 1) {
        atomic_store_explicit(&b->arrived, 0, memory_order_relaxed);
        atomic_store_explicit(&b->passed, passed + 1, memory_order_release);
        return;
    }
    LF_WAIT_UNTIL(atomic_load_explicit(&b->passed, memory_order_acquire) != passed);
}

/* One group tells the others how many time steps it has done. */
typedef struct lf_progress {
    atomic_ptrdiff_t steps;
    char apart_from_others[56];
} lf_progress;

static inline void lf_progress_set(lf_progress *p, ptrdiff_t steps)
{
    atomic_store_explicit(&p->steps, steps, memory_order_release);
}

static inline void lf_progress_wait(lf_progress *p, ptrdiff_t steps)
{
    LF_WAIT_UNTIL(atomic_load_explicit(&p->steps, memory_order_acquire) >= steps);
}

#endif
