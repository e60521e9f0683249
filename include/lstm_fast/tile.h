/* What products of every precision share: panels, and how a tile of sums is finished. See kernels.h. */
#undef PANEL
#define PANEL (PANEL_VECTORS * LANES) /* columns of a full panel */
#undef CACHE_LINE
#define CACHE_LINE (64 / (ptrdiff_t)sizeof(real))

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
    const void *packed; /* NULL, or these terms of a, packed by pack_tiles */
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

/* How many panels a product takes at once: two for so few rows that they have too few sums in one panel to hide the
 * latency of an FMA, and read two streams of b faster than one. */
static inline int LF(panels_at_once)(const lf_product *p, ptrdiff_t panel, ptrdiff_t rows)
{
    return rows <= PAIRED_ROWS && panel + 2 <= p->end_panel
           && LF(panel_vectors)(p->columns - (panel + 1) * PANEL) == PANEL_VECTORS ? 2 : 1;
}
