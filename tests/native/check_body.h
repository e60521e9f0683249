/* The checks of one dtype; check_kernels.c defines real, NAME(x), TOLERANCE. */

static real *NAME(random)(size_t n)
{
    real *p = allocate(n * sizeof(real));
    for (size_t j = 0; j < n; j++)
        p[j] = (real)(uniform() - 0.5);
    return p;
}

static double NAME(worst)(const real *got, const double *exact, size_t n)
{
    double worst = 0;
    for (size_t j = 0; j < n; j++) {
        double error = fabs(got[j] - exact[j]);
        if (!(error <= worst)) /* catches NaN */
            worst = error;
    }
    return worst;
}

static void NAME(check_product)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t columns)
{
    const ptrdiff_t panel = 4 * k->lanes, panels = (columns + panel - 1) / panel;
    real *a = NAME(random)(rows * depth), *b = NAME(random)(depth * columns), *out = NAME(random)(rows * columns);
    real *packed = NAME(random)(panels * panel * depth);
    double *exact = allocate(rows * columns * sizeof(double));
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t j = 0; j < columns; j++) {
            double sum = out[r * columns + j];
            for (ptrdiff_t n = 0; n < depth; n++)
                sum += (double)a[r * depth + n] * b[n * columns + j];
            exact[r * columns + j] = sum;
        }
    k->full.pack_columns(packed, b, columns, depth, columns, 0, panels, 0, depth);

    /* The same panels from the transpose of b. */
    real *b_transposed = NAME(random)(depth * columns), *again = NAME(random)(panels * panel * depth);
    for (ptrdiff_t n = 0; n < depth; n++)
        for (ptrdiff_t j = 0; j < columns; j++)
            b_transposed[j * depth + n] = b[n * columns + j];
    memcpy(again, packed, panels * panel * depth * sizeof(real)); /* what is behind a narrow panel */
    memset(again, 1, ((panels - 1) * panel + k->lanes) * depth * sizeof(real));
    k->full.pack_transposed(again, b_transposed, NULL, depth, depth, columns, 0, panels);
    report(k, "pack_transposed", rows, depth, columns, memcmp(again, packed, panels * panel * depth * sizeof(real)), 0);
    free(b_transposed), free(again);

    const lf_product p = {
        .rows = rows, .depth = depth, .columns = columns, .a = a, .a_row = depth, .a_step = 1, .b = packed,
        .accumulate = 1, .out = out, .out_row = columns, .out_panel = panel,
        .first_panel = 0, .end_panel = panels};
    k->full.product(&p);
    report(k, "product", rows, depth, columns, NAME(worst)(out, exact, rows * columns), TOLERANCE * depth);

    /* The same bits from the transpose of a, past the caches, to aligned rows. */
    real *transposed = NAME(random)(rows * depth), *memory = NAME(random)((rows + 1) * panels * panel);
    lf_product q = p;
    q.accumulate = 0;
    k->full.product(&q);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t n = 0; n < depth; n++)
            transposed[n * rows + r] = a[r * depth + n];
    q.a = transposed, q.a_row = 1, q.a_step = rows, q.stream = 1;
    q.out = (real *)(((uintptr_t)memory + 63) / 64 * 64), q.out_row = panels * panel;
    k->full.product(&q);
    int different = 0;
    for (ptrdiff_t r = 0; r < rows; r++)
        different |= memcmp((real *)q.out + r * q.out_row, out + r * columns, columns * sizeof(real));
    report(k, "product, transposed", rows, depth, columns, different, 0);
    free(a), free(b), free(out), free(packed), free(exact), free(transposed), free(memory);
}

/* One step forward, then one back from dh = dy; the forward half also against plain arithmetic. */
static void NAME(check_cell)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t H)
{
    const ptrdiff_t lanes = k->lanes, panels = (H + lanes - 1) / lanes, padded = panels * lanes;
    const ptrdiff_t size = rows * padded, column_panels = (H + 4 * lanes - 1) / (4 * lanes);
    real *h = NAME(random)(rows * depth), *w = NAME(random)(4 * H * depth), *packed = NAME(random)(4 * padded * depth);
    real *projected = NAME(random)(rows * 4 * padded), *c_prev = NAME(random)(size), *c = NAME(random)(size);
    real *y = NAME(random)(rows * H), *gates = NAME(random)(4 * size), *dy = NAME(random)(rows * H);
    real *dc = NAME(random)(size), *dgates = NAME(random)(rows * 4 * H), *again = NAME(random)(rows * H);
    double *exact = allocate(rows * H * sizeof(double)), *dexact = allocate(rows * 4 * H * sizeof(double));
    k->full.pack_gates(packed, w, NULL, H, depth, 0, (H + k->lanes - 1) / k->lanes);
    const lf_cell_forward f = {
        .rows = rows, .depth = depth, .hidden_size = H, .h = h, .h_row = depth, .w = packed,
        .projected = projected, .projected_row = 4 * lanes, .projected_panel = rows * 4 * lanes,
        .projected_gate = lanes, .c_prev = c_prev, .c = c, .c_row = padded, .y = y, .y_row = H, .gates = gates,
        .first_panel = 0, .end_panel = panels};
    k->full.cell_forward(&f);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t u = 0; u < H; u++) {
            double a[4];
            for (ptrdiff_t g = 0; g < 4; g++) {
                a[g] = projected[u / lanes * f.projected_panel + r * f.projected_row + g * lanes + u % lanes];
                for (ptrdiff_t n = 0; n < depth; n++)
                    a[g] += (double)h[r * depth + n] * w[(g * H + u) * depth + n];
                a[g] = g == 2 ? tanh(a[g]) : 1 / (1 + exp(-a[g]));
            }
            double cp = c_prev[r * padded + u], tc = tanh(a[1] * cp + a[0] * a[2]), dh = dy[r * H + u];
            double dct = dc[r * padded + u] + dh * a[3] * (1 - tc * tc), *d = dexact + r * 4 * H + u;
            exact[r * H + u] = a[3] * tc;
            d[0] = dct * a[2] * a[0] * (1 - a[0]);
            d[H] = dct * cp * a[1] * (1 - a[1]);
            d[2 * H] = dct * a[0] * (1 - a[2] * a[2]);
            d[3 * H] = dh * tc * a[3] * (1 - a[3]);
        }
    report(k, "cell_forward", rows, depth, H, NAME(worst)(y, exact, rows * H), TOLERANCE * (depth + 8));

    /* The same bits from gates without padding, where the last vector reads past the end. */
    real *unpadded = NAME(random)(rows * 4 * H + lanes - 1);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t g = 0; g < 4; g++)
            for (ptrdiff_t u = 0; u < H; u++)
                unpadded[(r * 4 + g) * H + u] =
                    projected[u / lanes * f.projected_panel + r * f.projected_row + g * lanes + u % lanes];
    lf_cell_forward q = f;
    q.projected = unpadded, q.projected_row = 4 * H, q.projected_panel = lanes, q.projected_gate = H, q.y = again;
    k->full.cell_forward(&q);
    report(k, "cell_forward, unpadded", rows, depth, H, memcmp(again, y, rows * H * sizeof(real)), 0);

    const lf_cell_backward b = {
        .product = {.rows = rows, .columns = H, .a = h, .a_step = 1, .b = packed, .init = dy, .init_row = H,
                    .init_panel = 4 * lanes, .first_panel = 0, .end_panel = column_panels},
        .gates = gates, .c_prev = c_prev, .c = c, .dc = dc, .dgates = dgates, .unprojected_h = again};
    k->full.cell_backward(&b);
    report(k, "cell_backward", rows, depth, H, NAME(worst)(dgates, dexact, rows * 4 * H), TOLERANCE * (depth + 8));
    report(k, "h once more", rows, depth, H, memcmp(again, y, rows * H * sizeof(real)), 0);
    free(h), free(w), free(packed), free(projected), free(c_prev), free(c), free(y), free(gates), free(dy);
    free(dc), free(dgates), free(again), free(unpadded), free(exact), free(dexact);
}

/* An activation function and its derivative. */
static void NAME(exact_activation)(const lf_activation *f, double x, double *value, double *slope)
{
    const double a = f->alpha, b = f->beta, s = 1 / (1 + exp(-x)), t = tanh(f->function == LF_SCALED_TANH ? b * x : x);
    const double line = a * x + b, cut = fmin(fmax(line, 0), 1);
    const struct { double value, slope; } of[] = {
        [LF_SIGMOID] = {s, s * (1 - s)},
        [LF_TANH] = {t, 1 - t * t},
        [LF_RELU] = {fmax(x, 0), x > 0},
        [LF_HARD_SIGMOID] = {cut, cut == line ? a : 0},
        [LF_SOFTSIGN] = {x / (1 + fabs(x)), 1 / ((1 + fabs(x)) * (1 + fabs(x)))},
        [LF_SOFTPLUS] = {fmax(x, 0) + log1p(exp(-fabs(x))), s},
        [LF_ELU] = {x < 0 ? a * expm1(x) : x, x < 0 ? a * exp(x) : 1},
        [LF_LEAKY_RELU] = {x < 0 ? a * x : x, x < 0 ? a : 1},
        [LF_THRESHOLDED_RELU] = {x < a ? 0 : x, x >= a},
        [LF_SCALED_TANH] = {a * t, a * b * (1 - t * t)},
        [LF_AFFINE] = {line, a},
    };
    *value = of[f->function].value, *slope = of[f->function].slope;
}

/* Every activation function as the candidate of a cell whose other parts are 1: y = g(x), and dx = g'(x). */
static void NAME(check_activations)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t H)
{
    const ptrdiff_t lanes = k->lanes, panels = (H + lanes - 1) / lanes, padded = panels * lanes, size = rows * padded;
    const ptrdiff_t unpadded = 4 * rows * H + lanes - 1; /* the last vector is read past the end */
    real *a = NAME(random)(unpadded), *c_prev = NAME(random)(size), *c = NAME(random)(size);
    real *y = NAME(random)(rows * H), *x = NAME(random)(4 * size), *dh = NAME(random)(rows * H);
    real *dc = NAME(random)(size), *dgates = NAME(random)(rows * 4 * H);
    const lf_activation one = {LF_AFFINE, 0, 1}, same = {LF_AFFINE, 1, 0};
    for (int function = LF_SIGMOID; function <= LF_AFFINE; function++) {
        const lf_variant v = {.gate = one, .candidate = {function, 0.75, 0.5}, .output = same, .coupled = 1,
                              .clip = INFINITY, .cell_clip = INFINITY};
        double worst = 0, worst_slope = 0;
        memset(c_prev, 0, size * sizeof(real)), memset(dc, 0, size * sizeof(real));
        memset(a, 0, unpadded * sizeof(real));
        for (ptrdiff_t n = 0; n < 4 * size; n++)
            x[n] = (real)(12 * (uniform() - 0.5));
        for (ptrdiff_t n = 0; n < rows * H; n++)
            dh[n] = 1;
        const lf_cell_forward step = {
            .rows = rows, .hidden_size = H, .h = x, .w = x, .projected = x, .projected_row = 4 * padded,
            .projected_panel = 4 * lanes, .projected_gate = lanes, .c_prev = c_prev, .c = c, .c_row = padded, .y = y,
            .y_row = H, .first_panel = 0, .end_panel = panels};
        const lf_variant_forward f = {.variant = &v, .parts = LF_CELL | LF_OUTPUT, .step = &step, .a = a,
                                      .a_row = 4 * H, .a_panel = lanes, .a_gate = H};
        k->full.variant_forward(&f);
        const lf_variant_backward b = {
            .product = {.rows = rows, .columns = H, .a = dh, .a_step = 1, .b = x, .init = dh, .init_row = H,
                        .init_panel = 4 * lanes, .first_panel = 0, .end_panel = (H + 4 * lanes - 1) / (4 * lanes)},
            .variant = &v, .parts = LF_CELL | LF_OUTPUT, .a = a, .a_row = 4 * H, .a_panel = lanes, .a_gate = H,
            .c_prev = c_prev, .dc = dc, .dgates = dgates};
        k->full.variant_backward(&b);
        for (ptrdiff_t r = 0; r < rows; r++)
            for (ptrdiff_t u = 0; u < H; u++) {
                double value, slope, at = a[(r * 4 + 2) * H + u];
                NAME(exact_activation)(&v.candidate, at, &value, &slope);
                worst = fmax(worst, fabs(y[r * H + u] - value) / fmax(1, fabs(value)));
                worst_slope = fmax(worst_slope, fabs(dgates[(r * 4 + 2) * H + u] - slope));
            }
        report(k, "activation", function, rows, H, worst, TOLERANCE * 4);
        report(k, "derivative", function, rows, H, worst_slope, TOLERANCE * 4);
    }
    free(a), free(c_prev), free(c), free(y), free(x), free(dh), free(dc), free(dgates);
}

/* Sums of rows, and a b + c, whose b may be absent, or one row for all. */
static void NAME(check_rows)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t n = rows * columns;
    real *a = NAME(random)(n), *b = NAME(random)(n), *sums = NAME(random)(columns), *out = NAME(random)(n);
    double *exact = allocate(n * sizeof(double));
    for (ptrdiff_t j = 0; j < columns; j++) {
        exact[j] = sums[j];
        for (ptrdiff_t r = 0; r < rows; r++)
            exact[j] += a[r * columns + j];
    }
    k->add_rows(sums, a, columns, rows, columns);
    report(k, "add_rows", rows, columns, 0, NAME(worst)(sums, exact, columns), TOLERANCE * rows);
    const lf_rows each = {a, columns}, second = {b, columns}, one = {b, 0}, absent = {NULL, 0};
    for (ptrdiff_t at = 0; at < n; at++)
        exact[at] = (double)a[at] * b[at] + b[at % columns];
    k->multiply_add(out, columns, each, second, one, rows, columns);
    report(k, "multiply_add", rows, columns, 0, NAME(worst)(out, exact, n), TOLERANCE * 2);
    for (ptrdiff_t at = 0; at < n; at++)
        exact[at] = (double)a[at] + b[at];
    k->multiply_add(a, columns, each, absent, second, rows, columns);
    report(k, "multiply_add, in place", rows, columns, 0, NAME(worst)(a, exact, n), TOLERANCE * 2);
    free(a), free(b), free(sums), free(out), free(exact);
}

/* Layer norm, and its gradient from the definition: dx = J d, where J is symmetric. */
static void NAME(check_normalise)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t n = rows * columns;
    real *x = NAME(random)(n), *d = NAME(random)(n), *scale = NAME(random)(rows);
    double *exact = allocate(n * sizeof(double)), *dexact = allocate(n * sizeof(double)), largest = 1;
    for (ptrdiff_t r = 0; r < rows; r++) {
        double mean = 0, square = 0, sum = 0, product = 0;
        for (ptrdiff_t j = 0; j < columns; j++)
            mean += x[r * columns + j] / (double)columns;
        for (ptrdiff_t j = 0; j < columns; j++)
            square += pow(x[r * columns + j] - mean, 2) / columns;
        const double s = 1 / sqrt(square + LAYER_NORM_EPSILON);
        largest = fmax(largest, s);
        for (ptrdiff_t j = 0; j < columns; j++) {
            const ptrdiff_t at = r * columns + j;
            exact[at] = (x[at] - mean) * s;
            sum += d[at] / (double)columns, product += d[at] * exact[at] / columns;
        }
        for (ptrdiff_t j = 0; j < columns; j++)
            dexact[r * columns + j] = s * (d[r * columns + j] - sum - exact[r * columns + j] * product);
    }
    k->normalise(x, columns, scale, LAYER_NORM_EPSILON, rows, columns);
    k->normalise_backward(d, columns, (lf_rows){x, columns}, scale, rows, columns);
    report(k, "normalise", rows, columns, 0, NAME(worst)(x, exact, n), TOLERANCE * 40);
    report(k, "normalise_backward", rows, columns, 0, NAME(worst)(d, dexact, n), TOLERANCE * 20 * largest);
    free(x), free(d), free(scale), free(exact), free(dexact);
}

/* Steps of optimisers against their formulas in kernels.h; averages, norms, scaling and clipping. */
static void NAME(check_update)(const lf_kernels *k, ptrdiff_t n)
{
    real *p = NAME(random)(n), *g = NAME(random)(n), *m = NAME(random)(n), *v = NAME(random)(n);
    double *exact = allocate(n * sizeof(double));
    for (int kind = 0; kind < 6; kind++) {
        lf_update u = {.n = n, .p = p, .g = g, .m = kind % 2 ? m : NULL, .v = v, .rate = 0.01, .decay = 0.1,
                       .keep = 0.99, .momentum = kind == 3 ? 0.25 : 0.75, .square = 0.9, .root = 1.5, .eps = 0.5,
                       .nesterov = kind == 1};
        const char *what = kind < 2 ? "sgd" : kind < 4 ? "adam" : "rmsprop";
        if (kind == 2)
            u.m = m;
        for (ptrdiff_t j = 0; j < n; j++) {
            v[j] = (real)fabs(v[j]);
            const double keep = kind / 2 == 1 ? u.keep : 1, e = g[j] + u.decay * keep * p[j];
            const double mean = u.square * v[j] + (1 - u.square) * e * e, root = sqrt(mean);
            double d = e;
            if (kind == 1)
                d += u.momentum * (u.momentum * m[j] + e);
            else if (kind / 2 == 1)
                d = (u.momentum * m[j] + (1 - u.momentum) * e) / (u.root * root + u.eps);
            else if (kind / 2 == 2)
                d = e / (root + u.eps) + (u.m ? u.momentum * m[j] : 0);
            exact[j] = keep * p[j] - u.rate * d;
        }
        (kind < 2 ? k->sgd : kind < 4 ? k->adam : k->rmsprop)(&u);
        report(k, what, n, kind, 0, NAME(worst)(p, exact, n), TOLERANCE * 8);
    }
    double sum = 0;
    for (ptrdiff_t j = 0; j < n; j++)
        sum += (double)g[j] * g[j], exact[j] = 0.75 * m[j] + 0.25 * g[j];
    k->average(m, 0.75, g, n);
    report(k, "average", n, 0, 0, NAME(worst)(m, exact, n), TOLERANCE * 8);
    report(k, "squared_norm", n, 0, 0, fabs(k->squared_norm(g, n) - sum), DBL_EPSILON * n);
    for (ptrdiff_t j = 0; j < n; j++)
        exact[j] = fmax(-0.25, fmin(0.25, 1.5 * g[j]));
    k->scale(g, 1.5, n);
    k->clip(g, 0.25, n);
    report(k, "scale, clip", n, 0, 0, NAME(worst)(g, exact, n), TOLERANCE * 2);
    free(p), free(g), free(m), free(v), free(exact);
}

/* Relative error of the elementwise functions over exponents and signs, and their special values. */
static void NAME(check_functions)(const lf_kernels *k)
{
    enum { N = 40001 };
    real *x = allocate(N * sizeof(real)), *out = allocate(N * sizeof(real));
    for (int j = 0; j < N; j++)
        x[j] = (real)((j % 2 ? 1 : -1) * ldexp(1 + uniform(), j % 60 - 53));
    for (int f = 0; f < 3; f++) {
        (f == 0 ? k->exp : f == 1 ? k->sigmoid : k->tanh)(out, x, N);
        double worst = 0;
        for (int j = 0; j < N; j++) {
            double v = x[j], e = f == 0 ? exp(v) : f == 1 ? 1 / (1 + exp(-v)) : tanh(v);
            if (fabs((double)(real)e) < SMALLEST || !isfinite((real)e))
                continue;
            double error = fabs(out[j] - e) / fabs(e);
            if (!(error <= worst))
                worst = error;
        }
        report(k, f == 0 ? "exp" : f == 1 ? "sigmoid" : "tanh", N, 0, 0, worst, TOLERANCE * 3);
    }
    const real special[3] = {(real)INFINITY, (real)-INFINITY, (real)NAN};
    k->tanh(out, special, 3);
    k->sigmoid(out + 3, special, 3);
    k->exp(out + 6, special, 3);
    const int good = out[0] == 1 && out[1] == -1 && isnan(out[2]) && out[3] == 1 && out[4] == 0 && isnan(out[5]) &&
                     isinf(out[6]) && out[7] == 0 && isnan(out[8]);
    report(k, "special values", 3, 0, 0, !good, 0);
    free(x), free(out);
}

#include "check_blocks.h"

static void NAME(check)(const lf_kernels *k)
{
    const ptrdiff_t L = k->lanes, sizes[] = {1, L - 1 + (L == 1), L, L + 1, 2 * L + 3, 4 * L, 4 * L + 1, 9 * L + 2};
    const int count = sizeof sizes / sizeof sizes[0];
    for (ptrdiff_t rows = 1; rows < 14; rows += rows == 13 ? 86 : 1)
        for (int n = 0; n < count; n++) {
            NAME(check_product)(k, rows, sizes[(n + 3) % count], sizes[n]);
            NAME(check_cell)(k, rows, sizes[(n + rows) % count], sizes[n]);
            NAME(check_activations)(k, rows, sizes[n]);
            NAME(check_rows)(k, rows, sizes[n]);
            NAME(check_normalise)(k, rows, sizes[n]);
            NAME(check_softmax)(k, rows, sizes[n]);
            NAME(check_cross_entropy)(k, rows, sizes[n]);
            NAME(check_arrays)(k, rows, sizes[n]);
        }
    for (int n = 0; n < count; n++)
        NAME(check_update)(k, sizes[n]);
    NAME(check_product)(k, 99, 7, 2 * L + 1);
    NAME(check_product)(k, 107, 521, 13 * L + 1);
    NAME(check_cell)(k, 99, 7, 2 * L + 1);
    NAME(check_softmax)(k, 3, 70 * L + 1); /* sums of several pieces */
    NAME(check_cross_entropy)(k, 3, 70 * L + 1);
    NAME(check_functions)(k);
}
