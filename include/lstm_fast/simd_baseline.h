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

/* 8 accumulators, 2 broadcasts, 1 weight vector and 2 products of the 16 registers. */
#define TILE_ROWS 2
#define PACK_TRANSPOSED 1

#define v_fma(a, b, c) OP(add)(OP(mul)(a, b), c)  /* rounds twice */
#define v_fnma(a, b, c) OP(sub)(c, OP(mul)(a, b)) /* rounds twice */
#define v_select_negative(s, a, b) OP(or)(OP(and)(SIGN_FILL(s), a), OP(andnot)(SIGN_FILL(s), b))
#endif
