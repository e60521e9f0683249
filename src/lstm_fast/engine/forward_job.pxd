# One layer and direction, forward: what its steps need. Filled by forward.pyx; run by forward_layer.pyx and, for
# variants of the cell, forward_variant.pyx.

from lstm_fast.engine.batch cimport Rows, own_before, rows_before
from lstm_fast.engine.memory cimport at
from lstm_fast.engine.runtime.gemm cimport gemm_function
from lstm_fast.engine.runtime.kernels cimport (lf_barrier, lf_cell_forward, lf_counter, lf_kernels, lf_products,
                                               lf_variant_forward)

cdef extern from *:
    """
    #undef I /* complex.h's, which NumPy includes */
    """


cdef struct ForwardNorm:
    # Layer norm: gains, biases; and normal values with their scales, of all rows in training, else of one step. That of
    # each gate has hh, w_hh and scale_hh of the gates, bias, peephole, and the cell state itself as c
    bint of_gates
    const char *w_ih           # (4H,)
    const char *w_hh           # (4H,)
    const char *w_c            # (H,)
    const char *bias           # (4H,)
    const char *b_c            # (H,)
    const char *peephole       # (3, padded), or NULL
    char *ih                   # (N, 4H); NULL: where the chunk is projected
    char *hh                   # (N, 4H) or (B, 4H)
    char *c                    # (N, H) or (B, H)
    char *scale_ih             # (N,); NULL, as are those that follow, unless training
    char *scale_hh             # (N,), of gates (4, N)
    char *scale_c
    char *u                    # (B, H)


cdef struct ForwardVariant:
    # What only variants of the cell have
    lf_variant_forward step    # what is the same in every step
    const char *recurrent      # NULL, or mask of h in the recurrent product: (B, P)
    char *masked_h             # the masked h: (B, P) for each thread of a group
    bint layer_norm
    ForwardNorm norm


cdef struct ForwardJob:
    # One layer and direction. Steps are counted in the order of computing, times in that of the input.
    const lf_kernels *k
    const lf_products *of_x   # with w_ih, and with w_hh and w_hr
    const lf_products *of_h
    bint rounds_x
    char *operands            # what is rounded: so many bytes for each thread of a group
    Py_ssize_t operands_size
    const Rows *rows
    gemm_function gemm        # NULL: own product
    bint reverse, training
    bint by_rows              # threads share the rows of the batch, else the units
    Py_ssize_t chunk_rows     # room for so many rows of projected input,
    Py_ssize_t chunk_steps    # which is so many steps of all
    Py_ssize_t I, H, P        # P: columns of h and y
    Py_ssize_t panels         # of units
    const char *x             # (N, I)
    char *kept_x              # where x is copied to; NULL: it is kept itself, or not at all
    char *own_x               # of threads that share the rows of a ragged batch: their rows of a chunk in one piece
    const char *h0            # (B, P)
    const char *w_ih          # own product: packed in gates; BLAS: (4H, I)
    const char *bias          # own product: packed in gates; BLAS: (4H,)
    const char *w_hr          # packed in columns, or NULL
    char *unprojected_h       # with w_hr: (B, H)
    Py_ssize_t border         # rows from this one on are apart: in gates and c, and in y where `y_apart` is not NULL
    char *y
    Py_ssize_t y_t, y_b       # strides of y; a ragged batch has no y_t
    char *y_apart             # the same of those apart
    Py_ssize_t y_apart_t
    char *users_y             # in training: where y is copied to, with other strides; NULL: not wanted
    Py_ssize_t users_t, users_b
    Py_ssize_t c_gap          # unless training: rows of c that nobody has, before those apart
    lf_cell_forward step      # what is the same in every step; c and gates of all of them
    ForwardVariant *variant   # NULL: a plain cell
    lf_barrier barrier
    lf_counter done           # steps, for the layer above


cdef inline Py_ssize_t first_time(const ForwardJob *job, Py_ssize_t first_step, Py_ssize_t end_step) noexcept nogil:
    """Of these steps."""
    return job.rows.T - end_step if job.reverse else first_step


cdef inline char *y_at(const ForwardJob *job, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    cdef Py_ssize_t start = t * job.y_t if job.rows.offsets == NULL else job.rows.offsets[t] * job.y_b
    if row >= job.border and job.y_apart != NULL:
        return at(job.y_apart, t * job.y_apart_t + (row - job.border) * job.y_b, job.k)
    return at(job.y, start + row * job.y_b, job.k)


cdef inline Py_ssize_t gates_row(const ForwardJob *job, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """Where the gates of a row are at time t, in training."""
    if row >= job.border:
        return job.rows.T * job.border + t * (job.rows.B - job.border) + row - job.border
    return row + (t * job.border if job.border < job.rows.B else rows_before(job.rows, t))


cdef inline Py_ssize_t c_row(const ForwardJob *job, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    """The same of c; t = -1: of c0. Each time has its own in training, else the newest overwrites the last."""
    if not job.training:
        return row if row < job.border else row + job.c_gap
    if row >= job.border:
        return gates_row(job, t + 1, row) + job.border
    if job.border < job.rows.B:
        return gates_row(job, t + 1, row)
    return row if t < 0 else job.rows.B + gates_row(job, t, row)


cdef inline bint is_apart(const ForwardJob *job) noexcept nogil:
    """Whether the projected input of a thread's own rows lies in one piece.

    Rows that others write in between would be fetched into its cache with them. But layer norm keeps the projected
    input of all rows for backward, in their order.
    """
    return job.variant == NULL or job.variant.norm.ih == NULL


cdef inline Py_ssize_t place_in_chunk(const ForwardJob *job, Py_ssize_t first_t, Py_ssize_t t, Py_ssize_t first_row,
                                      Py_ssize_t end_row) noexcept nogil:
    """Which row of a chunk that begins with time first_t has time t of the row first_row, of a thread with these."""
    if not is_apart(job):
        return rows_before(job.rows, t) - rows_before(job.rows, first_t) + first_row
    return (first_row * job.chunk_steps + own_before(job.rows, t, first_row, end_row)
            - own_before(job.rows, first_t, first_row, end_row))
