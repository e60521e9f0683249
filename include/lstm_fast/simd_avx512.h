/* SIMD vocabulary for AVX-512 (F, DQ): 16 floats or 8 doubles a vector. See simd.h for the words. */
#if LF_DOUBLE
#define vec __m512d
#define LANES 8
#define OP(name) _mm512_##name##_pd
#define LANE_MASK(n) ((__mmask8)((1u << (n)) - 1u))
#define SIGN_MASK(s) _mm512_movepi64_mask(_mm512_castpd_si512(s))
#define EXPONENT(t) _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_castpd_si512(t), 52))
#define LANES_OF_BOTH(n) _mm512_setr_epi64(n, n + 8, n + 1, n + 9, n + 2, n + 10, n + 3, n + 11)
#else
#define vec __m512
#define LANES 16
#define OP(name) _mm512_##name##_ps
#define LANE_MASK(n) ((__mmask16)((1u << (n)) - 1u))
#define SIGN_MASK(s) _mm512_movepi32_mask(_mm512_castps_si512(s))
#define EXPONENT(t) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(t), 23))
#define LANES_OF_BOTH(n) \
    _mm512_setr_epi32(n, n + 16, n + 1, n + 17, n + 2, n + 18, n + 3, n + 19, n + 4, n + 20, n + 5, n + 21, n + 6, \
                      n + 22, n + 7, n + 23)
#endif

#ifndef LF_SIMD_WORDS
#define LF_SIMD_WORDS
#include <immintrin.h>

#include "lstm_fast/simd_x86.h"

/* 24 accumulators, 4 weight vectors and 1 broadcast. */
#define REGISTERS 32
#define TILE_ROWS 6

#define v_load_n(p, n) OP(maskz_loadu)(LANE_MASK(n), p)
#define v_store_n(p, n, a) OP(mask_storeu)(p, LANE_MASK(n), a)
#define v_fma(a, b, c) OP(fmadd)(a, b, c)
#define v_fnma(a, b, c) OP(fnmadd)(a, b, c)
#define v_select_negative(s, a, b) OP(mask_blend)(SIGN_MASK(s), b, a)
#define v_zip_low(a, b) OP(permutex2var)(a, LANES_OF_BOTH(0), b)
#define v_zip_high(a, b) OP(permutex2var)(a, LANES_OF_BOTH(LANES / 2), b)
#define v_ldexp(a, n) OP(scalef)(a, n)

#define LOWER_ROWS TILE_ROWS
#define v_bfloat16_even(p) _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16))
#define v_bfloat16_odd(p) _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), \
                                                               _mm512_set1_epi32((int)0xffff0000)))
#define v_int8(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p))))

/* Pairs of 16 bits: no pair of products saturates, and beside 32-bit sums they take two instructions. */
#define ivec __m512i
#define INT8_GROUP 2
#define INT8_OPERAND int16_t
#define INT8_OFFSET 0
#define i_zero() _mm512_setzero_si512()
#define i_real(s) _mm512_cvtepi32_ps(s)
#define i_weights(p) _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(p)))
#define i_operand(p) _mm512_castps_si512(_mm512_set1_ps(*(const float *)(p)))
#define i_dot(s, x, w) _mm512_add_epi32(s, _mm512_madd_epi16(x, w))
#endif
