/* The checks of products of lower precision: of numbers that are exact in each of them, so that sums are, too, and a
 * step has the bits of the full precision. */

enum { MOST = 127, SCALE = 128 };

static int random_integer(void)
{
    return (int)(uniform() * (2 * MOST + 1)) - MOST;
}

/* Weights (n) as a precision stores them: integers, or bfloat16 numbers. */
static void *stored(const lf_products *p, const float *w, ptrdiff_t n)
{
    char *weights = allocate(n * p->weight_size);
    for (ptrdiff_t j = 0; j < n; j++)
        if (p->weight_size == 1) {
            ((int8_t *)weights)[j] = (int8_t)w[j];
        } else {
            uint32_t bits;
            memcpy(&bits, &w[j], sizeof bits);
            ((uint16_t *)weights)[j] = (uint16_t)(bits >> 16);
        }
    return weights;
}

/* Random ones, integers times 1 / SCALE in `full`. */
static void *random_weights(const lf_products *p, float *full, ptrdiff_t n)
{
    float *w = allocate(n * sizeof *w);
    for (ptrdiff_t j = 0; j < n; j++) {
        w[j] = (float)random_integer();
        full[j] = w[j] / SCALE;
    }
    void *weights = stored(p, p->weight_size == 1 ? w : full, n);
    free(w);
    return weights;
}

static size_t packed_size(const lf_products *p, ptrdiff_t columns, ptrdiff_t depth)
{
    return columns * (p->head_size + (depth + p->group - 1) / p->group * p->group * p->weight_size);
}

/* Rows as operands, and how far apart these are. */
static void *rounded(const lf_products *p, const float *x, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t *row)
{
    *row = (ptrdiff_t)(p->operand_head / p->operand_size) + (depth + p->group - 1) / p->group * p->group;
    void *operands = allocate(rows * *row * p->operand_size);
    p->round(operands, x, depth, rows, depth);
    return operands;
}

/* out (rows, columns) = the operands times packed weights */
static void multiply_rows(const lf_kernels *k, const lf_products *p, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t columns,
                          const void *operands, ptrdiff_t row, const void *packed, float *out)
{
    const ptrdiff_t panel = 4 * k->lanes;
    const lf_product product = {.rows = rows, .depth = depth, .columns = columns, .a = operands, .a_row = row,
                                .a_step = 1, .b = packed, .out = out, .out_row = columns, .out_panel = panel,
                                .first_panel = 0, .end_panel = (columns + panel - 1) / panel};
    p->product(&product);
}

/* What backward does: weights packed from a matrix of floats, the transpose of w, and operands that are columns. */
static void check_columns(const lf_kernels *k, const lf_products *p, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t columns,
                          const float *x, const float *w, void *packed, const float *exact)
{
    const ptrdiff_t panel = 4 * k->lanes, panels = (columns + panel - 1) / panel, step = rows + 1;
    float *m = allocate(columns * depth * sizeof *m), *of_x = allocate(rows * depth * sizeof *of_x);
    float *out = random_f32(rows * columns);
    char *operands = allocate(step * depth * p->operand_size);
    for (ptrdiff_t n = 0; n < depth; n++) {
        for (ptrdiff_t j = 0; j < columns; j++)
            m[n * columns + j] = w[j * depth + n];
        for (ptrdiff_t r = 0; r < rows; r++)
            of_x[n * rows + r] = x[r * depth + n];
    }
    p->convert(operands, step, (lf_rows){of_x, rows}, depth, rows);
    p->pack_columns(packed, m, columns, depth, columns, 0, panels, 0, depth);
    const lf_product product = {.rows = rows, .depth = depth, .columns = columns, .a = operands, .a_row = 1,
                                .a_step = step, .b = packed, .out = out, .out_row = columns, .out_panel = panel,
                                .first_panel = 0, .end_panel = panels};
    p->product(&product);
    report(k, "columns", rows, depth, columns, memcmp(out, exact, rows * columns * sizeof *out), 0);
    free(m), free(of_x), free(out), free(operands);
}

static void check_lower(const lf_kernels *k, const lf_products *p, ptrdiff_t rows, ptrdiff_t depth, ptrdiff_t H)
{
    const ptrdiff_t panel = 4 * k->lanes, panels = (H + k->lanes - 1) / k->lanes, padded = panels * k->lanes;
    const ptrdiff_t columns = 4 * H, column_panels = (columns + panel - 1) / panel;
    float *w = allocate(columns * depth * sizeof *w), *scale = allocate(columns * sizeof *scale);
    float *x = allocate(rows * depth * sizeof *x), *projected = random_f32(rows * panels * panel);
    float *c = random_f32(rows * padded), *out = random_f32(2 * rows * columns), *y = random_f32(2 * rows * H);
    float *exact = out + rows * columns, *c_after = random_f32(2 * rows * padded);
    void *weights = random_weights(p, w, columns * depth);
    for (ptrdiff_t j = 0; j < columns; j++)
        scale[j] = 1.0f / SCALE;
    for (ptrdiff_t j = 0; j < rows * depth; j++)
        x[j] = (float)(j % depth ? random_integer() : MOST) / SCALE; /* so that the scale of a row is 1 / SCALE */
    ptrdiff_t row;
    void *operands = rounded(p, x, rows, depth, &row);

    char *packed = allocate(packed_size(p, column_panels * panel, depth));
    p->pack_transposed(packed, weights, scale, depth, depth, columns, 0, column_panels);
    multiply_rows(k, p, rows, depth, columns, operands, row, packed, out);
    for (ptrdiff_t r = 0; r < rows; r++)
        for (ptrdiff_t j = 0; j < columns; j++) {
            double sum = 0;
            for (ptrdiff_t n = 0; n < depth; n++)
                sum += (double)x[r * depth + n] * w[j * depth + n];
            exact[r * columns + j] = (float)sum;
        }
    report(k, p->precision, rows, depth, columns, memcmp(out, exact, rows * columns * sizeof *out), 0);
    if (p->pack_columns)
        check_columns(k, p, rows, depth, columns, x, w, packed, exact);
    free(packed);

    if (p->cell_forward) {
        char *gates = allocate(packed_size(p, panels * panel, depth));
        float *full = allocate(packed_size(&k->full, panels * panel, depth));
        p->pack_gates(gates, weights, scale, H, depth, 0, panels);
        k->full.pack_gates(full, w, NULL, H, depth, 0, panels);
        lf_cell_forward f = {.rows = rows, .depth = depth, .hidden_size = H, .h = operands, .h_row = row, .w = gates,
                             .projected = projected, .projected_row = panels * panel, .projected_panel = panel,
                             .projected_gate = k->lanes, .c_prev = c, .c = c_after, .c_row = padded, .y = y,
                             .y_row = H, .first_panel = 0, .end_panel = panels};
        p->cell_forward(&f);
        f.h = x, f.h_row = depth, f.w = full, f.y = y + rows * H, f.c = c_after + rows * padded;
        k->full.cell_forward(&f);
        report(k, p->precision, rows, depth, H, memcmp(y, y + rows * H, rows * H * sizeof *y), 0);
        free(gates), free(full);
    }
    free(w), free(scale), free(x), free(projected), free(c), free(out), free(y), free(c_after), free(weights);
    free(operands);
}

static void check_lowers(const lf_isa *isa)
{
    const ptrdiff_t L = isa->f32->lanes, sizes[] = {1, 2, 3, L, L + 1, 2 * L + 3, 5 * L}, depths[] = {1, 2, 5, 64, 521};
    const ptrdiff_t rows[] = {1, 2, 3, 4, 5, 6, 7, 16, 19};
    for (int n = 0; n < lf_lower_count; n++)
        if (!strcmp(lf_lowers[n].isa, isa->name))
            for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
                for (size_t m = 0; m < sizeof sizes / sizeof sizes[0]; m++)
                    for (size_t d = 0; d < sizeof depths / sizeof depths[0]; d++)
                        check_lower(isa->f32, lf_lowers[n].products, rows[r], depths[d], sizes[m]);
}

static void *read_floats(ptrdiff_t n)
{
    float *numbers = allocate(n * sizeof *numbers);
    if (fread(numbers, sizeof *numbers, n, stdin) != (size_t)n) {
        puts("not enough numbers");
        exit(1);
    }
    return numbers;
}

/* ISA PRECISION ROWS DEPTH COLUMNS: from x (rows, depth), weights (columns, depth) and their scales (columns), floats
 * on the standard input, to x weights' (rows, columns) on the standard output. */
static int multiply(int count, char **words)
{
    if (count != 6)
        return 2;
    for (int n = 0; n < lf_isa_count; n++)
        for (int m = 0; m < lf_lower_count; m++) {
            const lf_products *p = lf_lowers[m].products;
            if (strcmp(lf_isas[n].name, words[1]) || strcmp(lf_lowers[m].isa, words[1]) || strcmp(p->precision, words[2])
                || !lf_isas[n].supported())
                continue;
            const ptrdiff_t rows = atol(words[3]), depth = atol(words[4]), columns = atol(words[5]);
            const ptrdiff_t panel = 4 * lf_isas[n].f32->lanes, panels = (columns + panel - 1) / panel;
            float *x = read_floats(rows * depth), *w = read_floats(columns * depth), *scale = read_floats(columns);
            float *out = allocate(rows * columns * sizeof *out);
            ptrdiff_t row;
            void *operands = rounded(p, x, rows, depth, &row), *weights = stored(p, w, columns * depth);
            char *packed = allocate(packed_size(p, panels * panel, depth));
            p->pack_transposed(packed, weights, scale, depth, depth, columns, 0, panels);
            multiply_rows(lf_isas[n].f32, p, rows, depth, columns, operands, row, packed, out);
            fwrite(out, sizeof *out, rows * columns, stdout);
            free(x), free(w), free(scale), free(out), free(operands), free(weights), free(packed);
            return 0;
        }
    return 2;
}
