#if !defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
#error "kernels_neon_bf16.c needs -march=armv8.2-a+bf16"
#endif
#define LF_ISA neon_bf16
#define LF_ISA_HEADER "lstm_fast/simd_neon_bf16.h"
#define LF_LOWER (1 << LF_BF16 | 1 << LF_MIXED)
#include "lstm_fast/kernel_body.h"
