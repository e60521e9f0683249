/* The kernel table: what the engine calls and every ISA implements, once per dtype.
 *
 * Conventions
 *
 *   Memory     Pointers are untyped, since the engine only moves them; every count, size and stride is in elements of
 *              the table's dtype, a stride being that between the first of two rows, panels or gates. Any alignment
 *              will do. NULL is allowed where a comment says so; what is `out` overlaps nothing else, but where a
 *              comment says so. Shapes without strides are in C order.
 *   Vectors    `lanes` elements. A row of `padded hidden size` has hidden_size rounded up to whole vectors; those are
 *              read and written whole, and what is in the padding does not matter. Other rows have their elements,
 *              and no more are read or written, with one exception: see `gates`.
 *   Gates      are in the order i, f, g, o. With three strides, gate g of panel p of a row is at
 *              row * *_row + p * *_panel + g * *_gate. Where gates are not padded (*_gate == hidden_size,
 *              *_panel == lanes), up to lanes - 1 elements are read past the last one.
 *   Ranges     first_panel <= p < end_panel: what threads share. Panels do not depend on one another.
 *   Kernels    allocate nothing, keep no state and call nothing. They run in the default floating-point environment
 *              (fpenv.h).
 *
 * Packed matrices. The right-hand side b (depth, columns) of a product is stored in panels, so that the inner loop
 * reads one sequential stream: b[panel][k][column in panel]. A panel has 4 * lanes columns; columns that do not exist
 * are zeros. Two arrangements of the columns:
 *
 *   gates    panel p holds, for the units p * lanes .. p * lanes + lanes - 1, the gates i, f, g, o: [k][gate][unit].
 *            One register tile then has all four gates of its units.
 *   columns  in natural order; the last panel is narrowed to 1 or 2 vectors where these suffice.
 *
 * To add a kernel: a member of lf_kernels below, its line in the table of kernel_table.h, static void LF(name)(...) in
 * a header that is included there, written in the words of simd.h, and a check in tests/native/check_body.h. To add a
 * field: here, with its comment. Both, for the engine: a line in engine/runtime/kernels.pxd. Fields not named by an
 * initializer are zero, and the engine clears what it does not set: zero should mean that nothing changes. */
#ifndef LSTM_FAST_KERNELS_H
#define LSTM_FAST_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* out[row, column] = (sum over k of a[row, k] b[k, column]) + init[row, column]
 *
 * The sum runs over k in ascending order, in pieces of fixed length with one accumulator each: the bits of an element
 * depend on nothing but its row of a, its column of b and its init. With `accumulate` the pieces are added to what is
 * in out. Element (row, column j of panel p) of init and out lies at row * *_row + p * *_panel + j. */
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
    ptrdiff_t first_panel, end_panel; /* of b */
} lf_product;

/* One time step forward, recurrent product and cell in one pass:
 *
 *   (ai, af, ag, ao) = projected + h w
 *   c = sigmoid(af) c_prev + sigmoid(ai) tanh(ag)
 *   y = sigmoid(ao) tanh(c)
 */
typedef struct lf_cell_forward {
    ptrdiff_t rows, depth, hidden_size;
    const void *h; /* h(t-1): (rows, depth), where depth is the hidden size, or that of its projection */
    ptrdiff_t h_row;
    const void *w;         /* recurrent weights, packed in gates */
    const void *projected; /* x w_ih + biases: gates */
    ptrdiff_t projected_row, projected_panel, projected_gate;
    const void *c_prev; /* c(t-1): (rows, padded hidden size) */
    void *c;            /* out, the same shape; may be c_prev */
    ptrdiff_t c_row;    /* of both */
    void *y;            /* out: (rows, hidden_size) */
    ptrdiff_t y_row;
    void *gates;                      /* NULL, or out, i, f, g, o for backward: (rows, 4, padded hidden size) */
    ptrdiff_t first_panel, end_panel; /* of w: lanes units each */
    int stream;     /* gates past the caches; they begin with a cache line */
    int descending; /* from the last panel to the first: no difference but which weights a cache still has */
} lf_cell_forward;

/* One time step backward: from dh = product (or its init, where depth is 0) and dc to the gradients of the
 * pre-activations and of c(t-1):
 *
 *   tc = tanh(c)                  dc_t = dc + dh o (1 - tc^2)      unprojected_h = o tc
 *   dai = dc_t g i (1 - i)        dag = dc_t i (1 - g^2)
 *   daf = dc_t c_prev f (1 - f)   dao = dh tc o (1 - o)            dc = dc_t f
 */
typedef struct lf_cell_backward {
    lf_product product;     /* of columns = hidden_size, whose panels have 4 * lanes units; its `out` is ignored */
    const void *gates;      /* i, f, g, o of forward: (rows, 4, padded hidden size) */
    const void *c_prev, *c; /* (rows, padded hidden size) */
    void *dc;               /* in and out: (rows, padded hidden size) */
    void *dgates;           /* out, dai, daf, dag, dao: (rows, 4, hidden_size) */
    void *unprojected_h;    /* NULL, or out, what the projection of the hidden state reads: (rows, hidden_size) */
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
    int function; /* an lf_function */
    double alpha, beta;
} lf_activation;

/* How a cell differs from the plain one: what is the same in all calls. */
typedef struct lf_variant {
    lf_activation gate, candidate, output; /* F, of i, f and o; G, of g; H, of the cell state in h */
    int coupled;                           /* f = 1 - i */
    double clip, cell_clip;                /* bounds of pre-activations and of the cell state; infinite: none */
    const void *peephole;                  /* NULL, or p, the weights of the cell state in i, f, o:
                                            * (3, padded hidden size) */
    int keeps_gates; /* where F, G, H are sigmoid, tanh, tanh, forward keeps the gates, not their pre-activations:
                      * needs an infinite clip, and no layer norm */
} lf_variant;

/* One time step of a variant, where [] clamps:
 *
 *   a = projected + h w
 *   ai += pi c_prev                    af += pf c_prev       i = F[ai]   f = F[af] or 1 - i   g = G[ag]
 *   n = [f c_prev + i g]               ao += po n            o = F[ao]   m = o H(n)
 *   c = n, y = m, or with zoneout      c = zc c_prev + (1 - zc) n        y = zh h_prev + (1 - zh) m
 *
 * With layer norm, a is given, and what H takes depends on n of all units: a first call, with LF_CELL, writes n and
 * c, and a second one, with LF_OUTPUT, reads that in place of n. */
enum { LF_CELL = 1, LF_OUTPUT = 2 };

typedef struct lf_variant_forward {
    const lf_variant *variant;
    int parts;                   /* LF_CELL | LF_OUTPUT, or with layer norm one of them */
    const lf_cell_forward *step; /* all but its gates; with layer norm, projected, h and w are not read either */
    void *a; /* gates: NULL, or out, what is kept: a with peepholes, or see keeps_gates; with layer norm, in */
    ptrdiff_t a_row, a_panel, a_gate;
    void *n;            /* NULL, or with layer norm, as above: (rows, hidden_size) */
    const void *h_prev; /* h(t-1), with zone_h: (rows, hidden_size) */
    ptrdiff_t h_prev_row;
    const void *zone_h, *zone_c; /* each NULL, or zh, zc: (rows, hidden_size) */
    ptrdiff_t zone_row;          /* of both; 0: one row for all */
} lf_variant_forward;

/* The same backward, from dh, the product as in lf_cell_backward, and dc to the gradients of the pre-activations, of
 * c(t-1) and, with zoneout, what of dh goes to h(t-1) past the cell. Gates that were not kept are computed again.
 * With layer norm, a first call, with LF_OUTPUT, leaves the gradient of what H took in n, and a second one, with
 * LF_CELL, reads the gradient of n there, and not dh. */
typedef struct lf_variant_backward {
    lf_product product;
    const lf_variant *variant;
    int parts;     /* LF_CELL | LF_OUTPUT, or with layer norm one of them */
    const void *a; /* gates: what forward kept */
    ptrdiff_t a_row, a_panel, a_gate;
    const void *c_prev;  /* (rows, padded hidden size) */
    void *dc;            /* in and out: (rows, padded hidden size) */
    void *dgates;        /* out: (rows, 4, hidden_size) */
    void *n;             /* NULL, or with layer norm, in, what H takes, and out, as above: (rows, hidden_size) */
    void *unprojected_h; /* NULL, or out, m: (rows, hidden_size) */
    void *dpeephole;     /* NULL, or out, the terms of its gradient: (rows, 3, hidden_size) */
    void *dh_prev;       /* with zone_h, out: (rows, hidden_size) */
    const void *zone_h, *zone_c; /* as in lf_variant_forward */
    ptrdiff_t zone_row;
} lf_variant_backward;

#define LAYER_NORM_EPSILON 1e-5

/* Rows to read. */
typedef struct lf_rows {
    const void *data;
    ptrdiff_t row; /* 0: all rows are the same one */
} lf_rows;

/* One step of an optimiser on n parameters p, elementwise, with the operations in PyTorch's order:
 *
 *   sgd      g += decay p           m = momentum m + g           d = m, or g + momentum m with nesterov, or g without m
 *                                                                p -= rate d
 *   adam     p = keep p             g += decay p                 m = momentum m + (1 - momentum) g
 *                                   v = square v + (1 - square) g^2
 *                                                                p -= rate m / (root sqrt(v) + eps)
 *   rmsprop  g += decay p           v = square v + (1 - square) g^2
 *                                   m = momentum m + g / (sqrt(v) + eps)
 *                                                                p -= rate m, or rate g / (sqrt(v) + eps) without m */
typedef struct lf_update {
    ptrdiff_t n;
    void *p;       /* in and out, as are m and v */
    const void *g; /* stays as it is */
    void *m, *v;   /* m: NULL without momentum */
    double rate, decay, keep, momentum, square, root, eps;
    int nesterov;
} lf_update;

/* The most terms of a sum in int8: of at most 127^2 each, they fit into 32 bits. */
#define LF_INT8_DEPTH ((ptrdiff_t)1 << 17)

/* One precision of the products: what lies in packed weights, and what multiplies them.
 *
 *   precision   weights               operands
 *   full        of the dtype          rows of the dtype, as they are
 *   bfloat16    bfloat16              the same, from `round`
 *   int8        8 bits, and a scale   8 bits, and a scale for each row, from `round`
 *               for each column
 *   widened     the same              rows of the dtype, as they are, or bfloat16 from `round`, as floats
 *   mixed       the same              bfloat16 from `round`
 *
 * Where operands are not rows of the dtype, `a` of lf_product and `h` of lf_cell_forward are what `round` wrote, and
 * their strides count operands. A packed depth is rounded up to `group` terms, which lie side by side:
 * b[panel][k / group][column in panel][k % group], and a panel begins with the scales of its columns. */
typedef struct lf_products {
    const char *precision;
    ptrdiff_t group;
    size_t weight_size, head_size;     /* bytes of a weight, and of what a panel has for each of its columns besides */
    size_t operand_size, operand_head; /* bytes of an operand, and of what is before those of a row */
    /* NULL, or rows (count, depth) to operands, each row with its depth rounded up to `group`. In int8, the scale of a
     * row is 1/127 of its largest magnitude. */
    void (*round)(void *operands, const void *rows, ptrdiff_t row, ptrdiff_t count, ptrdiff_t depth);
    /* b[k, column] = w[gate * hidden_size + unit, k], in gates: w is (4 hidden_size, depth), of weights, and `scale`,
     * (4 hidden_size), what each row of it is multiplied by, where the precision has that.
     * b is where panel 0 begins, here and below. */
    void (*pack_gates)(void *b, const void *w, const void *scale, ptrdiff_t hidden_size, ptrdiff_t depth,
                       ptrdiff_t first_panel, ptrdiff_t end_panel);
    /* The same in columns, from the transpose of a matrix: b[k, column] = m[column * m_row + k]. */
    void (*pack_transposed)(void *b, const void *m, const void *scale, ptrdiff_t m_row, ptrdiff_t depth,
                            ptrdiff_t columns, ptrdiff_t first_panel, ptrdiff_t end_panel);
    void (*product)(const lf_product *);
    /* These two NULL in widened and mixed. */
    void (*cell_forward)(const lf_cell_forward *);
    void (*variant_forward)(const lf_variant_forward *);
    /* What follows is for backward, of full and of bfloat16.
     * b[k, column] = m[k * m_row + column], in columns: from numbers of the dtype, which it rounds. Of the rows k
     * first_row is the first of a group, and end_row the end of one, or depth. */
    void (*pack_columns)(void *b, const void *m, ptrdiff_t m_row, ptrdiff_t depth, ptrdiff_t columns,
                         ptrdiff_t first_panel, ptrdiff_t end_panel, ptrdiff_t first_row, ptrdiff_t end_row);
    void (*cell_backward)(const lf_cell_backward *);
    void (*variant_backward)(const lf_variant_backward *);
    /* Operands of some columns, NULL in full: for rows that are rounded in parts, and have a whole number of groups or,
     * more than one operand apart, are the terms of a product (a_step). */
    void (*convert)(void *operands, ptrdiff_t operands_row, lf_rows x, ptrdiff_t rows, ptrdiff_t columns);
} lf_products;

typedef struct lf_kernels {
    const char *isa;
    size_t itemsize; /* bytes of an element */
    ptrdiff_t lanes;
    lf_products full;

    /* sums[column] += sum over rows of m[row * m_row + column], in pieces of fixed length. */
    void (*add_rows)(void *sums, const void *m, ptrdiff_t m_row, ptrdiff_t rows, ptrdiff_t columns);
    /* The same of the products of the elements of a and b. */
    void (*add_products)(void *sums, const void *a, const void *b, ptrdiff_t row, ptrdiff_t rows, ptrdiff_t columns);
    /* out = a b + c, elementwise; out may be any of them; b or c may be absent (NULL). */
    void (*multiply_add)(void *out, ptrdiff_t out_row, lf_rows a, lf_rows b, lf_rows c, ptrdiff_t rows,
                         ptrdiff_t columns);
    /* The bits of the bfloat16 numbers nearest to n floats; NULL for double. */
    void (*bfloat16)(uint16_t *bits, const void *x, ptrdiff_t n);
    /* Layer norm of each row, in place: x becomes (x - mean) scale, where scale = 1 / sqrt(variance + epsilon) is
     * kept, (rows), unless that is NULL. */
    void (*normalise)(void *x, ptrdiff_t x_row, void *scale, double epsilon, ptrdiff_t rows, ptrdiff_t columns);
    /* From the gradient of normal = normalise(x) to that of x, in place. */
    void (*normalise_backward)(void *d, ptrdiff_t d_row, lf_rows normal, const void *scale, ptrdiff_t rows,
                               ptrdiff_t columns);
    /* y = exp(x) / sum of exp(x) in each row, and dx = y (dy - sum of dy y): all (rows, columns). */
    void (*softmax)(void *y, const void *x, ptrdiff_t rows, ptrdiff_t columns);
    void (*softmax_backward)(void *dx, const void *dy, const void *y, ptrdiff_t rows, ptrdiff_t columns);
    /* The cross-entropy of each row of x (rows, columns) with q = (1 - smoothing) [column == target] + smoothing /
     * columns, and its gradient; with a negative target, zeros, and the row is not read:
     *
     *     loss = -sum of q log(softmax(x))    dx = softmax(x) - q */
    void (*cross_entropy)(void *losses, void *dx, const void *x, const ptrdiff_t *target, double smoothing,
                          ptrdiff_t rows, ptrdiff_t columns);
    /* Elementwise y[i] = f(x[i]), and dx[i] = dy[i] f'(x[i]). */
    void (*activation)(const lf_activation *f, void *y, const void *x, ptrdiff_t n);
    void (*derivative)(const lf_activation *f, void *dx, const void *x, const void *dy, ptrdiff_t n);
    void (*sgd)(const lf_update *);
    void (*adam)(const lf_update *);
    void (*rmsprop)(const lf_update *);
    /* m = kept m + (1 - kept) x, in place. */
    void (*average)(void *m, double kept, const void *x, ptrdiff_t n);
    /* The sum of x[i]^2, in double, with the same bits on every ISA. */
    double (*squared_norm)(const void *x, ptrdiff_t n);
    /* x *= factor, and x = min(max(x, -limit), limit), in place; a NaN stays. */
    void (*scale)(void *x, double factor, ptrdiff_t n);
    void (*clip)(void *x, double limit, ptrdiff_t n);
    /* Elementwise out[i] = f(x[i]); out may be x. */
    void (*exp)(void *out, const void *x, ptrdiff_t n);
    void (*sigmoid)(void *out, const void *x, ptrdiff_t n);
    void (*tanh)(void *out, const void *x, ptrdiff_t n);
} lf_kernels;

#endif
