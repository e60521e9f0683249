/* Sums, products and layer norm of rows. See kernels.h. */

/* sums += the sums over rows of m, or of the products of m and n, which have the same stride. */
LF_INLINE void LF(add_terms)(real *sums, const real *m, const real *n, ptrdiff_t stride, ptrdiff_t rows,
                             ptrdiff_t columns)
{
    for (ptrdiff_t j = 0; j < columns; j += LANES) {
        const ptrdiff_t left = lf_left(columns, j, LANES);
        vec sum = LF(load_n)(sums + j, left);
        for (ptrdiff_t row = 0; row < rows;) {
            const ptrdiff_t end = row + lf_left(rows, row, SUM_BLOCK);
            vec part = v_set1((real)0);
            for (; row < end; row++) {
                vec term = LF(load_n)(m + row * stride + j, left);
                part = n ? v_fma(term, LF(load_n)(n + row * stride + j, left), part) : v_add(part, term);
            }
            sum = v_add(sum, part);
        }
        LF(store_units)(sums + j, left, sum);
    }
}

static void LF(add_rows)(void *sums, const void *m, ptrdiff_t m_row, ptrdiff_t rows, ptrdiff_t columns)
{
    LF(add_terms)(sums, m, NULL, m_row, rows, columns);
}

static void LF(add_products)(void *sums, const void *a, const void *b, ptrdiff_t row, ptrdiff_t rows,
                             ptrdiff_t columns)
{
    LF(add_terms)(sums, a, b, row, rows, columns);
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

/* sum += the sum of the columns of a row, lane by lane, in short pieces of short pieces: `next` is `part` with what the
 * n columns from j on add to it. */
#undef LF_SUM_COLUMNS
#define LF_SUM_COLUMNS(sum, part, columns, j, n, next)                                                          \
    for (ptrdiff_t j = 0; j < (columns);) {                                                                     \
        const ptrdiff_t end = j + lf_left(columns, j, COLUMN_BLOCK * COLUMN_BLOCK * LANES);                     \
        vec piece = v_set1((real)0);                                                                            \
        while (j < end) {                                                                                       \
            vec part = v_set1((real)0);                                                                         \
            for (const ptrdiff_t last = j + lf_left(end, j, COLUMN_BLOCK * LANES); j < last; j += LANES) {      \
                const ptrdiff_t n = lf_left(columns, j, LANES);                                                 \
                part = next;                                                                                    \
            }                                                                                                   \
            piece = v_add(piece, part);                                                                         \
        }                                                                                                       \
        sum = v_add(sum, piece);                                                                                \
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

/* part + (x - mean)^2, lane by lane, where x becomes x - mean */
LF_INLINE vec LF(add_square)(vec part, real *x, ptrdiff_t n, vec mean)
{
    LF(store_units)(x, n, v_sub(LF(load_n)(x, n), mean));
    vec d = LF(load_n)(x, n); /* 0 in the lanes that do not exist */
    return v_fma(d, d, part);
}

static void LF(normalise)(void *x, ptrdiff_t x_row, void *scale, double epsilon, ptrdiff_t rows, ptrdiff_t columns)
{
    for (ptrdiff_t row = 0; row < rows; row++) {
        real *v = (real *)x + row * x_row;
        vec sum = v_set1((real)0), squares = sum;
        LF_SUM_COLUMNS(sum, part, columns, j, n, v_add(part, LF(load_n)(v + j, n)))
        const vec mean = v_set1(LF(sum_lanes)(sum) / (real)columns);
        LF_SUM_COLUMNS(squares, part, columns, j, n, LF(add_square)(part, v + j, n, mean))
        const vec variance = v_set1(LF(sum_lanes)(squares) / (real)columns + (real)epsilon);
        const vec s = v_div(v_set1((real)1), v_sqrt(variance));
        for (ptrdiff_t j = 0; j < columns; j += LANES) {
            const ptrdiff_t n = lf_left(columns, j, LANES);
            LF(store_units)(v + j, n, v_mul(LF(load_n)(v + j, n), s));
        }
        if (scale)
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
