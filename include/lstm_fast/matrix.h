/* The sums of a tile, in one precision: of products in registers (product.h), or out of matrices, which a CPU multiplies
 * as a whole. These are computed for up to MATRIX_ROWS rows and one panel at a time, into memory that tiles then read:
 * a matrix of few rows takes the time of a full one. */

/* Whether a product of so many rows is one of matrices. */
#undef BY_MATRIX
#undef BLOCK_OF
#define BY_MATRIX(rows) (MATRIX == 1 || (MATRIX && (rows) >= MATRIX))
/* Matrices are done with a panel sooner than the next one comes from the L3 cache. */
#define BLOCK_OF(rows) (BY_MATRIX(rows) ? 4 * ROW_BLOCK : ROW_BLOCK)

/* How many panels a product takes at once, of a block of so many rows. */
static inline int LP(panels_of_block)(const lf_product *p, ptrdiff_t panel, ptrdiff_t rows)
{
    return BY_MATRIX(p->rows) ? 1 : LF(panels_at_once)(p, panel, rows);
}

#ifndef LF_FOR_MATRICES
/* Compilers need not know that matrices are in memory. */
#define LF_MEMORY_BARRIER __asm__ volatile("" : : : "memory")

/* x is the register of operands, w that of weights. */
#define MATRIX_STEP(x, w)                      \
    m_load(x, a, a_row);                       \
    m_load(w, b, b_row);                       \
    s_matrix(0, x, w);                         \
    if (vectors >= 2) {                        \
        m_load(w, b + 64, b_row);              \
        s_matrix(1, x, w);                     \
    }                                          \
    if (vectors >= 4) {                        \
        m_load(w, b + 2 * 64, b_row);          \
        s_matrix(2, x, w);                     \
        m_load(w, b + 3 * 64, b_row);          \
        s_matrix(3, x, w);                     \
    }

/* The rows from first to end, of `count` in all, in matrices: those from row to next are new in the one that begins with
 * row number `matrix`. All matrices of a call have the same number of rows, and the last ones overlap. */
#define LF_FOR_MATRICES(count, first, end, row, next, matrix)                                                       \
    for (ptrdiff_t row = first, next, matrix; next = LF_CLAMP(row + MATRIX_ROWS, end),                              \
                                              matrix = next - LF_CLAMP(count, MATRIX_ROWS), row < (end); row = next)
#endif

#if MATRIX
/* What matrices multiply of the weights b, `groups` groups of so many vectors: in `room` where that is not as they are,
 * and already there unless `fresh`. */
LF_INLINE const char *LP(of_matrices)(const WEIGHT *b, char *room, ptrdiff_t groups, int vectors, int fresh)
{
#if LF_PRECISION == LF_MIXED
    for (ptrdiff_t n = 0; fresh && n < groups * vectors; n++) {
        const WVEC w = w_load(b + n * LANES * GROUP, 0);
        memcpy(room + n * 64, &w, sizeof w);
    }
    LF_MEMORY_BARRIER;
    return room;
#else
    (void)room, (void)groups, (void)vectors, (void)fresh;
    return (const char *)b;
#endif
}

/* A step through the depth, the `last` one of fewer groups. */
LF_INLINE void LP(matrix_step)(const int last, int vectors, const char *a, ptrdiff_t a_row, const char *b)
{
    const ptrdiff_t b_row = vectors * 64;
    if (last) {
        MATRIX_STEP(5, 7)
    } else {
        MATRIX_STEP(4, 6)
    }
}

/* sums[row][column of the panel] of the rows that m_configure was told, where operands are a_row bytes apart. Vectors of
 * sums, of groups of weights, and MATRIX_GROUPS of operands all have 64 bytes. `room`, `fresh`: see of_matrices. */
static void LP(multiply_matrices)(float *sums, int vectors, const char *a, ptrdiff_t a_row, const WEIGHT *weights,
                                  ptrdiff_t groups, char *room, int fresh)
{
    const ptrdiff_t row = PANEL * (ptrdiff_t)sizeof *sums;
    LF_MEMORY_BARRIER;
    m_zero(0);
    m_zero(1);
    m_zero(2);
    m_zero(3);
    for (ptrdiff_t n = 0, some; some = LF_CLAMP(groups - n, MATRIX_GROUPS), n < groups; n += some) {
        const char *b = LP(of_matrices)(weights + n * vectors * LANES * GROUP, room + n * vectors * 64, some, vectors,
                                        fresh);
        LP(matrix_step)(some < MATRIX_GROUPS, vectors, a + n * 4, a_row, b);
    }
    m_store(0, sums, row);
    m_store(1, sums + LANES, row);
    m_store(2, sums + 2 * LANES, row);
    m_store(3, sums + 3 * LANES, row);
    LF_MEMORY_BARRIER;
}
#endif

/* Around the products of a call that has so many rows. */
LF_INLINE void LP(begin_matrices)(ptrdiff_t rows, ptrdiff_t depth)
{
    (void)rows, (void)depth;
#if MATRIX
    if (BY_MATRIX(rows))
        m_configure((int)LF_CLAMP(rows, MATRIX_ROWS), LP(padded_depth)(depth) / GROUP % MATRIX_GROUPS);
#endif
}

LF_INLINE void LP(end_matrices)(ptrdiff_t rows)
{
    (void)rows;
#if MATRIX
    if (BY_MATRIX(rows))
        m_release();
#endif
}

/* The sums of a tile: its rows of `matrix`, or where that is NULL multiplied. */
LF_INLINE void LP(tile_sums)(SUM acc[][TILE_VECTORS], const int rows, const int vectors, const float *matrix,
                             const OPERAND *a, ptrdiff_t a_row, ptrdiff_t a_step, const WEIGHT *b, const WEIGHT *b_next,
                             ptrdiff_t groups, const char *ahead)
{
#if MATRIX
    if (MATRIX == 1 || matrix) {
        LF_UNROLL
        for (int r = 0; r < rows; r++)
            LF_UNROLL
            for (int v = 0; v < vectors; v++)
                acc[r][v] = s_load(matrix + r * PANEL + v * LANES);
        return;
    }
#endif
    (void)matrix;
    LP(multiply)(acc, rows, vectors, a, a_row, a_step, b, b_next, groups, ahead);
}
