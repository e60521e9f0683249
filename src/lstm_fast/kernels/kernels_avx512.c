#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__)
#error "kernels_avx512.c needs -mavx512f -mavx512bw -mavx512dq -mavx512vl"
#endif
#define LF_ISA avx512
#define LF_ISA_HEADER "lstm_fast/simd_avx512.h"
#include "lstm_fast/kernel_body.h"
