/* A barrier for the threads of one parallel region that meet once per time step, a few microseconds
 * apart: it spins, and yields when the others are long in coming. */
#ifndef LSTM_FAST_BARRIER_H
#define LSTM_FAST_BARRIER_H

#include <sched.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define LF_PAUSE() _mm_pause()
#else
#define LF_PAUSE() __asm__ volatile("yield")
#endif

#define LF_SPINS 2000 /* about 20 microseconds */

typedef struct lf_barrier {
    atomic_int arrived;
    char apart[60]; /* the counters on cache lines of their own */
    atomic_uint passed;
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
    for (int spins = 0; atomic_load_explicit(&b->passed, memory_order_acquire) == passed; spins++)
        if (spins < LF_SPINS)
            LF_PAUSE();
        else
            sched_yield();
}

#endif
