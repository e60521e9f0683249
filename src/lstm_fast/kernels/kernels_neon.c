#if !defined(__aarch64__)
#error "kernels_neon.c needs an aarch64 target"
#endif
#define LF_ISA neon
#define LF_ISA_HEADER "lstm_fast/simd_neon.h"
#include "lstm_fast/kernel_body.h"
