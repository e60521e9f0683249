/* The words of the SIMD vocabulary that every x86 ISA spells alike: an operation between a prefix and a
 * suffix, which are those of OP. */
#define v_set1(x) OP(set1)(x)
#define v_load(p) OP(loadu)(p)
#define v_store(p, a) OP(storeu)(p, a)
#define v_add(a, b) OP(add)(a, b)
#define v_sub(a, b) OP(sub)(a, b)
#define v_mul(a, b) OP(mul)(a, b)
#define v_div(a, b) OP(div)(a, b)
#define v_min(a, b) OP(min)(a, b)
#define v_max(a, b) OP(max)(a, b)
#define v_abs(a) OP(andnot)(v_set1(SIGN_BIT), a)
#define v_copysign(a, s) OP(or)(a, OP(and)(v_set1(SIGN_BIT), s))
#define v_exponent(t) EXPONENT(t)
