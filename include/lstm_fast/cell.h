/* The LSTM cell: what follows its recurrent product forward, and backward. See kernels.h. */

static inline ptrdiff_t LF(padded)(ptrdiff_t hidden_size)
{
    return (hidden_size + LANES - 1) / LANES * LANES;
}

/* Where vector of cells n of a tile is, which has rows * panels of them: `row` rows and `panel` panels from the tile's
 * first, and with its gates i, f, g, o in acc[row][gates .. gates + 3]. */
typedef struct LF(cell) {
    int row, panel, gates;
} LF(cell);

LF_INLINE LF(cell) LF(cell_of)(int n, const int panels)
{
    return (LF(cell)){.row = n / panels, .panel = n % panels, .gates = PANEL_VECTORS * (n % panels)};
}

/* The cells of a tile, from the pre-activations of their gates: `rows` rows of one panel, or of two. */
LF_INLINE void LF(finish_cells)(const lf_cell_forward *p, ptrdiff_t row, const int rows, ptrdiff_t panel,
                                const int panels, vec acc[][TILE_VECTORS])
{
    const ptrdiff_t padded = LF(padded)(p->hidden_size);
    vec tanh_c[TILE_ROWS + 1]; /* rows * panels of them */
    LF_UNROLL
    for (int n = 0; n < rows * panels; n++) {
        const LF(cell) at = LF(cell_of)(n, panels);
        const ptrdiff_t r = row + at.row, unit = (panel + at.panel) * LANES;
        vec *gates = acc[at.row] + at.gates;
        LF(activate)(gates);
        tanh_c[n] = v_fma(gates[1], v_load((const real *)p->c_prev + r * p->c_row + unit), v_mul(gates[0], gates[2]));
        v_store((real *)p->c + r * p->c_row + unit, tanh_c[n]);
        if (p->stream)
            LF_UNROLL
            for (int gate = 0; gate < 4; gate++)
                v_stream((real *)p->gates + (4 * r + gate) * padded + unit, gates[gate]);
        else if (p->gates)
            LF_UNROLL
            for (int gate = 0; gate < 4; gate++)
                v_store((real *)p->gates + (4 * r + gate) * padded + unit, gates[gate]);
    }
    LF(tanh_each)(tanh_c, rows * panels);
    LF_UNROLL
    for (int n = 0; n < rows * panels; n++) {
        const LF(cell) at = LF(cell_of)(n, panels);
        const ptrdiff_t unit = (panel + at.panel) * LANES, units = lf_left(p->hidden_size, unit, LANES);
        real *y = (real *)p->y + (row + at.row) * p->y_row + unit;
        vec h = v_mul(acc[at.row][at.gates + 3], tanh_c[n]);
        LF(store_units)(y, units, h);
    }
}

/* The same of a variant, whose epilogue is one function for all tiles. See variant.h. */
static void LF(finish_variants)(const lf_variant_forward *p, ptrdiff_t row, ptrdiff_t panel, int panels, int count,
                                vec cells[][4]);

/* The backward cell of one row and LANES units from `unit` on, dh included. */
static inline void LF(differentiate)(const lf_cell_backward *p, ptrdiff_t row, ptrdiff_t unit, vec dh)
{
    const ptrdiff_t hidden_size = p->product.columns, padded = LF(padded)(hidden_size);
    const ptrdiff_t units = lf_left(hidden_size, unit, LANES);
    const real *gates = (const real *)p->gates + row * 4 * padded + unit;
    const vec one = v_set1((real)1);
    vec i = v_load(gates), f = v_load(gates + padded);
    vec g = v_load(gates + 2 * padded), o = v_load(gates + 3 * padded);
    vec c_prev = v_load((const real *)p->c_prev + row * padded + unit);
    vec tc = LF(tanh)(v_load((const real *)p->c + row * padded + unit));
    real *dc = (real *)p->dc + row * padded + unit;
    vec dct = v_fma(v_mul(dh, o), v_fnma(tc, tc, one), v_load(dc));
    v_store(dc, v_mul(dct, f));
    vec dgates[4] = {
        v_mul(v_mul(dct, g), v_mul(i, v_sub(one, i))),
        v_mul(v_mul(dct, c_prev), v_mul(f, v_sub(one, f))),
        v_mul(v_mul(dct, i), v_fnma(g, g, one)),
        v_mul(v_mul(dh, tc), v_mul(o, v_sub(one, o))),
    };
    real *out = (real *)p->dgates + row * 4 * hidden_size + unit;
    for (int gate = 0; gate < 4; gate++)
        LF(store_units)(out + gate * hidden_size, units, dgates[gate]);
    if (p->unprojected_h)
        LF(store_units)((real *)p->unprojected_h + row * hidden_size + unit, units, v_mul(o, tc));
}

/* The same of a variant, for rows first .. end - 1 of a block whose dh is given. See variant.h. */
static void LF(differentiate_variants)(const lf_variant_backward *p, ptrdiff_t first, ptrdiff_t end, ptrdiff_t unit,
                                       ptrdiff_t units, const real *dh, ptrdiff_t dh_row);
