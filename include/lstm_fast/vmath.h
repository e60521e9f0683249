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
#undef LIFT
#undef LIFT_BACK
#if LF_DOUBLE
#define EXPONENT_MAGIC 0x1.80000000003ffp52 /* 1.5 * 2^52 + 1023 */
#define LOG2_E 0x1.71547652b82fep0
#define LN2_HIGH 0x1.62e42feep-1 /* 32 bits: n LN2_HIGH is exact */
#define LN2_LOW 0x1.a39ef35793c76p-33
#define EXP_LOWEST (-746.0) /* exp rounds to 0 below */
#define EXP_HIGHEST 710.0   /* exp overflows above */
#define TANH_LOWEST (-50.0) /* expm1 rounds to -1 below */
#define LIFT 512            /* n + LIFT is a normal exponent for n from EXP_LOWEST on */
#define LIFT_BACK 0x1p-512
#else
#define EXPONENT_MAGIC 0x1.8000fep23f /* 1.5 * 2^23 + 127 */
#define LOG2_E 0x1.715476p0f
#define LN2_HIGH 0x1.63p-1f /* 9 bits: n LN2_HIGH is exact */
#define LN2_LOW (-0x1.bd0106p-13f)
#define EXP_LOWEST (-104.0f)
#define EXP_HIGHEST 89.0f
#define TANH_LOWEST (-20.0f)
#define LIFT 64
#define LIFT_BACK 0x1p-64f
#endif

/* A statement for each of `count` vectors, a compile-time constant: side by side, since each is a long chain of
 * dependent operations, and a CPU looks ahead over few of them. */
#undef LF_EACH
#define LF_EACH(statement)          \
    LF_UNROLL                       \
    for (int v = 0; v < count; v++) \
        statement

/* p = expm1(r) for x = n ln 2 + r; t = n + EXPONENT_MAGIC. */
LF_INLINE void LF(expm1_reduced)(vec *p, vec *n, vec *t, const vec *x, const int count)
{
#if LF_DOUBLE
    static const real q[] = {
        0x1.1f95c3ae50695p-29, 0x1.af5f19f2d5bddp-26, 0x1.27e4c55f875f0p-22, 0x1.71ddf825e03f4p-19,
        0x1.a01a01b0d7379p-16, 0x1.a01a01aff474cp-13, 0x1.6c16c16c143e2p-10, 0x1.111111110f690p-7,
        0x1.555555555555ap-5, 0x1.5555555555559p-3, 0x1.0p-1,
    };
#else
    static const real q[] = {0x1.6d99aep-10f, 0x1.122864p-7f, 0x1.555486p-5f, 0x1.5554aep-3f, 0x1.0p-1f};
#endif
    vec r[8];
    LF_EACH(t[v] = v_fma(x[v], v_set1(LOG2_E), v_set1(EXPONENT_MAGIC)));
    LF_EACH(n[v] = v_sub(t[v], v_set1(EXPONENT_MAGIC)));
    LF_EACH(r[v] = v_fnma(n[v], v_set1(LN2_HIGH), x[v]));
    LF_EACH(r[v] = v_fnma(n[v], v_set1(LN2_LOW), r[v]));
    LF_EACH(p[v] = v_set1(q[0]));
    LF_UNROLL
    for (int k = 1; k < (int)(sizeof q / sizeof *q); k++)
        LF_EACH(p[v] = v_fma(p[v], r[v], v_set1(q[k])));
    LF_EACH(p[v] = v_fma(v_mul(r[v], r[v]), p[v], r[v]));
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

/* 2^-|n| for integral n, subnormal ones included. */
static inline vec LF(power_of_minus_abs)(vec n)
{
#ifdef v_ldexp
    return v_ldexp(v_set1((real)1.0), v_sub(v_set1(SIGN_BIT), v_abs(n)));
#else
    return v_mul(v_exponent(v_sub(v_set1(EXPONENT_MAGIC + LIFT), v_abs(n))), v_set1(LIFT_BACK));
#endif
}

/* exp(x) = 2^n (1 + expm1(r)) */
static inline vec LF(exp)(vec x)
{
    vec p, n, t;
    x = v_max(v_set1(EXP_LOWEST), v_min(v_set1(EXP_HIGHEST), x));
    LF(expm1_reduced)(&p, &n, &t, &x, 1);
    return LF(ldexp)(v_add(v_set1((real)1.0), p), n);
}

/* With exp(-x) = 2^n (1 + p) and w = 2^-|n|:
 *
 *     sigmoid(x) = 1 / (1 + (w p + w)) for x >= 0,    w / (1 + (p + w)) for x < 0
 *
 * Both numerators are exact, results are accurate down to the subnormal ones, and nothing overflows. */
LF_INLINE vec LF(sigmoid_argument)(vec x)
{
    return v_max(v_set1(EXP_LOWEST), v_min(v_set1(-EXP_LOWEST), v_sub(v_set1(SIGN_BIT), x)));
}

LF_INLINE vec LF(sigmoid_of)(vec x, vec p, vec n)
{
    vec one = v_set1((real)1.0), w = LF(power_of_minus_abs)(n);
    vec e = v_fma(v_select_negative(x, one, w), p, w);
    return v_div(v_select_negative(x, w, one), v_add(one, e));
}

/* tanh(|x|) = (1 - e) / (1 + e), e = exp(-2 |x|) = 2^n (1 + expm1(r)); 1 - e keeps relative accuracy near 0,
 * where n = 0 and 1 - e = -expm1(r). */
LF_INLINE vec LF(tanh_argument)(vec x)
{
    return v_max(v_set1(TANH_LOWEST), v_mul(v_set1((real)-2.0), v_abs(x)));
}

LF_INLINE vec LF(tanh_of)(vec x, vec p, vec t)
{
    vec one = v_set1((real)1.0), scale = v_exponent(t);
    vec above = v_fnma(scale, p, v_sub(one, scale));
    return v_copysign(v_div(above, v_fma(scale, p, v_add(one, scale))), x);
}

static inline vec LF(sigmoid)(vec x)
{
    vec p, n, t, z = LF(sigmoid_argument)(x);
    LF(expm1_reduced)(&p, &n, &t, &z, 1);
    return LF(sigmoid_of)(x, p, n);
}

/* tanh of the vectors whose bits are set in `tanhs`, a compile-time constant, and sigmoid of the others, in place. */
LF_INLINE void LF(activate_each)(vec *x, const int count, const int tanhs)
{
    vec p[8], n[8], t[8], z[8];
    LF_EACH(z[v] = tanhs >> v & 1 ? LF(tanh_argument)(x[v]) : LF(sigmoid_argument)(x[v]));
    LF(expm1_reduced)(p, n, t, z, count);
    LF_EACH(x[v] = tanhs >> v & 1 ? LF(tanh_of)(x[v], p[v], t[v]) : LF(sigmoid_of)(x[v], p[v], n[v]));
}

LF_INLINE void LF(tanh_each)(vec *x, const int count)
{
    LF(activate_each)(x, count, 0xff);
}

static inline vec LF(tanh)(vec x)
{
    LF(tanh_each)(&x, 1);
    return x;
}

/* The gates from their pre-activations a = (i, f, g, o): sigmoid, but tanh for g. */
LF_INLINE void LF(activate)(vec a[4])
{
    LF(activate_each)(a, 4, 4);
}
