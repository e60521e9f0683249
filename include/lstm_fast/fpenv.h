/* The floating-point environment of one thread: kernels run in the default one (round to nearest,
 * subnormals kept, exceptions masked), and leave the caller's as it was, exception flags included. */
#ifndef LSTM_FAST_FPENV_H
#define LSTM_FAST_FPENV_H

#include <stdint.h>

#if defined(__x86_64__)
#include <immintrin.h>
typedef uint32_t lf_fpenv;
static inline lf_fpenv lf_fpenv_enter(void)
{
    lf_fpenv saved = _mm_getcsr();
    _mm_setcsr(0x1f80);
    return saved;
}
static inline void lf_fpenv_leave(lf_fpenv saved) { _mm_setcsr(saved); }
#elif defined(__aarch64__)
typedef struct {
    uint64_t control, status;
} lf_fpenv;
static inline lf_fpenv lf_fpenv_enter(void)
{
    lf_fpenv saved;
    __asm__ volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(saved.control), "=r"(saved.status));
    __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0));
    return saved;
}
static inline void lf_fpenv_leave(lf_fpenv saved)
{
    __asm__ volatile("msr fpcr, %0\n\tmsr fpsr, %1" : : "r"(saved.control), "r"(saved.status));
}
#endif

#endif
