/* The kernels of one ISA and one dtype, and the tables that export them: all of them, or those of LF_LOWER, lower
 * precisions. */
#include "lstm_fast/simd.h"
#include "lstm_fast/vmath.h"
#include "lstm_fast/tile.h"
#undef LF_PRECISION
#define LF_PRECISION LF_FULL
#include "lstm_fast/precision.h"
#include "lstm_fast/product.h"
#include "lstm_fast/pack.h"
#include "lstm_fast/cell.h"
#include "lstm_fast/activation.h"
#include "lstm_fast/variant.h"
#include "lstm_fast/step.h"
#include "lstm_fast/rows.h"
#include "lstm_fast/blocks.h"
#include "lstm_fast/update.h"

#define LF_ELEMENTWISE(function)                                                            \
    static void LF(array_##function)(void *out, const void *x, ptrdiff_t n)                 \
    {                                                                                       \
        for (ptrdiff_t j = 0; j < n; j += LANES) {                                          \
            const ptrdiff_t m = lf_left(n, j, LANES);                                       \
            LF(store_n)((real *)out + j, m, LF(function)(LF(load_n)((const real *)x + j, m))); \
        }                                                                                   \
    }
LF_ELEMENTWISE(exp)
LF_ELEMENTWISE(sigmoid)
LF_ELEMENTWISE(tanh)
#undef LF_ELEMENTWISE

#undef LF_PRODUCTS
#define LF_PRODUCTS(name, ...)                                                                               \
    {                                                                                                         \
        .precision = name, .group = GROUP, .weight_size = sizeof(WEIGHT), .head_size = HEAD * sizeof(real),     \
        .operand_size = sizeof(OPERAND), .operand_head = ROW_HEAD * sizeof(OPERAND),                            \
        .pack_gates = LP(pack_gates), .pack_transposed = LP(pack_transposed), .product = LP(product),            \
        __VA_ARGS__                                                                                            \
    }
#undef LF_FORWARD
#undef LF_BACKWARD
#define LF_FORWARD .cell_forward = LP(cell_forward), .variant_forward = LP(variant_forward)
#define LF_BACKWARD \
    .pack_columns = LP(pack_columns), .cell_backward = LP(cell_backward), .variant_backward = LP(variant_backward)

#ifndef LF_LOWER
const lf_kernels LF(LF_TABLE_NAME) = {
    .isa = LF_STRING(LF_ISA),
    .itemsize = sizeof(real),
    .lanes = LANES,
    .full = LF_PRODUCTS("full", LF_FORWARD, LF_BACKWARD),
    .add_rows = LF(add_rows),
    .add_products = LF(add_products),
    .multiply_add = LF(multiply_add),
    .bfloat16 = LF_DOUBLE ? NULL : lf_bfloat16_bits,
    .normalise = LF(normalise),
    .normalise_backward = LF(normalise_backward),
    .softmax = LF(softmax),
    .softmax_backward = LF(softmax_backward),
    .cross_entropy = LF(cross_entropy),
    .activation = LF(array_activation),
    .derivative = LF(array_derivative),
    .sgd = LF(sgd),
    .adam = LF(adam),
    .rmsprop = LF(rmsprop),
    .average = LF(average),
    .squared_norm = LF(squared_norm),
    .scale = LF(scale),
    .clip = LF(clip),
    .exp = LF(array_exp),
    .sigmoid = LF(array_sigmoid),
    .tanh = LF(array_tanh),
};
#endif

#if !LF_DOUBLE && (!defined(LF_LOWER) || LF_LOWER >> LF_BF16 & 1)
#undef LF_PRECISION
#define LF_PRECISION LF_BF16
#include "lstm_fast/lower.h"
const lf_products LP(LF_PRODUCTS_NAME) = LF_PRODUCTS("bfloat16", .round = LP(round), .convert = LP(convert), LF_FORWARD,
                                                     LF_BACKWARD);
#endif
#if !LF_DOUBLE && (!defined(LF_LOWER) || LF_LOWER >> LF_INT8 & 1)
#undef LF_PRECISION
#define LF_PRECISION LF_INT8
#include "lstm_fast/lower.h"
const lf_products LP(LF_PRODUCTS_NAME) = LF_PRODUCTS("int8", .round = LP(round), LF_FORWARD);
#endif
#if !LF_DOUBLE && !defined(LF_LOWER)
#undef LF_PRECISION
#define LF_PRECISION LF_WIDENED
#include "lstm_fast/lower.h"
const lf_products LP(LF_PRODUCTS_NAME) = LF_PRODUCTS("widened", .round = LP(round));
#endif
#if !LF_DOUBLE && defined(LF_LOWER) && LF_LOWER >> LF_MIXED & 1
#undef LF_PRECISION
#define LF_PRECISION LF_MIXED
#include "lstm_fast/lower.h"
const lf_products LP(LF_PRODUCTS_NAME) = LF_PRODUCTS("mixed", .round = LP(round));
#endif
