/* Helpers from plain C, for a thread sanitizer: several callers, each with many calls; every part of a call is done
 * once, and nothing of a call is used after it ended. */
#include <stdio.h>
#include <stdlib.h>

#include "lstm_fast/helpers.h"

enum { CALLERS = 4, CALLS = 3000, PARTS = 16 };

typedef struct {
    lf_counter cpu, taken;
    int done[PARTS];
} call;

static void take(void *of_call, int thread)
{
    call *c = of_call;
    if (thread < 0 || thread > LF_MOST_HELPERS)
        abort();
    for (long long n; (n = lf_counter_add(&c->taken, 1)) < PARTS;) {
        c->done[n]++;
        for (int i = 0; i < 100; i++)
            LF_PAUSE();
    }
}

static void *call_often(void *seed)
{
    unsigned random = (unsigned)(uintptr_t)seed;
    for (int n = 0; n < CALLS; n++) {
        call *c = calloc(1, sizeof *c);
        lf_offer offer;
        lf_counter waited = {0};
        lf_counter_set(&c->cpu, rand_r(&random) % 4 ? lf_cpu() : -1);
        lf_offer_open(&offer, take, c, &c->cpu, 1 + rand_r(&random) % 3);
        take(c, 0);
        lf_counter_wait(&offer.left, lf_offer_close(&offer), &waited);
        for (int i = 0; i < PARTS; i++)
            if (c->done[i] != 1)
                abort();
        free(c);
    }
    return NULL;
}

int main(void)
{
    pthread_t callers[CALLERS];
    if (lf_pool_init())
        return 1;
    for (int n = 0; n < CALLERS; n++)
        if (pthread_create(&callers[n], NULL, call_often, (void *)(uintptr_t)(n + 1)))
            return 1;
    for (int n = 0; n < CALLERS; n++)
        pthread_join(callers[n], NULL);
    printf("helpers: %d\n", lf_pool.helpers);
    return 0;
}
