/* Packing of weights and operands into the panels that the products read. See kernels.h. */

/* Steps of the depth that are packed at a time: they are whole cache lines of the weights, and their piece of the panel
 * stays in the L1 cache until all columns are in it. The next ones are asked for meanwhile: so many short pieces of rows
 * are no streams that a CPU would see. */
enum { LF(PACK_DEPTH) = 32 };

static void LF(pack_gates)(void *b, const void *w, ptrdiff_t hidden_size, ptrdiff_t depth, ptrdiff_t first_panel,
                           ptrdiff_t end_panel)
{
    for (ptrdiff_t first = first_panel * LANES; first < end_panel * LANES; first += LANES)
        for (ptrdiff_t k = 0; k < depth; k += LF(PACK_DEPTH)) {
            const ptrdiff_t end = depth - k < LF(PACK_DEPTH) ? depth : k + LF(PACK_DEPTH);
            const ptrdiff_t ahead = depth - end < LF(PACK_DEPTH) ? depth : end + LF(PACK_DEPTH);
            real *panel = (real *)b + first * 4 * depth;
            for (int gate = 0; gate < 4; gate++)
                for (ptrdiff_t j = 0; j < LANES; j++) {
                    const real *row = (const real *)w + (gate * hidden_size + first + j) * depth;
                    for (ptrdiff_t n = end; n < ahead; n += CACHE_LINE)
                        __builtin_prefetch(row + n);
                    for (ptrdiff_t n = k; n < end; n++)
                        panel[n * PANEL + gate * LANES + j] = first + j < hidden_size ? row[n] : (real)0;
                }
        }
}

static void LF(pack_columns)(void *b, const void *m, ptrdiff_t m_row, ptrdiff_t depth, ptrdiff_t columns,
                             ptrdiff_t first_panel, ptrdiff_t end_panel)
{
    for (ptrdiff_t p = first_panel; p < end_panel; p++) {
        const real *source = (const real *)m + p * PANEL;
        const ptrdiff_t left = columns - p * PANEL;
        const int vectors = LF(panel_vectors)(left);
        real *panel = (real *)b + p * PANEL * depth;
        for (ptrdiff_t k = 0; k < depth; k++)
            for (int v = 0; v < vectors; v++)
                v_store(panel + (k * vectors + v) * LANES,
                        LF(load_n)(source + k * m_row + v * LANES, lf_left(left, v * LANES, LANES)));
    }
}
