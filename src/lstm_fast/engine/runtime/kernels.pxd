# The C headers in include/lstm_fast, as Cython sees them. They carry the documentation.

cimport numpy as cnp

cdef extern from "lstm_fast/kernels.h" nogil:
    ctypedef struct lf_product:
        Py_ssize_t rows, depth, columns
        const void *a
        Py_ssize_t a_row, a_step
        const void *b
        const void *init
        Py_ssize_t init_row, init_panel
        bint accumulate, stream
        void *out
        Py_ssize_t out_row, out_panel
        Py_ssize_t first_panel, end_panel

    ctypedef struct lf_cell_forward:
        Py_ssize_t rows, depth, hidden_size
        const void *h
        Py_ssize_t h_row
        const void *w
        const void *projected
        Py_ssize_t projected_row, projected_panel, projected_gate
        const void *c_prev
        void *c
        Py_ssize_t c_row
        void *y
        Py_ssize_t y_row
        void *gates
        Py_ssize_t first_panel, end_panel
        bint stream
        int descending

    ctypedef struct lf_cell_backward:
        lf_product product
        const void *gates
        const void *c_prev
        const void *c
        void *dc
        void *dgates
        void *unprojected_h

    cdef enum:
        LF_CELL, LF_OUTPUT
        LF_SIGMOID, LF_TANH, LF_RELU, LF_HARD_SIGMOID, LF_SOFTSIGN, LF_SOFTPLUS, LF_ELU, LF_LEAKY_RELU
        LF_THRESHOLDED_RELU, LF_SCALED_TANH, LF_AFFINE
    const double LAYER_NORM_EPSILON

    ctypedef struct lf_activation:
        int function
        double alpha, beta

    ctypedef struct lf_variant:
        lf_activation gate, candidate, output
        bint coupled
        double clip, cell_clip
        const void *peephole
        bint keeps_gates

    ctypedef struct lf_variant_forward:
        const lf_variant *variant
        int parts
        const lf_cell_forward *step
        void *a
        Py_ssize_t a_row, a_panel, a_gate
        void *n
        const void *h_prev
        Py_ssize_t h_prev_row
        const void *zone_h
        const void *zone_c
        Py_ssize_t zone_row

    ctypedef struct lf_variant_backward:
        lf_product product
        const lf_variant *variant
        int parts
        const void *a
        Py_ssize_t a_row, a_panel, a_gate
        const void *c_prev
        void *dc
        void *dgates
        void *n
        void *unprojected_h
        void *dpeephole
        void *dh_prev
        const void *zone_h
        const void *zone_c
        Py_ssize_t zone_row

    ctypedef struct lf_rows:
        const void *data
        Py_ssize_t row

    ctypedef struct lf_update:
        Py_ssize_t n
        void *p
        const void *g
        void *m
        void *v
        double rate, decay, keep, momentum, square, root, eps
        bint nesterov

    const Py_ssize_t LF_INT8_DEPTH

    ctypedef struct lf_products:
        const char *precision
        Py_ssize_t group
        size_t weight_size, head_size, operand_size, operand_head
        void (*round)(void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*pack_gates)(void *, const void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                           Py_ssize_t) noexcept nogil
        void (*pack_transposed)(void *, const void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                                Py_ssize_t) noexcept nogil
        void (*product)(const lf_product *) noexcept nogil
        void (*cell_forward)(const lf_cell_forward *) noexcept nogil
        void (*variant_forward)(const lf_variant_forward *) noexcept nogil
        void (*pack_columns)(void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t, Py_ssize_t,
                             Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*cell_backward)(const lf_cell_backward *) noexcept nogil
        void (*variant_backward)(const lf_variant_backward *) noexcept nogil
        void (*convert)(void *, Py_ssize_t, lf_rows, Py_ssize_t, Py_ssize_t) noexcept nogil

    ctypedef struct lf_kernels:
        const char *isa
        size_t itemsize
        Py_ssize_t lanes
        lf_products full
        void (*add_products)(void *, const void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*add_rows)(void *, const void *, Py_ssize_t, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*multiply_add)(void *, Py_ssize_t, lf_rows, lf_rows, lf_rows, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*bfloat16)(cnp.uint16_t *, const void *, Py_ssize_t) noexcept nogil
        void (*normalise)(void *, Py_ssize_t, void *, double, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*normalise_backward)(void *, Py_ssize_t, lf_rows, const void *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*softmax)(void *, const void *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*softmax_backward)(void *, const void *, const void *, Py_ssize_t, Py_ssize_t) noexcept nogil
        void (*cross_entropy)(void *, void *, const void *, const Py_ssize_t *, double, Py_ssize_t,
                              Py_ssize_t) noexcept nogil
        void (*activation)(const lf_activation *, void *, const void *, Py_ssize_t) noexcept nogil
        void (*derivative)(const lf_activation *, void *, const void *, const void *, Py_ssize_t) noexcept nogil
        void (*sgd)(const lf_update *) noexcept nogil
        void (*adam)(const lf_update *) noexcept nogil
        void (*rmsprop)(const lf_update *) noexcept nogil
        void (*average)(void *, double, const void *, Py_ssize_t) noexcept nogil
        double (*squared_norm)(const void *, Py_ssize_t) noexcept nogil
        void (*scale)(void *, double, Py_ssize_t) noexcept nogil
        void (*clip)(void *, double, Py_ssize_t) noexcept nogil
        void (*exp)(void *, const void *, Py_ssize_t) noexcept nogil
        void (*sigmoid)(void *, const void *, Py_ssize_t) noexcept nogil
        void (*tanh)(void *, const void *, Py_ssize_t) noexcept nogil

cdef extern from "lstm_fast/dispatch.h" nogil:
    ctypedef struct lf_isa:
        const char *name
        const char *needs
        const lf_kernels *f32
        const lf_kernels *f64
        int (*supported)() noexcept nogil
    const lf_isa *lf_isas
    int lf_isa_count
    ctypedef struct lf_lower:
        const char *isa
        const char *how
        const lf_products *products
    const lf_lower *lf_lowers
    int lf_lower_count

cdef extern from "lstm_fast/barrier.h" nogil:
    long long lf_now()
    void lf_sleep()
    ctypedef struct lf_counter:
        pass
    void lf_counter_set(lf_counter *, long long)
    long long lf_counter_get(lf_counter *)
    long long lf_counter_add(lf_counter *, long long)
    bint lf_counter_raise(lf_counter *, long long)
    void lf_counter_least(lf_counter *, long long)
    void lf_counter_most(lf_counter *, long long)
    void lf_counter_wait(lf_counter *, long long, lf_counter *waited)
    bint lf_counter_spin(lf_counter *, long long, long long nanoseconds, lf_counter *waited)
    ctypedef struct lf_barrier:
        pass
    void lf_barrier_init(lf_barrier *, lf_counter *waited)
    void lf_barrier_wait(lf_barrier *, int threads)

cdef extern from "lstm_fast/fpenv.h" nogil:
    ctypedef struct lf_fpenv:
        pass
    lf_fpenv lf_fpenv_enter()
    void lf_fpenv_leave(lf_fpenv)
