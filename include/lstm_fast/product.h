/* The register tile, and the product of a matrix with a packed one, in one precision. See kernels.h for the layouts and
 * precision.h for the words. */

/* acc[r][v] = sum over k of a[r, k] b[k, v]. `rows` and `vectors` are compile-time constants where
 * this is inlined, so that acc lives in registers; vectors == TILE_VECTORS takes two panels side by side.
 *
 * With more than one row, a cache line a step is prefetched from `ahead`: see LP(ahead). One row reads b as fast
 * as it comes anyway. */
LF_INLINE void LP(multiply)(SUM acc[][TILE_VECTORS], const int rows, const int vectors, const OPERAND *a,
                            ptrdiff_t a_row, ptrdiff_t a_step, const WEIGHT *b, const WEIGHT *b_next,
                            ptrdiff_t groups, const char *ahead)
{
    const int step = (vectors < PANEL_VECTORS ? vectors : PANEL_VECTORS) * LANES * GROUP;
    LF_UNROLL
    for (int r = 0; r < rows; r++)
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            acc[r][v] = s_zero();
    for (ptrdiff_t n = 0; n < groups; n++) {
        LF_UNROLL
        for (int part = 0; part < PARTS; part++) {
            WVEC w[TILE_VECTORS];
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                w[v] = w_load((v < PANEL_VECTORS ? b : b_next) + v % PANEL_VECTORS * LANES * GROUP, part);
            if (rows > 1 && rows < 4 && (rows + 1) * vectors < REGISTERS) /* or GCC loads them again for each row */
                LF_UNROLL
                for (int v = 0; v < vectors; v++)
                    LF_IN_REGISTER(w[v]);
            if (rows > 1 && part == 0)
                __builtin_prefetch(ahead + n * 64, 0, 2);
            LF_UNROLL
            for (int r = 0; r < rows; r++) {
                XVEC x = x_load(a + r * a_row + n * GROUP * a_step, part);
                LF_UNROLL
                for (int v = 0; v < vectors; v++)
                    acc[r][v] = s_dot(acc[r][v], x, w[v]);
            }
        }
        b += step;
        b_next += step;
    }
}

/* What tile n of some rows prefetches of the part of b that is read next, so many groups of a full panel: the first
 * tiles a share each. Only the first tile of the next panel or piece would wait for the L3 cache, but that is a
 * twentieth of the time at 64 rows. */
static inline const char *LP(ahead)(const WEIGHT *next, ptrdiff_t n, ptrdiff_t groups)
{
    const ptrdiff_t lines = PANEL * GROUP * (ptrdiff_t)sizeof(WEIGHT) / 64;
    return (const char *)next + n % (lines ? lines : 1) * groups * 64;
}

#include "lstm_fast/matrix.h"

/* The values of sums: of `rows` rows of operands from a on, and the columns of a panel, or of two. */
LF_INLINE void LP(values)(vec acc[][TILE_VECTORS], SUM sums[][TILE_VECTORS], const int rows, const int vectors,
                          const OPERAND *a, ptrdiff_t a_row, const char *panel, const char *panel_next)
{
    (void)a, (void)a_row, (void)panel, (void)panel_next; /* without heads */
    LF_UNROLL
    for (int r = 0; r < rows; r++)
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            acc[r][v] = s_value(sums[r][v], a + r * a_row,
                                (const real *)(v < PANEL_VECTORS ? panel : panel_next)
                                    + v % PANEL_VECTORS * LANES * HEAD);
}

/* `matrix`: NULL, or sums from this row on. */
LF_INLINE void LP(product_tile)(const int rows, const int vectors, const lf_product *p, const LF(block) *q,
                                ptrdiff_t row, const float *matrix)
{
    const int width = vectors < PANEL_VECTORS ? vectors : PANEL_VECTORS;
    const ptrdiff_t first = q->depth_first * width * LANES, groups = (q->depth_count + GROUP - 1) / GROUP;
    const OPERAND *head = (const OPERAND *)p->a + row * p->a_row;
    const OPERAND *a = head + ROW_HEAD + q->depth_first * p->a_step;
    ptrdiff_t a_row = p->a_row, a_step = p->a_step;
    if (LF_PRECISION == LF_FULL && q->packed)
        a = (const OPERAND *)q->packed + (row - q->first) * q->depth_count, a_row = 1, a_step = rows;
    if (LF_PRECISION == LF_BF16 && q->packed)
        a = (const OPERAND *)q->packed + (row - q->first) * DEPTH_BLOCK, a_row = DEPTH_BLOCK, a_step = 1;
    char *panel = LP(panel)(p->b, q->panel, p->depth), *panel_next = LP(panel)(p->b, q->panel + 1, p->depth);
    const WEIGHT *b = LP(weights)(panel, width) + first, *b_next = LP(weights)(panel_next, width) + first;
    SUM sums[TILE_ROWS][TILE_VECTORS];
    vec acc[TILE_ROWS][TILE_VECTORS];
    if (q->depth_first || p->accumulate) /* what is added in the end, often from far away */
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                __builtin_prefetch(LF_VECTOR_AT(q->out + (row - q->first + r) * q->out_row, v, q->out_panel, LANES), 1);
    LP(tile_sums)(sums, rows, vectors, matrix, a, a_row, a_step, b, b_next, groups,
                  LP(ahead)((vectors > PANEL_VECTORS ? b_next : b) + groups * GROUP * width * LANES,
                            (row - q->first) / rows, groups));
    LP(values)(acc, sums, rows, vectors, head, p->a_row, panel, panel_next);
    LF(finish_tile)(acc, rows, vectors, p, q, row);
}

#if LF_PRECISION == LF_FULL
/* The rows q->first .. end - 1 of an outer product, of depth 1: a tile takes longer to begin and to end than to
 * multiply, and a training step of one row is mostly this. The copies are for compilers, which then know that what is
 * written changes nothing in them. */
LF_INLINE void LP(outer_rows)(ptrdiff_t end, const int vectors, const lf_product *product, const LF(block) *block)
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
#endif

#if MATRIX
/* The same out of matrices. */
static void LP(product_matrices)(const lf_product *p, const LF(block) *q, int vectors, ptrdiff_t end)
{
    float sums[2 * MATRIX_ROWS * PANEL] __attribute__((aligned(64)));
    char room[LF_PRECISION == LF_MIXED ? PIECE / GROUP * PANEL * 4 : 1] __attribute__((aligned(64)));
    const ptrdiff_t groups = (q->depth_count + GROUP - 1) / GROUP;
    const WEIGHT *weights = LP(weights)(LP(panel)(p->b, q->panel, p->depth), vectors);
    const WEIGHT *b = weights + q->depth_first * vectors * LANES;
    const OPERAND *a = (const OPERAND *)p->a + ROW_HEAD + q->depth_first;
    ptrdiff_t a_row = p->a_row, count = p->rows;
    if (q->packed)
        a = (const OPERAND *)q->packed - q->first * DEPTH_BLOCK, a_row = DEPTH_BLOCK, count = end - q->first;
    const ptrdiff_t most = LP(matrix_rows)(count, p->depth);
    LF_FOR_MATRICES(most, count, q->first, end, first, after, matrix) {
        LP(matrix_sums)(most, sums, vectors, a + matrix * a_row, a_row, b, groups, room, first == q->first);
        LF_FOR_TILES(first, after, row, rows)
            LF_SWITCH_ROWS(rows, LF_SWITCH_VECTORS, vectors, LP(product_tile), p, q, row, sums + (row - matrix) * PANEL)
    }
}
#endif

/* The rows q->first .. end - 1 of one panel, or of two, and some terms of their sums. */
static void LP(product_piece)(const lf_product *p, const LF(block) *q, int panels, ptrdiff_t end)
{
    const int vectors = panels == 2 ? TILE_VECTORS : LF(panel_vectors)(p->columns - q->panel * PANEL);
#if LF_PRECISION == LF_FULL
    if (vectors < TILE_VECTORS && p->depth == 1) {
        LF_SWITCH_VECTORS(end, vectors, LP(outer_rows), p, q);
        return;
    }
#endif
#if MATRIX
    if (BY_MATRIX(p->rows)) {
        LP(product_matrices)(p, q, vectors, end);
        return;
    }
#endif
    if (vectors == TILE_VECTORS && end - q->first == 1)
        LP(product_tile)(1, TILE_VECTORS, p, q, q->first, NULL);
    else if (vectors == TILE_VECTORS)
        LP(product_tile)(PAIRED_ROWS, TILE_VECTORS, p, q, q->first, NULL);
    else
        LF_FOR_TILES(q->first, end, row, rows)
            LF_SWITCH_ROWS(rows, LF_SWITCH_VECTORS, vectors, LP(product_tile), p, q, row, NULL)
}

/* All terms of them; q has first, out, out_row, out_panel and columns. */
static void LP(product_panel)(const lf_product *p, LF(block) *q, int panels, ptrdiff_t end)
{
    q->depth_first = 0;
    do {
        q->depth_count = lf_left(p->depth, q->depth_first, PIECE);
        LP(product_piece)(p, q, panels, end);
        q->depth_first += q->depth_count;
    } while (q->depth_first < p->depth);
}

#if LF_PRECISION == LF_FULL
/* Some terms of a tile, a_row == 1, in the order in which they are read: packed[k][row]. */
LF_INLINE void LP(pack_tile)(const int rows, real *packed, const real *a, ptrdiff_t a_step, ptrdiff_t depth)
{
    for (ptrdiff_t k = 0; k < depth; k++)
        memcpy(packed + k * rows, a + k * a_step, (size_t)rows * sizeof *packed);
}

/* The same, where the first of the terms is number k of the tile. */
#undef PACK_TILE_FROM
#define PACK_TILE_FROM(rows, packed, k, ...) LP(pack_tile)(rows, (packed) + (k) * (rows), __VA_ARGS__)

/* The same for the tiles of a row block: packed[tile][k][row]. The next terms, on other pages, are asked for meanwhile. */
static void LP(pack_tiles)(real *packed, const lf_product *p, ptrdiff_t first, ptrdiff_t end, ptrdiff_t depth_first,
                           ptrdiff_t depth)
{
    const real *a = (const real *)p->a + depth_first * p->a_step;
    for (ptrdiff_t k = 0; k < depth; k += LINES_OF_A_SET) {
        for (ptrdiff_t n = k + LINES_OF_A_SET; n < LF_CLAMP(k + 2 * LINES_OF_A_SET, depth); n++)
            for (ptrdiff_t row = first; row < end; row += CACHE_LINE)
                __builtin_prefetch(a + n * p->a_step + row);
        LF_FOR_TILES(first, end, row, rows)
            LF_SWITCH_ROWS(rows, PACK_TILE_FROM, packed + (row - first) * depth, k, a + row + k * p->a_step, p->a_step,
                           lf_left(depth, k, LINES_OF_A_SET))
    }
}

#elif LF_PRECISION == LF_BF16
/* Some rows of the transpose of a matrix, a_row == 1, with their terms side by side: packed[row][DEPTH_BLOCK]. */
static void LP(pack_tiles)(OPERAND *packed, const lf_product *p, ptrdiff_t first, ptrdiff_t end, ptrdiff_t depth_first,
                           ptrdiff_t depth)
{
    const OPERAND *a = (const OPERAND *)p->a + first + depth_first * p->a_step;
    ptrdiff_t whole_depth = 0, whole_rows = 0;
#if defined(OF_PAIRS) && defined(b_transpose)
    whole_depth = depth - depth % (2 * LANES), whole_rows = (end - first) - (end - first) % (2 * LANES);
    for (ptrdiff_t k = 0; k < whole_depth; k += 2 * LANES)
        for (ptrdiff_t row = 0; row < whole_rows; row += 2 * LANES)
            b_transpose(packed + row * DEPTH_BLOCK + k, DEPTH_BLOCK, a + k * p->a_step + row, p->a_step);
#endif
    for (ptrdiff_t k = 0; k < LP(padded_depth)(depth); k++)
        for (ptrdiff_t row = k < whole_depth ? whole_rows : 0; row < end - first; row++)
            packed[row * DEPTH_BLOCK + k] = k < depth ? a[k * p->a_step + row] : 0;
}
#endif

#if LF_PRECISION == LF_FULL || LF_PRECISION == LF_BF16
/* A product with the transpose of a matrix: k steps through a from cache line to cache line, and often from page to
 * page, always in the same set of a cache. With many panels it pays to pack a block of rows first, of 96 KiB: the stack
 * of a thread may be small. A training step at (25, 64, 512, 512) then takes 150 ms instead of 203 (AVX-512, Xeon), and
 * 210 instead of 241 (AVX2). Groups of terms have to be side by side anyway. */
static void LP(product_transposed)(const lf_product *p, const int stream)
{
    OPERAND packed[ROW_BLOCK * 4 / sizeof(real) * DEPTH_BLOCK] __attribute__((aligned(64)));
    const ptrdiff_t most = sizeof packed / sizeof *packed / DEPTH_BLOCK;
    for (ptrdiff_t first = 0, end; end = first + lf_left(p->rows, first, most), first < p->rows; first = end)
        for (ptrdiff_t k = 0, depth; depth = lf_left(p->depth, k, DEPTH_BLOCK), k < p->depth; k += depth) {
            LP(pack_tiles)(packed, p, first, end, k, depth);
            LP(begin_matrices)(end - first, depth);
            for (ptrdiff_t panel = p->first_panel; panel < p->end_panel; panel++) {
                LF(block) q = {.panel = panel, .depth_first = k, .depth_count = depth, .packed = packed, .first = first,
                               .out = (real *)p->out + first * p->out_row + panel * p->out_panel,
                               .out_row = p->out_row, .out_panel = p->out_panel, .columns = p->columns - panel * PANEL,
                               .stream = stream};
                LP(product_piece)(p, &q, 1, end);
            }
            LP(end_matrices)(end - first);
        }
}

/* Whether a product is of that kind. */
static inline int LP(is_transposed)(const lf_product *p)
{
    if (LF_PRECISION == LF_BF16)
        return p->a_step != 1;
    return p->a_row == 1 && p->a_step != 1 && p->depth > 1 && p->end_panel - p->first_panel >= PANELS_TO_PACK;
}
#endif

static void LP(product)(const lf_product *p)
{
    const size_t size = LANES * sizeof(real);
    const int stream = p->stream && (uintptr_t)p->out % size == 0 && p->out_row % LANES == 0
                       && p->out_panel % LANES == 0;
#if LF_PRECISION == LF_FULL || LF_PRECISION == LF_BF16
    if (LP(is_transposed)(p))
        LP(product_transposed)(p, stream);
    else
#endif
    {
        LP(begin_matrices)(p->rows, p->depth);
        LF_FOR_ROW_BLOCKS(p->rows, BLOCK_OF(p->rows), first, end)
            for (ptrdiff_t panel = p->first_panel, panels; panel < p->end_panel; panel += panels) {
                panels = LP(panels_of_block)(p, panel, end - first);
                LF(block) q = {.panel = panel, .first = first,
                               .out = (real *)p->out + first * p->out_row + panel * p->out_panel,
                               .out_row = p->out_row, .out_panel = p->out_panel, .columns = p->columns - panel * PANEL,
                               .stream = stream};
                LP(product_panel)(p, &q, (int)panels, end);
            }
        LP(end_matrices)(p->rows);
    }
    if (stream)
        v_fence();
}
