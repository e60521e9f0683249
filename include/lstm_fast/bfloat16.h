/* Rounding of floats to bfloat16, and their bits. */

static inline uint32_t lf_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The nearest bfloat16, ties to even, as a float. A NaN stays one. */
static inline float lf_bfloat16(float x)
{
    const uint32_t bits = lf_bits(x), nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = (nan ? bits | 0x00400000u : bits + 0x7fffu + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&x, &rounded, sizeof x);
    return x;
}

/* The largest magnitude of a row, or NaN where one is: as bits, magnitudes are in order. */
static inline float lf_magnitude(const float *row, ptrdiff_t depth)
{
    uint32_t most = 0;
    for (ptrdiff_t k = 0; k < depth; k++) {
        const uint32_t bits = lf_bits(row[k]) & 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    float magnitude;
    memcpy(&magnitude, &most, sizeof magnitude);
    return magnitude;
}

static void lf_bfloat16_bits(uint16_t *bits, const void *x, ptrdiff_t n)
{
    for (ptrdiff_t j = 0; j < n; j++)
        bits[j] = (uint16_t)(lf_bits(lf_bfloat16(((const float *)x)[j])) >> 16);
}
