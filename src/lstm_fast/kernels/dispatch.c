/* The table of ISAs, best first. The build defines LF_HAVE_<ISA> for each kernels_<isa>.c it compiled. */
#include "lstm_fast/dispatch.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <stdint.h>

/* The register state that the operating system saves: CPUID tells what the CPU has, this what is on. */
static uint64_t saved_state(void)
{
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE))
        return 0;
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* CPUID leaf 7 has all of `ebx` and of `ecx`, leaf 1 has FMA, and all of `state` is saved. */
static int has(unsigned ebx, unsigned ecx, uint64_t state)
{
    unsigned a, b, c, d, c1;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 & bit_FMA) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    return (b & ebx) == ebx && (c & ecx) == ecx && (saved_state() & state) == state;
}

#define STATE_AVX 0x06u    /* xmm, ymm */
#define STATE_AVX512 0xe6u /* and k0-k7, the upper halves of zmm0-15, zmm16-31 */

#ifdef LF_HAVE_AVX2
static int has_avx2(void) { return has(bit_AVX2, 0, STATE_AVX); }
#endif
#if defined(LF_HAVE_AVX512) || defined(LF_HAVE_AVX512_VNNI)
#define AVX512 (bit_AVX2 | bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL)
#endif
#ifdef LF_HAVE_AVX512
static int has_avx512(void) { return has(AVX512, 0, STATE_AVX512); }
#endif
#ifdef LF_HAVE_AVX512_VNNI
#define VNNI (1u << 11) /* AVX512_VNNI in ecx */
static int has_avx512_vnni(void) { return has(AVX512, VNNI, STATE_AVX512); }
#endif
#endif

#if defined(LF_HAVE_BASELINE) || defined(LF_HAVE_NEON)
static int always(void) { return 1; }
#endif

#define KERNELS(isa) &lf_kernels_##isa##_f32, &lf_kernels_##isa##_f64
#define DECLARE(isa)                                                   \
    extern const lf_kernels lf_kernels_##isa##_f32, lf_kernels_##isa##_f64; \
    extern const lf_products lf_products_##isa##_bfloat16, lf_products_##isa##_int8, lf_products_##isa##_widened
DECLARE(avx512_vnni);
DECLARE(avx512);
DECLARE(avx2);
DECLARE(baseline);
DECLARE(neon);

const lf_isa lf_isas[] = {
#ifdef LF_HAVE_AVX512_VNNI
    {"avx512_vnni", "AVX-512 F, BW, DQ, VL, VNNI", KERNELS(avx512_vnni), has_avx512_vnni},
#endif
#ifdef LF_HAVE_AVX512
    {"avx512", "AVX-512 F, BW, DQ, VL", KERNELS(avx512), has_avx512},
#endif
#ifdef LF_HAVE_AVX2
    {"avx2", "AVX2, FMA", KERNELS(avx2), has_avx2},
#endif
#ifdef LF_HAVE_BASELINE
    {"baseline", "SSE2", KERNELS(baseline), always},
#endif
#ifdef LF_HAVE_NEON
    {"neon", "Advanced SIMD", KERNELS(neon), always},
#endif
};
const int lf_isa_count = sizeof lf_isas / sizeof lf_isas[0];

#define LOWERS(isa, fma, dot, supported)                                   \
    {#isa, "widened, " fma, &lf_products_##isa##_bfloat16, supported}, \
    {#isa, dot, &lf_products_##isa##_int8, supported},                     \
    {#isa, "widened, " fma, &lf_products_##isa##_widened, supported}

const lf_lower lf_lowers[] = {
#ifdef LF_HAVE_AVX512_VNNI
    LOWERS(avx512_vnni, "vfmadd", "vpdpbusd", has_avx512_vnni),
#endif
#ifdef LF_HAVE_AVX512
    LOWERS(avx512, "vfmadd", "vpmaddwd", has_avx512),
#endif
#ifdef LF_HAVE_AVX2
    LOWERS(avx2, "vfmadd", "vpmaddwd", has_avx2),
#endif
#ifdef LF_HAVE_BASELINE
    LOWERS(baseline, "mulps", "pmaddwd", always),
#endif
#ifdef LF_HAVE_NEON
    LOWERS(neon, "fmla", "smull", always),
#endif
};
const int lf_lower_count = sizeof lf_lowers / sizeof lf_lowers[0];
