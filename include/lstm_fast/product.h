/* The register tile, and the product of a matrix with a packed one. See kernels.h for the layouts. */
#undef PANEL
#define PANEL (4 * LANES) /* columns of a full panel */

/* acc[r][v] = sum over k of a[r, k] b[k, v]. `rows` and `vectors` are compile-time constants where
 * this is inlined, so that acc lives in registers; vectors == 8 takes two panels side by side. */
LF_INLINE void LF(multiply)(vec acc[][8], const int rows, const int vectors, const real *a,
                            ptrdiff_t a_row, ptrdiff_t a_step, const real *b, const real *b_next,
                            ptrdiff_t depth)
{
    const int step = (vectors < 4 ? vectors : 4) * LANES;
    LF_UNROLL
    for (int r = 0; r < rows; r++)
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            acc[r][v] = v_set1((real)0);
    for (ptrdiff_t k = 0; k < depth; k++) {
        vec w[8];
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            w[v] = v_load((v < 4 ? b : b_next) + (v % 4) * LANES);
        LF_UNROLL
        for (int r = 0; r < rows; r++) {
            vec x = v_set1(a[r * a_row + k * a_step]);
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] = v_fma(x, w[v], acc[r][v]);
        }
        b += step;
        b_next += step;
    }
}

/* Vectors in which a panel of `columns` columns is packed: 1, 2 or 4. */
static inline int LF(panel_vectors)(ptrdiff_t columns)
{
    return columns > 2 * LANES ? 4 : columns > LANES ? 2 : 1;
}

/* One tile of a product: rows from `row` on, one panel, depth_count terms of the sums from k = depth_first on.
 * Later terms are added to what is in out, and init after the last ones; `whole` writes full vectors to out,
 * else only the columns that exist. */
typedef struct LF(block) {
    ptrdiff_t panel, depth_first, depth_count;
    ptrdiff_t first; /* row that out begins with */
    real *out;
    ptrdiff_t out_row;
    int whole;
} LF(block);

LF_INLINE void LF(product_tile)(const lf_product *p, const LF(block) *q, ptrdiff_t row, const int rows,
                                const int vectors)
{
    const ptrdiff_t columns = p->columns - q->panel * PANEL;
    const int full = columns >= vectors * LANES;
    const real *a = (const real *)p->a + row * p->a_row + q->depth_first * p->a_step;
    const real *b = (const real *)p->b + q->panel * PANEL * p->depth + q->depth_first * vectors * LANES;
    const real *init = (const real *)p->init + row * p->init_row + q->panel * p->init_panel;
    real *out = q->out + (row - q->first) * q->out_row;
    const int add_out = q->depth_first || p->accumulate;
    const int add_init = p->init && q->depth_first + q->depth_count == p->depth;
    vec acc[TILE_ROWS][8];
    LF(multiply)(acc, rows, vectors, a, p->a_row, p->a_step, b, b, q->depth_count);
    LF_UNROLL
    for (int r = 0; r < rows; r++)
        LF_UNROLL
        for (int v = 0; v < vectors; v++) {
            const ptrdiff_t j = v * LANES, n = LF_CLAMP(columns - j, LANES);
            if (add_out)
                acc[r][v] = v_add(acc[r][v], full || q->whole ? v_load(out + r * q->out_row + j)
                                                              : LF(load_n)(out + r * q->out_row + j, n));
            if (add_init)
                acc[r][v] = v_add(acc[r][v], full ? v_load(init + r * p->init_row + j)
                                                  : LF(load_n)(init + r * p->init_row + j, n));
            if (full || q->whole)
                v_store(out + r * q->out_row + j, acc[r][v]);
            else
                LF(store_n)(out + r * q->out_row + j, n, acc[r][v]);
        }
}

/* The rows first .. last - 1 of one panel. */
static void LF(product_panel)(const lf_product *p, ptrdiff_t panel, ptrdiff_t first, ptrdiff_t last, real *out,
                              ptrdiff_t out_row, int whole)
{
    const int vectors = LF(panel_vectors)(p->columns - panel * PANEL);
    LF(block) q = {.panel = panel, .first = first, .out = out, .out_row = out_row, .whole = whole};
#define TILE(R)                                                  \
    (vectors == 4   ? LF(product_tile)(p, &q, row, R, 4)         \
     : vectors == 2 ? LF(product_tile)(p, &q, row, R, 2)         \
                    : LF(product_tile)(p, &q, row, R, 1))
    do {
        q.depth_count = LF_CLAMP(p->depth - q.depth_first, DEPTH_BLOCK);
        LF_FOR_TILES(first, last, row, rows)
            LF_SWITCH_ROWS(rows, TILE)
        q.depth_first += q.depth_count;
    } while (q.depth_first < p->depth);
#undef TILE
}

static void LF(product)(const lf_product *p)
{
    LF_FOR_ROW_BLOCKS(p->rows, first, last)
        for (ptrdiff_t panel = p->first_panel; panel < p->last_panel; panel++)
            LF(product_panel)(p, panel, first, last, (real *)p->out + first * p->out_row + panel * p->out_panel,
                              p->out_row, 0);
}
