/* Every kernel of one ISA: the body of kernels/kernels_<isa>.c, which defines LF_ISA (its name) and
 * LF_ISA_HEADER (its vocabulary). Compiles the same source for float and for double. */
#include <stddef.h>
#include <stdint.h>

#include "lstm_fast/kernels.h"

#define LF_PASTE(a, b, c) LF_PASTE_EXPANDED(a, b, c)
#define LF_PASTE_EXPANDED(a, b, c) a##b##c
#define LF_STRING(name) LF_STRING_EXPANDED(name)
#define LF_STRING_EXPANDED(name) #name
#define LF_TABLE_NAME LF_PASTE(kernels_, LF_ISA, ) /* lf_kernels_avx2_f32 */
#define LF_INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define LF_UNROLL _Pragma("clang loop unroll(full)")
#else
#define LF_UNROLL _Pragma("GCC unroll 16")
#endif
#define LF_CLAMP(n, most) ((n) < 0 ? 0 : (n) < (most) ? (n) : (most))

/* Rows are taken in blocks that stay in the cache while the panels pass, and a block in tiles of at most
 * TILE_ROWS rows, as equal as possible: 8 rows are 4 + 4, not 6 + 2, which would wait for the weights.
 * Every sum goes over k in pieces of DEPTH_BLOCK terms, one accumulator each, and the pieces are added in
 * order: the same bits in every tile, errors that do not grow with the length of one long chain, and a piece of
 * a panel (64 KiB of floats) that stays in the L2 cache while the rows pass. */
#define ROW_BLOCK 96
#define DEPTH_BLOCK 256
#define SUM_BLOCK 32 /* the same for sums of rows, which are not products and cost nothing more in short pieces */
#define PANELS_TO_PACK 3  /* from which on it pays: see product_transposed */
#define LINES_OF_A_SET 8  /* of an L1 cache, which lines a power of two apart share */
#define LF_FOR_ROW_BLOCKS(count, first, last)                                                    \
    for (ptrdiff_t first = 0, last; last = LF_CLAMP(first + ROW_BLOCK, count), first < (count);  \
         first = last)
#define LF_FOR_TILES(first, last, row, rows)                                                     \
    for (ptrdiff_t row = first, rows; rows = lf_tile_rows((last) - row, TILE_ROWS), row < (last); \
         row += rows)

static inline int lf_tile_rows(ptrdiff_t left, int most)
{
    const ptrdiff_t tiles = (left + most - 1) / most;
    return tiles ? (int)((left + tiles - 1) / tiles) : 0;
}

/* Calls TILE(r) with the constant r that equals rows. */
#define LF_SWITCH_ROWS(rows, TILE)                                                               \
    switch (rows) {                                                                              \
    case 1: TILE(1); break;                                                                      \
    case 2: if (TILE_ROWS >= 2) TILE(LF_AT_MOST(2)); break;                                      \
    case 3: if (TILE_ROWS >= 3) TILE(LF_AT_MOST(3)); break;                                      \
    case 4: if (TILE_ROWS >= 4) TILE(LF_AT_MOST(4)); break;                                      \
    case 5: if (TILE_ROWS >= 5) TILE(LF_AT_MOST(5)); break;                                      \
    case 6: if (TILE_ROWS >= 6) TILE(LF_AT_MOST(6)); break;                                      \
    }
#define LF_AT_MOST(r) ((r) < TILE_ROWS ? (r) : TILE_ROWS)

#define LF_DOUBLE 0
#include "lstm_fast/kernel_table.h"
#undef LF_DOUBLE
#define LF_DOUBLE 1
#include "lstm_fast/kernel_table.h"
