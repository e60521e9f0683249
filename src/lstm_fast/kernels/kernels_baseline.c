#if !defined(__SSE2__)
#error "kernels_baseline.c needs -msse2 (the default of x86-64)"
#endif
#define LF_ISA baseline
#define LF_ISA_HEADER "lstm_fast/simd_baseline.h"
#include "lstm_fast/kernel_body.h"
