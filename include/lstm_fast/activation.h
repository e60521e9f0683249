/* The activation functions of lf_activation (kernels.h), for one vector, and their derivatives. */

/* log(1 + e) for 0 <= e <= 1, as 2 atanh(s) with s = e / (2 + e) <= 1/3: the sum of s^(2k+1) / (2k+1), whose first
 * missing term is below a quarter of a unit in the last place. */
LF_INLINE vec LF(log1p)(vec e)
{
    const int last = LF_DOUBLE ? 16 : 7;
    vec s = v_div(e, v_add(v_set1((real)2), e)), z = v_mul(s, s), sum = v_set1((real)1 / (2 * last + 1));
    LF_UNROLL
    for (int k = last - 1; k >= 0; k--)
        sum = v_fma(sum, z, v_set1((real)1 / (2 * k + 1)));
    return v_mul(v_add(s, s), sum);
}

/* exp(x) - 1 for x <= 0, accurate near 0 */
LF_INLINE vec LF(expm1_of_negative)(vec x)
{
    vec p, n, t;
    x = v_max(v_set1(TANH_LOWEST), x);
    LF(expm1_reduced)(&p, &n, &t, &x, 1);
    vec scale = v_exponent(t);
    return v_fma(scale, p, v_sub(scale, v_set1((real)1)));
}

static vec LF(activation)(const lf_activation *f, vec x)
{
    const vec zero = v_set1((real)0), one = v_set1((real)1);
    const vec alpha = v_set1((real)f->alpha), beta = v_set1((real)f->beta);
    switch (f->function) {
    case LF_SIGMOID: return LF(sigmoid)(x);
    case LF_TANH: return LF(tanh)(x);
    case LF_RELU: return v_max(zero, x);
    case LF_HARD_SIGMOID: return v_max(zero, v_min(one, v_fma(alpha, x, beta)));
    case LF_SOFTSIGN: return v_div(x, v_add(one, v_abs(x)));
    case LF_SOFTPLUS: return v_add(v_max(zero, x), LF(log1p)(LF(exp)(v_sub(v_set1(SIGN_BIT), v_abs(x)))));
    case LF_ELU: return v_select_negative(x, v_mul(alpha, LF(expm1_of_negative)(v_min(zero, x))), x);
    case LF_LEAKY_RELU: return v_select_negative(x, v_mul(alpha, x), x);
    case LF_THRESHOLDED_RELU: /* NaN, of either sign, comes through */
        return v_select_negative(v_sub(x, alpha), v_min(zero, v_abs(x)), x);
    case LF_SCALED_TANH: return v_mul(alpha, LF(tanh)(v_mul(beta, x)));
    default: return v_fma(alpha, x, beta); /* LF_AFFINE */
    }
}

/* The derivative at x, where y is the function's value. */
static vec LF(derivative)(const lf_activation *f, vec x, vec y)
{
    const vec zero = v_set1((real)0), one = v_set1((real)1), alpha = v_set1((real)f->alpha);
    vec t;
    switch (f->function) {
    case LF_SIGMOID: return v_mul(y, v_sub(one, y));
    case LF_TANH: return v_fnma(y, y, one);
    case LF_RELU: return v_select_negative(v_sub(zero, x), one, zero);
    case LF_HARD_SIGMOID: /* between its two constant parts */
        return v_select_negative(v_sub(zero, y), v_select_negative(v_sub(y, one), alpha, zero), zero);
    case LF_SOFTSIGN: t = v_div(one, v_add(one, v_abs(x))); return v_mul(t, t);
    case LF_SOFTPLUS: return LF(sigmoid)(x);
    case LF_ELU: return v_select_negative(x, v_mul(alpha, LF(exp)(v_min(zero, x))), one);
    case LF_LEAKY_RELU: return v_select_negative(x, alpha, one);
    case LF_THRESHOLDED_RELU: return v_select_negative(v_sub(x, alpha), zero, one);
    case LF_SCALED_TANH:
        t = LF(tanh)(v_mul(v_set1((real)f->beta), x));
        return v_mul(v_mul(alpha, v_set1((real)f->beta)), v_fnma(t, t, one));
    default: return alpha; /* LF_AFFINE */
    }
}
