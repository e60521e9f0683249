/* Sums, products and layer norm of rows. See kernels.h. */

static void LF(add_rows)(void *sums, const void *m, ptrdiff_t m_row, ptrdiff_t rows, ptrdiff_t columns)
{
    for (ptrdiff_t j = 0; j < columns; j += LANES) {
        const ptrdiff_t n = lf_left(columns, j, LANES);
        vec sum = LF(load_n)((const real *)sums + j, n);
        for (ptrdiff_t row = 0; row < rows;) {
            const ptrdiff_t end = row + lf_left(rows, row, SUM_BLOCK);
            vec part = v_set1((real)0);
            for (; row < end; row++)
                part = v_add(part, LF(load_n)((const real *)m + row * m_row + j, n));
            sum = v_add(sum, part);
        }
        LF(store_units)((real *)sums + j, n, sum);
    }
}

static void LF(multiply_add)(void *out, ptrdiff_t out_row, lf_rows a, lf_rows b, lf_rows c, ptrdiff_t rows,
                             ptrdiff_t columns)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = lf_left(columns, j, LANES);
            vec product = LF(load_n)((const real *)a.data + row * a.row + j, n);
            if (b.data)
                product = v_mul(product, LF(load_n)((const real *)b.data + row * b.row + j, n));
            if (c.data)
                product = v_add(product, LF(load_n)((const real *)c.data + row * c.row + j, n));
            LF(store_units)((real *)out + row * out_row + j, n, product);
        }
}

/* The sum of the lanes: halves, then halves of that. */
static inline real LF(sum_lanes)(vec a)
{
    real lanes[LANES];
    v_store(lanes, a);
    LF_UNROLL
    for (int half = LANES / 2; half > 0; half /= 2)
        LF_UNROLL
        for (int j = 0; j < half; j++)
            lanes[j] += lanes[j + half];
    return lanes[0];
}

static void LF(normalise)(void *x, ptrdiff_t x_row, void *scale, ptrdiff_t rows, ptrdiff_t columns)
{
    for (ptrdiff_t row = 0; row < rows; row++) {
        real *v = (real *)x + row * x_row;
        vec sum = v_set1((real)0), squares = sum;
        for (ptrdiff_t j = 0; j < columns; j += LANES)
            sum = v_add(sum, LF(load_n)(v + j, lf_left(columns, j, LANES)));
        const vec mean = v_set1(LF(sum_lanes)(sum) / (real)columns);
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = lf_left(columns, j, LANES);
            LF(store_units)(v + j, n, v_sub(LF(load_n)(v + j, n), mean));
            vec d = LF(load_n)(v + j, n); /* 0 in the lanes that do not exist */
            squares = v_fma(d, d, squares);
        }
        const vec variance = v_set1(LF(sum_lanes)(squares) / (real)columns + (real)LAYER_NORM_EPSILON);
        const vec s = v_div(v_set1((real)1), v_sqrt(variance));
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = lf_left(columns, j, LANES);
            LF(store_units)(v + j, n, v_mul(LF(load_n)(v + j, n), s));
        }
        LF(store_n)((real *)scale + row, 1, s);
    }
}

/* dx = scale (d - mean(d) - normal mean(d normal)) */
static void LF(normalise_backward)(void *d, ptrdiff_t d_row, lf_rows normal, const void *scale, ptrdiff_t rows,
                                   ptrdiff_t columns)
{
    for (ptrdiff_t row = 0; row < rows; row++) {
        real *v = (real *)d + row * d_row;
        const real *x = (const real *)normal.data + row * normal.row;
        vec sum = v_set1((real)0), products = sum;
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = lf_left(columns, j, LANES);
            vec e = LF(load_n)(v + j, n);
            sum = v_add(sum, e);
            products = v_fma(e, LF(load_n)(x + j, n), products);
        }
        const vec mean = v_set1(LF(sum_lanes)(sum) / (real)columns);
        const vec slope = v_set1(LF(sum_lanes)(products) / (real)columns);
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = lf_left(columns, j, LANES);
            vec e = v_sub(LF(load_n)(v + j, n), mean);
            LF(store_units)(v + j, n, v_mul(v_set1(((const real *)scale)[row]),
                                            v_fnma(slope, LF(load_n)(x + j, n), e)));
        }
    }
}
