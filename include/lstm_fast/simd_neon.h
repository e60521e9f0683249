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

/* 20 accumulators, 4 weight vectors and 5 broadcasts of the 32 registers. */
#define TILE_ROWS 5
#define PACK_TRANSPOSED 1

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
#define v_exponent(t) EXPONENT(t)
#endif
