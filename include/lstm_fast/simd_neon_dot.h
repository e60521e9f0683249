/* Advanced SIMD with dot products of 8 bits (FEAT_DotProd). See simd.h for the words. */
#include "lstm_fast/simd_neon.h"

#ifndef LF_SIMD_DOT
#define LF_SIMD_DOT
#undef INT8_GROUP
#undef INT8_OPERAND
#undef i_weights
#undef i_dot

#define INT8_GROUP 4
#define INT8_OPERAND int8_t
#define i_weights(p) vreinterpretq_s32_s8(vld1q_s8(p))
#define i_dot(s, x, w) vdotq_s32(s, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(w))
#endif
