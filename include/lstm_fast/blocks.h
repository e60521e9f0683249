/* Softmax, cross-entropy and activation functions of whole arrays, for blocks other than an LSTM. See kernels.h. */

/* load_n where n is LANES but in the last vector of a row, whose other lanes are `rest`. */
LF_INLINE vec LF(load_or)(const real *p, ptrdiff_t n, real rest)
{
    if (n == LANES)
        return v_load(p);
    real lanes[LANES];
    v_store(lanes, v_set1(rest));
    for (ptrdiff_t j = 0; j < n; j++)
        lanes[j] = p[j];
    return v_load(lanes);
}

/* The largest element of a row; where one is NaN, any number or NaN. */
static real LF(largest)(const real *x, ptrdiff_t columns)
{
    real lanes[LANES];
    vec most = v_set1(-(real)INFINITY);
    for (ptrdiff_t j = 0; j < columns; j += LANES)
        most = v_max(most, LF(load_or)(x + j, lf_left(columns, j, LANES), -(real)INFINITY));
    v_store(lanes, most);
    for (int j = 1; j < LANES; j++)
        lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
    return lanes[0];
}

LF_INLINE vec LF(store_exp)(real *e, ptrdiff_t n, vec x)
{
    x = LF(exp)(x);
    LF(store_units)(e, n, x);
    return x;
}

/* e = exp(x - most); their sum, which is 1 or more, or NaN where an element is NaN or none is finite. */
static real LF(exp_row)(real *e, const real *x, ptrdiff_t columns, real most)
{
    vec sum = v_set1((real)0);
    LF_SUM_COLUMNS(sum, part, columns, j, n,
                   v_add(part, LF(store_exp)(e + j, n, v_sub(LF(load_or)(x + j, n, -(real)INFINITY), v_set1(most)))))
    return LF(sum_lanes)(sum);
}

/* e = e / sum - shift */
static void LF(divide_row)(real *e, ptrdiff_t columns, real sum, real shift)
{
    for (ptrdiff_t j = 0; j < columns; j += LANES) {
        const ptrdiff_t n = lf_left(columns, j, LANES);
        LF(store_units)(e + j, n, v_sub(v_div(LF(load_or)(e + j, n, (real)0), v_set1(sum)), v_set1(shift)));
    }
}

static void LF(softmax)(void *y, const void *x, ptrdiff_t rows, ptrdiff_t columns)
{
    for (ptrdiff_t row = 0; row < rows; row++) {
        const real *v = (const real *)x + row * columns;
        real *e = (real *)y + row * columns;
        LF(divide_row)(e, columns, LF(exp_row)(e, v, columns, LF(largest)(v, columns)), 0);
    }
}

static void LF(softmax_backward)(void *dx, const void *dy, const void *y, ptrdiff_t rows, ptrdiff_t columns)
{
    for (ptrdiff_t row = 0; row < rows; row++) {
        const real *d = (const real *)dy + row * columns, *p = (const real *)y + row * columns;
        vec sum = v_set1((real)0);
        LF_SUM_COLUMNS(sum, part, columns, j, n,
                       v_fma(LF(load_or)(d + j, n, (real)0), LF(load_or)(p + j, n, (real)0), part))
        const vec mean = v_set1(LF(sum_lanes)(sum));
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = lf_left(columns, j, LANES);
            const vec left = v_sub(LF(load_or)(d + j, n, (real)0), mean);
            LF(store_units)((real *)dx + row * columns + j, n, v_mul(LF(load_or)(p + j, n, (real)0), left));
        }
    }
}

/* log(x) for finite x >= 1, and NaN: x = 2^n (1 + e) */
static real LF(log_of_sum)(real x)
{
    real lanes[LANES];
    int n = 0;
    for (; x >= 2; x /= 2)
        n++;
    v_store(lanes, LF(log1p)(v_set1(x - 1)));
    return n * (real)0x1.62e42fefa39efp-1 + lanes[0];
}

static void LF(cross_entropy)(void *losses, void *dx, const void *x, const ptrdiff_t *target, double smoothing,
                              ptrdiff_t rows, ptrdiff_t columns)
{
    const real rest = (real)(1 - smoothing);
    for (ptrdiff_t row = 0; row < rows; row++) {
        const real *v = (const real *)x + row * columns;
        real *d = (real *)dx + row * columns, *loss = (real *)losses + row;
        *loss = 0;
        if (target[row] < 0) {
            for (ptrdiff_t j = 0; j < columns; j++)
                d[j] = 0;
            continue;
        }
        const real most = LF(largest)(v, columns), sum = LF(exp_row)(d, v, columns, most);
        const real log_sum = LF(log_of_sum)(sum);
        if (smoothing != 0) {
            vec below = v_set1((real)0); /* the sum of x - most */
            LF_SUM_COLUMNS(below, part, columns, j, n, v_add(part, v_sub(LF(load_or)(v + j, n, most), v_set1(most))))
            *loss = (real)smoothing * (log_sum - LF(sum_lanes)(below) / (real)columns);
        }
        *loss += rest * (log_sum - (v[target[row]] - most));
        LF(divide_row)(d, columns, sum, (real)(smoothing / (double)columns));
        d[target[row]] -= rest;
    }
}

static void LF(array_activation)(const lf_activation *f, void *y, const void *x, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t m = lf_left(n, j, LANES);
        LF(store_units)((real *)y + j, m, LF(activation)(f, LF(load_or)((const real *)x + j, m, (real)0)));
    }
}

static void LF(array_derivative)(const lf_activation *f, void *dx, const void *x, const void *dy, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j += LANES) {
        const ptrdiff_t m = lf_left(n, j, LANES);
        const vec v = LF(load_or)((const real *)x + j, m, (real)0);
        const vec slope = LF(derivative)(f, v, LF(activation)(f, v));
        LF(store_units)((real *)dx + j, m, v_mul(LF(load_or)((const real *)dy + j, m, (real)0), slope));
    }
}
