/* One step of an optimiser, and what is done to gradients before. See kernels.h. */

/* FUNCTION(..., j, number of elements there) for all vectors of n elements; in all but the last one the number is a
 * compile-time constant. */
#define LF_IN_VECTORS(n, FUNCTION, ...)                  \
    do {                                                 \
        ptrdiff_t lf_j = 0;                              \
        for (; lf_j + LANES <= (n); lf_j += LANES)       \
            FUNCTION(__VA_ARGS__, lf_j, LANES);          \
        if (lf_j < (n))                                  \
            FUNCTION(__VA_ARGS__, lf_j, (n) - lf_j);     \
    } while (0)

LF_INLINE vec LF(load_units)(const void *p, ptrdiff_t j, ptrdiff_t n)
{
    return n == LANES ? v_load((const real *)p + j) : LF(load_n)((const real *)p + j, n);
}

/* The gradient, with weight decay. */
LF_INLINE vec LF(decayed_gradient)(const lf_update *u, vec p, ptrdiff_t j, ptrdiff_t n)
{
    const vec g = LF(load_units)(u->g, j, n);
    return u->decay != 0 ? v_fma(p, v_set1((real)u->decay), g) : g;
}

LF_INLINE void LF(sgd_vector)(const lf_update *u, ptrdiff_t j, ptrdiff_t n)
{
    const vec p = LF(load_units)(u->p, j, n);
    vec g = LF(decayed_gradient)(u, p, j, n);
    if (u->m) {
        const vec momentum = v_set1((real)u->momentum), m = v_add(v_mul(LF(load_units)(u->m, j, n), momentum), g);
        LF(store_units)((real *)u->m + j, n, m);
        g = u->nesterov ? v_fma(m, momentum, g) : m;
    }
    LF(store_units)((real *)u->p + j, n, v_fnma(v_set1((real)u->rate), g, p));
}

/* (1 - kept) x + kept m, from the nearer end, so that it is x where nothing is kept. */
LF_INLINE vec LF(mean)(vec m, double kept, vec x)
{
    const vec d = v_sub(x, m);
    return kept > 0.5 ? v_fma(d, v_set1((real)(1 - kept)), m) : v_fnma(d, v_set1((real)kept), x);
}

/* v = square v + (1 - square) g^2 */
LF_INLINE vec LF(mean_square)(const lf_update *u, vec g, ptrdiff_t j, ptrdiff_t n)
{
    const vec kept = v_mul(LF(load_units)(u->v, j, n), v_set1((real)u->square));
    const vec v = v_fma(v_mul(v_set1((real)(1 - u->square)), g), g, kept);
    LF(store_units)((real *)u->v + j, n, v);
    return v;
}

LF_INLINE void LF(adam_vector)(const lf_update *u, ptrdiff_t j, ptrdiff_t n)
{
    const vec p = v_mul(LF(load_units)(u->p, j, n), v_set1((real)u->keep));
    const vec g = LF(decayed_gradient)(u, p, j, n);
    const vec m = LF(mean)(LF(load_units)(u->m, j, n), u->momentum, g);
    LF(store_units)((real *)u->m + j, n, m);
    const vec v = LF(mean_square)(u, g, j, n);
    const vec root = v_add(v_mul(v_sqrt(v), v_set1((real)u->root)), v_set1((real)u->eps));
    LF(store_units)((real *)u->p + j, n, v_sub(p, v_div(v_mul(v_set1((real)u->rate), m), root)));
}

LF_INLINE void LF(rmsprop_vector)(const lf_update *u, ptrdiff_t j, ptrdiff_t n)
{
    const vec p = LF(load_units)(u->p, j, n), g = LF(decayed_gradient)(u, p, j, n), rate = v_set1((real)u->rate);
    const vec root = v_add(v_sqrt(LF(mean_square)(u, g, j, n)), v_set1((real)u->eps));
    if (u->m) {
        const vec m = v_add(v_mul(LF(load_units)(u->m, j, n), v_set1((real)u->momentum)), v_div(g, root));
        LF(store_units)((real *)u->m + j, n, m);
        LF(store_units)((real *)u->p + j, n, v_fnma(rate, m, p));
    } else
        LF(store_units)((real *)u->p + j, n, v_sub(p, v_div(v_mul(rate, g), root)));
}

static void LF(sgd)(const lf_update *u) { LF_IN_VECTORS(u->n, LF(sgd_vector), u); }
static void LF(adam)(const lf_update *u) { LF_IN_VECTORS(u->n, LF(adam_vector), u); }
static void LF(rmsprop)(const lf_update *u) { LF_IN_VECTORS(u->n, LF(rmsprop_vector), u); }

LF_INLINE void LF(average_vector)(real *m, double kept, const real *x, ptrdiff_t j, ptrdiff_t n)
{
    LF(store_units)(m + j, n, LF(mean)(LF(load_units)(m, j, n), kept, LF(load_units)(x, j, n)));
}

static void LF(average)(void *m, double kept, const void *x, ptrdiff_t n)
{
    LF_IN_VECTORS(n, LF(average_vector), (real *)m, kept, (const real *)x);
}

LF_INLINE void LF(scale_vector)(real *x, vec factor, ptrdiff_t j, ptrdiff_t n)
{
    LF(store_units)(x + j, n, v_mul(LF(load_units)(x, j, n), factor));
}

static void LF(scale)(void *x, double factor, ptrdiff_t n)
{
    LF_IN_VECTORS(n, LF(scale_vector), (real *)x, v_set1((real)factor));
}

LF_INLINE void LF(clip_vector)(real *x, vec least, vec most, ptrdiff_t j, ptrdiff_t n)
{
    LF(store_units)(x + j, n, v_max(least, v_min(most, LF(load_units)(x, j, n))));
}

static void LF(clip)(void *x, double limit, ptrdiff_t n)
{
    LF_IN_VECTORS(n, LF(clip_vector), (real *)x, v_set1((real)-limit), v_set1((real)limit));
}

/* In plain C, so that all ISAs add in the same order; the compiler makes vectors of the sums. */
static double LF(squared_norm)(const void *x, ptrdiff_t n)
{
    const real *a = x;
    double sums[NORM_SUMS] = {0};
    ptrdiff_t j = 0;
    for (; j + NORM_SUMS <= n; j += NORM_SUMS)
        LF_UNROLL
        for (int i = 0; i < NORM_SUMS; i++)
            sums[i] += (double)a[j + i] * (double)a[j + i];
    for (int i = 0; j < n; i++, j++)
        sums[i] += (double)a[j] * (double)a[j];
    for (int half = NORM_SUMS / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            sums[i] += sums[i + half];
    return sums[0];
}
#undef LF_IN_VECTORS
