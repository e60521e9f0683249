/* The register tile, and the product of a matrix with a packed one. See kernels.h for the layouts. */
#undef PANEL
#define PANEL (PANEL_VECTORS * LANES) /* columns of a full panel */
#undef CACHE_LINE
#define CACHE_LINE (64 / (ptrdiff_t)sizeof(real))

/* acc[r][v] = sum over k of a[r, k] b[k, v]. `rows` and `vectors` are compile-time constants where
 * this is inlined, so that acc lives in registers; vectors == TILE_VECTORS takes two panels side by side.
 *
 * With more than one row, a cache line a step is prefetched from `ahead`: see LF(ahead). One row reads b as fast
 * as it comes anyway. */
LF_INLINE void LF(multiply)(vec acc[][TILE_VECTORS], const int rows, const int vectors, const real *a,
                            ptrdiff_t a_row, ptrdiff_t a_step, const real *b, const real *b_next,
                            ptrdiff_t depth, const real *ahead)
{
    const int step = (vectors < PANEL_VECTORS ? vectors : PANEL_VECTORS) * LANES;
    LF_UNROLL
    for (int r = 0; r < rows; r++)
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            acc[r][v] = v_set1((real)0);
    for (ptrdiff_t k = 0; k < depth; k++) {
        vec w[TILE_VECTORS];
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            w[v] = v_load((v < PANEL_VECTORS ? b : b_next) + v % PANEL_VECTORS * LANES);
        if (rows > 1)
            __builtin_prefetch(ahead + k * CACHE_LINE, 0, 2);
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

/* What tile n of some rows prefetches of the part of b that is read next, `depth` steps of a full panel: the first
 * tiles a share each. Only the first tile of the next panel or piece would wait for the L3 cache, but that is a
 * twentieth of the time at 64 rows. */
static inline const real *LF(ahead)(const real *next, ptrdiff_t n, ptrdiff_t depth)
{
    return next + n % (PANEL / CACHE_LINE) * depth * CACHE_LINE;
}

/* Vectors in which a panel of `columns` columns is packed: 1, 2 or 4. */
static inline int LF(panel_vectors)(ptrdiff_t columns)
{
    return columns > 2 * LANES ? 4 : columns > LANES ? 2 : 1;
}

/* What the tiles of a panel, or of two side by side, have in common: depth_count terms of the sums from
 * k = depth_first on. Later terms are added to what is in out, and init after the last ones. out has `columns`
 * columns from the first of the panel on. */
typedef struct LF(block) {
    ptrdiff_t panel, depth_first, depth_count;
    const real *packed; /* NULL, or these terms of a, packed by pack_tiles */
    ptrdiff_t first;    /* row that out and packed begin with */
    real *out;
    ptrdiff_t out_row, out_panel, columns;
    int stream; /* past the caches */
} LF(block);

/* acc += m, whose rows have `columns` columns. */
LF_INLINE void LF(add_tile)(vec acc[][TILE_VECTORS], const int rows, const int vectors, const real *m, ptrdiff_t m_row,
                            ptrdiff_t m_panel, ptrdiff_t columns)
{
    const int whole = columns >= vectors * LANES;
    if (whole)
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] = v_add(acc[r][v], v_load(LF_VECTOR_AT(m + r * m_row, v, m_panel, LANES)));
    else
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] = v_add(acc[r][v], LF(load_n)(LF_VECTOR_AT(m + r * m_row, v, m_panel, LANES),
                                                        lf_left(columns, v * LANES, LANES)));
}

/* Write the sums of a tile, with what is added to them. */
LF_INLINE void LF(finish_tile)(vec acc[][TILE_VECTORS], const int rows, const int vectors, const lf_product *p,
                               const LF(block) *q, ptrdiff_t row)
{
    real *out = q->out + (row - q->first) * q->out_row;
    if (q->depth_first || p->accumulate)
        LF(add_tile)(acc, rows, vectors, out, q->out_row, q->out_panel, q->columns);
    if (p->init && q->depth_first + q->depth_count == p->depth)
        LF(add_tile)(acc, rows, vectors, (const real *)p->init + row * p->init_row + q->panel * p->init_panel,
                     p->init_row, p->init_panel, p->columns - q->panel * PANEL);
    if (q->columns < vectors * LANES)
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                LF(store_n)(LF_VECTOR_AT(out + r * q->out_row, v, q->out_panel, LANES),
                            lf_left(q->columns, v * LANES, LANES), acc[r][v]);
    else if (q->stream)
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                v_stream(LF_VECTOR_AT(out + r * q->out_row, v, q->out_panel, LANES), acc[r][v]);
    else
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                v_store(LF_VECTOR_AT(out + r * q->out_row, v, q->out_panel, LANES), acc[r][v]);
}

LF_INLINE void LF(product_tile)(const int rows, const int vectors, const lf_product *p, const LF(block) *q,
                                ptrdiff_t row)
{
    const int step = (vectors < PANEL_VECTORS ? vectors : PANEL_VECTORS) * LANES;
    const real *a = (const real *)p->a + row * p->a_row + q->depth_first * p->a_step;
    ptrdiff_t a_row = p->a_row, a_step = p->a_step;
    if (PACK_TRANSPOSED && q->packed)
        a = q->packed + (row - q->first) * q->depth_count, a_row = 1, a_step = rows;
    const real *b = (const real *)p->b + q->panel * PANEL * p->depth + q->depth_first * step;
    vec acc[TILE_ROWS][TILE_VECTORS];
    LF(multiply)(acc, rows, vectors, a, a_row, a_step, b, b + PANEL * p->depth, q->depth_count,
                 LF(ahead)(b + q->depth_count * step, (row - q->first) / rows, q->depth_count));
    LF(finish_tile)(acc, rows, vectors, p, q, row);
}

/* The rows q->first .. end - 1 of an outer product, of depth 1: a tile takes longer to begin and to end than to
 * multiply, and a training step of one row is mostly this. The copies are for compilers, which then know that what is
 * written changes nothing in them. */
LF_INLINE void LF(outer_rows)(ptrdiff_t end, const int vectors, const lf_product *product, const LF(block) *block)
{
    const lf_product p = *product;
    const LF(block) q = *block;
    const real *b = (const real *)p.b + q.panel * PANEL;
    vec w[PANEL_VECTORS], acc[1][TILE_VECTORS];
    LF_UNROLL
    for (int v = 0; v < vectors; v++)
        w[v] = v_load(b + v * LANES);
    for (ptrdiff_t row = q.first; row < end; row++) {
        const vec x = v_set1(((const real *)p.a)[row * p.a_row]);
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            acc[0][v] = v_fma(x, w[v], v_set1((real)0));
        LF(finish_tile)(acc, 1, vectors, &p, &q, row);
    }
}

/* How many panels a product takes at once: two for a single row, which has too few sums in one panel to hide the
 * latency of an FMA, and reads two streams of b faster than one. */
static inline int LF(panels_at_once)(const lf_product *p, ptrdiff_t panel, ptrdiff_t rows)
{
    return rows == 1 && panel + 2 <= p->end_panel
           && LF(panel_vectors)(p->columns - (panel + 1) * PANEL) == PANEL_VECTORS ? 2 : 1;
}

/* The rows q->first .. end - 1 of one panel, or of two, and some terms of their sums. */
static void LF(product_piece)(const lf_product *p, const LF(block) *q, int panels, ptrdiff_t end)
{
    const int vectors = panels == 2 ? TILE_VECTORS : LF(panel_vectors)(p->columns - q->panel * PANEL);
    if (vectors == TILE_VECTORS)
        LF(product_tile)(1, TILE_VECTORS, p, q, q->first);
    else if (p->depth == 1)
        LF_SWITCH_VECTORS(end, vectors, LF(outer_rows), p, q);
    else
        LF_FOR_TILES(q->first, end, row, rows)
            LF_SWITCH_ROWS(rows, LF_SWITCH_VECTORS, vectors, LF(product_tile), p, q, row)
}

/* All terms of them; q has first, out, out_row, out_panel and columns. */
static void LF(product_panel)(const lf_product *p, LF(block) *q, int panels, ptrdiff_t end)
{
    q->depth_first = 0;
    do {
        q->depth_count = lf_left(p->depth, q->depth_first, DEPTH_BLOCK);
        LF(product_piece)(p, q, panels, end);
        q->depth_first += q->depth_count;
    } while (q->depth_first < p->depth);
}

/* Some terms of a tile, a_row == 1, in the order in which they are read: packed[k][row]. */
LF_INLINE void LF(pack_tile)(const int rows, real *packed, const real *a, ptrdiff_t a_step, ptrdiff_t depth)
{
    for (ptrdiff_t k = 0; k < depth; k++)
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            packed[k * rows + r] = a[k * a_step + r];
}

/* The same, where the first of the terms is number k of the tile. */
#undef PACK_TILE_FROM
#define PACK_TILE_FROM(rows, packed, k, ...) LF(pack_tile)(rows, (packed) + (k) * (rows), __VA_ARGS__)

/* The same for the tiles of a row block: packed[tile][k][row]. */
static void LF(pack_tiles)(real *packed, const lf_product *p, ptrdiff_t first, ptrdiff_t end, ptrdiff_t depth_first,
                           ptrdiff_t depth)
{
    for (ptrdiff_t k = 0; k < depth; k += LINES_OF_A_SET)
        LF_FOR_TILES(first, end, row, rows)
            LF_SWITCH_ROWS(rows, PACK_TILE_FROM, packed + (row - first) * depth, k,
                           (const real *)p->a + row + (depth_first + k) * p->a_step, p->a_step,
                           lf_left(depth, k, LINES_OF_A_SET))
}

/* A product with the transpose of a matrix: k steps through a from cache line to cache line, and often from page to
 * page. With many panels it pays to pack a block of rows first, of 96 KiB: the stack of a thread may be small. */
static void LF(product_transposed)(const lf_product *p, const int stream)
{
    real packed[ROW_BLOCK * 4 / sizeof(real) * DEPTH_BLOCK];
    const ptrdiff_t most = sizeof packed / sizeof *packed / DEPTH_BLOCK;
    for (ptrdiff_t first = 0, end; end = first + lf_left(p->rows, first, most), first < p->rows; first = end)
        for (ptrdiff_t k = 0, depth; depth = lf_left(p->depth, k, DEPTH_BLOCK), k < p->depth; k += depth) {
            LF(pack_tiles)(packed, p, first, end, k, depth);
            for (ptrdiff_t panel = p->first_panel; panel < p->end_panel; panel++) {
                LF(block) q = {.panel = panel, .depth_first = k, .depth_count = depth, .packed = packed, .first = first,
                               .out = (real *)p->out + first * p->out_row + panel * p->out_panel,
                               .out_row = p->out_row, .out_panel = p->out_panel, .columns = p->columns - panel * PANEL,
                               .stream = stream};
                LF(product_piece)(p, &q, 1, end);
            }
        }
}

static void LF(product)(const lf_product *p)
{
    const size_t size = LANES * sizeof(real);
    const int stream = p->stream && (uintptr_t)p->out % size == 0 && p->out_row % LANES == 0
                       && p->out_panel % LANES == 0;
    if (PACK_TRANSPOSED && p->a_row == 1 && p->a_step != 1 && p->depth > 1
        && p->end_panel - p->first_panel >= PANELS_TO_PACK)
        LF(product_transposed)(p, stream);
    else
        LF_FOR_ROW_BLOCKS(p->rows, first, end)
            for (ptrdiff_t panel = p->first_panel, panels; panel < p->end_panel; panel += panels) {
                panels = LF(panels_at_once)(p, panel, end - first);
                LF(block) q = {.panel = panel, .first = first,
                               .out = (real *)p->out + first * p->out_row + panel * p->out_panel,
                               .out_row = p->out_row, .out_panel = p->out_panel, .columns = p->columns - panel * PANEL,
                               .stream = stream};
                LF(product_panel)(p, &q, (int)panels, end);
            }
    if (stream)
        v_fence();
}
