/* AVX2 with AVX-VNNI: its products of 8 bits, as in simd_avx512_vnni.h. See simd.h for the words. */
#include "lstm_fast/simd_avx2.h"

#ifndef LF_SIMD_VNNI
#define LF_SIMD_VNNI
#undef LOWER_ROWS
#undef INT8_GROUP
#undef INT8_OPERAND
#undef INT8_OFFSET
#undef i_weights
#undef i_dot

#define LOWER_ROWS TILE_ROWS /* nothing is unpacked */
#define INT8_GROUP 4
#define INT8_OPERAND uint8_t
#define INT8_OFFSET 128
#define i_weights(p) _mm256_loadu_si256((const __m256i *)(p))
#define i_dot(s, x, w) _mm256_dpbusd_avx_epi32(s, x, w)
#define i_without(s, p) _mm256_sub_epi32(s, _mm256_loadu_si256((const __m256i *)(p)))
#endif
