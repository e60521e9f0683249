/* AVX-512 with AMX: its products of matrices of bfloat16, and of 8 bits. See simd.h for the words. */
#include "lstm_fast/simd_avx512_bf16.h"
#include "lstm_fast/simd_avx512_vnni.h"

#ifndef LF_SIMD_AMX
#define LF_SIMD_AMX
#define MATRIX_ROWS 16
#define MATRIX_GROUPS 16
#define MATRIX_CACHE (32 << 10)

typedef struct lf_matrices {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16]; /* of a row */
    uint8_t rows[16];
} lf_matrices;

/* Registers 0 to 3 have sums; 4 and 5 operands, 6 and 7 weights, of MATRIX_GROUPS, or 5 and 7 of `tail` groups. */
static inline void m_configure(int rows, int tail)
{
    lf_matrices m = {.palette = 1};
    for (int n = 0; n < 8; n++) {
        const int groups = tail && (n == 5 || n == 7) ? tail : MATRIX_GROUPS;
        m.bytes[n] = (uint16_t)(n == 5 ? 4 * groups : 64);
        m.rows[n] = (uint8_t)(n < 6 ? rows : groups);
    }
    _tile_loadconfig(&m);
}

#define m_release() _tile_release()
#define m_zero(s) _tile_zero(s)
#define m_load(n, p, row) _tile_loadd(n, p, row)
#define m_store(n, p, row) _tile_stored(n, p, row)
#define m_bfloat16(s, x, w) _tile_dpbf16ps(s, x, w)
#define m_int8(s, x, w) _tile_dpbusd(s, x, w)
#define i_sums(p) _mm512_loadu_si512(p)
#define m_flush_denormals() _mm_setcsr(0x9fc0)
#define m_keep_denormals() _mm_setcsr(0x1f80)
#define b_even(x) _mm512_castsi512_ps(_mm512_slli_epi32((__m512i)(x), 16))
#define b_odd(x) _mm512_castsi512_ps(_mm512_and_si512((__m512i)(x), _mm512_set1_epi32(-65536)))

/* One of each pair of 8-bit integers, which `mask` picks: with its sign flipped, 8 bits of the number that has the bits
 * `upon`; `beside` it is 0. */
static inline __m512 v_int8_of_pairs(const void *p, int mask, int upon, float beside)
{
    const __m512i pairs = _mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p));
    const __m512i bits = _mm512_ternarylogic_epi32(pairs, _mm512_set1_epi32(mask), _mm512_set1_epi32(upon), 0x6a);
    return _mm512_sub_ps(_mm512_castsi512_ps(bits), _mm512_set1_ps(beside));
}
#define v_int8_even(p) v_int8_of_pairs(p, 0xff, 0x4b000080, 0x800080)
#define v_int8_odd(p) v_int8_of_pairs(p, 0xff00, 0x47008000, 0x8080)
#endif
