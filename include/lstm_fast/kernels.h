/* The kernel table: what the engine calls and every ISA implements, once per dtype.
 *
 * Pointers are untyped, since the engine only moves them; every count and stride is in elements of
 * the table's dtype. Kernels allocate nothing, keep no state and call nothing.
 *
 * Packed matrices. The right-hand side b (depth, columns) of a product is stored in panels, so that
 * the inner loop reads one sequential stream: b[panel][k][column in panel]. A panel has
 * 4 * lanes columns; columns that do not exist are zeros. Two arrangements of the columns:
 *
 *   gates    panel p holds, for the units p * lanes .. p * lanes + lanes - 1, the gates i, f, g, o:
 *            [k][gate][unit]. One register tile then has all four gates of its units.
 *   columns  in natural order; the last panel is narrowed to 1 or 2 vectors where these suffice.
 */
#ifndef LSTM_FAST_KERNELS_H
#define LSTM_FAST_KERNELS_H

#include <stddef.h>

/* out[row, column] = (sum over k of a[row, k] b[k, column]) + init[row, column]
 *
 * for the panels first_panel <= panel < last_panel of b. The sum runs over k in ascending order, in
 * pieces of fixed length with one accumulator each: the bits of an element depend on nothing but its row
 * of a, its column of b and its init. With `accumulate` the pieces are added to what is in out.
 * Element (row, column j of panel p) of init and out lies at row * *_row + p * *_panel + j. */
typedef struct lf_product {
    ptrdiff_t rows, depth, columns;
    const void *a; /* a[row, k] at row * a_row + k * a_step; a_step == 1 is fastest */
    ptrdiff_t a_row, a_step;
    const void *b;    /* packed in columns, or in gates (then columns = 4 * lanes * panels) */
    const void *init; /* NULL: zeros; init_row == 0: the same for each row */
    ptrdiff_t init_row, init_panel;
    int accumulate;
    int stream; /* write out past the caches, where it is aligned to whole vectors */
    void *out;
    ptrdiff_t out_row, out_panel;
    ptrdiff_t first_panel, last_panel;
} lf_product;

/* One time step forward, recurrent product and cell in one pass, for the unit panels
 * first_panel <= p < last_panel:
 *
 *   (ai, af, ag, ao) = x + h w
 *   c = sigmoid(af) c_prev + sigmoid(ai) tanh(ag)
 *   y = sigmoid(ao) tanh(c)
 */
typedef struct lf_cell_forward {
    ptrdiff_t rows, depth, hidden_size;
    const void *h; /* h(t-1): (rows, depth) */
    ptrdiff_t h_row;
    const void *w; /* recurrent weights, packed in gates */
    const void *x; /* projected input with biases: gate g of panel p at row * x_row + p * x_panel + g * x_gate */
    ptrdiff_t x_row, x_panel, x_gate;
    const void *c_prev; /* (rows, padded hidden size) */
    void *c;            /* may be c_prev */
    ptrdiff_t c_row;
    void *y; /* (rows, hidden_size) */
    ptrdiff_t y_row;
    void *gates; /* NULL, or i, f, g, o for backward: (rows, 4, padded hidden size) */
    ptrdiff_t first_panel, last_panel;
    int descending; /* from the last panel to the first: no difference but which weights a cache still has */
} lf_cell_forward;

/* One time step backward: from dh = product (or its init, where depth is 0) to the gradients of the
 * pre-activations and of c(t-1), for the units of panels first_panel <= p < last_panel of the
 * product, whose `out` is ignored.
 *
 *   tc = tanh(c)          dc_t = dc + dh o (1 - tc^2)        h = o tc
 *   dai = dc_t g i (1 - i)        dag = dc_t i (1 - g^2)
 *   daf = dc_t c_prev f (1 - f)   dao = dh tc o (1 - o)      dc = dc_t f
 */
typedef struct lf_cell_backward {
    lf_product product; /* columns = hidden_size */
    const void *gates;  /* (rows, 4, padded hidden size) */
    const void *c_prev, *c; /* (rows, padded hidden size) */
    void *dc;           /* in and out: (rows, padded hidden size) */
    void *dgates;       /* out: (rows, 4, hidden_size) */
    void *h;            /* NULL, or out: (rows, hidden_size) */
} lf_cell_backward;

/* Activation functions, with ONNX's names and parameters. */
typedef enum lf_function {
    LF_SIGMOID,
    LF_TANH,
    LF_RELU,
    LF_HARD_SIGMOID, /* max(0, min(1, alpha x + beta)) */
    LF_SOFTSIGN,
    LF_SOFTPLUS,
    LF_ELU,              /* x < 0: alpha (exp(x) - 1) */
    LF_LEAKY_RELU,       /* x < 0: alpha x */
    LF_THRESHOLDED_RELU, /* x < alpha: 0 */
    LF_SCALED_TANH,      /* alpha tanh(beta x) */
    LF_AFFINE,           /* alpha x + beta */
} lf_function;

typedef struct lf_activation {
    int function;
    double alpha, beta;
} lf_activation;

/* How a cell differs from the plain one. */
typedef struct lf_variant {
    lf_activation gate, candidate, output; /* of i, f and o; of g; of the cell state in h */
    int coupled;                           /* f = 1 - i */
    double clip, cell_clip;                /* bounds of pre-activations and of the cell state; infinite: none */
    const void *peephole;                  /* NULL, or weights of the cell state in i, f, o: (3, padded hidden size) */
    int keeps_gates; /* sigmoid and tanh keep gates for backward, not pre-activations: nothing else needs these */
} lf_variant;

/* One time step of a variant, for the unit panels first_panel <= p < last_panel, where F, G, H are the activation
 * functions, [] clamps, and p are the peephole weights:
 *
 *   a = x + h w
 *   ai += pi c_prev                    af += pf c_prev       i = F[ai]   f = F[af] or 1 - i   g = G[ag]
 *   n = [f c_prev + i g]               ao += po n            o = F[ao]   m = o H(n)
 *   c = n, y = m, or with zoneout      c = zc c_prev + (1 - zc) n        y = zh h_prev + (1 - zh) m
 *
 * With layer norm, a is given, and what H takes depends on n of all units: a first call, with CELL, writes n and c,
 * and a second one, with OUTPUT, reads that in place of n. */
enum { LF_CELL = 1, LF_OUTPUT = 2 };

typedef struct lf_variant_forward {
    const lf_variant *variant;
    int parts;          /* LF_CELL | LF_OUTPUT */
    const lf_cell_forward *step; /* but its gates */
    void *a; /* out: what is kept, if not NULL; with layer norm, in, too, and there in place of x, h and w. Gate g of
              * panel p is at row * a_row + p * a_panel + g * a_gate */
    ptrdiff_t a_row, a_panel, a_gate;
    void *n;            /* NULL, or (rows, hidden_size): see above */
    const void *h_prev; /* with zone_h */
    ptrdiff_t h_prev_row;
    const void *zone_h, *zone_c; /* NULL, or zh and zc: (rows, hidden_size), one row for all where zone_row == 0 */
    ptrdiff_t zone_row;
} lf_variant_forward;

/* The same backward, from dh, the product as in lf_cell_backward, and dc to the gradients of the pre-activations, of
 * c(t-1) and, with zoneout, what of dh goes to h(t-1) past the cell. Gates that were not kept are computed again. */
typedef struct lf_variant_backward {
    lf_product product;
    const lf_variant *variant;
    int parts; /* first LF_OUTPUT, which leaves the gradient of n in n; then LF_CELL, which does not read dh */
    const void *a; /* pre-activations or gates */
    ptrdiff_t a_row, a_panel, a_gate;
    const void *c_prev; /* (rows, padded hidden size) */
    void *dc;           /* in and out: (rows, padded hidden size) */
    void *dgates;       /* out: (rows, 4, hidden_size) */
    void *n;            /* NULL, or with layer norm (rows, hidden_size): in, what H takes; out, its gradient */
    void *h;            /* NULL, or out, m: (rows, hidden_size) */
    void *dpeephole;    /* NULL, or out, the terms of its gradient: (rows, 3, hidden_size) */
    void *dh_prev;      /* with zone_h, out: (rows, hidden_size) */
    const void *zone_h, *zone_c;
    ptrdiff_t zone_row;
} lf_variant_backward;

#define LAYER_NORM_EPSILON 1e-5

/* Rows of `columns` elements, each at a stride, which is 0 where all rows are the same one. */
typedef struct lf_rows {
    const void *data;
    ptrdiff_t row;
} lf_rows;

typedef struct lf_kernels {
    const char *isa;
    size_t itemsize;
    ptrdiff_t lanes; /* elements of one vector */

    /* b[k, column] = w[gate * hidden_size + unit, k]: w is (4 hidden_size, depth), C order. */
    void (*pack_gates)(void *b, const void *w, ptrdiff_t hidden_size, ptrdiff_t depth);
    /* b[k, column] = m[k * m_row + column], panels first_panel <= p < last_panel. */
    void (*pack_columns)(void *b, const void *m, ptrdiff_t m_row, ptrdiff_t depth, ptrdiff_t columns,
                         ptrdiff_t first_panel, ptrdiff_t last_panel);
    void (*product)(const lf_product *);
    void (*cell_forward)(const lf_cell_forward *);
    void (*cell_backward)(const lf_cell_backward *);
    /* sums[column] += sum over rows of m[row * m_row + column], in pieces of fixed length. */
    void (*add_rows)(void *sums, const void *m, ptrdiff_t m_row, ptrdiff_t rows, ptrdiff_t columns);
    void (*variant_forward)(const lf_variant_forward *);
    void (*variant_backward)(const lf_variant_backward *);
    /* out = a b + c, elementwise; out may be any of them; b or c may be absent (NULL). */
    void (*multiply_add)(void *out, ptrdiff_t out_row, lf_rows a, lf_rows b, lf_rows c, ptrdiff_t rows,
                         ptrdiff_t columns);
    /* Layer norm of each row, in place: (x - mean) scale with scale = 1 / sqrt(variance + LAYER_NORM_EPSILON), which is kept. */
    void (*normalise)(void *x, ptrdiff_t x_row, void *scale, ptrdiff_t rows, ptrdiff_t columns);
    /* From the gradient of normal = normalise(x) to that of x, in place. */
    void (*normalise_backward)(void *d, ptrdiff_t d_row, lf_rows normal, const void *scale, ptrdiff_t rows,
                               ptrdiff_t columns);
    /* Elementwise out[i] = f(x[i]). */
    void (*exp)(void *out, const void *x, ptrdiff_t n);
    void (*sigmoid)(void *out, const void *x, ptrdiff_t n);
    void (*tanh)(void *out, const void *x, ptrdiff_t n);
} lf_kernels;

#endif
