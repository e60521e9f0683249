/* Advanced SIMD with dot products of bfloat16 (FEAT_BF16). See simd.h for the words. */
#include "lstm_fast/simd_neon.h"

#ifndef LF_SIMD_BF16
#define LF_SIMD_BF16
/* Both products, their sum, and that of it and s: each is rounded, to odd; denormals, in and out, are 0. */
#define bvec bfloat16x8_t

/* The floats of such integers end in 16 zeros. */
static inline bfloat16x8_t lf_pairs_of_int8(const int8_t *p)
{
    const int32x4_t pairs = vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p)));
    const float32x4_t even = vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(pairs, 16), 16));
    const float32x4_t odd = vcvtq_f32_s32(vshrq_n_s32(pairs, 16));
    return vreinterpretq_bf16_u32(vorrq_u32(vshrq_n_u32(vreinterpretq_u32_f32(even), 16), vreinterpretq_u32_f32(odd)));
}

#define b_weights(p) vreinterpretq_bf16_u16(vld1q_u16(p))
#define b_operand(p) vreinterpretq_bf16_u32(vld1q_dup_u32((const uint32_t *)(p)))
#define b_int8(p) lf_pairs_of_int8(p)
#define b_dot(s, x, w) vbfdotq_f32(s, x, w)
#endif
