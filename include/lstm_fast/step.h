/* One time step of the LSTM cell, in the registers of its recurrent product, in one precision, and one step back. See
 * kernels.h. */

/* One tile: rows from `row` on, one panel or, of up to PAIRED_ROWS, two: see panels_at_once. With `variant`, p is its
 * step. `matrix`: NULL, or the sums from this row on. */
LF_INLINE void LP(cell_tile)(const int rows, const lf_cell_forward *p, const lf_variant_forward *variant,
                             ptrdiff_t row, ptrdiff_t panel, const int panels, const float *matrix)
{
    const OPERAND *h = (const OPERAND *)p->h + row * p->h_row;
    char *w = LP(panel)(p->w, panel, p->depth), *w_next = LP(panel)(p->w, panel + 1, p->depth);
    const ptrdiff_t next = LF_CLAMP(panel + (p->descending ? -panels : panels), p->end_panel);
    const char *ahead = LP(ahead)((const WEIGHT *)LP(panel)(p->w, next, p->depth), row / rows,
                                  LP(padded_depth)(p->depth) / GROUP);
    SUM sums[TILE_ROWS][TILE_VECTORS];
    vec acc[TILE_ROWS][TILE_VECTORS], sum[TILE_ROWS][TILE_VECTORS];
    LF_ROLLED
    for (ptrdiff_t k = 0;; k += PIECE) {
        LP(tile_sums)(sums, rows, PANEL_VECTORS * panels, matrix, h + ROW_HEAD + k, p->h_row, 1,
                      LP(weights)(w, PANEL_VECTORS) + k * PANEL, LP(weights)(w_next, PANEL_VECTORS) + k * PANEL,
                      (lf_left(p->depth, k, PIECE) + GROUP - 1) / GROUP, ahead + k / GROUP * 64);
        LP(values)(acc, sums, rows, PANEL_VECTORS * panels, h, p->h_row, w, w_next);
        if (k > 0)
            LF_UNROLL
            for (int r = 0; r < rows; r++)
                LF_UNROLL
                for (int v = 0; v < PANEL_VECTORS * panels; v++)
                    acc[r][v] = v_add(sum[r][v], acc[r][v]);
        if (PIECE > DEPTH_BLOCK || k + PIECE >= p->depth) /* int8 has one piece */
            break;
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < PANEL_VECTORS * panels; v++)
                sum[r][v] = acc[r][v];
    }
    LF_UNROLL
    for (int r = 0; r < rows; r++) {
        const real *projected = (const real *)p->projected + (row + r) * p->projected_row
                                + panel * p->projected_panel;
        LF_UNROLL
        for (int v = 0; v < PANEL_VECTORS * panels; v++)
            acc[r][v] = v_add(acc[r][v], v_load(LF_VECTOR_AT(projected, v, p->projected_panel, p->projected_gate)));
    }
    if (!variant) {
        LF(finish_cells)(p, row, rows, panel, panels, acc);
        return;
    }
    vec cells[TILE_ROWS + 1][4]; /* in memory, which the accumulators, being elsewhere, are not */
    LF_UNROLL
    for (int n = 0; n < rows * panels; n++)
        LF_UNROLL
        for (int gate = 0; gate < 4; gate++) {
            const LF(cell) at = LF(cell_of)(n, panels);
            cells[n][gate] = acc[at.row][at.gates + gate];
        }
    LF(finish_variants)(variant, row, panel, panels, rows * panels, cells);
}

#if MATRIX
/* The rows from first to end of one panel, whose sums are those of matrices. */
LF_INLINE void LP(cell_matrices)(const lf_cell_forward *p, const lf_variant_forward *variant, ptrdiff_t panel,
                                 ptrdiff_t first, ptrdiff_t end)
{
    float sums[2 * MATRIX_ROWS * PANEL] __attribute__((aligned(64)));
    const ptrdiff_t most = LP(matrix_rows)(p->rows, p->depth);
    const OPERAND *h = (const OPERAND *)p->h + ROW_HEAD;
    const WEIGHT *w = LP(weights)(LP(panel)(p->w, panel, p->depth), PANEL_VECTORS);
    LF_FOR_MATRICES(most, p->rows, first, end, begin, next, matrix) {
        LP(matrix_sums)(most, sums, PANEL_VECTORS, h + matrix * p->h_row, p->h_row, w,
                        LP(padded_depth)(p->depth) / GROUP, (char *)sums, 0);
        LF_FOR_TILES(begin, next, row, rows)
            LF_SWITCH_ROWS(rows, LP(cell_tile), p, variant, row, panel, 1, sums + (row - matrix) * PANEL)
    }
}
#endif

LF_INLINE void LP(cell_tiles)(const lf_cell_forward *p, const lf_variant_forward *variant)
{
    const ptrdiff_t at_once = p->rows <= PAIRED_ROWS && !BY_MATRIX(p->rows) ? 2 : 1; /* panels */
    const ptrdiff_t turns = (p->end_panel - p->first_panel + at_once - 1) / at_once;
    LP(begin_matrices)(p->rows, p->depth);
    LF_FOR_ROW_BLOCKS(p->rows, BLOCK_OF(p->rows), first, end)
        for (ptrdiff_t turn = 0; turn < turns; turn++) {
            const ptrdiff_t panel = p->first_panel + at_once * (p->descending ? turns - 1 - turn : turn);
#if MATRIX
            if (BY_MATRIX(p->rows)) {
                LP(cell_matrices)(p, variant, panel, first, end);
                continue;
            }
#endif
            const int paired = at_once == 2 && panel + 2 <= p->end_panel;
            if (paired && p->rows == 1)
                LP(cell_tile)(1, p, variant, 0, panel, 2, NULL);
            else if (paired)
                LP(cell_tile)(PAIRED_ROWS, p, variant, 0, panel, 2, NULL);
            else
                LF_FOR_TILES(first, end, row, rows)
                    LF_SWITCH_ROWS(rows, LP(cell_tile), p, variant, row, panel, 1, NULL)
        }
    LP(end_matrices)(p->rows);
}

static void LP(cell_forward)(const lf_cell_forward *p)
{
    LP(cell_tiles)(p, NULL);
    if (p->stream)
        v_fence();
}

static void LP(variant_forward)(const lf_variant_forward *p)
{
    const int plain = LF(plain_functions)(p->variant);
    if (p->parts == (LF_CELL | LF_OUTPUT))
        LP(cell_tiles)(p->step, p);
    else if (p->parts == LF_CELL && plain)
        LF(normed_cells)(p, LF_CELL, 1);
    else if (p->parts == LF_CELL)
        LF(normed_cells)(p, LF_CELL, 0);
    else if (plain)
        LF(normed_cells)(p, LF_OUTPUT, 1);
    else
        LF(normed_cells)(p, LF_OUTPUT, 0);
}

#if LF_PRECISION == LF_FULL || LF_PRECISION == LF_BF16
/* Backward, the product dh of a block of rows and of a panel, or two, and then their cells. */
LF_INLINE void LP(differentiate_tiles)(const lf_product *q, const lf_cell_backward *p,
                                       const lf_variant_backward *variant)
{
    LP(begin_matrices)(q->rows, q->depth);
    LF_FOR_ROW_BLOCKS(q->rows, ROW_BLOCK, first, end)
        for (ptrdiff_t panel = q->first_panel, panels; panel < q->end_panel; panel += panels) {
            real dh[ROW_BLOCK * PANEL];
            panels = LP(panels_of_block)(q, panel, end - first);
            const ptrdiff_t width = panels * PANEL, unit = panel * PANEL;
            const ptrdiff_t units = lf_left(q->columns, unit, width);
            LF(block) block = {.panel = panel, .first = first, .out = dh, .out_row = width, .out_panel = PANEL,
                               .columns = width};
            LP(product_panel)(q, &block, (int)panels, end);
            if (variant) {
                LF(differentiate_variants)(variant, first, end, unit, units, dh, width);
                continue;
            }
            for (ptrdiff_t row = first; row < end; row++)
                for (ptrdiff_t j = 0; j < units; j += LANES)
                    LF(differentiate)(p, row, unit + j, v_load(dh + (row - first) * width + j));
        }
    LP(end_matrices)(q->rows);
}

static void LP(cell_backward)(const lf_cell_backward *p)
{
    LP(differentiate_tiles)(&p->product, p, NULL);
}

static void LP(variant_backward)(const lf_variant_backward *p)
{
    LP(differentiate_tiles)(&p->product, NULL, p);
}
#endif
