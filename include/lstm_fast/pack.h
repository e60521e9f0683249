/* Packing of weights and operands into the panels that the products read. See kernels.h. */

/* The panel column `column` (of `step` columns): b[k] = m[k * m_step], or zeros where m is NULL. */
static void LF(pack_column)(real *b, ptrdiff_t step, const real *m, ptrdiff_t m_step, ptrdiff_t depth)
{
    for (ptrdiff_t k = 0; k < depth; k++)
        b[k * step] = m ? m[k * m_step] : (real)0;
}

static void LF(pack_gates)(void *b, const void *w, ptrdiff_t hidden_size, ptrdiff_t depth)
{
    for (ptrdiff_t first = 0; first < hidden_size; first += LANES) {
        real *panel = (real *)b + first * 4 * depth;
        for (int gate = 0; gate < 4; gate++)
            for (ptrdiff_t j = 0; j < LANES; j++) {
                ptrdiff_t unit = first + j;
                const real *row = (const real *)w + (gate * hidden_size + unit) * depth;
                LF(pack_column)(panel + gate * LANES + j, PANEL, unit < hidden_size ? row : NULL, 1, depth);
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
