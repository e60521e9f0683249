/* SIMD vocabulary for every x86-64 (SSE2): 4 floats or 2 doubles a vector. See simd.h for the words. */
#if LF_DOUBLE
#define vec __m128d
#define LANES 2
#define OP(name) _mm_##name##_pd
#define SIGN_FILL(s) \
    _mm_castsi128_pd(_mm_shuffle_epi32(_mm_srai_epi32(_mm_castpd_si128(s), 31), 0xF5))
#define EXPONENT(t) _mm_castsi128_pd(_mm_slli_epi64(_mm_castpd_si128(t), 52))
#else
#define vec __m128
#define LANES 4
#define OP(name) _mm_##name##_ps
#define SIGN_FILL(s) _mm_castsi128_ps(_mm_srai_epi32(_mm_castps_si128(s), 31))
#define EXPONENT(t) _mm_castsi128_ps(_mm_slli_epi32(_mm_castps_si128(t), 23))
#endif

#ifndef LF_SIMD_WORDS
#define LF_SIMD_WORDS
#include <emmintrin.h>

#include "lstm_fast/simd_x86.h"

/* 8 accumulators, 4 weight vectors, a broadcast and 2 products. */
#define REGISTERS 16
#define TILE_ROWS 2

#define v_fma(a, b, c) OP(add)(OP(mul)(a, b), c)  /* rounds twice */
#define v_fnma(a, b, c) OP(sub)(c, OP(mul)(a, b)) /* rounds twice */
#define v_select_negative(s, a, b) OP(or)(OP(and)(SIGN_FILL(s), a), OP(andnot)(SIGN_FILL(s), b))
#define v_zip_low(a, b) OP(unpacklo)(a, b)
#define v_zip_high(a, b) OP(unpackhi)(a, b)

#define LOWER_ROWS TILE_ROWS
#define v_bfloat16_even(p) _mm_castsi128_ps(_mm_slli_epi32(_mm_loadu_si128((const __m128i *)(p)), 16))
#define v_bfloat16_odd(p) _mm_and_ps(_mm_loadu_ps((const float *)(p)), \
                                     _mm_castsi128_ps(_mm_set1_epi32((int)0xffff0000)))
/* Bytes in the upper part of wider integers, which are then shifted down with their signs. */
static inline __m128i lf_widened(__m128i bytes) { return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8); }
static inline __m128 lf_int8(const int8_t *p)
{
    const __m128i pairs = lf_widened(_mm_castps_si128(_mm_load_ss((const float *)p)));
    return _mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(pairs, pairs), 16));
}
#define v_int8(p) lf_int8(p)

/* Pairs of 16 bits: no pair of products saturates, and beside 32-bit sums they take two instructions. */
#define ivec __m128i
#define INT8_GROUP 2
#define INT8_OPERAND int16_t
#define INT8_OFFSET 0
#define i_zero() _mm_setzero_si128()
#define i_real(s) _mm_cvtepi32_ps(s)
#define i_weights(p) lf_widened(_mm_loadl_epi64((const __m128i *)(p)))
#define i_operand(p) _mm_castps_si128(_mm_set1_ps(*(const float *)(p)))
#define i_dot(s, x, w) _mm_add_epi32(s, _mm_madd_epi16(x, w))
#endif
