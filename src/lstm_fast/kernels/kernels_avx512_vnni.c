#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) \
    || !defined(__AVX512VNNI__)
#error "kernels_avx512_vnni.c needs -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni"
#endif
#define LF_ISA avx512_vnni
#define LF_ISA_HEADER "lstm_fast/simd_avx512_vnni.h"
#define LF_LOWER (1 << LF_INT8)
#include "lstm_fast/kernel_body.h"
