#if !defined(__AVX2__) || !defined(__FMA__)
#error "kernels_avx2.c needs -mavx2 -mfma"
#endif
#define LF_ISA avx2
#define LF_ISA_HEADER "lstm_fast/simd_avx2.h"
#include "lstm_fast/kernel_body.h"
