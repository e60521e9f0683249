/* Packing of weights into the panels that the products of one precision read, and rounding of operands. See
 * kernels.h. */

/* Groups of the depth that are packed at a time: they are whole cache lines of the weights, and their piece of the panel
 * stays in the L1 cache until all columns are in it. The next ones are asked for meanwhile: so many short pieces of rows
 * are no streams that a CPU would see. */
enum { LP(PACK_DEPTH) = 32 * GROUP };

/* Terms of a vector of rows that are packed at once where a group is as large as a lane: so they are transposed in
 * registers. Of rows that are not there they are 0. */
enum { LP(PACK_SQUARE) = LANES * GROUP };
static void LP(pack_square)(WEIGHT *b, ptrdiff_t panel, const WEIGHT *w, ptrdiff_t w_row, ptrdiff_t rows)
{
    static const WEIGHT nothing[sizeof(vec) / sizeof(WEIGHT)];
    vec lanes[LANES];
    LF_UNROLL
    for (int j = 0; j < LANES; j++)
        memcpy(&lanes[j], j < rows ? w + j * w_row : nothing, sizeof(vec));
    LF(transpose)(lanes);
    LF_UNROLL
    for (int n = 0; n < LANES; n++)
        memcpy(b + n * panel * GROUP, &lanes[n], sizeof(vec));
}

/* A vector of rows of w among the weights of a panel of so many columns: b[k, j] = w[j * w_row + k] from k to end, and 0
 * for the rows from `rows` on. The terms up to `ahead` are asked for. */
LF_INLINE void LP(pack_vector)(WEIGHT *b, const int panel, const WEIGHT *w, ptrdiff_t w_row, ptrdiff_t rows,
                               ptrdiff_t k, ptrdiff_t end, ptrdiff_t ahead)
{
    for (ptrdiff_t j = 0; j < LANES; j++)
        for (ptrdiff_t n = end; n < ahead; n += 64 / (ptrdiff_t)sizeof(WEIGHT))
            __builtin_prefetch(w + j * w_row + n);
    if (GROUP * sizeof(WEIGHT) == sizeof(real))
        for (; k + LP(PACK_SQUARE) <= end; k += LP(PACK_SQUARE))
            LP(pack_square)(b + k * panel, panel, w + k, w_row, rows);
    for (ptrdiff_t j = 0; j < LANES; j++)
        for (ptrdiff_t n = k; n < end; n++)
            b[(n / GROUP * panel + j) * GROUP + n % GROUP] = j < rows ? w[j * w_row + n] : (WEIGHT)0;
}

/* What a panel has for vector v besides: its scales, of `left` columns, and what INT8_OFFSET adds to its sums, or neither;
 * and zeros where the last group has no terms. */
LF_INLINE void LP(pack_rest)(char *panel, const int vectors, const int v, const real *scale, ptrdiff_t left,
                             ptrdiff_t depth)
{
    WEIGHT *b = LP(weights)(panel, vectors) + v * LANES * GROUP;
    real *head = (real *)panel + v * LANES * HEAD;
    if (HEAD > 0)
        v_store(head, LF(load_n)(scale, LF_CLAMP(left, LANES)));
    for (ptrdiff_t n = depth; n < LP(padded_depth)(depth); n++)
        for (ptrdiff_t j = 0; j < LANES; j++)
            b[(n / GROUP * vectors * LANES + j) * GROUP + n % GROUP] = (WEIGHT)0;
    if (HEAD < 2)
        return;
    uint32_t offsets[LANES] = {0}; /* as sums, they may wrap around */
    for (ptrdiff_t n = 0; n < LP(padded_depth)(depth); n++)
        for (ptrdiff_t j = 0; j < LANES; j++)
            offsets[j] += INT8_OFFSET * (uint32_t)b[(n / GROUP * vectors * LANES + j) * GROUP + n % GROUP];
    memcpy(head + LANES, offsets, sizeof offsets);
}

/* The pieces of a depth: from k to end, and to the end of the next. */
#undef LF_FOR_PIECES
#define LF_FOR_PIECES(depth, k, end, ahead)                                                                  \
    for (ptrdiff_t k = 0, end, ahead; end = LF_CLAMP(k + LP(PACK_DEPTH), depth),                             \
                                      ahead = LF_CLAMP(end + LP(PACK_DEPTH), depth), k < (depth); k = end)

static void LP(pack_gates)(void *b, const void *w, const void *scale, ptrdiff_t hidden_size, ptrdiff_t depth,
                           ptrdiff_t first_panel, ptrdiff_t end_panel)
{
    for (ptrdiff_t p = first_panel; p < end_panel; p++) {
        char *panel = LP(panel)(b, p, depth);
        const ptrdiff_t first = p * LANES;
        LF_FOR_PIECES(depth, k, end, ahead)
            for (int gate = 0; gate < 4; gate++)
                LP(pack_vector)(LP(weights)(panel, 4) + gate * LANES * GROUP, PANEL,
                                (const WEIGHT *)w + (gate * hidden_size + first) * depth, depth, hidden_size - first, k,
                                end, ahead);
        for (int gate = 0; gate < 4; gate++)
            LP(pack_rest)(panel, 4, gate, (const real *)scale + gate * hidden_size + first, hidden_size - first, depth);
    }
}

static void LP(pack_transposed)(void *b, const void *m, const void *scale, ptrdiff_t m_row, ptrdiff_t depth,
                                ptrdiff_t columns, ptrdiff_t first_panel, ptrdiff_t end_panel)
{
    for (ptrdiff_t p = first_panel; p < end_panel; p++) {
        char *panel = LP(panel)(b, p, depth);
        const ptrdiff_t first = p * PANEL;
        const int vectors = LF(panel_vectors)(columns - first);
        LF_FOR_PIECES(depth, k, end, ahead)
            for (int v = 0; v < vectors; v++)
                LP(pack_vector)(LP(weights)(panel, vectors) + v * LANES * GROUP, vectors * LANES,
                                (const WEIGHT *)m + (first + v * LANES) * m_row, m_row, columns - first - v * LANES, k,
                                end, ahead);
        for (int v = 0; v < vectors; v++)
            LP(pack_rest)(panel, vectors, v, (const real *)scale + first + v * LANES, columns - first - v * LANES,
                          depth);
    }
}

#if LF_PRECISION == LF_FULL
LF_INLINE void LP(pack_step)(WEIGHT *b, const real *m, ptrdiff_t m_row, ptrdiff_t steps, ptrdiff_t columns)
{
    (void)m_row, (void)steps;
    v_store(b, LF(load_n)(m, columns));
}
#elif LF_PRECISION == LF_BF16
/* Two steps of the depth, the second one of zeros where there is none. */
LF_INLINE void LP(pack_step)(WEIGHT *b, const real *m, ptrdiff_t m_row, ptrdiff_t steps, ptrdiff_t columns)
{
    float x[2][LANES];
    uint32_t pairs[LANES];
    v_store(x[0], LF(load_n)(m, columns));
    v_store(x[1], steps > 1 ? LF(load_n)(m + m_row, columns) : v_set1(0.0f));
    for (ptrdiff_t j = 0; j < LANES; j++)
        pairs[j] = lf_bits(lf_bfloat16(x[0][j])) >> 16 | lf_bits(lf_bfloat16(x[1][j]));
    memcpy(b, pairs, sizeof pairs);
}
#endif

#if LF_PRECISION == LF_FULL || LF_PRECISION == LF_BF16
static void LP(pack_columns)(void *b, const void *m, ptrdiff_t m_row, ptrdiff_t depth, ptrdiff_t columns,
                             ptrdiff_t first_panel, ptrdiff_t end_panel, ptrdiff_t first_row, ptrdiff_t end_row)
{
    for (ptrdiff_t p = first_panel; p < end_panel; p++) {
        const real *source = (const real *)m + p * PANEL;
        const ptrdiff_t left = columns - p * PANEL;
        const int vectors = LF(panel_vectors)(left);
        WEIGHT *panel = LP(weights)(LP(panel)(b, p, depth), vectors);
        for (ptrdiff_t k = first_row; k < end_row; k += GROUP)
            for (int v = 0; v < vectors; v++)
                LP(pack_step)(panel + (k * vectors + v * GROUP) * LANES, source + k * m_row + v * LANES, m_row, depth - k,
                              lf_left(left, v * LANES, LANES));
    }
}
#endif
