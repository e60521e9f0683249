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

/* The same for two matrices of operands, one below the other, and two vectors of weights, or one. */
#define MATRIX_PAIR_STEP                       \
    m_load(4, a, a_row);                       \
    m_load(5, a + MATRIX_ROWS * a_row, a_row); \
    m_load(6, b, b_row);                       \
    s_matrix(0, 4, 6);                         \
    s_matrix(2, 5, 6);                         \
    if (vectors >= 2) {                        \
        m_load(7, b + 64, b_row);              \
        s_matrix(1, 4, 7);                     \
        s_matrix(3, 5, 7);                     \
    }

/* The rows from first to end, of `count` in all, in matrices of so many: those from row to next are new in the one that
 * begins with row number `matrix`. All matrices of a call have the same number of rows, and the last ones overlap. */
#define LF_FOR_MATRICES(most, count, first, end, row, next, matrix)                                          \
    for (ptrdiff_t row = first, next, matrix; next = LF_CLAMP(row + (most), end),                            \
                                              matrix = next - LF_CLAMP(count, most), row < (end); row = next)
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

/* Rows of the matrices of so many rows and so deep: of two at once if there are rows for them, registers, which a smaller
 * last step takes, and a panel that does not stay in the L1 cache from one matrix to the next. 1: see multiply_row. */
LF_INLINE ptrdiff_t LP(matrix_rows)(ptrdiff_t rows, ptrdiff_t depth)
{
    const ptrdiff_t groups = LP(padded_depth)(depth) / GROUP;
    const int pairs = rows >= 2 * MATRIX_ROWS && groups % MATRIX_GROUPS == 0 && groups * PANEL * 4 > MATRIX_CACHE;
    return rows == 1 && LF_PRECISION == LF_MIXED ? 1 : pairs ? 2 * MATRIX_ROWS : MATRIX_ROWS;
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

/* The same of two matrices, one below the other, whose sums are in the registers for two vectors at a time. */
static void LP(multiply_pair)(float *sums, int panel_vectors, const char *a_first, ptrdiff_t a_row,
                              const WEIGHT *weights, ptrdiff_t groups, char *room, int fresh)
{
    const ptrdiff_t row = PANEL * (ptrdiff_t)sizeof *sums, b_row = panel_vectors * 64;
    LF_MEMORY_BARRIER;
    for (int v = 0; v < panel_vectors; v += 2, sums += 2 * LANES) {
        const int vectors = panel_vectors - v;
        m_zero(0);
        m_zero(1);
        m_zero(2);
        m_zero(3);
        for (ptrdiff_t n = 0; n < groups; n += MATRIX_GROUPS) {
            const char *a = a_first + n * 4;
            const char *b = v * 64 + LP(of_matrices)(weights + n * panel_vectors * LANES * GROUP,
                                                     room + n * b_row, MATRIX_GROUPS, panel_vectors, fresh && v == 0);
            MATRIX_PAIR_STEP
        }
        m_store(0, sums, row);
        m_store(2, sums + MATRIX_ROWS * PANEL, row);
        if (vectors >= 2) {
            m_store(1, sums + LANES, row);
            m_store(3, sums + MATRIX_ROWS * PANEL + LANES, row);
        }
    }
    LF_MEMORY_BARRIER;
}

#if LF_PRECISION == LF_MIXED
/* The same of a single row, for which it does not pay to make bfloat16 of weights in `room`: in floats, with the
 * bits of matrices. Even and odd terms of a matrix's depth have a sum each, and denormals are 0. */
LF_INLINE void LP(multiply_row)(const int rows, const int vectors, float *sums, const OPERAND *a, const WEIGHT *b,
                               ptrdiff_t groups)
{
    vec sum[PANEL_VECTORS], even[PANEL_VECTORS], odd[PANEL_VECTORS];
    (void)rows;
    m_flush_denormals();
    LF_MEMORY_BARRIER;
    LF_UNROLL
    for (int v = 0; v < vectors; v++)
        sum[v] = v_set1(0);
    for (ptrdiff_t n = 0, end; end = n + lf_left(groups, n, MATRIX_GROUPS), n < groups;) {
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            even[v] = odd[v] = v_set1(0);
        for (; n < end; n++, a += GROUP, b += vectors * LANES * GROUP) {
            const vec x_even = b_even(x_load(a, 0)), x_odd = b_odd(x_load(a, 0));
            LF_UNROLL
            for (int v = 0; v < vectors; v++) {
                even[v] = v_fma(x_even, v_int8_even(b + v * LANES * GROUP), even[v]);
                odd[v] = v_fma(x_odd, v_int8_odd(b + v * LANES * GROUP), odd[v]);
            }
        }
        LF_UNROLL
        for (int v = 0; v < vectors; v++)
            sum[v] = v_add(sum[v], v_add(even[v], odd[v]));
    }
    LF_UNROLL
    for (int v = 0; v < vectors; v++)
        v_store(sums + v * LANES, sum[v]);
    LF_MEMORY_BARRIER;
    m_keep_denormals();
}
#endif

/* The sums of matrices with so many rows: see matrix_rows and multiply_matrices. */
LF_INLINE void LP(matrix_sums)(ptrdiff_t rows, float *sums, int vectors, const OPERAND *a, ptrdiff_t a_row,
                               const WEIGHT *weights, ptrdiff_t groups, char *room, int fresh)
{
#if LF_PRECISION == LF_MIXED
    if (rows == 1) {
        LF_SWITCH_VECTORS(1, vectors, LP(multiply_row), sums, a, weights, groups);
        return;
    }
#endif
    (rows > MATRIX_ROWS ? LP(multiply_pair) : LP(multiply_matrices))(
        sums, vectors, (const char *)a, a_row * (ptrdiff_t)sizeof *a, weights, groups, room, fresh);
}
#endif

/* Around the products of a call that has so many rows. */
LF_INLINE void LP(begin_matrices)(ptrdiff_t rows, ptrdiff_t depth)
{
    (void)rows, (void)depth;
#if MATRIX
    if (BY_MATRIX(rows) && LP(matrix_rows)(rows, depth) > 1)
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
