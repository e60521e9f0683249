# One layer and direction, backward: what its steps need. Filled by backward.pyx; run by backward_layer.pyx and, for
# variants of the cell, backward_variant.pyx.

from lstm_fast.engine.batch cimport Rows, rows_before
from lstm_fast.engine.memory cimport at, strided
from lstm_fast.engine.plan cimport share
from lstm_fast.engine.runtime.gemm cimport gemm_function
from lstm_fast.engine.runtime.kernels cimport (lf_barrier, lf_counter, lf_kernels, lf_product, lf_products,
                                               lf_variant_backward)

cdef extern from *:
    """
    #undef I /* complex.h's, which NumPy includes */
    """


cdef enum:
    # What dgates are multiplied with for the gradients of w_ih and w_hh, and dy for that of w_hr
    OF_INPUT, OF_HIDDEN, OF_UNPROJECTED, OPERANDS


cdef struct BackwardNorm:
    # Layer norm: gains, normal values and scales, as forward left them; gradients. That of each gate has hh, w_hh,
    # scale_hh and dw_hh of the gates, peephole, and the cell state itself as c
    bint of_gates
    const char *w_ih
    const char *w_hh
    const char *w_c
    const char *b_c
    const char *peephole       # (3, padded), or NULL
    const char *ih             # (N, 4H)
    const char *hh             # (N, 4H)
    const char *c              # (N, H)
    const char *scale_ih       # (N,)
    const char *scale_hh       # of gates (4, N)
    const char *scale_c
    char *dw_ih
    char *dw_hh
    char *dw_c
    char *db_c                 # NULL without this bias


cdef struct BackwardVariant:
    # What only variants of the cell have
    lf_variant_backward step       # what is the same in every step
    const char *recurrent          # NULL, or mask of h in the recurrent product: (B, P)
    char *dmasked                  # gradient of the masked h: (B, P)
    char *dw_ch                    # NULL without peepholes
    bint layer_norm
    BackwardNorm norm


cdef struct BackwardJob:
    # One layer and direction. Steps are counted in forward's order, times in that of the input.
    const lf_kernels *k
    const lf_products *of          # products: of the dtype, or of bfloat16
    const Rows *rows               # its own: all of the batch, or a band of them
    const Rows *batch              # those of arrays, which begin with its first row,
    const Rows *kept               # of gates and c,
    const Rows *kept_h             # and of h
    gemm_function gemm             # NULL: own products
    bint reverse
    bint by_rows                   # threads share the rows of the batch, else the units
    bint dx_by_rows                # likewise those of dx, else the rows of all times
    Py_ssize_t packed_size         # bytes of Scratch.packed of each thread; 0: all share one
    Py_ssize_t block               # steps after which others are told of them, at most
    Py_ssize_t I, H, P             # P: columns of h and y
    Py_ssize_t padded
    Py_ssize_t dy_row              # operands from one row of Scratch.of_dy to the next
    const char *x                  # (N, I)
    const char *h                  # h0 and y: see Tape
    const char *gates              # (N, 4, padded)
    const char *c                  # (B + N, padded): c0, then c of each time
    const char *w_ih               # (4H, I), for BLAS
    const char *columns_ih         # packed in columns: (4H, I), (4H, P), (P, H); NULL where dx is not wanted
    const char *columns_hh
    const char *columns_hr         # NULL without projection
    const char *dy                 # NULL: zeros
    Py_ssize_t dy_t, dy_b          # its strides; a ragged batch has no dy_t
    char *dx                       # (N, I); NULL: not wanted
    char *dh                       # (B, P): in, dhn; out, dh0
    char *dc                       # (B, padded): in, dcn; out, dc0
    char *dgates_after             # (B, 4H): of_hh of the first step of the chunk after this one
    char *dw_ih
    char *dw_hh
    char *dw_hr
    char *db                       # NULL without biases
    Py_ssize_t *bounds             # chunk n has the steps bounds[n + 1] .. bounds[n] - 1
    Py_ssize_t chunks
    bint accumulate                # add to dw_*, whose first chunk overwrites them otherwise
    BackwardVariant *variant       # NULL: a plain cell
    lf_barrier barrier
    bint pipelined                 # dx is computed block by block, while other threads compute other layers
    lf_counter done                # steps from the last one, of which others may read dgates, or in a pipeline dx
    lf_counter *above              # the same of the layer above, for which to wait; or NULL
    lf_counter *waited             # nanoseconds, of all threads


cdef struct Scratch:
    # What a group of threads needs for a chunk, (rows of the chunk, columns)
    char *dgates                   # 4H
    char *dgates_ih                # 4H: with layer norm those before it, of the input's part; else the same array
    char *dgates_hh                # 4H: the same of the recurrent part
    char *of_ih                    # operands of products, 4H: of dgates_ih; the same array, where these are not rounded
    char *of_hh                    # 4H: the same of dgates_hh
    char *of_dy                    # dy_row: the same of dy
    char *dx                       # I: of a band of a ragged batch, which has them elsewhere; else NULL
    char *h_before                 # P: h(t-1), gathered where it is not to be had as it is
    char *hidden                   # H: with projection, o tanh(c)
    char *dy                       # P: with projection or noise, gradients of y(t)
    char *dpeephole                # 3H, with peepholes: terms of the peepholes' gradients
    char *du                       # H: with layer norm, gradients of the cell's norm
    char *dn                       # H: of the cell state that it takes
    char *dw_c                     # H: terms of the gradient of its gain
    char *dw_ih                    # 4H: the same of the other two
    char *dw_hh                    # 4H
    char *packed[OPERANDS]         # right-hand sides of weights' gradients, packed, for each packer: one array or three


cdef struct Chunk:
    # Some steps of a job, and their rows
    Py_ssize_t n
    Py_ssize_t low, high           # steps
    Py_ssize_t first_t, end_t      # times
    Py_ssize_t origin, rows        # the first row of the job's own, and how many


cdef inline const char *dy_at(const BackwardJob *job, Py_ssize_t t, Py_ssize_t row) noexcept nogil:
    cdef Py_ssize_t start = t * job.dy_t if job.batch.offsets == NULL else job.batch.offsets[t] * job.dy_b
    return at(job.dy, start + row * job.dy_b, job.k)


cdef inline Py_ssize_t time_of(const BackwardJob *job, Py_ssize_t s) noexcept nogil:
    return job.rows.T - 1 - s if job.reverse else s


cdef inline Chunk chunk_of(const BackwardJob *job, Py_ssize_t n) noexcept nogil:
    cdef Chunk chunk
    chunk.n, chunk.low, chunk.high = n, job.bounds[n + 1], job.bounds[n]
    chunk.first_t = time_of(job, chunk.high - 1 if job.reverse else chunk.low)
    chunk.end_t = time_of(job, chunk.low if job.reverse else chunk.high - 1) + 1
    chunk.origin = rows_before(job.rows, chunk.first_t)
    chunk.rows = rows_before(job.rows, chunk.end_t) - chunk.origin
    return chunk


cdef inline Py_ssize_t panels_of(Py_ssize_t columns, const lf_kernels *k) noexcept nogil:
    return (columns + 4 * k.lanes - 1) // (4 * k.lanes)


cdef inline lf_product product_of(const BackwardJob *job, Py_ssize_t rows, const char *a, Py_ssize_t depth,
                                  const char *b, Py_ssize_t columns, int part, int parts) noexcept nogil:
    """a (rows, depth) b for one of `parts` shares of the columns; init and out are the caller's to set."""
    cdef lf_product p
    p.rows, p.depth, p.columns = rows, depth, columns
    p.a, p.a_row, p.a_step = a, depth, 1
    p.b = b
    p.init, p.init_row, p.init_panel = NULL, 0, 4 * job.k.lanes
    p.accumulate = p.stream = False
    p.out, p.out_row, p.out_panel = NULL, columns, 4 * job.k.lanes
    share(panels_of(columns, job.k), part, parts, &p.first_panel, &p.end_panel)
    return p


cdef inline char *operands_at(const BackwardJob *job, const char *operands, Py_ssize_t n) noexcept nogil:
    return <char *>operands + n * <Py_ssize_t>job.of.operand_size


cdef inline void round_columns(const BackwardJob *job, char *operands, Py_ssize_t operands_row, const char *x,
                               Py_ssize_t row, Py_ssize_t rows, Py_ssize_t first, Py_ssize_t end) noexcept nogil:
    """Some columns as operands of products, where these are not the same array."""
    if job.of.convert != NULL and end > first:
        job.of.convert(operands_at(job, operands, first), operands_row, strided(at(x, first, job.k), row), rows,
                       end - first)


cdef inline void round_gates(const BackwardJob *job, char *operands, const char *dgates, Py_ssize_t rows,
                             const lf_product *p) noexcept nogil:
    """The gradients of all gates of the units that are columns of a product, as operands."""
    cdef Py_ssize_t gate, H = job.H, panel = 4 * job.k.lanes
    for gate in range(4):
        round_columns(job, operands, 4 * H, dgates, 4 * H, rows, gate * H + p.first_panel * panel,
                      gate * H + min(H, p.end_panel * panel))


cdef inline void round_dy(const BackwardJob *job, const Scratch *scratch, Py_ssize_t in_chunk,
                          const lf_product *p) noexcept nogil:
    """What a product has written to rows of dy, as operands."""
    cdef Py_ssize_t panel = 4 * job.k.lanes, P = job.P
    round_columns(job, operands_at(job, scratch.of_dy, in_chunk * job.dy_row), job.dy_row,
                  at(scratch.dy, in_chunk * P, job.k), P, p.rows, p.first_panel * panel, min(P, p.end_panel * panel))


cdef inline lf_product product_of_dy(const BackwardJob *job, const Scratch *scratch, Py_ssize_t rows,
                                     Py_ssize_t in_chunk, int part, int parts) noexcept nogil:
    """The gradients of what is projected, from rows of dy."""
    cdef lf_product p = product_of(job, rows, operands_at(job, scratch.of_dy, in_chunk * job.dy_row), job.P,
                                   job.columns_hr, job.H, part, parts)
    p.a_row = job.dy_row
    return p
