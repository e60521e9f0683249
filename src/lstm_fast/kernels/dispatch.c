/* The table of ISAs, best first. The build defines LF_HAVE_<ISA> for each kernels_<isa>.c it compiled. */
#define _GNU_SOURCE /* syscall */
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

/* Features in leaf 7 of CPUID: in ebx, ecx and edx, and in eax of its subleaf 1. */
typedef struct features {
    unsigned ebx, ecx, edx, eax1;
} features;

#define STATE_AVX 0x06u    /* xmm, ymm */
#define STATE_AVX512 0xe6u /* and k0-k7, the upper halves of zmm0-15, zmm16-31 */
#define STATE_AMX (STATE_AVX512 | 0x60000u) /* and the configuration of matrices, and they themselves */

/* The CPU has FMA and all `wanted` features, and all of `state` is saved. */
static int has(features wanted, uint64_t state)
{
    unsigned a, b, c, d, leaf1_c;
    if (!__get_cpuid(1, &a, &b, &leaf1_c, &d) || !(leaf1_c & bit_FMA) || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
        return 0;
    if ((b & wanted.ebx) != wanted.ebx || (c & wanted.ecx) != wanted.ecx || (d & wanted.edx) != wanted.edx)
        return 0;
    if (wanted.eax1 && (a < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & wanted.eax1) != wanted.eax1))
        return 0;
    return (saved_state() & state) == state;
}

#define AVX512 (bit_AVX2 | bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL)
#define AVX512_VNNI (1u << 11) /* in ecx */
#define AVX_VNNI (1u << 4)     /* in eax of subleaf 1 */
#define AVX512_BF16 (1u << 5)  /* in eax of subleaf 1 */
#define AMX (1u << 22 | 1u << 24 | 1u << 25) /* in edx: bfloat16, matrices, 8 bits */

#ifdef LF_HAVE_AVX2
static int has_avx2(void) { return has((features){.ebx = bit_AVX2}, STATE_AVX); }
#endif
#ifdef LF_HAVE_AVX2_VNNI
static int has_avx2_vnni(void) { return has((features){.ebx = bit_AVX2, .eax1 = AVX_VNNI}, STATE_AVX); }
#endif
#ifdef LF_HAVE_AVX512
static int has_avx512(void) { return has((features){.ebx = AVX512}, STATE_AVX512); }
#endif
#ifdef LF_HAVE_AVX512_VNNI
static int has_avx512_vnni(void) { return has((features){.ebx = AVX512, .ecx = AVX512_VNNI}, STATE_AVX512); }
#endif
#ifdef LF_HAVE_AVX512_BF16
static int has_avx512_bf16(void)
{
    return has((features){.ebx = AVX512, .ecx = AVX512_VNNI, .eax1 = AVX512_BF16}, STATE_AVX512);
}
#endif
#ifdef LF_HAVE_AVX512_AMX
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>

/* Linux saves matrices of a process that has asked for that: signal handlers need more of a stack then. It refuses where
 * one of them has too little. See Documentation/arch/x86/xstate.rst. */
static int may_use_matrices(void)
{
    enum { REQUEST_PERMISSION = 0x1023, MATRICES = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, MATRICES) == 0;
}
#else
static int may_use_matrices(void) { return 0; }
#endif

static int has_avx512_amx(void)
{
    return has((features){.ebx = AVX512, .ecx = AVX512_VNNI, .edx = AMX, .eax1 = AVX512_BF16}, STATE_AMX)
           && may_use_matrices();
}
#endif
#endif

#if defined(LF_HAVE_NEON_DOT) || defined(LF_HAVE_NEON_BF16)
#if defined(__linux__)
#include <sys/auxv.h>

/* Bits of the auxiliary vector; a compiler's headers may be too old to name them. */
#define ASIMD_DOT (1ul << 20) /* in AT_HWCAP */
#define BF16 (1ul << 14)      /* in AT_HWCAP2 */

static inline int has_dot(void) { return !!(getauxval(AT_HWCAP) & ASIMD_DOT); }
static inline int has_bf16(void) { return !!(getauxval(AT_HWCAP2) & BF16); }
#elif defined(__APPLE__)
#include <stddef.h>
#include <sys/sysctl.h>

static int has_feature(const char *name)
{
    int on = 0;
    size_t size = sizeof on;
    return sysctlbyname(name, &on, &size, NULL, 0) == 0 && on;
}

static inline int has_dot(void) { return has_feature("hw.optional.arm.FEAT_DotProd"); }
static inline int has_bf16(void) { return has_feature("hw.optional.arm.FEAT_BF16"); }
#else /* it is not known how to ask */
static inline int has_dot(void) { return 0; }
static inline int has_bf16(void) { return 0; }
#endif
static inline int has_dot_and_bf16(void) { return has_dot() && has_bf16(); }
#endif

#if defined(LF_HAVE_BASELINE) || defined(LF_HAVE_NEON)
static int always(void) { return 1; }
#endif

/* An extension has the kernels of its ISA, and products of lower precision of its own. */
#define KERNELS(isa) &lf_kernels_##isa##_f32, &lf_kernels_##isa##_f64
#define DECLARE(isa)                                                   \
    extern const lf_kernels lf_kernels_##isa##_f32, lf_kernels_##isa##_f64; \
    extern const lf_products lf_products_##isa##_bfloat16, lf_products_##isa##_int8, lf_products_##isa##_widened
DECLARE(avx512);
DECLARE(avx2);
DECLARE(baseline);
DECLARE(neon);
extern const lf_products lf_products_avx512_vnni_int8, lf_products_avx512_bf16_bfloat16, lf_products_avx512_bf16_mixed,
    lf_products_avx512_amx_int8, lf_products_avx512_amx_bfloat16, lf_products_avx512_amx_mixed,
    lf_products_avx2_vnni_int8, lf_products_neon_dot_int8, lf_products_neon_bf16_bfloat16, lf_products_neon_bf16_mixed;

const lf_isa lf_isas[] = {
#ifdef LF_HAVE_AVX512_AMX
    {"avx512_amx", "AVX-512 F, BW, DQ, VL, VNNI, BF16, AMX TILE, BF16, INT8", KERNELS(avx512), has_avx512_amx},
#endif
#ifdef LF_HAVE_AVX512_BF16
    {"avx512_bf16", "AVX-512 F, BW, DQ, VL, VNNI, BF16", KERNELS(avx512), has_avx512_bf16},
#endif
#ifdef LF_HAVE_AVX512_VNNI
    {"avx512_vnni", "AVX-512 F, BW, DQ, VL, VNNI", KERNELS(avx512), has_avx512_vnni},
#endif
#ifdef LF_HAVE_AVX512
    {"avx512", "AVX-512 F, BW, DQ, VL", KERNELS(avx512), has_avx512},
#endif
#ifdef LF_HAVE_AVX2_VNNI
    {"avx2_vnni", "AVX2, FMA, AVX-VNNI", KERNELS(avx2), has_avx2_vnni},
#endif
#ifdef LF_HAVE_AVX2
    {"avx2", "AVX2, FMA", KERNELS(avx2), has_avx2},
#endif
#ifdef LF_HAVE_BASELINE
    {"baseline", "SSE2", KERNELS(baseline), always},
#endif
#ifdef LF_HAVE_NEON_BF16
    {"neon_bf16", "Advanced SIMD, DotProd, BF16", KERNELS(neon), has_dot_and_bf16},
#endif
#ifdef LF_HAVE_NEON_DOT
    {"neon_dot", "Advanced SIMD, DotProd", KERNELS(neon), has_dot},
#endif
#ifdef LF_HAVE_NEON
    {"neon", "Advanced SIMD", KERNELS(neon), always},
#endif
};
const int lf_isa_count = sizeof lf_isas / sizeof lf_isas[0];

/* The lower precisions of an ISA. With weights of 8 bits, inputs that are not are multiplied as floats, or as bfloat16
 * where it has instructions for that (MIXED). */
#define LOWERS(isa, bfloat16, of_bfloat16, int8, of_int8, base)   \
    {#isa, bfloat16, &lf_products_##of_bfloat16##_bfloat16},      \
    {#isa, int8, &lf_products_##of_int8##_int8},                  \
    {#isa, "widened", &lf_products_##base##_widened}
#define MIXED(isa, bfloat16) {#isa, bfloat16, &lf_products_##isa##_mixed}

const lf_lower lf_lowers[] = {
#ifdef LF_HAVE_AVX512_AMX
    LOWERS(avx512_amx, "tdpbf16ps", avx512_amx, "tdpbusd, vpdpbusd", avx512_amx, avx512),
    MIXED(avx512_amx, "tdpbf16ps"),
#endif
#ifdef LF_HAVE_AVX512_BF16
    LOWERS(avx512_bf16, "vdpbf16ps", avx512_bf16, "vpdpbusd", avx512_vnni, avx512),
    MIXED(avx512_bf16, "vdpbf16ps"),
#endif
#ifdef LF_HAVE_AVX512_VNNI
    LOWERS(avx512_vnni, "widened, vfmadd", avx512, "vpdpbusd", avx512_vnni, avx512),
#endif
#ifdef LF_HAVE_AVX512
    LOWERS(avx512, "widened, vfmadd", avx512, "vpmaddwd", avx512, avx512),
#endif
#ifdef LF_HAVE_AVX2_VNNI
    LOWERS(avx2_vnni, "widened, vfmadd", avx2, "vpdpbusd", avx2_vnni, avx2),
#endif
#ifdef LF_HAVE_AVX2
    LOWERS(avx2, "widened, vfmadd", avx2, "vpmaddwd", avx2, avx2),
#endif
#ifdef LF_HAVE_BASELINE
    LOWERS(baseline, "widened, mulps", baseline, "pmaddwd", baseline, baseline),
#endif
#ifdef LF_HAVE_NEON_BF16
    LOWERS(neon_bf16, "bfdot", neon_bf16, "sdot", neon_dot, neon),
    MIXED(neon_bf16, "bfdot"),
#endif
#ifdef LF_HAVE_NEON_DOT
    LOWERS(neon_dot, "widened, fmla", neon, "sdot", neon_dot, neon),
#endif
#ifdef LF_HAVE_NEON
    LOWERS(neon, "widened, fmla", neon, "smull", neon, neon),
#endif
};
const int lf_lower_count = sizeof lf_lowers / sizeof lf_lowers[0];
