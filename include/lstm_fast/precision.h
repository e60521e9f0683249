/* The words of one precision, in which products are written: LF_PRECISION, for the dtype that simd.h has selected.
 * Include it again with another LF_PRECISION, and then product.h, pack.h and step.h.
 *
 *   WEIGHT, OPERAND      what packed weights are, and the left-hand sides that they are multiplied with
 *   GROUP                terms of a sum that lie side by side in both; packed depths are rounded up to it, with zeros
 *   PARTS                instructions that a group takes
 *   HEAD                 vectors of column constants that a panel begins with, for each of its vectors: scales, and
 *                        what INT8_OFFSET has added to sums
 *   ROW_HEAD             operands' room before a row of them, which has its scale
 *   ROWS                 of the register tile, at most TILE_ROWS
 *   operand(x)           a rounded float as an operand
 *   PIECE                terms of a sum in one accumulator, see DEPTH_BLOCK
 *   MATRIX               rows from which on matrices are multiplied (matrix.h); 0: never
 *   sum, wvec, xvec      vectors of sums, of weights, and of one group of operands for all lanes
 *   s_zero()             sums of nothing
 *   w_load(p, part)      what a part of a group multiplies, LANES columns; x_load(p, part) one row's operands
 *   s_dot(s, x, w)       s + x w
 *   s_load(p)            sums in memory; s_matrix(s, x, w) those of matrices: with MATRIX
 *   s_value(s, a, w)     the real numbers of sums, for a row of operands a and the head w of their columns
 *
 *   precision    weights     operands           sums     values
 *   LF_FULL      real        real               real     s
 *   LF_BF16      bfloat16    bfloat16           float    s            (floats, but where b_dot takes pairs)
 *   LF_INT8      8 bits      8 bits, scaled     exact    s times the row's scale, times the column's
 *   LF_WIDENED   8 bits      float              float    s times the column's scale
 *   LF_MIXED     8 bits      bfloat16           float    the same     (where b_dot multiplies pairs)
 */
#ifndef LF_PRECISIONS
#define LF_PRECISIONS
#define LF_FULL 0
#define LF_BF16 1
#define LF_INT8 2
#define LF_WIDENED 3
#define LF_MIXED 4
#endif

#undef LP
#undef OF_PAIRS
#undef WEIGHT
#undef OPERAND
#undef GROUP
#undef PARTS
#undef HEAD
#undef ROW_HEAD
#undef PIECE
#undef MATRIX
#undef ROWS
#undef SUM
#undef WVEC
#undef XVEC
#undef operand
#undef s_zero
#undef w_load
#undef x_load
#undef s_dot
#undef s_load
#undef s_matrix
#undef s_value

#define SUM vec
#define WVEC vec
#define XVEC vec
#define OPERAND real
#define GROUP 1
#define PARTS 1
#define HEAD 0
#define ROW_HEAD 0
#define PIECE DEPTH_BLOCK
#define MATRIX 0
#if LF_PRECISION == LF_FULL
#define ROWS TILE_ROWS
#else
#define ROWS LOWER_ROWS
#endif
#define operand(x) (x)
#define s_zero() v_set1((real)0)
#define x_load(p, part) v_set1(*(p))
#define s_dot(s, x, w) v_fma(x, w, s)
#define s_value(s, a, w) (s)

#if LF_PRECISION == LF_FULL
#define LP(name) LF(name)
#define WEIGHT real
#define w_load(p, part) v_load(p)
#elif LF_PRECISION == LF_BF16
#define LP(name) LF_PASTE(lf_, name, _bfloat16)
#define WEIGHT uint16_t
#undef GROUP
#undef x_load
#define GROUP 2
#ifdef b_dot
#define OF_PAIRS
#define w_load(p, part) b_weights(p)
#ifdef m_bfloat16
#undef PIECE
#define PIECE ((ptrdiff_t)1 << 40)
#endif
#else
#undef PARTS
#define PARTS 2
#define w_load(p, part) ((part) ? v_bfloat16_odd(p) : v_bfloat16_even(p))
#define x_load(p, part) v_set1((p)[part])
#endif
#elif LF_PRECISION == LF_MIXED
#define LP(name) LF_PASTE(lf_, name, _mixed)
#define OF_PAIRS
#define WEIGHT int8_t
#undef GROUP
#undef HEAD
#undef x_load
#undef s_value
#define GROUP 2
#define HEAD 1
#define w_load(p, part) b_int8(p)
#define s_value(s, a, w) v_mul(s, v_load(w))
#elif LF_PRECISION == LF_INT8
#define LP(name) LF_PASTE(lf_, name, _int8)
#define WEIGHT int8_t
#undef SUM
#undef WVEC
#undef XVEC
#undef OPERAND
#undef GROUP
#undef HEAD
#undef ROW_HEAD
#undef PIECE
#undef s_zero
#undef x_load
#undef s_dot
#undef s_value
#define SUM ivec
#define WVEC ivec
#define XVEC ivec
#define OPERAND INT8_OPERAND
#define GROUP INT8_GROUP
#define HEAD (INT8_OFFSET ? 2 : 1)
#define ROW_HEAD (16 / (ptrdiff_t)sizeof(OPERAND))
#define PIECE LF_INT8_DEPTH
#define s_zero() i_zero()
#define w_load(p, part) i_weights(p)
#define x_load(p, part) i_operand(p)
#define s_dot(s, x, w) i_dot(s, x, w)
#ifdef m_int8 /* whose 16 rows take the time of two in registers */
#undef MATRIX
#define MATRIX 3
#define s_load(p) i_sums(p)
#define s_matrix(s, x, w) m_int8(s, x, w)
#endif
#if INT8_OFFSET
#define s_value(s, a, w) v_mul(v_mul(i_real(i_without(s, (w) + LANES)), v_set1(*(const float *)(a))), v_load(w))
#else
#define s_value(s, a, w) v_mul(v_mul(i_real(s), v_set1(*(const float *)(a))), v_load(w))
#endif
#else
#define LP(name) LF_PASTE(lf_, name, _widened)
#define WEIGHT int8_t
#undef HEAD
#undef s_value
#define HEAD 1
#define w_load(p, part) v_int8(p)
#define s_value(s, a, w) v_mul(s, v_load(w))
#endif

#ifdef OF_PAIRS /* operands of bfloat16, two of which an instruction takes, or matrices of them */
#undef WVEC
#undef XVEC
#undef OPERAND
#undef operand
#undef s_dot
#define WVEC bvec
#define XVEC bvec
#define OPERAND uint16_t
#define operand(x) (uint16_t)(lf_bits(x) >> 16)
#define x_load(p, part) b_operand(p)
#define s_dot(s, x, w) b_dot(s, x, w)
#ifdef m_bfloat16 /* for any number of rows, as its sums are rounded in another way */
#undef MATRIX
#define MATRIX 1
#define s_load(p) v_load(p)
#define s_matrix(s, x, w) m_bfloat16(s, x, w)
#endif
#endif

/* Terms of a depth in packed weights, and in a row of operands. */
static inline ptrdiff_t LP(padded_depth)(ptrdiff_t depth)
{
    return (depth + GROUP - 1) / GROUP * GROUP;
}

/* Where panel p of packed weights begins: HEAD vectors for each of its vectors, then the weights. Those before it are
 * all full. */
static inline char *LP(panel)(const void *b, ptrdiff_t p, ptrdiff_t depth)
{
    return (char *)b + p * PANEL * (ptrdiff_t)(HEAD * sizeof(real) + LP(padded_depth)(depth) * sizeof(WEIGHT));
}

/* The weights of a panel of so many vectors. */
static inline WEIGHT *LP(weights)(char *panel, int vectors)
{
    return (WEIGHT *)(panel + HEAD * (size_t)vectors * LANES * sizeof(real));
}
