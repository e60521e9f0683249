/* Every kernel of one ISA: the body of kernels/kernels_<isa>.c, which defines LF_ISA (its name) and
 * LF_ISA_HEADER (its vocabulary). Compiles the same source for float and for double.
 *
 * An extension of an ISA by instructions for numbers of lower precision defines which, a set of bits, LF_LOWER: its file
 * has their products alone, and everything else is that of the ISA (kernels/dispatch.c). */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "lstm_fast/kernels.h"

#define LF_PASTE(a, b, c) LF_PASTE_EXPANDED(a, b, c)
#define LF_PASTE_EXPANDED(a, b, c) a##b##c
#define LF_STRING(name) LF_STRING_EXPANDED(name)
#define LF_STRING_EXPANDED(name) #name
#define LF_TABLE_NAME LF_PASTE(kernels_, LF_ISA, ) /* lf_kernels_avx2_f32 */
#define LF_PRODUCTS_NAME LF_PASTE(products_, LF_ISA, ) /* lf_products_avx2_int8 */
#define LF_INLINE static inline __attribute__((always_inline))
/* Before a loop: unroll it whole, or leave it. Clang gives a loop that says neither the directive of the last loop
 * within, and then complains. */
#ifdef __clang__
#define LF_UNROLL _Pragma("clang loop unroll(full)")
#define LF_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define LF_UNROLL _Pragma("GCC unroll 16")
#define LF_ROLLED
#endif

/* Have a vector in a register from here on. */
#if defined(__x86_64__)
#define LF_IN_REGISTER(vector) __asm__("" : "+v"(vector))
#elif defined(__aarch64__)
#define LF_IN_REGISTER(vector) __asm__("" : "+w"(vector))
#endif

/* The integer of 0 .. most that is nearest to n. */
#define LF_CLAMP(n, most) ((n) < 0 ? 0 : (n) < (most) ? (n) : (most))

/* How many of `total` are left when `done` are done, but at most `most`: the length of the next piece. */
LF_INLINE ptrdiff_t lf_left(ptrdiff_t total, ptrdiff_t done, ptrdiff_t most)
{
    return LF_CLAMP(total - done, most);
}

/* The accumulators of a row of a tile: one panel, or two side by side. */
#define PANEL_VECTORS 4 /* in a panel of gates one for each gate */
#define TILE_VECTORS (2 * PANEL_VECTORS)
#define PAIRED_ROWS (REGISTERS > 16 ? 2 : 1) /* up to which a tile takes two panels: see panels_at_once */
/* Where vector v of such a row is, from its beginning p and the strides of panels and of vectors. */
#define LF_VECTOR_AT(p, v, panel, vector) ((p) + (v) / PANEL_VECTORS * (panel) + (v) % PANEL_VECTORS * (vector))

/* Rows are taken in blocks that stay in the cache while the panels pass, and a block in tiles of at most
 * TILE_ROWS rows, as equal as possible: 8 rows are 4 + 4, not 6 + 2, which would wait for the weights.
 * Every sum goes over k in pieces of DEPTH_BLOCK terms, one accumulator each, and the pieces are added in
 * order: the same bits in every tile, errors that do not grow with the length of one long chain, and a piece of
 * a panel (64 KiB of floats) that stays in the L2 cache while the rows pass. */
#define ROW_BLOCK 96
#define DEPTH_BLOCK 256
#define SUM_BLOCK 32 /* the same for sums of rows, which are not products and cost nothing more in short pieces */
#define COLUMN_BLOCK 8 /* vectors: the same for sums of a row's columns */
#define NORM_SUMS 16 /* squared_norm adds in so many sums, 16 elements apart */
#define PANELS_TO_PACK 3  /* from which on it pays: see product_transposed */
#define LINES_OF_A_SET 8  /* of an L1 cache, which lines a power of two apart share */
#define LF_FOR_ROW_BLOCKS(count, block, first, end)                                             \
    for (ptrdiff_t first = 0, end; end = LF_CLAMP(first + (block), count), first < (count);     \
         first = end)
#define LF_FOR_TILES(first, end, row, rows)                                                     \
    for (ptrdiff_t row = first, rows; rows = lf_tile_rows((end) - row, ROWS), row < (end); \
         row += rows)

static inline int lf_tile_rows(ptrdiff_t left, int most)
{
    const ptrdiff_t tiles = (left + most - 1) / most;
    return tiles ? (int)((left + tiles - 1) / tiles) : 0;
}

/* FUNCTION(rows, ...), where rows is a compile-time constant, 1 .. ROWS. What follows ROWS is never called,
 * but compiled, and LF_AT_MOST keeps it inside the accumulators. */
#define LF_SWITCH_ROWS(rows, FUNCTION, ...)                                                      \
    switch (rows) {                                                                              \
    case 1: FUNCTION(1, __VA_ARGS__); break;                                                     \
    case 2: if (ROWS >= 2) FUNCTION(LF_AT_MOST(2), __VA_ARGS__); break;                     \
    case 3: if (ROWS >= 3) FUNCTION(LF_AT_MOST(3), __VA_ARGS__); break;                     \
    case 4: if (ROWS >= 4) FUNCTION(LF_AT_MOST(4), __VA_ARGS__); break;                     \
    case 5: if (ROWS >= 5) FUNCTION(LF_AT_MOST(5), __VA_ARGS__); break;                     \
    case 6: if (ROWS >= 6) FUNCTION(LF_AT_MOST(6), __VA_ARGS__); break;                     \
    }
#define LF_AT_MOST(r) ((r) < ROWS ? (r) : ROWS)

/* FUNCTION(rows, vectors, ...), where vectors is a compile-time constant: 1, 2 or 4. */
#define LF_SWITCH_VECTORS(rows, vectors, FUNCTION, ...)                                          \
    ((vectors) == 4   ? FUNCTION(rows, 4, __VA_ARGS__)                                           \
     : (vectors) == 2 ? FUNCTION(rows, 2, __VA_ARGS__)                                           \
                      : FUNCTION(rows, 1, __VA_ARGS__))

#ifdef LF_LOWER
#pragma GCC diagnostic ignored "-Wunused-function"
#endif
#include "lstm_fast/bfloat16.h"
#define LF_DOUBLE 0
#include "lstm_fast/kernel_table.h"
#ifndef LF_LOWER
#undef LF_DOUBLE
#define LF_DOUBLE 1
#include "lstm_fast/kernel_table.h"
#endif
