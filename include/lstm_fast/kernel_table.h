/* The kernels of one ISA and one dtype, and the table that exports them. */
#include "lstm_fast/simd.h"
#include "lstm_fast/vmath.h"
#include "lstm_fast/product.h"
#include "lstm_fast/pack.h"
#include "lstm_fast/cell.h"

static void LF(add_rows)(void *sums, const void *m, ptrdiff_t m_row, ptrdiff_t rows, ptrdiff_t columns)
{
    for (ptrdiff_t j = 0; j < columns; j += LANES) {
        const ptrdiff_t n = LF_CLAMP(columns - j, LANES);
        vec sum = LF(load_n)((const real *)sums + j, n);
        for (ptrdiff_t row = 0; row < rows;) {
            const ptrdiff_t end = row + LF_CLAMP(rows - row, SUM_BLOCK);
            vec part = v_set1((real)0);
            for (; row < end; row++)
                part = v_add(part, LF(load_n)((const real *)m + row * m_row + j, n));
            sum = v_add(sum, part);
        }
        LF(store_n)((real *)sums + j, n, sum);
    }
}

#define LF_ELEMENTWISE(function)                                                            \
    static void LF(array_##function)(void *out, const void *x, ptrdiff_t n)                 \
    {                                                                                       \
        for (ptrdiff_t j = 0; j < n; j += LANES) {                                          \
            const ptrdiff_t m = LF_CLAMP(n - j, LANES);                                     \
            LF(store_n)((real *)out + j, m, LF(function)(LF(load_n)((const real *)x + j, m))); \
        }                                                                                   \
    }
LF_ELEMENTWISE(exp)
LF_ELEMENTWISE(sigmoid)
LF_ELEMENTWISE(tanh)
#undef LF_ELEMENTWISE

const lf_kernels LF(LF_TABLE_NAME) = {
    .isa = LF_STRING(LF_ISA),
    .itemsize = sizeof(real),
    .lanes = LANES,
    .pack_gates = LF(pack_gates),
    .pack_columns = LF(pack_columns),
    .product = LF(product),
    .cell_forward = LF(cell_forward),
    .cell_backward = LF(cell_backward),
    .add_rows = LF(add_rows),
    .exp = LF(array_exp),
    .sigmoid = LF(array_sigmoid),
    .tanh = LF(array_tanh),
};
