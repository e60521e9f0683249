"""One step of a variant of the cell, backward: as that of a plain one, but for what noise and layer norm need."""

from lstm_fast.engine.backward_job cimport (BackwardJob, BackwardNorm, BackwardVariant, Scratch, operands_at,
                                            product_of_dy, round_columns, round_dy, round_gates)
from lstm_fast.engine.cell cimport Cell, layout_of_gates
from lstm_fast.engine.memory cimport at, data_of, data_or_null, strided
from lstm_fast.engine.plan cimport share
from lstm_fast.engine.runtime.kernels cimport (LF_CELL, LF_OUTPUT, lf_barrier_wait, lf_product, lf_rows,
                                               lf_variant_backward)
from lstm_fast.engine.tape cimport Tape


cdef void set_up_variant(BackwardJob *job, Tape tape, dict grads) except *:
    """The parts of a job that only variants have."""
    cdef Cell cell = tape.cell
    cdef BackwardVariant *variant = job.variant
    cdef lf_variant_backward *step = &variant.step
    cdef BackwardNorm *norm = &variant.norm
    step.variant = &cell.variant
    step.parts = LF_CELL | LF_OUTPUT
    layout_of_gates(cell, &step.a_row, &step.a_panel, &step.a_gate)
    if cell.peephole is not None:
        variant.dw_ch = data_of(grads["w_ch"])
    if tape.noise is not None:
        variant.recurrent = data_or_null(tape.noise.recurrent)
        step.zone_h, step.zone_c = data_or_null(tape.noise.zone_h), data_or_null(tape.noise.zone_c)
        step.zone_row = tape.noise.zone_row
    variant.layer_norm = cell.layer_norm
    if not cell.layer_norm:
        return
    norm.of_gates = cell.norm_of_gates
    norm.hh, norm.c, norm.scale_hh = tape.norm.hh.data, tape.norm.c.data, tape.norm.scale_hh.data
    if norm.of_gates:
        norm.w_hh, norm.dw_hh = data_of(cell.w_ln), data_of(grads["w_ln"])
        norm.peephole = NULL if cell.peephole is None else cell.peephole.data
    else:
        norm.w_ih, norm.w_hh, norm.w_c = data_of(cell.w_ln_ih), data_of(cell.w_ln_hh), data_of(cell.w_ln_c)
        norm.b_c = data_of(cell.b_ln_c)
        norm.ih, norm.scale_ih, norm.scale_c = tape.norm.ih.data, tape.norm.scale_ih.data, tape.norm.scale_c.data
        norm.dw_ih, norm.dw_hh = data_of(grads["w_ln_ih"]), data_of(grads["w_ln_hh"])
        norm.dw_c, norm.db_c = data_of(grads["w_ln_c"]), data_or_null(grads.get("b_ln_c"))


cdef void masked_product(BackwardJob *job, lf_product *p, Py_ssize_t first_row) noexcept nogil:
    """A product that gives gradients of the masked h of rows from `first_row` on, and from there those of h."""
    cdef Py_ssize_t P = job.P, column = p.first_panel * 4 * job.k.lanes
    cdef Py_ssize_t columns = min(P, p.end_panel * 4 * job.k.lanes) - column
    cdef char *out = at(<const char *>p.out, column, job.k)
    cdef const char *mask
    cdef const char *added = NULL
    cdef Py_ssize_t added_row = 0
    if job.variant == NULL or job.variant.recurrent == NULL:
        job.of.product(p)
        return
    if columns <= 0:
        return
    if p.init != NULL:
        added, added_row = at(<const char *>p.init, column, job.k), p.init_row
    elif p.accumulate:
        added, added_row = out, P
    p.init, p.accumulate, p.out = NULL, False, at(job.variant.dmasked, first_row * P, job.k)
    job.of.product(p)
    mask = at(job.variant.recurrent, first_row * P + column, job.k)
    job.k.multiply_add(out, P, strided(at(<const char *>p.out, column, job.k), P), strided(mask, P),
                       strided(added, added_row), p.rows, columns)


cdef void variant_rows(BackwardJob *job, const Scratch *scratch, lf_product *p, Py_ssize_t row_at_t,
                       Py_ssize_t in_chunk, Py_ssize_t before, Py_ssize_t first_row, bint goes_on, int part,
                       int parts) noexcept nogil:
    """A step of some rows, for which `p` gives dh, or has it in `init` where no later step `goes_on`.

    `row_at_t` and `in_chunk` are the first of these rows among all times and in the chunk, `before` is that of
    c(t-1).
    """
    cdef Py_ssize_t H = job.H, P = job.P, rows = p.rows, column, columns
    cdef lf_variant_backward v = job.variant.step
    cdef char *dh = at(scratch.dy, in_chunk * P, job.k)
    cdef char *carried = at(job.dh, first_row * P, job.k)
    v.product = p[0]
    if job.columns_hr != NULL or v.zone_h != NULL or job.variant.recurrent != NULL:  # dh is not the product, or kept
        p.out = dh
        if goes_on:
            masked_product(job, p, first_row)
        else:
            job.of.product(p)
        v.product.depth, v.product.init, v.product.init_row = 0, dh, P
    if job.columns_hr != NULL:
        round_dy(job, scratch, in_chunk, p)
        lf_barrier_wait(&job.barrier, parts)
        v.product = product_of_dy(job, scratch, rows, in_chunk, part, parts)
        v.unprojected_h = at(scratch.hidden, in_chunk * H, job.k)
    if v.zone_h != NULL:
        if goes_on:
            column = p.first_panel * 4 * job.k.lanes
            columns = min(H, p.end_panel * 4 * job.k.lanes) - column
            job.k.multiply_add(at(dh, column, job.k), H, strided(at(dh, column, job.k), H), strided(NULL, 0),
                               strided(at(carried, column, job.k), H), rows, columns)
        v.zone_h = at(<const char *>v.zone_h, row_at_t * v.zone_row, job.k)
        v.dh_prev = carried
    if v.zone_c != NULL:
        v.zone_c = at(<const char *>v.zone_c, row_at_t * v.zone_row, job.k)
    v.a = at(job.gates, row_at_t * v.a_row, job.k)
    v.c_prev = at(job.c, before * job.padded, job.k)
    v.dc = at(job.dc, first_row * job.padded, job.k)
    v.dgates = at(scratch.dgates, in_chunk * 4 * H, job.k)
    if job.variant.dw_ch != NULL:
        v.dpeephole = at(scratch.dpeephole, in_chunk * 3 * H, job.k)
    if job.variant.norm.of_gates:
        normalised_gates(job, scratch, &v, row_at_t, in_chunk)
    elif job.variant.layer_norm:
        normalised_rows(job, scratch, &v, row_at_t, in_chunk)
    else:
        job.of.variant_backward(&v)
        round_gates(job, operands_at(job, scratch.of_hh, in_chunk * 4 * H), <const char *>v.dgates, rows, &v.product)


cdef void normalised_rows(BackwardJob *job, const Scratch *scratch, lf_variant_backward *v, Py_ssize_t row_at_t,
                          Py_ssize_t in_chunk) noexcept nogil:
    """The elementwise part between the norms, and theirs, of all units."""
    cdef Py_ssize_t H = job.H, rows = v.product.rows
    cdef const BackwardNorm *norm = &job.variant.norm
    cdef char *du = at(scratch.du, in_chunk * H, job.k)
    cdef char *dn = at(scratch.dn, in_chunk * H, job.k)
    cdef const char *normal_c = at(norm.c, row_at_t * H, job.k)
    job.k.multiply_add(du, H, strided(normal_c, H), strided(norm.w_c, 0), strided(norm.b_c, 0), rows, H)
    v.parts, v.n = LF_OUTPUT, du
    job.of.variant_backward(v)
    job.k.multiply_add(at(scratch.dw_c, in_chunk * H, job.k), H, strided(du, H), strided(normal_c, H),
                       strided(NULL, 0), rows, H)
    job.k.multiply_add(dn, H, strided(du, H), strided(norm.w_c, 0), strided(NULL, 0), rows, H)
    job.k.normalise_backward(dn, H, strided(normal_c, H), at(norm.scale_c, row_at_t, job.k), rows, H)
    v.parts, v.n = LF_CELL, dn
    v.product.depth, v.product.init = 0, NULL
    job.of.variant_backward(v)
    before_norm(job, <const char *>v.dgates, norm.w_ih, at(norm.ih, row_at_t * 4 * H, job.k),
                at(norm.scale_ih, row_at_t, job.k), at(scratch.dgates_ih, in_chunk * 4 * H, job.k),
                at(scratch.dw_ih, in_chunk * 4 * H, job.k), rows, 4 * H)
    before_norm(job, <const char *>v.dgates, norm.w_hh, at(norm.hh, row_at_t * 4 * H, job.k),
                at(norm.scale_hh, row_at_t, job.k), at(scratch.dgates_hh, in_chunk * 4 * H, job.k),
                at(scratch.dw_hh, in_chunk * 4 * H, job.k), rows, 4 * H)
    round_before_norm(job, scratch.of_ih, scratch.dgates_ih, in_chunk, rows)
    round_before_norm(job, scratch.of_hh, scratch.dgates_hh, in_chunk, rows)


cdef void normalised_gates(BackwardJob *job, const Scratch *scratch, lf_variant_backward *v, Py_ssize_t row_at_t,
                           Py_ssize_t in_chunk) noexcept nogil:
    """The same with the norm of each gate: o, whose peepholes give gradients of the cell state, and then the others."""
    cdef Py_ssize_t H = job.H, rows = v.product.rows, gate
    cdef const char *p = job.variant.norm.peephole
    cdef lf_rows n = strided(at(job.variant.norm.c, row_at_t * H, job.k), H)
    cdef lf_rows c_prev = strided(<const char *>v.c_prev, job.padded)
    cdef char *dn = at(scratch.du, in_chunk * H, job.k)
    cdef char *dc = <char *>v.dc
    cdef char *d = at(scratch.dgates_hh, in_chunk * 4 * H, job.k)
    cdef char *terms = <char *>v.dpeephole
    v.dpeephole = NULL  # the kernel sees no peepholes
    job.k.multiply_add(dn, H, n, strided(NULL, 0), strided(NULL, 0), rows, H)
    v.parts, v.n = LF_OUTPUT, dn
    job.of.variant_backward(v)
    before_norm_of_gate(job, scratch, v, 3, row_at_t, in_chunk)
    if p != NULL:
        add_peephole(job, dn, H, at(d, 3 * H, job.k), at(p, 2 * job.padded, job.k), n,
                     at(terms, 2 * H, job.k), rows)
    v.parts = LF_CELL
    v.product.depth, v.product.init = 0, NULL
    job.of.variant_backward(v)
    for gate in range(3):
        before_norm_of_gate(job, scratch, v, gate, row_at_t, in_chunk)
    if p != NULL:
        for gate in range(2):
            add_peephole(job, dc, job.padded, at(d, gate * H, job.k), at(p, gate * job.padded, job.k), c_prev,
                         at(terms, gate * H, job.k), rows)
    round_before_norm(job, scratch.of_hh, scratch.dgates_hh, in_chunk, rows)


cdef void add_peephole(BackwardJob *job, char *dc, Py_ssize_t dc_row, const char *d, const char *weights, lf_rows c,
                       char *terms, Py_ssize_t rows) noexcept nogil:
    """Add to the gradients dc of what a gate's peepholes see, from d of its sums; the terms of their own gradient."""
    cdef Py_ssize_t H = job.H
    job.k.multiply_add(dc, dc_row, strided(d, 4 * H), strided(weights, 0), strided(dc, dc_row), rows, H)
    job.k.multiply_add(terms, 3 * H, strided(d, 4 * H), c, strided(NULL, 0), rows, H)


cdef void before_norm_of_gate(BackwardJob *job, const Scratch *scratch, const lf_variant_backward *v, Py_ssize_t gate,
                              Py_ssize_t row_at_t, Py_ssize_t in_chunk) noexcept nogil:
    """`before_norm` of one gate."""
    cdef Py_ssize_t H = job.H, first = gate * H
    cdef const BackwardNorm *norm = &job.variant.norm
    before_norm(job, at(<const char *>v.dgates, first, job.k), at(norm.w_hh, first, job.k),
                at(norm.hh, row_at_t * 4 * H + first, job.k),
                at(norm.scale_hh, gate * job.rows.total + row_at_t, job.k),
                at(scratch.dgates_hh, in_chunk * 4 * H + first, job.k),
                at(scratch.dw_hh, in_chunk * 4 * H + first, job.k), v.product.rows, H)


cdef void before_norm(BackwardJob *job, const char *dgates, const char *gain, const char *normal, const char *scale,
                      char *d, char *terms, Py_ssize_t rows, Py_ssize_t columns) noexcept nogil:
    """From dgates the gradients d of what was normalised, and the terms of its gain's gradient."""
    cdef Py_ssize_t row = 4 * job.H
    job.k.multiply_add(terms, row, strided(dgates, row), strided(normal, row), strided(NULL, 0), rows, columns)
    job.k.multiply_add(d, row, strided(dgates, row), strided(gain, 0), strided(NULL, 0), rows, columns)
    job.k.normalise_backward(d, row, strided(normal, row), scale, rows, columns)


cdef void round_before_norm(BackwardJob *job, const char *operands, const char *d, Py_ssize_t in_chunk,
                            Py_ssize_t rows) noexcept nogil:
    """What `before_norm` has left, of all gates, as operands."""
    cdef Py_ssize_t columns = 4 * job.H
    round_columns(job, operands_at(job, operands, in_chunk * columns), columns, at(d, in_chunk * columns, job.k),
                  columns, rows, 0, columns)


cdef void variant_gradients(const BackwardJob *job, const Scratch *scratch, Py_ssize_t rows, int part,
                            int parts) noexcept nogil:
    """Add a chunk's terms to the gradients of peepholes and layer norm, one of `parts` shares of them."""
    cdef const BackwardNorm *norm = &job.variant.norm
    if job.variant.dw_ch != NULL:
        add_terms(job, job.variant.dw_ch, scratch.dpeephole, rows, 3 * job.H, part, parts)
    if job.variant.layer_norm:
        add_terms(job, norm.dw_ih, scratch.dw_ih, rows, 4 * job.H, part, parts)
        add_terms(job, norm.dw_hh, scratch.dw_hh, rows, 4 * job.H, part, parts)
        add_terms(job, norm.dw_c, scratch.dw_c, rows, job.H, part, parts)
        add_terms(job, norm.db_c, scratch.du, rows, job.H, part, parts)


cdef void add_terms(const BackwardJob *job, char *sums, const char *terms, Py_ssize_t rows, Py_ssize_t columns,
                    int part, int parts) noexcept nogil:
    """Add rows of terms to sums, where these are wanted: one of `parts` shares of the columns."""
    cdef Py_ssize_t first, end
    if sums == NULL:
        return
    share(columns, part, parts, &first, &end)
    job.k.add_rows(at(sums, first, job.k), at(terms, first, job.k), columns, rows, end - first)
