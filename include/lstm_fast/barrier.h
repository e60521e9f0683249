/* Where the threads of one parallel region wait for one another, a few microseconds apart: they spin, and
 * sleep when the others are long in coming, as where another process has their core: then the system has a core
 * free on which to go on with them. Long waits are timed. */
#ifndef LSTM_FAST_BARRIER_H
#define LSTM_FAST_BARRIER_H

#include <sched.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define LF_PAUSE() _mm_pause()
#else
#define LF_PAUSE() __asm__ volatile("yield")
#endif

/* How often a thread looks before it takes the time, a microsecond or so, and how many nanoseconds before it sleeps: more
 * than a sleep takes, or who waited for one that slept would sleep as well, and so on, each step. */
#define LF_SHORT_SPINS 32
#define LF_SPINNING 150000

/* Nanoseconds of a clock that never goes back. */
static inline long long lf_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void lf_sleep(void)
{
    const struct timespec least = {0, 1000}; /* with the slack of Linux's timers about 55 microseconds */
    nanosleep(&least, NULL);
}

/* Wait until the condition holds, or no longer than this, if not 0, without sleeping; a long wait's nanoseconds are
 * added to a sum that all threads share. */
#define LF_WAIT_UNTIL(condition, sum, nanoseconds)                                 \
    do {                                                                           \
        long long since = 0, now = 0;                                              \
        for (int spins = 0; !(condition); spins++) {                               \
            if (spins >= LF_SHORT_SPINS) {                                         \
                now = lf_now();                                                    \
                if (!since)                                                        \
                    since = now;                                                   \
            }                                                                      \
            if (now - since < ((nanoseconds) ? (nanoseconds) : LF_SPINNING))       \
                LF_PAUSE();                                                        \
            else if (nanoseconds)                                                  \
                break;                                                             \
            else                                                                   \
                lf_sleep();                                                        \
        }                                                                          \
        if (since)                                                                 \
            atomic_fetch_add_explicit(sum, lf_now() - since, memory_order_relaxed); \
    } while (0)

/* A number that threads share, alone on its cache line. */
typedef struct lf_counter {
    atomic_llong n;
    char apart_from_others[56];
} lf_counter;

static inline void lf_counter_set(lf_counter *c, long long n)
{
    atomic_store_explicit(&c->n, n, memory_order_release);
}

static inline long long lf_counter_get(lf_counter *c)
{
    return atomic_load_explicit(&c->n, memory_order_acquire);
}

/* Returns the number before. */
static inline long long lf_counter_add(lf_counter *c, long long n)
{
    return atomic_fetch_add_explicit(&c->n, n, memory_order_acq_rel);
}

/* Make the number n + 1 if it is n; tells whether it was. */
static inline int lf_counter_raise(lf_counter *c, long long n)
{
    return atomic_compare_exchange_strong(&c->n, &n, n + 1);
}

/* Make the number n if that is less, */
static inline void lf_counter_least(lf_counter *c, long long n)
{
    long long now = lf_counter_get(c);
    while (n < now && !atomic_compare_exchange_weak(&c->n, &now, n))
        ;
}

/* or more. */
static inline void lf_counter_most(lf_counter *c, long long n)
{
    long long now = lf_counter_get(c);
    while (n > now && !atomic_compare_exchange_weak(&c->n, &now, n))
        ;
}

/* Wait until the number is at least n. */
static inline void lf_counter_wait(lf_counter *c, long long n, lf_counter *waited)
{
    LF_WAIT_UNTIL(lf_counter_get(c) >= n, &waited->n, 0);
}

/* The same without sleeping, for so many nanoseconds; tells whether the number was reached. */
static inline int lf_counter_spin(lf_counter *c, long long n, long long nanoseconds, lf_counter *waited)
{
    LF_WAIT_UNTIL(lf_counter_get(c) >= n, &waited->n, nanoseconds);
    return lf_counter_get(c) >= n;
}

/* All threads of a group meet. */
typedef struct lf_barrier {
    lf_counter arrived;
    lf_counter passed;
    lf_counter *waited; /* nanoseconds */
} lf_barrier;

static inline void lf_barrier_init(lf_barrier *b, lf_counter *waited)
{
    lf_counter_set(&b->arrived, 0);
    lf_counter_set(&b->passed, 0);
    b->waited = waited;
}

static inline void lf_barrier_wait(lf_barrier *b, int threads)
{
    if (threads == 1)
        return;
    const long long passed = atomic_load_explicit(&b->passed.n, memory_order_relaxed);
    if (lf_counter_add(&b->arrived, 1) == threads - 1) {
        atomic_store_explicit(&b->arrived.n, 0, memory_order_relaxed);
        lf_counter_set(&b->passed, passed + 1);
        return;
    }
    LF_WAIT_UNTIL(lf_counter_get(&b->passed) != passed, &b->waited->n, 0);
}

#endif
