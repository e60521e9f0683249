#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) \
    || !defined(__AVX512BF16__)
#error "kernels_avx512_bf16.c needs -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512bf16"
#endif
#define LF_ISA avx512_bf16
#define LF_ISA_HEADER "lstm_fast/simd_avx512_bf16.h"
#define LF_LOWER (1 << LF_BF16 | 1 << LF_MIXED)
#include "lstm_fast/kernel_body.h"
