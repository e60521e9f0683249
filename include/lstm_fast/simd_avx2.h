/* SIMD vocabulary for AVX2 with FMA: 8 floats or 4 doubles a vector. See simd.h for the words. */
#if LF_DOUBLE
#define vec __m256d
#define LANES 4
#define OP(name) _mm256_##name##_pd
#define LANE_MASK(n) _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3))
#define EXPONENT(t) _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_castpd_si256(t), 52))
#else
#define vec __m256
#define LANES 8
#define OP(name) _mm256_##name##_ps
#define LANE_MASK(n) \
    _mm256_cmpgt_epi32(_mm256_set1_epi32((int)(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
#define EXPONENT(t) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(t), 23))
#endif

#ifndef LF_SIMD_WORDS
#define LF_SIMD_WORDS
#include <immintrin.h>

#include "lstm_fast/simd_x86.h"

/* 12 accumulators, 3 broadcasts and 1 weight vector. */
#define REGISTERS 16
#define TILE_ROWS 3

#define v_load_n(p, n) OP(maskload)(p, LANE_MASK(n))
#define v_store_n(p, n, a) OP(maskstore)(p, LANE_MASK(n), a)
#define v_fma(a, b, c) OP(fmadd)(a, b, c)
#define v_fnma(a, b, c) OP(fnmadd)(a, b, c)
#define v_select_negative(s, a, b) OP(blendv)(b, a, s)
#define v_zip_low(a, b) OP(permute2f128)(OP(unpacklo)(a, b), OP(unpackhi)(a, b), 0x20)
#define v_zip_high(a, b) OP(permute2f128)(OP(unpacklo)(a, b), OP(unpackhi)(a, b), 0x31)

#define LOWER_ROWS 2
#define v_bfloat16_even(p) _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i *)(p)), 16))
#define v_bfloat16_odd(p) _mm256_and_ps(_mm256_loadu_ps((const float *)(p)), \
                                        _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000)))
#define v_int8(p) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(p))))

/* Pairs of 16 bits: no pair of products saturates, and beside 32-bit sums they take two instructions. */
#define ivec __m256i
#define INT8_GROUP 2
#define INT8_OPERAND int16_t
#define INT8_OFFSET 0
#define i_zero() _mm256_setzero_si256()
#define i_real(s) _mm256_cvtepi32_ps(s)
#define i_weights(p) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p)))
#define i_operand(p) _mm256_castps_si256(_mm256_broadcast_ss((const float *)(p)))
static inline __m256i lf_dot(__m256i s, __m256i x, __m256i w)
{
    s = _mm256_add_epi32(s, _mm256_madd_epi16(x, w));
    __asm__("" : "+x"(s)); /* GCC would multiply for all sums first, and have no registers for these */
    return s;
}
#define i_dot(s, x, w) lf_dot(s, x, w)
#endif
