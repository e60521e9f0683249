/* The checks of blocks.h, of one dtype: see check_body.h, which includes this. */

/* Softmax, and its gradient from the definition. */
static void NAME(check_softmax)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t n = rows * columns;
    real *x = NAME(random)(n), *dy = NAME(random)(n), *y = NAME(random)(n), *dx = NAME(random)(n);
    double *exact = allocate(n * sizeof(double)), *dexact = allocate(n * sizeof(double));
    for (ptrdiff_t r = 0; r < rows; r++) {
        double sum = 0, product = 0;
        for (ptrdiff_t j = r * columns; j < (r + 1) * columns; j++)
            sum += exp(x[j]);
        for (ptrdiff_t j = r * columns; j < (r + 1) * columns; j++)
            exact[j] = exp(x[j]) / sum, product += exact[j] * dy[j];
        for (ptrdiff_t j = r * columns; j < (r + 1) * columns; j++)
            dexact[j] = exact[j] * (dy[j] - product);
    }
    k->softmax(y, x, rows, columns);
    report(k, "softmax", rows, columns, 0, NAME(worst)(y, exact, n), TOLERANCE * 8);
    k->softmax_backward(dx, dy, y, rows, columns);
    report(k, "softmax_backward", rows, columns, 0, NAME(worst)(dx, dexact, n), TOLERANCE * 8);
    free(x), free(dy), free(y), free(dx), free(exact), free(dexact);
}

/* Cross-entropy, with and without smoothing; every third row is ignored. */
static void NAME(check_cross_entropy)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t n = rows * columns;
    real *x = NAME(random)(n), *dx = NAME(random)(n), *losses = NAME(random)(rows);
    ptrdiff_t *target = allocate(rows * sizeof(ptrdiff_t));
    double *exact = allocate(rows * sizeof(double)), *dexact = allocate(n * sizeof(double));
    for (int smoothed = 0; smoothed < 2; smoothed++) {
        const double smoothing = smoothed ? 0.25 : 0;
        for (ptrdiff_t r = 0; r < rows; r++) {
            long double sum = 0, loss = 0; /* a sum of doubles would err by more than the kernel may */
            target[r] = r % 3 == 1 ? -1 : (7 * r + smoothed) % columns;
            for (ptrdiff_t j = 0; j < columns; j++)
                sum += exp(x[r * columns + j]);
            for (ptrdiff_t j = 0; j < columns; j++) {
                const double q = smoothing / (double)columns + (j == target[r] ? 1 - smoothing : 0);
                const double p = (double)(exp(x[r * columns + j]) / sum);
                loss -= target[r] < 0 ? 0 : q * log(p);
                dexact[r * columns + j] = target[r] < 0 ? 0 : p - q;
            }
            exact[r] = (double)loss;
        }
        k->cross_entropy(losses, dx, x, target, smoothing, rows, columns);
        report(k, "cross_entropy, losses", rows, columns, smoothed, NAME(worst)(losses, exact, rows), TOLERANCE * 64);
        report(k, "cross_entropy, dx", rows, columns, smoothed, NAME(worst)(dx, dexact, n), TOLERANCE * 8);
    }
    free(x), free(dx), free(losses), free(target), free(exact), free(dexact);
}

/* Activation functions of arrays, and sums of products. */
static void NAME(check_arrays)(const lf_kernels *k, ptrdiff_t rows, ptrdiff_t columns)
{
    const ptrdiff_t n = rows * columns;
    real *x = NAME(random)(n), *dy = NAME(random)(n), *y = NAME(random)(n), *dx = NAME(random)(n);
    real *sums = NAME(random)(columns);
    double *exact = allocate(n * sizeof(double)), *dexact = allocate(n * sizeof(double));
    for (ptrdiff_t at = 0; at < n; at++)
        x[at] *= 12;
    for (int function = LF_SIGMOID; function <= LF_AFFINE; function++) {
        const lf_activation f = {function, 0.75, 0.5};
        for (ptrdiff_t at = 0; at < n; at++) {
            NAME(exact_activation)(&f, x[at], &exact[at], &dexact[at]);
            dexact[at] *= dy[at];
        }
        k->activation(&f, y, x, n);
        report(k, "activation of an array", function, rows, columns, NAME(worst)(y, exact, n), TOLERANCE * 16);
        k->derivative(&f, dx, x, dy, n);
        report(k, "derivative of an array", function, rows, columns, NAME(worst)(dx, dexact, n), TOLERANCE * 4);
    }
    for (ptrdiff_t j = 0; j < columns; j++) {
        exact[j] = sums[j];
        for (ptrdiff_t r = 0; r < rows; r++)
            exact[j] += (double)x[r * columns + j] * dy[r * columns + j];
    }
    k->add_products(sums, x, dy, columns, rows, columns);
    report(k, "add_products", rows, columns, 0, NAME(worst)(sums, exact, columns), TOLERANCE * 6 * rows);
    free(x), free(dy), free(y), free(dx), free(sums), free(exact), free(dexact);
}
