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
#endif
