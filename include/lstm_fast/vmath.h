/* exp, sigmoid and tanh of one vector, for the dtype that simd.h has selected.
 *
 * All three rest on one reduction: x = n ln 2 + r with n integral and |r| <= ln(2) / 2, and
 *
 *     expm1(r) = r + r^2 q(r),    q a minimax polynomial found with Remez' algorithm
 *                                 (relative error 1.4e-8 in float, 2.7e-19 in double)
 *
 * Largest errors in float32 over all 2^32 inputs, in ULP of the correctly rounded result
 * (tests/test_vector_math.py holds the same table and repeats the measurement):
 *
 *               FMA ISAs, with input     baseline, with input
 *     exp       1.047  -0x1.75a312p+2    1.022  -0x1.762c42p+2
 *     sigmoid   2.000  -0x1.69c008p-12   2.000  -0x1.69c008p-12
 *     tanh      1.966   0x1.0a0d6ep-1    1.990   0x1.0a09fcp-1
 */
#undef EXPONENT_MAGIC
#undef LOG2_E
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_LOWEST
#undef EXP_HIGHEST
#undef TANH_LOWEST
#if LF_DOUBLE
#define EXPONENT_MAGIC 0x1.80000000003ffp52 /* 1.5 * 2^52 + 1023 */
#define LOG2_E 0x1.71547652b82fep0
#define LN2_HIGH 0x1.62e42feep-1 /* 32 bits: n LN2_HIGH is exact */
#define LN2_LOW 0x1.a39ef35793c76p-33
#define EXP_LOWEST (-746.0) /* exp rounds to 0 below */
#define EXP_HIGHEST 710.0   /* exp overflows above */
#define TANH_LOWEST (-50.0) /* expm1 rounds to -1 below */
#else
#define EXPONENT_MAGIC 0x1.8000fep23f /* 1.5 * 2^23 + 127 */
#define LOG2_E 0x1.715476p0f
#define LN2_HIGH 0x1.63p-1f /* 9 bits: n LN2_HIGH is exact */
#define LN2_LOW (-0x1.bd0106p-13f)
#define EXP_LOWEST (-104.0f)
#define EXP_HIGHEST 89.0f
#define TANH_LOWEST (-20.0f)
#endif

/* expm1(r) for x = n ln 2 + r; *n, and *t = n + EXPONENT_MAGIC. */
static inline vec LF(expm1_reduced)(vec x, vec *n, vec *t)
{
    *t = v_fma(x, v_set1(LOG2_E), v_set1(EXPONENT_MAGIC));
    *n = v_sub(*t, v_set1(EXPONENT_MAGIC));
    vec r = v_fnma(*n, v_set1(LN2_HIGH), x);
    r = v_fnma(*n, v_set1(LN2_LOW), r);
#if LF_DOUBLE
    vec q = v_set1(0x1.1f95c3ae50695p-29);
    q = v_fma(q, r, v_set1(0x1.af5f19f2d5bddp-26));
    q = v_fma(q, r, v_set1(0x1.27e4c55f875f0p-22));
    q = v_fma(q, r, v_set1(0x1.71ddf825e03f4p-19));
    q = v_fma(q, r, v_set1(0x1.a01a01b0d7379p-16));
    q = v_fma(q, r, v_set1(0x1.a01a01aff474cp-13));
    q = v_fma(q, r, v_set1(0x1.6c16c16c143e2p-10));
    q = v_fma(q, r, v_set1(0x1.111111110f690p-7));
    q = v_fma(q, r, v_set1(0x1.555555555555ap-5));
    q = v_fma(q, r, v_set1(0x1.5555555555559p-3));
    q = v_fma(q, r, v_set1(0x1.0p-1));
#else
    vec q = v_set1(0x1.6d99aep-10f);
    q = v_fma(q, r, v_set1(0x1.122864p-7f));
    q = v_fma(q, r, v_set1(0x1.555486p-5f));
    q = v_fma(q, r, v_set1(0x1.5554aep-3f));
    q = v_fma(q, r, v_set1(0x1.0p-1f));
#endif
    return v_fma(v_mul(r, r), q, r);
}

static inline vec LF(ldexp)(vec a, vec n)
{
#ifdef v_ldexp
    return v_ldexp(a, n);
#else
    /* In two factors, since 2^n may be subnormal or overflow; only the second product can round. */
    vec half = v_fma(n, v_set1((real)0.5), v_set1(EXPONENT_MAGIC));
    vec rest = v_add(v_sub(n, v_sub(half, v_set1(EXPONENT_MAGIC))), v_set1(EXPONENT_MAGIC));
    return v_mul(v_mul(a, v_exponent(half)), v_exponent(rest));
#endif
}

/* exp(x) = 2^n (1 + expm1(r)) */
static inline vec LF(exp)(vec x)
{
    vec n, t;
    x = v_max(v_set1(EXP_LOWEST), v_min(v_set1(EXP_HIGHEST), x));
    vec p = LF(expm1_reduced)(x, &n, &t);
    return LF(ldexp)(v_add(v_set1((real)1.0), p), n);
}

/* With exp(-x) = 2^n (1 + p) and w = 2^-|n|:
 *
 *     sigmoid(x) = 1 / (1 + (w p + w)) for x >= 0,    w / (1 + (p + w)) for x < 0
 *
 * Both numerators are exact, results are accurate down to the subnormal ones, and nothing overflows. */
static inline vec LF(sigmoid)(vec x)
{
    vec n, t, one = v_set1((real)1.0), highest = v_set1(-EXP_LOWEST);
    vec minus_x = v_max(v_set1(EXP_LOWEST), v_min(highest, v_sub(v_set1(SIGN_BIT), x)));
    vec p = LF(expm1_reduced)(minus_x, &n, &t);
    vec w = LF(ldexp)(one, v_sub(v_set1(SIGN_BIT), v_abs(n)));
    vec e = v_fma(v_select_negative(x, one, w), p, w);
    return v_div(v_select_negative(x, w, one), v_add(one, e));
}

/* tanh(|x|) = (1 - e) / (1 + e), e = exp(-2 |x|) = 2^n (1 + expm1(r)); 1 - e keeps relative accuracy near 0,
 * where n = 0 and 1 - e = -expm1(r). */
static inline vec LF(tanh)(vec x)
{
    vec n, t, one = v_set1((real)1.0);
    vec p = LF(expm1_reduced)(v_max(v_set1(TANH_LOWEST), v_mul(v_set1((real)-2.0), v_abs(x))), &n, &t);
    vec scale = v_exponent(t);
    vec above = v_fnma(scale, p, v_sub(one, scale));
    return v_copysign(v_div(above, v_fma(scale, p, v_add(one, scale))), x);
}
