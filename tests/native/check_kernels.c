/* Checks the kernels of every ISA that this build holds and this CPU runs against plain C, without Python:
 * for targets that are cross-compiled and run under an emulator. Prints a line per ISA and per failure; the exit
 * status is 1 if any check failed. With arguments it multiplies numbers of lower precision: see check_lower.h.
 * tests/test_native.py builds and runs it. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lstm_fast/dispatch.h"

static int checks, failures;

static void report(const lf_kernels *k, const char *what, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t columns,
                   double error, double tolerance)
{
    checks++;
    if (error <= tolerance)
        return;
    failures++;
    printf("%s, %zu bytes: %s (%td, %td, %td): error %g, tolerance %g\n", k->isa, k->itemsize, what, rows, depth,
           columns, error, tolerance);
}

static void *allocate(size_t size)
{
    void *p = malloc(size);
    if (!p) {
        puts("out of memory");
        exit(1);
    }
    return p;
}

/* A linear congruential generator: the same numbers on every target. */
static double uniform(void)
{
    static uint64_t state = 1;
    state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (double)(state >> 11) * 0x1p-53;
}

#define real float
#define NAME(x) x##_f32
#define TOLERANCE FLT_EPSILON
#define SMALLEST FLT_MIN
#include "check_body.h"
#undef real
#undef NAME
#undef TOLERANCE
#undef SMALLEST
#define real double
#define NAME(x) x##_f64
#define TOLERANCE DBL_EPSILON
#define SMALLEST DBL_MIN
#include "check_body.h"
#undef real
#include "check_lower.h"

int main(int count, char **words)
{
    if (count > 1)
        return multiply(count, words);
    for (int n = 0; n < lf_isa_count; n++) {
        if (!lf_isas[n].supported())
            continue;
        const int before = checks;
        check_f32(lf_isas[n].f32);
        check_f64(lf_isas[n].f64);
        check_lowers(&lf_isas[n]);
        printf("%s: %d checks\n", lf_isas[n].name, checks - before);
    }
    printf("%d failures\n", failures);
    return failures != 0 || checks == 0;
}
