/* What a core can do at best: multiply-adds in registers, and vectors read from memory.
 * Compiled with -O2 -march=native -ffp-contract=fast; see roofline.py. */
#include <stddef.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
typedef float floats __attribute__((vector_size(BYTES)));
typedef double doubles __attribute__((vector_size(BYTES)));
#define CHAINS 12

/* rounds * CHAINS vector multiply-adds; returns how many operations these are. */
#define PEAK(name, vec, real)                                             \
    double name(size_t rounds)                                            \
    {                                                                     \
        vec sum[CHAINS], a = (vec){0} + (real)0.5, b = (vec){0} + (real)1; \
        for (int n = 0; n < CHAINS; n++)                                  \
            sum[n] = (vec){0} + (real)n;                                  \
        for (size_t r = 0; r < rounds; r++) {                             \
            _Pragma("GCC unroll 12")                                      \
            for (int n = 0; n < CHAINS; n++)                              \
                sum[n] = sum[n] * a + b;                                  \
            __asm__ volatile("" : "+x"(a), "+x"(b));                      \
        }                                                                 \
        for (int n = 1; n < CHAINS; n++)                                  \
            sum[0] += sum[n];                                             \
        volatile real sink = sum[0][0];                                   \
        (void)sink;                                                       \
        return 2.0 * rounds * CHAINS * (BYTES / sizeof(real));            \
    }
PEAK(peak_f32, floats, float)
PEAK(peak_f64, doubles, double)

/* Reads `size` bytes `rounds` times, in order. */
double read_bytes(const char *p, size_t size, size_t rounds)
{
    floats sum[8] = {{0}};
    for (size_t r = 0; r < rounds; r++)
        for (size_t n = 0; n + 8 * BYTES <= size; n += 8 * BYTES)
            _Pragma("GCC unroll 8")
            for (int v = 0; v < 8; v++)
                sum[v] += *(const floats *)(p + n + v * BYTES);
    for (int v = 1; v < 8; v++)
        sum[0] += sum[v];
    volatile float sink = sum[0][0];
    (void)sink;
    return (double)rounds * size;
}
