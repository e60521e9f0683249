#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__) || !defined(__AVX512VL__) \
    || !defined(__AVX512VNNI__) || !defined(__AVX512BF16__) || !(defined(__AMX_TILE__) || defined(__AMXTILE__))
#error "kernels_avx512_amx.c needs the flags of avx512, -mavx512vnni -mavx512bf16 -mamx-tile -mamx-int8 -mamx-bf16"
#endif
#define LF_ISA avx512_amx
#define LF_ISA_HEADER "lstm_fast/simd_avx512_amx.h"
#define LF_LOWER (1 << LF_BF16 | 1 << LF_INT8 | 1 << LF_MIXED)
#include "lstm_fast/kernel_body.h"
