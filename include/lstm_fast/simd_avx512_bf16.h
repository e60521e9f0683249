/* AVX-512 with BF16: its products of bfloat16. See simd.h for the words. */
#include "lstm_fast/simd_avx512.h"

#ifndef LF_SIMD_BF16
#define LF_SIMD_BF16
/* The second product of a pair is added first, each with one rounding, to nearest; denormals, in and out, are 0. */
#define bvec __m512bh
#define b_weights(p) ((__m512bh)_mm512_loadu_si512(p))
#define b_operand(p) ((__m512bh)_mm512_castps_si512(_mm512_set1_ps(*(const float *)(p))))
#define b_int8(p) _mm512_cvtne2ps_pbh(v_int8((p) + LANES), v_int8(p))
#define b_dot(s, x, w) _mm512_dpbf16_ps(s, x, w)
#endif
