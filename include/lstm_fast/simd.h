/* The SIMD vocabulary in which every kernel body is written, for the ISA in LF_ISA_HEADER and the
 * dtype in LF_DOUBLE. Include it again with another LF_DOUBLE to switch the dtype.
 *
 *   real, vec, LANES           scalar type, vector type, scalars in a vector
 *   REGISTERS                  for vectors
 *   TILE_ROWS                  rows of the register tile (product.h): what these hold
 *   v_load, v_store            LANES scalars, any alignment
 *   v_load_n, v_store_n        the first n lanes, the others 0 or untouched; optional: use LF(load_n)
 *   v_stream, v_fence          store whole vectors, aligned, past the caches, and wait for that; optional
 *   v_set1                     one scalar in all lanes
 *   v_add v_sub v_mul v_div    arithmetic
 *   v_sqrt                     square root
 *   v_fma(a, b, c)             a b + c     (one rounding where the ISA has FMA)
 *   v_fnma(a, b, c)            c - a b
 *   v_min(a, b), v_max(a, b)   a NaN in b comes through
 *   v_abs, v_copysign(a, s)    |a|, |a| with the sign of s (a >= 0)
 *   v_select_negative(s, a, b) a where the sign bit of s is set, else b
 *   v_zip_low(a, b), _high     the lanes of both in turn, of their lower halves, or of their upper ones
 *   v_exponent(t)              2^n from t = n + EXPONENT_MAGIC (vmath.h), n a normal exponent
 *   v_ldexp(a, n)              a 2^n for integral n, rounded once; optional: use LF(ldexp)
 *
 * With float, for weights of lower precision (precision.h):
 *
 *   LOWER_ROWS                 rows of the register tile, beside which what is unpacked has to have registers
 *   v_bfloat16_even(p), _odd   LANES numbers of p[0], p[2] ..., or of p[1], p[3] ..., which are bfloat16
 *   v_int8(p)                  LANES numbers of 8-bit integers
 *   ivec, INT8_GROUP           vector of LANES sums of 32 bits; terms that an instruction adds up
 *   INT8_OPERAND, INT8_OFFSET  what holds an 8-bit operand, and what is added to it there
 *   i_zero, i_real(s)          sums of nothing; the real numbers of sums
 *   i_weights(p)               LANES groups of 8-bit weights; i_operand(p): one group of operands for all lanes
 *   i_dot(s, x, w)             s + the products of groups, exact
 *   i_without(s, p)            s minus LANES integers; only where INT8_OFFSET is not 0
 *   bvec, b_dot(s, x, w)       vector of LANES pairs of bfloat16; s + the products of pairs; optional, else they are
 *                              widened and multiplied one by one
 *   b_weights(p)               LANES pairs of weights; b_operand(p): one pair of operands for all lanes
 *   b_int8(p)                  LANES pairs of 8-bit integers, as bfloat16
 *   b_transpose(to, to_row, from, from_row)  write the transpose of 2 LANES by 2 LANES bfloat16; optional
 *
 * With registers that hold matrices, beside INT8_GROUP 4 and b_dot:
 *
 *   MATRIX_ROWS, MATRIX_GROUPS the most rows of operands, and groups of terms
 *   m_configure(rows, tail)    of so many rows; tail: groups of those registers that end a depth. m_release() after it
 *   m_zero(s), m_load(n, p, row), m_store(n, p, row)  register numbers are constants, `row` the bytes between rows
 *   m_bfloat16(s, x, w)        s += the products of matrices; m_int8(s, x, w): the same of INT8_OPERAND and 8 bits
 *   i_sums(p)                  LANES sums of 32 bits
 *   b_even(x), b_odd(x)        LANES floats of a bvec, the first or the second of each pair
 *   v_int8_even(p), _odd       LANES of the 8-bit integers p[0], p[2] ..., or p[1], p[3] ...
 *   m_flush_denormals()        whether denormals are 0 in what is computed, as in matrices; m_keep_denormals() after it
 */
#undef vec
#undef LANES
#undef OP
#undef LANE_MASK
#undef SIGN_MASK
#undef SIGN_FILL
#undef SIGN_LANES
#undef EXPONENT
#undef LANES_OF_BOTH
#undef real
#undef SIGN_BIT
#undef LF
#if LF_DOUBLE
#define real double
#define SIGN_BIT (-0.0)
#define LF(name) LF_PASTE(lf_, name, _f64)
#else
#define real float
#define SIGN_BIT (-0.0f)
#define LF(name) LF_PASTE(lf_, name, _f32)
#endif
#include LF_ISA_HEADER

#ifndef v_stream
#define v_stream(p, a) v_store(p, a)
#define v_fence() (void)0
#endif

/* load_n and store_n, for every ISA and any 0 <= n <= LANES. */
#ifdef v_load_n
static inline vec LF(load_n)(const real *p, ptrdiff_t n) { return v_load_n(p, n); }
static inline void LF(store_n)(real *p, ptrdiff_t n, vec a) { v_store_n(p, n, a); }
#else
static inline vec LF(load_n)(const real *p, ptrdiff_t n)
{
    real lanes[LANES] = {0};
    for (ptrdiff_t j = 0; j < n; j++)
        lanes[j] = p[j];
    return v_load(lanes);
}

static inline void LF(store_n)(real *p, ptrdiff_t n, vec a)
{
    real lanes[LANES];
    v_store(lanes, a);
    for (ptrdiff_t j = 0; j < n; j++)
        p[j] = lanes[j];
}
#endif

/* store_n where n is LANES but in the last vector of a row. A store with a mask takes up to dozens of operations, and
 * a load of what it wrote has to wait for the cache. */
LF_INLINE void LF(store_units)(real *p, ptrdiff_t n, vec a)
{
    if (n == LANES)
        v_store(p, a);
    else
        LF(store_n)(p, n, a);
}

/* One round of a transposition of LANES vectors: every second lane comes from the second half of the vectors. */
LF_INLINE void LF(zip)(vec a[])
{
    vec b[LANES];
    LF_UNROLL
    for (int n = 0; n < LANES / 2; n++) {
        b[2 * n] = v_zip_low(a[n], a[n + LANES / 2]);
        b[2 * n + 1] = v_zip_high(a[n], a[n + LANES / 2]);
    }
    LF_UNROLL
    for (int n = 0; n < LANES; n++)
        a[n] = b[n];
}

LF_INLINE void LF(transpose)(vec a[])
{
    LF(zip)(a);
    if (LANES > 2)
        LF(zip)(a);
    if (LANES > 4)
        LF(zip)(a);
    if (LANES > 8)
        LF(zip)(a);
}
