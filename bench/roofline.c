/* What a core can do at best: multiply-adds in registers, and vectors read from memory.
 * Those of lower precision by the widest instructions that the CPU has for them, whether the package uses them or not.
 * Compiled with -O2 -march=native -ffp-contract=fast; see roofline.py. */
#define _GNU_SOURCE
#include <stddef.h>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

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

/* Operands of 8 bits, or of 16 that they are widened to, and sums of 32 bits: PRODUCTS of them a vector, none of which
 * saturates. */
#if defined(__AVX512VNNI__)
#define PRODUCTS 64
typedef __m512i ints;
#define DOT(s, a, b) _mm512_dpbusd_epi32(s, a, b)
#elif defined(__AVXVNNI__)
#define PRODUCTS 32
typedef __m256i ints;
#define DOT(s, a, b) _mm256_dpbusd_avx_epi32(s, a, b)
#elif defined(__AVX512BW__)
#define PRODUCTS 32
typedef __m512i ints;
#define DOT(s, a, b) _mm512_add_epi32(s, _mm512_madd_epi16(a, b))
#elif defined(__AVX2__)
#define PRODUCTS 16
typedef __m256i ints;
#define DOT(s, a, b) _mm256_add_epi32(s, _mm256_madd_epi16(a, b))
#elif defined(__SSE2__)
#define PRODUCTS 8
typedef __m128i ints;
#define DOT(s, a, b) _mm_add_epi32(s, _mm_madd_epi16(a, b))
#elif defined(__ARM_FEATURE_DOTPROD)
#define PRODUCTS 16
typedef int32x4_t ints;
#define DOT(s, a, b) vdotq_s32(s, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))
#else
#define PRODUCTS 8
typedef int32x4_t ints;
#define DOT(s, a, b) vpadalq_s16(s, vmull_s8(vget_low_s8(vreinterpretq_s8_s32(a)), vget_low_s8(vreinterpretq_s8_s32(b))))
#endif

/* As `PEAK`, with products that do not depend on the sum: the barrier has them computed for each. */
#define PEAK_DOT(name, vec, operands, dot, products)              \
    double name(size_t rounds)                                    \
    {                                                             \
        vec sum[CHAINS] = {{0}};                                  \
        operands a = {0}, b = {0};                                \
        for (size_t r = 0; r < rounds; r++) {                     \
            _Pragma("GCC unroll 12")                              \
            for (int n = 0; n < CHAINS; n++) {                    \
                sum[n] = dot(sum[n], a, b);                       \
                __asm__ volatile("" : "+x"(sum[n]), "+x"(a), "+x"(b)); \
            }                                                     \
        }                                                         \
        return 2.0 * rounds * CHAINS * products;                  \
    }

/* The same of matrices of 16 rows, where each product takes that time. */
#if defined(__AMX_TILE__)
#include <sys/syscall.h>
#include <unistd.h>

#define PEAK_MATRICES(name, dot, terms)                                      \
    double name(size_t rounds)                                               \
    {                                                                        \
        unsigned char of[64] = {1}; /* palette, bytes of rows, and rows */   \
        for (int n = 0; n < 8; n++)                                          \
            of[16 + 2 * n] = 64, of[48 + n] = 16;                            \
        syscall(SYS_arch_prctl, 0x1023, 18); /* ask for permission */        \
        _tile_loadconfig(of);                                                \
        for (size_t r = 0; r < rounds; r++) {                                \
            dot(0, 4, 5);                                                    \
            dot(1, 4, 5);                                                    \
            dot(2, 4, 5);                                                    \
            dot(3, 4, 5);                                                    \
        }                                                                    \
        _tile_release();                                                     \
        return 2.0 * rounds * 4 * 16 * 16 * terms;                           \
    }
PEAK_MATRICES(peak_int8, _tile_dpbusd, 64)
PEAK_MATRICES(peak_bfloat16, _tile_dpbf16ps, 32)
#else
PEAK_DOT(peak_int8, ints, ints, DOT, PRODUCTS)

/* Without instructions for bfloat16, its numbers are widened and multiplied as floats. */
#if defined(__AVX512BF16__)
PEAK_DOT(peak_bfloat16, __m512, __m512bh, _mm512_dpbf16_ps, 32)
#else
double peak_bfloat16(size_t rounds)
{
    return peak_f32(rounds);
}
#endif
#endif

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
