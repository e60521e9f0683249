#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__AVXVNNI__)
#error "kernels_avx2_vnni.c needs -mavx2 -mfma -mavxvnni"
#endif
#define LF_ISA avx2_vnni
#define LF_ISA_HEADER "lstm_fast/simd_avx2_vnni.h"
#define LF_LOWER (1 << LF_INT8)
#include "lstm_fast/kernel_body.h"
