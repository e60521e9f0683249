#if !defined(__ARM_FEATURE_DOTPROD)
#error "kernels_neon_dot.c needs -march=armv8.2-a+dotprod"
#endif
#define LF_ISA neon_dot
#define LF_ISA_HEADER "lstm_fast/simd_neon_dot.h"
#define LF_LOWER (1 << LF_INT8)
#include "lstm_fast/kernel_body.h"
