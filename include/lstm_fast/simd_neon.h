/* SIMD vocabulary for aarch64 (Advanced SIMD): 4 floats or 2 doubles a vector. See simd.h for the words. */
#if LF_DOUBLE
#define vec float64x2_t
#define LANES 2
#define OP(name) name##_f64
#define SIGN_FILL(s) vreinterpretq_u64_s64(vshrq_n_s64(vreinterpretq_s64_f64(s), 63))
#define SIGN_LANES vdupq_n_u64(UINT64_C(1) << 63)
#define EXPONENT(t) vreinterpretq_f64_u64(vshlq_n_u64(vreinterpretq_u64_f64(t), 52))
#else
#define vec float32x4_t
#define LANES 4
#define OP(name) name##_f32
#define SIGN_FILL(s) vreinterpretq_u32_s32(vshrq_n_s32(vreinterpretq_s32_f32(s), 31))
#define SIGN_LANES vdupq_n_u32(UINT32_C(1) << 31)
#define EXPONENT(t) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(t), 23))
#endif

#ifndef LF_SIMD_WORDS
#define LF_SIMD_WORDS
#include <arm_neon.h>

/* 20 accumulators, 4 weight vectors and 5 broadcasts. */
#define REGISTERS 32
#define TILE_ROWS 5

#define v_set1(x) OP(vdupq_n)(x)
#define v_load(p) OP(vld1q)(p)
#define v_store(p, a) OP(vst1q)(p, a)
#define v_add(a, b) OP(vaddq)(a, b)
#define v_sub(a, b) OP(vsubq)(a, b)
#define v_mul(a, b) OP(vmulq)(a, b)
#define v_div(a, b) OP(vdivq)(a, b)
#define v_fma(a, b, c) OP(vfmaq)(c, a, b)
#define v_fnma(a, b, c) OP(vfmsq)(c, a, b)
#define v_sqrt(a) OP(vsqrtq)(a)
#define v_min(a, b) OP(vminq)(a, b)
#define v_max(a, b) OP(vmaxq)(a, b)
#define v_abs(a) OP(vabsq)(a)
#define v_copysign(a, s) OP(vbslq)(SIGN_LANES, s, a)
#define v_select_negative(s, a, b) OP(vbslq)(SIGN_FILL(s), a, b)
#define v_zip_low(a, b) OP(vzip1q)(a, b)
#define v_zip_high(a, b) OP(vzip2q)(a, b)
#define v_exponent(t) EXPONENT(t)

#define LOWER_ROWS TILE_ROWS
#define v_bfloat16_even(p) vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_u16(vld1q_u16(p)), 16))
#define v_bfloat16_odd(p) \
    vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_u16(vld1q_u16(p)), vdupq_n_u32(0xffff0000u)))
static inline float32x4_t lf_int8(const int8_t *p)
{
    const int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vld1_dup_s32((const int32_t *)p)));
    return vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}
#define v_int8(p) lf_int8(p)

/* Pairs of 16 bits, whose products are added up in 32 bits. */
#define ivec int32x4_t
#define INT8_GROUP 2
#define INT8_OPERAND int16_t
#define INT8_OFFSET 0
#define i_zero() vdupq_n_s32(0)
#define i_real(s) vcvtq_f32_s32(s)
#define i_weights(p) vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p)))
#define i_operand(p) vld1q_dup_s32((const int32_t *)(p))
static inline int32x4_t lf_dot(int32x4_t s, int16x8_t x, int16x8_t w)
{
    return vaddq_s32(s, vpaddq_s32(vmull_s16(vget_low_s16(x), vget_low_s16(w)), vmull_high_s16(x, w)));
}
#define i_dot(s, x, w) lf_dot(s, vreinterpretq_s16_s32(x), vreinterpretq_s16_s32(w))
#endif
