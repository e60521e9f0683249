/* AVX-512 with VNNI: its products of 8 bits. See simd.h for the words. */
#include "lstm_fast/simd_avx512.h"

#ifndef LF_SIMD_VNNI
#define LF_SIMD_VNNI
#undef INT8_GROUP
#undef INT8_OPERAND
#undef INT8_OFFSET
#undef i_weights
#undef i_dot

/* Four terms an instruction, of which one factor has no sign. A sum beyond 32 bits wraps around, and back again when
 * the offsets are taken from it. */
#define INT8_GROUP 4
#define INT8_OPERAND uint8_t
#define INT8_OFFSET 128
#define i_weights(p) _mm512_loadu_si512(p)
#define i_dot(s, x, w) _mm512_dpbusd_epi32(s, x, w)
#define i_without(s, p) _mm512_sub_epi32(s, _mm512_loadu_si512(p))
#endif
