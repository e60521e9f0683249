/* Packing of weights and operands into the panels that the products read. See kernels.h. */

/* Steps of the depth that are packed at a time: they are whole cache lines of the weights, and their piece of the panel
 * stays in the L1 cache until all columns are in it. The next ones are asked for meanwhile: so many short pieces of rows
 * are no streams that a CPU would see. */
enum { LF(PACK_DEPTH) = 32 };

/* A vector of rows of w in a panel of so many columns: b[k * panel + j] = w[j * w_row + k] from k to end, and 0 for the
 * rows from `rows` on. The terms up to `ahead` are asked for. */
LF_INLINE void LF(pack_vector)(real *b, const int panel, const real *w, ptrdiff_t w_row, ptrdiff_t rows, ptrdiff_t k,
                               ptrdiff_t end, ptrdiff_t ahead)
{
    for (ptrdiff_t j = 0; j < LANES; j++) {
        const real *row = w + j * w_row;
        for (ptrdiff_t n = end; n < ahead; n += CACHE_LINE)
            __builtin_prefetch(row + n);
        for (ptrdiff_t n = k; n < end; n++)
            b[n * panel + j] = j < rows ? row[n] : (real)0;
    }
}

/* The pieces of a depth: from k to end, and to the end of the next. */
#undef LF_FOR_PIECES
#define LF_FOR_PIECES(depth, k, end, ahead)                                                                  \
    for (ptrdiff_t k = 0, end, ahead; end = LF_CLAMP(k + LF(PACK_DEPTH), depth),                             \
                                      ahead = LF_CLAMP(end + LF(PACK_DEPTH), depth), k < (depth); k = end)

static void LF(pack_gates)(void *b, const void *w, ptrdiff_t hidden_size, ptrdiff_t depth, ptrdiff_t first_panel,
                           ptrdiff_t end_panel)
{
    for (ptrdiff_t first = first_panel * LANES; first < end_panel * LANES; first += LANES)
        LF_FOR_PIECES(depth, k, end, ahead)
            for (int gate = 0; gate < 4; gate++)
                LF(pack_vector)((real *)b + first * 4 * depth + gate * LANES, PANEL,
                                (const real *)w + (gate * hidden_size + first) * depth, depth, hidden_size - first, k,
                                end, ahead);
}

static void LF(pack_transposed)(void *b, const void *m, ptrdiff_t m_row, ptrdiff_t depth, ptrdiff_t columns,
                                ptrdiff_t first_panel, ptrdiff_t end_panel)
{
    for (ptrdiff_t first = first_panel * PANEL; first < end_panel * PANEL; first += PANEL) {
        const int vectors = LF(panel_vectors)(columns - first);
        LF_FOR_PIECES(depth, k, end, ahead)
            for (int v = 0; v < vectors; v++)
                LF(pack_vector)((real *)b + first * depth + v * LANES, vectors * LANES,
                                (const real *)m + (first + v * LANES) * m_row, m_row, columns - first - v * LANES, k,
                                end, ahead);
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
