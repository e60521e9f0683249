/* Advanced SIMD with dot products of bfloat16 (FEAT_BF16). See simd.h for the words. */
#include "lstm_fast/simd_neon.h"

#ifndef LF_SIMD_BF16
#define LF_SIMD_BF16
/* Both products, their sum, and that of it and s: each is rounded, to odd; denormals, in and out, are 0. */
#define bvec bfloat16x8_t
#define b_weights(p) vreinterpretq_bf16_u16(vld1q_u16(p))
#define b_operand(p) vreinterpretq_bf16_u32(vld1q_dup_u32((const uint32_t *)(p)))
#define b_dot(s, x, w) vbfdotq_f32(s, x, w)
#endif
