/* Rounding of rows to the operands that one precision multiplies its weights with. See kernels.h. */

#if LF_PRECISION == LF_INT8
/* A row's scale, then the nearest integers of x / scale, ties to even: -127 to 127. Where `most` is not finite the scale
 * is NaN, and so is what is computed from it; where it is next to nothing, all is 0. */
LF_INLINE void LP(round_row)(OPERAND *operands, const float *row, ptrdiff_t depth, float most)
{
    const float magic = 0x1.8p23f; /* the sum's last bit is worth 1: it ends in the integer */
    const int finite = lf_bits(most) < 0x7f800000u, plain = finite && most > 0x1p-100f;
    const float scale = plain ? most / 127 : finite ? 0 : NAN, inverse = plain ? 127 / most : 0;
    memcpy(operands, &scale, sizeof scale);
    operands += ROW_HEAD;
    if (plain)
        for (ptrdiff_t k = 0; k < depth; k++)
            operands[k] = (OPERAND)((int32_t)(lf_bits(row[k] * inverse + magic) - lf_bits(magic)) + INT8_OFFSET);
    for (ptrdiff_t k = plain ? depth : 0; k < LP(padded_depth)(depth); k++)
        operands[k] = INT8_OFFSET;
}
#else
LF_INLINE void LP(round_row)(OPERAND *operands, const float *row, ptrdiff_t depth, float most)
{
    (void)most;
    for (ptrdiff_t k = 0; k < depth; k++)
        operands[k] = operand(lf_bfloat16(row[k]));
    for (ptrdiff_t k = depth; k < LP(padded_depth)(depth); k++)
        operands[k] = 0;
}
#endif

static void LP(round)(void *operands, const void *rows, ptrdiff_t row, ptrdiff_t count, ptrdiff_t depth)
{
    for (ptrdiff_t n = 0; n < count; n++) {
        const float *x = (const float *)rows + n * row;
        const float most = LF_PRECISION == LF_INT8 ? lf_magnitude(x, depth) : 0;
        LP(round_row)((OPERAND *)operands + n * (ROW_HEAD + LP(padded_depth)(depth)), x, depth, most);
    }
}

#if LF_PRECISION == LF_BF16
static void LP(convert)(void *operands, ptrdiff_t operands_row, lf_rows x, ptrdiff_t rows, ptrdiff_t columns)
{
    for (ptrdiff_t row = 0; row < rows; row++)
        for (ptrdiff_t j = 0; j < columns; j++)
            ((OPERAND *)operands)[row * operands_row + j]
                = operand(lf_bfloat16(((const float *)x.data)[row * x.row + j]));
}
#endif
