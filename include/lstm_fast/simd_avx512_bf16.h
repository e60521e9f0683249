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
#define b_transpose(to, to_row, from, from_row) lf_transpose(to, to_row, from, from_row)

/* Pairs of rows become rows of pairs, whose order within a quarter is undone at the end; then quarters of four rows are
 * transposed, and at last whole quarters. */
static inline void lf_transpose(uint16_t *to, ptrdiff_t to_row, const uint16_t *from, ptrdiff_t from_row)
{
    __m512i halves[2][16], mixed[4][4];
    LF_UNROLL
    for (int pair = 0; pair < 16; pair++) {
        const __m512i even = _mm512_loadu_si512(from + 2 * pair * from_row);
        const __m512i odd = _mm512_loadu_si512(from + (2 * pair + 1) * from_row);
        halves[0][pair] = _mm512_unpacklo_epi16(even, odd);
        halves[1][pair] = _mm512_unpackhi_epi16(even, odd);
    }
    LF_UNROLL
    for (int half = 0; half < 2; half++) {
        LF_UNROLL
        for (int n = 0; n < 4; n++) {
            const __m512i *rows = halves[half] + 4 * n;
            const __m512i a = _mm512_unpacklo_epi32(rows[0], rows[1]), b = _mm512_unpackhi_epi32(rows[0], rows[1]);
            const __m512i c = _mm512_unpacklo_epi32(rows[2], rows[3]), d = _mm512_unpackhi_epi32(rows[2], rows[3]);
            mixed[0][n] = _mm512_unpacklo_epi64(a, c);
            mixed[1][n] = _mm512_unpackhi_epi64(a, c);
            mixed[2][n] = _mm512_unpacklo_epi64(b, d);
            mixed[3][n] = _mm512_unpackhi_epi64(b, d);
        }
        LF_UNROLL
        for (int column = 0; column < 4; column++) {
            const __m512i *q = mixed[column];
            const __m512i a = _mm512_shuffle_i32x4(q[0], q[1], 0x44), b = _mm512_shuffle_i32x4(q[2], q[3], 0x44);
            const __m512i c = _mm512_shuffle_i32x4(q[0], q[1], 0xee), d = _mm512_shuffle_i32x4(q[2], q[3], 0xee);
            uint16_t *out = to + (4 * half + column) * to_row;
            _mm512_storeu_si512(out, _mm512_shuffle_i32x4(a, b, 0x88));
            _mm512_storeu_si512(out + 8 * to_row, _mm512_shuffle_i32x4(a, b, 0xdd));
            _mm512_storeu_si512(out + 16 * to_row, _mm512_shuffle_i32x4(c, d, 0x88));
            _mm512_storeu_si512(out + 24 * to_row, _mm512_shuffle_i32x4(c, d, 0xdd));
        }
    }
}
#endif
