/* The elementwise part of the LSTM cell's variants, forward and backward. See kernels.h. */

static inline vec LF(clamp)(vec x, double limit)
{
    return v_max(v_set1((real)-limit), v_min(v_set1((real)limit), x));
}

/* d, or 0 where x is beyond the limit. */
static inline vec LF(unless_clamped)(vec x, double limit, vec d)
{
    return v_select_negative(v_sub(v_set1((real)limit), v_abs(x)), v_set1((real)0), d);
}

/* z old + (1 - z) new */
static inline vec LF(blend)(vec z, vec old, vec new)
{
    return v_fma(z, old, v_mul(v_sub(v_set1((real)1), z), new));
}

/* Whether a variant has the functions of the plain cell. */
static inline int LF(plain_functions)(const lf_variant *v)
{
    return v->gate.function == LF_SIGMOID && v->candidate.function == LF_TANH && v->output.function == LF_TANH;
}

/* The gates from their pre-activations, but o only with `all`; `plain`: see plain_functions. */
LF_INLINE void LF(variant_gates)(const lf_variant *v, const int plain, vec gates[4], const int all)
{
    LF_UNROLL
    for (int gate = 0; gate < 4; gate++)
        gates[gate] = LF(clamp)(gates[gate], v->clip);
    if (plain)
        LF(activate)(gates);
    else
        for (int gate = 0; gate < 3 + all; gate++)
            gates[gate] = LF(activation)(gate == 2 ? &v->candidate : &v->gate, gates[gate]);
    if (v->coupled)
        gates[1] = v_sub(v_set1((real)1), gates[0]);
}

/* The weights of a peephole: 0 for i, 1 for f, 2 for o. */
static inline vec LF(peephole)(const lf_variant *v, int of, ptrdiff_t hidden_size, ptrdiff_t unit)
{
    return v_load((const real *)v->peephole + of * LF(padded)(hidden_size) + unit);
}

/* The pre-activations of one cell, with peepholes on the way out, or else the gates that are kept; and n and, without
 * peepholes, o. */
LF_INLINE void LF(variant_cell)(const lf_variant_forward *p, const int plain, ptrdiff_t row, ptrdiff_t unit, vec a[4],
                                vec *n, vec *o)
{
    const lf_variant *v = p->variant;
    const lf_cell_forward *q = p->step;
    vec c_prev = v_load((const real *)q->c_prev + row * q->c_row + unit), gates[4];
    if (v->peephole)
        for (int gate = 0; gate < 2; gate++)
            a[gate] = v_fma(LF(peephole)(v, gate, q->hidden_size, unit), c_prev, a[gate]);
    LF_UNROLL
    for (int gate = 0; gate < 4; gate++)
        gates[gate] = a[gate];
    LF(variant_gates)(v, plain, gates, !v->peephole);
    vec c = *n = LF(clamp)(v_fma(gates[1], c_prev, v_mul(gates[0], gates[2])), v->cell_clip);
    *o = gates[3];
    if (v->peephole)
        a[3] = v_fma(LF(peephole)(v, 2, q->hidden_size, unit), *n, a[3]);
    if (plain && v->keeps_gates)
        LF_UNROLL
        for (int gate = 0; gate < 3; gate++)
            a[gate] = gates[gate];
    if (p->zone_c)
        c = LF(blend)(LF(load_n)((const real *)p->zone_c + row * p->zone_row + unit,
                                 lf_left(q->hidden_size, unit, LANES)), c_prev, c);
    v_store((real *)q->c + row * q->c_row + unit, c);
}

/* m = o H(n) of some cells, and o, where it is `late`: from the pre-activation. */
LF_INLINE void LF(variant_output)(const lf_variant *v, const int plain, const int late, vec *m, const vec *n, vec *o,
                                  vec cells[][4], const int count)
{
    vec z[4];
    LF_UNROLL
    for (int k = 0; k < count; k++)
        z[k] = n[k], z[count + k] = LF(clamp)(cells[k][3], v->clip);
    if (plain)
        LF(activate_each)(z, late ? 2 * count : count, (1 << count) - 1);
    else
        for (int k = 0; k < (late ? 2 : 1) * count; k++)
            z[k] = LF(activation)(k < count ? &v->output : &v->gate, z[k]);
    LF_UNROLL
    for (int k = 0; k < count; k++) {
        if (late)
            o[k] = z[count + k];
        m[k] = v_mul(o[k], z[k]);
        if (plain && v->keeps_gates)
            cells[k][3] = o[k];
    }
}

/* One cell, or two: the second one is in the next panel or, with `below`, in the next row. */
LF_INLINE void LF(variant_cells)(const lf_variant_forward *p, const int parts, const int plain, ptrdiff_t row,
                                 ptrdiff_t panel, const int below, vec cells[][4], const int count)
{
    const lf_variant *v = p->variant;
    const ptrdiff_t hidden_size = p->step->hidden_size;
    vec n[2], o[2], m[2];
    LF_UNROLL
    for (int k = 0; k < count; k++) {
        const ptrdiff_t r = row + below * k, unit = (panel + !below * k) * LANES;
        if (parts & LF_CELL)
            LF(variant_cell)(p, plain, r, unit, cells[k], &n[k], &o[k]);
        else
            n[k] = LF(load_n)((const real *)p->n + r * hidden_size + unit, lf_left(hidden_size, unit, LANES));
    }
    if (parts == LF_OUTPUT || (parts & LF_OUTPUT && v->peephole))
        LF(variant_output)(v, plain, 1, m, n, o, cells, count);
    else if (parts & LF_OUTPUT)
        LF(variant_output)(v, plain, 0, m, n, o, cells, count);
    LF_UNROLL
    for (int k = 0; k < count; k++) {
        const ptrdiff_t r = row + below * k, unit = (panel + !below * k) * LANES;
        const ptrdiff_t units = lf_left(hidden_size, unit, LANES);
        if (parts & LF_CELL && p->a)
            LF_UNROLL
            for (int gate = 0; gate < 4; gate++)
                LF(store_units)((real *)p->a + r * p->a_row + unit / LANES * p->a_panel + gate * p->a_gate, units,
                                cells[k][gate]);
        if (parts & LF_OUTPUT) {
            vec h = m[k];
            if (p->zone_h)
                h = LF(blend)(LF(load_n)((const real *)p->zone_h + r * p->zone_row + unit, units),
                              LF(load_n)((const real *)p->h_prev + r * p->h_prev_row + unit, units), h);
            LF(store_units)((real *)p->step->y + r * p->step->y_row + unit, units, h);
        } else {
            LF(store_units)((real *)p->n + r * hidden_size + unit, units, n[k]);
        }
    }
}

LF_INLINE void LF(finish_each)(const lf_variant_forward *p, const int plain, ptrdiff_t row, ptrdiff_t panel,
                               int panels, int count, vec cells[][4])
{
    const int both = LF_CELL | LF_OUTPUT, below = panels == 1;
    int n = 0;
    for (; n + 2 <= count; n += 2)
        LF(variant_cells)(p, both, plain, row + n / panels, panel, below, cells + n, 2);
    if (n < count)
        LF(variant_cells)(p, both, plain, row + n / panels, panel, below, cells + n, 1);
}

static __attribute__((noinline)) void LF(finish_variants)(const lf_variant_forward *p, ptrdiff_t row, ptrdiff_t panel,
                                                          int panels, int count, vec cells[][4])
{
    if (LF(plain_functions)(p->variant))
        LF(finish_each)(p, 1, row, panel, panels, count, cells);
    else
        LF(finish_each)(p, 0, row, panel, panels, count, cells);
}

/* What layer norm has between the product and y, in two parts, from pre-activations in memory. */
LF_INLINE void LF(normed_cells)(const lf_variant_forward *p, const int parts, const int plain)
{
    for (ptrdiff_t row = 0; row < p->step->rows; row++)
        for (ptrdiff_t panel = p->step->first_panel; panel < p->step->end_panel; panel++) {
            const real *a = (const real *)p->a + row * p->a_row + panel * p->a_panel;
            vec cells[1][4];
            LF_UNROLL
            for (int gate = 0; gate < 4; gate++)
                cells[0][gate] = v_load(a + gate * p->a_gate);
            LF(variant_cells)(p, parts, plain, row, panel, 0, cells, 1);
        }
}

/* The derivative of f at x, where y is the value; `function`: f's, a constant, or -1. */
LF_INLINE vec LF(slope)(const lf_activation *f, const int function, vec x, vec y)
{
    if (function == LF_SIGMOID)
        return v_mul(y, v_sub(v_set1((real)1), y));
    if (function == LF_TANH)
        return v_fnma(y, y, v_set1((real)1));
    return LF(derivative)(f, x, y);
}

/* The backward cell of one row and LANES units; parts == LF_CELL has no dm. */
LF_INLINE void LF(differentiate_variant)(const lf_variant_backward *p, const int plain, ptrdiff_t row, ptrdiff_t unit,
                                         vec dm)
{
    const int sigmoid = plain ? LF_SIGMOID : -1, tanh = plain ? LF_TANH : -1;
    const lf_variant *v = p->variant;
    const ptrdiff_t hidden_size = p->product.columns, units = lf_left(hidden_size, unit, LANES);
    const vec one = v_set1((real)1);
    const real *a = (const real *)p->a + row * p->a_row + unit / LANES * p->a_panel;
    real *dgates = (real *)p->dgates + row * 4 * hidden_size + unit;
    real *dc = (real *)p->dc + row * LF(padded)(hidden_size) + unit;
    vec c_prev = v_load((const real *)p->c_prev + row * LF(padded)(hidden_size) + unit);
    vec pre[4], gates[4], dn = v_load(dc), dao;
    for (int gate = 0; gate < 4; gate++)
        gates[gate] = pre[gate] = v_load(a + gate * p->a_gate);
    if (!plain || !v->keeps_gates)
        LF(variant_gates)(v, plain, gates, 1);
    vec r = v_fma(gates[1], c_prev, v_mul(gates[0], gates[2])), n = LF(clamp)(r, v->cell_clip);
    vec dc_prev = v_set1((real)0);
    if (p->zone_c) {
        vec z = LF(load_n)((const real *)p->zone_c + row * p->zone_row + unit, units);
        dc_prev = v_mul(z, dn);
        dn = v_mul(v_sub(one, z), dn);
    }
    if (p->parts & LF_OUTPUT) {
        vec u = p->n ? LF(load_n)((const real *)p->n + row * hidden_size + unit, units) : n;
        vec value = plain ? LF(tanh)(u) : LF(activation)(&v->output, u);
        if (p->zone_h) {
            vec z = LF(load_n)((const real *)p->zone_h + row * p->zone_row + unit, units);
            LF(store_units)((real *)p->dh_prev + row * hidden_size + unit, units, v_mul(z, dm));
            dm = v_mul(v_sub(one, z), dm);
        }
        dao = v_mul(v_mul(dm, value), LF(slope)(&v->gate, sigmoid, LF(clamp)(pre[3], v->clip), gates[3]));
        dao = LF(unless_clamped)(pre[3], v->clip, dao);
        LF(store_units)(dgates + 3 * hidden_size, units, dao);
        if (p->unprojected_h)
            LF(store_units)((real *)p->unprojected_h + row * hidden_size + unit, units, v_mul(gates[3], value));
        vec du = v_mul(v_mul(dm, gates[3]), LF(slope)(&v->output, tanh, u, value));
        if (p->parts == LF_OUTPUT) {
            LF(store_units)((real *)p->n + row * hidden_size + unit, units, du);
            return;
        }
        dn = v_add(dn, du);
    } else {
        dn = v_add(dn, LF(load_n)((const real *)p->n + row * hidden_size + unit, units));
        dao = LF(load_n)(dgates + 3 * hidden_size, units);
    }
    if (v->peephole)
        dn = v_fma(LF(peephole)(v, 2, hidden_size, unit), dao, dn);
    dn = LF(unless_clamped)(r, v->cell_clip, dn);
    dc_prev = v_fma(dn, gates[1], dc_prev);
    vec di = v_mul(dn, gates[2]), df = v_mul(dn, c_prev);
    vec d[3] = {v->coupled ? v_sub(di, df) : di, v->coupled ? v_set1((real)0) : df, v_mul(dn, gates[0])};
    LF_UNROLL
    for (int gate = 0; gate < 3; gate++) {
        const lf_activation *f = gate == 2 ? &v->candidate : &v->gate;
        if (gate != 1 || !v->coupled) {
            const int function = gate == 2 ? tanh : sigmoid;
            d[gate] = v_mul(d[gate], LF(slope)(f, function, LF(clamp)(pre[gate], v->clip), gates[gate]));
            d[gate] = LF(unless_clamped)(pre[gate], v->clip, d[gate]);
        }
        LF(store_units)(dgates + gate * hidden_size, units, d[gate]);
    }
    if (v->peephole)
        for (int gate = 0; gate < 2; gate++)
            dc_prev = v_fma(LF(peephole)(v, gate, hidden_size, unit), d[gate], dc_prev);
    v_store(dc, dc_prev);
    if (p->dpeephole) {
        real *terms = (real *)p->dpeephole + row * 3 * hidden_size + unit;
        LF(store_units)(terms, units, v_mul(d[0], c_prev));
        LF(store_units)(terms + hidden_size, units, v_mul(d[1], c_prev));
        LF(store_units)(terms + 2 * hidden_size, units, v_mul(dao, n));
    }
}

static __attribute__((noinline)) void LF(differentiate_variants)(const lf_variant_backward *p, ptrdiff_t first,
                                                                 ptrdiff_t end, ptrdiff_t unit, ptrdiff_t units,
                                                                 const real *dh, ptrdiff_t dh_row)
{
    const int plain = LF(plain_functions)(p->variant);
    for (ptrdiff_t row = first; row < end; row++)
        for (ptrdiff_t j = 0; j < units; j += LANES) {
            vec dm = v_load(dh + (row - first) * dh_row + j);
            if (plain)
                LF(differentiate_variant)(p, 1, row, unit + j, dm);
            else
                LF(differentiate_variant)(p, 0, row, unit + j, dm);
        }
}
