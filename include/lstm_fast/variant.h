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

/* Gates i, f, g from their pre-activations, and o where `last` is 3. */
LF_INLINE void LF(variant_gates)(const lf_variant *v, vec gates[4], const int last)
{
    const vec one = v_set1((real)1);
    for (int gate = 0; gate < 4; gate++)
        gates[gate] = LF(clamp)(gates[gate], v->clip);
    if (v->gate.function == LF_SIGMOID && v->candidate.function == LF_TANH) {
        vec o = gates[3];
        LF(activate)(gates);
        if (last < 3)
            gates[3] = o;
    } else {
        for (int gate = 0; gate <= last; gate++)
            gates[gate] = LF(activation)(gate == 2 ? &v->candidate : &v->gate, gates[gate]);
    }
    if (v->coupled)
        gates[1] = v_sub(one, gates[0]);
}

/* The weights of a peephole: 0 for i, 1 for f, 2 for o. */
static inline vec LF(peephole)(const lf_variant *v, int of, ptrdiff_t hidden_size, ptrdiff_t unit)
{
    return v_load((const real *)v->peephole + of * LF(padded)(hidden_size) + unit);
}

/* n and o of one row and the units of a panel, and what forward keeps. */
static inline void LF(variant_cell)(const lf_variant_forward *p, ptrdiff_t row, ptrdiff_t panel, vec *n, vec *o)
{
    const lf_variant *v = p->variant;
    const lf_cell_forward *q = p->step;
    const ptrdiff_t unit = panel * LANES, units = LF_CLAMP(q->hidden_size - unit, LANES);
    real *a = (real *)p->a + row * p->a_row + panel * p->a_panel;
    vec gates[4], c_prev = v_load((const real *)q->c_prev + row * q->c_row + unit);
    for (int gate = 0; gate < 4; gate++)
        gates[gate] = v_load(a + gate * p->a_gate);
    if (p->x)
        for (int gate = 0; gate < 4; gate++)
            gates[gate] = v_add(gates[gate], v_load((const real *)p->x + row * q->x_row + panel * q->x_panel
                                                    + gate * q->x_gate));
    if (v->peephole)
        for (int gate = 0; gate < 2; gate++)
            gates[gate] = v_fma(LF(peephole)(v, gate, q->hidden_size, unit), c_prev, gates[gate]);
    vec ao = gates[3];
    for (int gate = 0; gate < 3; gate++)
        LF(store_units)(a + gate * p->a_gate, units, gates[gate]);
    LF(variant_gates)(v, gates, v->peephole || !(p->parts & LF_OUTPUT) ? 2 : 3);
    *n = LF(clamp)(v_fma(gates[1], c_prev, v_mul(gates[0], gates[2])), v->cell_clip);
    if (v->peephole)
        ao = v_fma(LF(peephole)(v, 2, q->hidden_size, unit), *n, ao);
    LF(store_units)(a + 3 * p->a_gate, units, ao);
    vec c = *n;
    if (p->zone_c)
        c = LF(blend)(LF(load_n)((const real *)p->zone_c + row * p->zone_row + unit, units), c_prev, c);
    v_store((real *)q->c + row * q->c_row + unit, c);
    *o = v->peephole ? LF(activation)(&v->gate, LF(clamp)(ao, v->clip)) : gates[3];
}

/* One row and one or two panels, side by side. */
LF_INLINE void LF(variant_step)(const lf_variant_forward *p, ptrdiff_t row, ptrdiff_t panel, const int count)
{
    const lf_variant *v = p->variant;
    const lf_cell_forward *q = p->step;
    const ptrdiff_t hidden_size = q->hidden_size, unit = panel * LANES;
    vec n[2], o[2];
    for (int k = 0; k < count; k++) {
        const ptrdiff_t at = unit + k * LANES, units = LF_CLAMP(hidden_size - at, LANES);
        if (p->parts & LF_CELL) {
            LF(variant_cell)(p, row, panel + k, &n[k], &o[k]);
        } else {
            n[k] = LF(load_n)((const real *)p->n + row * hidden_size + at, units);
            o[k] = v_load((const real *)p->a + row * p->a_row + (panel + k) * p->a_panel + 3 * p->a_gate);
            o[k] = LF(activation)(&v->gate, LF(clamp)(o[k], v->clip));
        }
        if (p->parts == LF_CELL)
            LF(store_units)((real *)p->n + row * hidden_size + at, units, n[k]);
    }
    if (p->parts == LF_CELL)
        return;
    if (v->output.function == LF_TANH)
        LF(tanh_each)(n, count);
    else
        for (int k = 0; k < count; k++)
            n[k] = LF(activation)(&v->output, n[k]);
    for (int k = 0; k < count; k++) {
        const ptrdiff_t at = unit + k * LANES, units = LF_CLAMP(hidden_size - at, LANES);
        vec h = v_mul(o[k], n[k]);
        if (p->zone_h)
            h = LF(blend)(LF(load_n)((const real *)p->zone_h + row * p->zone_row + at, units),
                          LF(load_n)((const real *)p->h_prev + row * p->h_prev_row + at, units), h);
        LF(store_units)((real *)q->y + row * q->y_row + at, units, h);
    }
}

static void LF(variant_forward)(const lf_variant_forward *p)
{
    for (ptrdiff_t row = 0; row < p->step->rows; row++) {
        ptrdiff_t panel = p->step->first_panel;
        for (; panel + 2 <= p->step->last_panel; panel += 2)
            LF(variant_step)(p, row, panel, 2);
        if (panel < p->step->last_panel)
            LF(variant_step)(p, row, panel, 1);
    }
}

static void LF(variant_differentiate)(const lf_variant_backward *p, ptrdiff_t row, ptrdiff_t unit)
{
    const lf_variant *v = p->variant;
    const ptrdiff_t hidden_size = p->hidden_size, units = LF_CLAMP(hidden_size - unit, LANES);
    const vec one = v_set1((real)1);
    const real *a = (const real *)p->a + row * p->a_row + unit / LANES * p->a_panel;
    real *dgates = (real *)p->dgates + row * 4 * hidden_size + unit;
    real *dc = (real *)p->dc + row * LF(padded)(hidden_size) + unit;
    vec c_prev = v_load((const real *)p->c_prev + row * LF(padded)(hidden_size) + unit);
    vec pre[4], gates[4], dn = v_load(dc), dao;
    for (int gate = 0; gate < 4; gate++)
        gates[gate] = pre[gate] = v_load(a + gate * p->a_gate);
    LF(variant_gates)(v, gates, 3);
    vec r = v_fma(gates[1], c_prev, v_mul(gates[0], gates[2])), n = LF(clamp)(r, v->cell_clip);
    vec dc_prev = v_set1((real)0);
    if (p->zone_c) {
        vec z = LF(load_n)((const real *)p->zone_c + row * p->zone_row + unit, units);
        dc_prev = v_mul(z, dn);
        dn = v_mul(v_sub(one, z), dn);
    }
    if (p->parts & LF_OUTPUT) {
        vec dm = LF(load_n)((const real *)p->dh + row * hidden_size + unit, units);
        vec u = p->n ? LF(load_n)((const real *)p->n + row * hidden_size + unit, units) : n;
        vec value = LF(activation)(&v->output, u);
        if (p->zone_h) {
            vec z = LF(load_n)((const real *)p->zone_h + row * p->zone_row + unit, units);
            LF(store_units)((real *)p->dh_prev + row * hidden_size + unit, units, v_mul(z, dm));
            dm = v_mul(v_sub(one, z), dm);
        }
        dao = v_mul(v_mul(dm, value), LF(derivative)(&v->gate, LF(clamp)(pre[3], v->clip), gates[3]));
        dao = LF(unless_clamped)(pre[3], v->clip, dao);
        LF(store_units)(dgates + 3 * hidden_size, units, dao);
        if (p->h)
            LF(store_units)((real *)p->h + row * hidden_size + unit, units, v_mul(gates[3], value));
        vec du = v_mul(v_mul(dm, gates[3]), LF(derivative)(&v->output, u, value));
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
    for (int gate = 0; gate < 3; gate++) {
        const lf_activation *f = gate == 2 ? &v->candidate : &v->gate;
        if (gate != 1 || !v->coupled) {
            d[gate] = v_mul(d[gate], LF(derivative)(f, LF(clamp)(pre[gate], v->clip), gates[gate]));
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

static void LF(variant_backward)(const lf_variant_backward *p)
{
    for (ptrdiff_t row = 0; row < p->rows; row++)
        for (ptrdiff_t unit = p->first_unit; unit < p->last_unit; unit += LANES)
            LF(variant_differentiate)(p, row, unit);
}
