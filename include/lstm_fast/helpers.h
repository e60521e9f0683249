/* Threads that help with calls while a core is there for them, and are not missed where there is none.
 *
 * A team of OpenMP ends with its last thread, and its threads spin for some milliseconds after that. Where other
 * programs, or other threads of this one, need the cores, both are wrong: a helper joins a call that is still open when
 * it gets a core, and sleeps as soon as there is nothing to do. A thread that sleeps most of the time is owed the core
 * when it wakes, and has it at once where the system (Linux 6.12) lets it ask for small slices of time. */
#ifndef LSTM_FAST_HELPERS_H
#define LSTM_FAST_HELPERS_H

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include "lstm_fast/barrier.h"
#include "lstm_fast/cores.h"

#ifdef __linux__
#include <sys/resource.h>
#endif

/* A call that helpers may join, leave and join again while it is open. */
typedef struct lf_offer {
    void (*run)(void *call, int thread); /* thread: the number of the helper, from 1 on; the caller itself is 0 */
    void *call;
    lf_counter *cpu; /* of the caller, where helpers are not to run */
    int asked, places; /* for helpers; for more of them */
    int came, closed;
    lf_counter left;
    struct lf_offer *next;
} lf_offer;

/* How many, at most: no more than there are cores, and each with a small stack, since there may be a limit on memory. */
#define LF_MOST_HELPERS 63
#define LF_HELPER_STACK ((size_t)2 << 20)

/* Nanoseconds for which a helper looks for another call before it sleeps: who computes one after the other begins the
 * next one sooner, and to wake a thread takes 20 to 50 microseconds. */
#define LF_LOOKING 100000

/* And for how long one sleeps, first and at most, that cannot get off the core of the caller, who needs it, before it
 * tries again: long calls would else go on without it. */
#define LF_SHORT_NAP 50000
#define LF_LONG_NAP 1600000

static struct {
    pthread_mutex_t lock;
    sem_t wanted;   /* not a condition variable: there, who signals may have to wait for those signalled before */
    lf_offer *open; /* those with places, */
    lf_counter count; /* and how many they are, for who has not the lock */
    int asked;      /* for helpers, by the calls of now */
    int helpers;
    int idle;  /* helpers that sleep and were not called */
    int most;  /* of them: 0 where semaphores have to have names */
} lf_pool = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* Ask for slices of a tenth of a millisecond, the least there is. Other systems take no notice. */
static void lf_small_slices(void)
{
#ifdef SYS_sched_setattr
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period; /* nanoseconds */
    } wish = {.size = sizeof wish, .policy = SCHED_OTHER, .runtime = 100000};
    if (sched_getscheduler(0) != SCHED_OTHER)
        return;
    wish.nice = getpriority(PRIO_PROCESS, 0);
    syscall(SYS_sched_setattr, 0, &wish, 0);
#endif
}

/* Put an offer on the list of those with places, and take it off. */
static void lf_pool_add(lf_offer *offer)
{
    lf_counter_add(&lf_pool.count, 1);
    offer->next = lf_pool.open;
    lf_pool.open = offer;
}

static void lf_pool_remove(lf_offer *offer)
{
    for (lf_offer **at = &lf_pool.open; *at; at = &(*at)->next)
        if (*at == offer) {
            *at = offer->next;
            lf_counter_add(&lf_pool.count, -1);
            return;
        }
}

/* Wait a while for an offer, and do not sleep. */
static void lf_pool_look(void)
{
    const long long since = lf_now();
    while (!lf_counter_get(&lf_pool.count) && lf_now() - since < LF_LOOKING)
        LF_PAUSE();
}

/* What a helper does, of this number: with the lock, but where it runs calls, moves, looks or sleeps. */
static void *lf_help(void *number)
{
    struct timespec nap = {0, LF_SHORT_NAP};
    int looked = 0; /* and there was no offer */
    lf_small_slices();
    pthread_mutex_lock(&lf_pool.lock);
    for (;;) {
        lf_offer *offer = lf_pool.open;
        if (!offer && !looked) {
            pthread_mutex_unlock(&lf_pool.lock);
            lf_pool_look();
            looked = 1;
            pthread_mutex_lock(&lf_pool.lock);
            continue;
        }
        if (!offer) {
            looked = 0;
            lf_pool.idle++;
            pthread_mutex_unlock(&lf_pool.lock);
            while (sem_wait(&lf_pool.wanted) != 0)
                ;
            pthread_mutex_lock(&lf_pool.lock);
            continue;
        }
        const int cpu = (int)lf_counter_get(offer->cpu);
        if (lf_is_on(cpu)) {
            pthread_mutex_unlock(&lf_pool.lock);
            lf_keep_off(cpu);
            if (lf_is_on(cpu)) {
                nanosleep(&nap, NULL);
                if (nap.tv_nsec < LF_LONG_NAP)
                    nap.tv_nsec *= 2;
            }
            pthread_mutex_lock(&lf_pool.lock);
            continue;
        }
        looked = 0;
        nap.tv_nsec = LF_SHORT_NAP;
        offer->came++;
        if (--offer->places == 0)
            lf_pool_remove(offer);
        pthread_mutex_unlock(&lf_pool.lock);
        offer->run(offer->call, (int)(intptr_t)number);
        pthread_mutex_lock(&lf_pool.lock);
        if (offer->places++ == 0 && !offer->closed)
            lf_pool_add(offer);
        lf_counter_add(&offer->left, 1); /* after this it may be gone */
    }
    return NULL;
}

/* A child of fork has none of the helpers, and none of the calls that other threads offered. */
static void lf_pool_before_fork(void)
{
    pthread_mutex_lock(&lf_pool.lock);
}

static void lf_pool_in_parent(void)
{
    pthread_mutex_unlock(&lf_pool.lock);
}

static void lf_pool_in_child(void)
{
    pthread_mutex_init(&lf_pool.lock, NULL);
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    lf_pool.most = cores > LF_MOST_HELPERS ? LF_MOST_HELPERS : cores > 0 ? (int)cores : 1;
    if (sem_init(&lf_pool.wanted, 0, 0) != 0)
        lf_pool.most = 0;
    lf_pool.open = NULL;
    lf_counter_set(&lf_pool.count, 0);
    lf_pool.asked = lf_pool.helpers = lf_pool.idle = 0;
}

/* Before anything else. Returns 0, or an error. */
static inline int lf_pool_init(void)
{
    lf_pool_in_child();
    return pthread_atfork(lf_pool_before_fork, lf_pool_in_parent, lf_pool_in_child);
}

/* Start one more helper, to which signals do not go; returns 0 where the system has no room for it. */
static int lf_pool_grow(void)
{
    pthread_t thread;
    pthread_attr_t detached;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&detached, LF_HELPER_STACK);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int started = !pthread_create(&thread, &detached, lf_help, (void *)(intptr_t)(lf_pool.helpers + 1));
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&detached);
    lf_pool.helpers += started;
    return started;
}

/* Offer a call to so many helpers. */
static inline void lf_offer_open(lf_offer *offer, void (*run)(void *, int), void *call, lf_counter *cpu, int places)
{
    offer->run = run;
    offer->call = call;
    offer->cpu = cpu;
    offer->places = places;
    offer->came = offer->closed = 0;
    lf_counter_set(&offer->left, 0);
    pthread_mutex_lock(&lf_pool.lock);
    lf_pool_add(offer);
    lf_pool.asked += offer->asked = places;
    while (lf_pool.helpers < lf_pool.asked && lf_pool.helpers < lf_pool.most && lf_pool_grow())
        places--;
    while (places-- > 0 && lf_pool.idle > 0) {
        lf_pool.idle--;
        sem_post(&lf_pool.wanted);
    }
    pthread_mutex_unlock(&lf_pool.lock);
}

/* Nobody may come any more. Returns how many came; the caller waits until as many have left. */
static inline int lf_offer_close(lf_offer *offer)
{
    pthread_mutex_lock(&lf_pool.lock);
    if (offer->places)
        lf_pool_remove(offer);
    offer->closed = 1;
    lf_pool.asked -= offer->asked;
    const int came = offer->came;
    pthread_mutex_unlock(&lf_pool.lock);
    return came;
}

#endif
