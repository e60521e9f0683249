"""One step of a variant of the cell: as that of a plain one, or, with layer norm, of whole rows between products."""

from lstm_fast.engine.batch cimport rows_at, rows_before
from lstm_fast.engine.cell cimport Cell, layout_of_gates
from lstm_fast.engine.forward_job cimport ForwardJob, ForwardNorm, ForwardVariant, place_in_chunk
from lstm_fast.engine.matrix cimport rounded
from lstm_fast.engine.memory cimport at, data_of, data_or_null, strided
from lstm_fast.engine.plan cimport share
from lstm_fast.engine.runtime.kernels cimport (LAYER_NORM_EPSILON, LF_CELL, LF_OUTPUT, lf_barrier_wait,
                                               lf_cell_forward, lf_product, lf_rows, lf_variant_forward)
from lstm_fast.engine.tape cimport Noise, Tape, new_norm

cdef double GATE_NORM_EPSILON = 1e-8  # TensorFlow Lite's


cdef void set_up_variant(ForwardJob *job, Cell cell, Noise noise, Tape tape) except *:
    """The parts of a job that only variants have; with `tape` in training."""
    cdef ForwardVariant *variant = job.variant
    cdef lf_variant_forward *step = &variant.step
    cdef ForwardNorm *norm = &variant.norm
    step.variant = &cell.variant
    step.parts = LF_CELL | LF_OUTPUT
    layout_of_gates(cell, &step.a_row, &step.a_panel, &step.a_gate)
    if noise is not None:
        variant.recurrent = data_or_null(noise.recurrent)
        step.zone_h, step.zone_c = data_or_null(noise.zone_h), data_or_null(noise.zone_c)
        step.zone_row = noise.zone_row
    if tape is not None:
        step.a, tape.variant, tape.noise = tape.gates, True, noise
    variant.layer_norm = cell.layer_norm
    if not cell.layer_norm:
        return
    norm.of_gates, norm.bias = cell.norm_of_gates, data_of(cell.norm_bias)
    if tape is not None:
        tape.norm = new_norm(cell, job.rows.total)
        norm.hh, norm.c, norm.scale_hh = tape.norm.hh.data, tape.norm.c.data, tape.norm.scale_hh.data
    if norm.of_gates:
        norm.w_hh, norm.peephole = data_of(cell.w_ln), NULL if cell.peephole is None else cell.peephole.data
        return
    norm.w_ih, norm.w_hh, norm.w_c = data_of(cell.w_ln_ih), data_of(cell.w_ln_hh), data_of(cell.w_ln_c)
    norm.b_c = data_of(cell.b_ln_c)
    if tape is not None:
        norm.ih, norm.scale_ih, norm.scale_c = tape.norm.ih.data, tape.norm.scale_ih.data, tape.norm.scale_c.data


cdef inline char *scale_at(const ForwardJob *job, char *scales, Py_ssize_t row) noexcept nogil:
    return NULL if scales == NULL else at(scales, row, job.k)


cdef void normalise_input(ForwardJob *job, Py_ssize_t chunk_t, Py_ssize_t first_t, Py_ssize_t end_t,
                          Py_ssize_t first_row, Py_ssize_t end_row, char *projected) noexcept nogil:
    """Layer norm of what `project` wrote, for some rows at times first_t .. end_t - 1 of a chunk from chunk_t on."""
    cdef Py_ssize_t t, row
    for t in range(first_t, end_t):
        row = place_in_chunk(job, chunk_t, t, first_row, end_row)
        job.k.normalise(at(projected, row * 4 * job.H, job.k), 4 * job.H,
                        scale_at(job, job.variant.norm.scale_ih, rows_before(job.rows, t) + first_row),
                        LAYER_NORM_EPSILON, max(0, min(end_row, rows_at(job.rows, t)) - first_row), 4 * job.H)


cdef void variant_rows(ForwardJob *job, const lf_cell_forward *plain, Py_ssize_t row_at_t, Py_ssize_t first_row,
                       int part, int parts, char *operands) noexcept nogil:
    """A step that is set up for a plain cell; `row_at_t`: rows of earlier times, `first_row`: of the batch.

    With layer norm threads share the units of the product, and then the rows.
    """
    cdef lf_variant_forward v = job.variant.step
    cdef lf_cell_forward step = plain[0]
    cdef Py_ssize_t row = row_at_t + first_row, first = 0, end = step.rows
    cdef char *masked
    v.step = &step
    v.h_prev, v.h_prev_row = plain.h, plain.h_row
    if job.variant.recurrent != NULL:
        masked = at(job.variant.masked_h, (part * job.rows.B + first_row) * job.P, job.k)
        job.k.multiply_add(masked, job.P, strided(<const char *>step.h, step.h_row),
                           strided(at(job.variant.recurrent, first_row * job.P, job.k), job.P), strided(NULL, 0),
                           step.rows, job.P)
        step.h, step.h_row = masked, job.P
    step.h = rounded(job.of_h, operands, step.h, &step.h_row, step.rows, job.P)
    if job.variant.layer_norm:
        recurrent_product(job, &step, at(job.variant.norm.hh, (row if job.training else first_row) * 4 * job.H, job.k))
        lf_barrier_wait(&job.barrier, parts)
        share(step.rows, part, parts, &first, &end)
        if end == first:
            return
        take_rows(job, &v, &step, first, end)
        row, first_row = row + first, first_row + first
    if v.zone_h != NULL:
        v.zone_h = at(<const char *>v.zone_h, row * v.zone_row, job.k)
    if v.zone_c != NULL:
        v.zone_c = at(<const char *>v.zone_c, row * v.zone_row, job.k)
    if v.a != NULL:
        v.a = at(<const char *>v.a, (row if job.training else first_row) * v.a_row, job.k)
    if job.variant.norm.of_gates:
        normed_gates(job, &v, row if job.training else first_row)
    elif job.variant.layer_norm:
        normed_rows(job, &v, row if job.training else first_row, first_row)
    else:
        job.of_h.variant_forward(&v)


cdef void take_rows(const ForwardJob *job, lf_variant_forward *v, lf_cell_forward *step, Py_ssize_t first,
                    Py_ssize_t end) noexcept nogil:
    """Leave some rows of a step to others, after the product."""
    step.rows = end - first
    step.projected = at(<const char *>step.projected, first * step.projected_row, job.k)
    step.c_prev = at(<const char *>step.c_prev, first * step.c_row, job.k)
    step.c = at(<const char *>step.c, first * step.c_row, job.k)
    step.y = at(<const char *>step.y, first * step.y_row, job.k)
    v.h_prev = at(<const char *>v.h_prev, first * v.h_prev_row, job.k)
    step.first_panel, step.end_panel = 0, job.panels


cdef void recurrent_product(ForwardJob *job, const lf_cell_forward *step, char *out) noexcept nogil:
    """h w_hh' of some rows, (rows, 4H)."""
    cdef lf_product p
    p.rows, p.depth, p.columns = step.rows, job.P, 4 * job.H
    p.a, p.a_row, p.a_step = step.h, step.h_row, 1
    p.b = step.w
    p.init, p.accumulate, p.stream = NULL, False, False
    p.out, p.out_row, p.out_panel = out, 4 * job.H, 4 * job.k.lanes
    p.first_panel, p.end_panel = step.first_panel, step.end_panel
    job.of_h.product(&p)


cdef void normed_rows(ForwardJob *job, lf_variant_forward *v, Py_ssize_t kept, Py_ssize_t first_row) noexcept nogil:
    """The same with layer norm, after the product; `kept`: where the job has what it keeps in training."""
    cdef Py_ssize_t H = job.H, rows = v.step.rows
    cdef const ForwardNorm *norm = &job.variant.norm
    cdef char *normal_hh = at(norm.hh, kept * 4 * H, job.k)
    cdef char *normal_c = at(norm.c, kept * H, job.k)
    job.k.normalise(normal_hh, 4 * H, scale_at(job, norm.scale_hh, kept), LAYER_NORM_EPSILON, rows, 4 * H)
    job.k.multiply_add(v.a, v.a_row, strided(<const char *>v.step.projected, 4 * H), strided(norm.w_ih, 0),
                       strided(norm.bias, 0), rows, 4 * H)
    job.k.multiply_add(v.a, v.a_row, strided(normal_hh, 4 * H), strided(norm.w_hh, 0),
                       strided(<const char *>v.a, v.a_row), rows, 4 * H)
    v.parts, v.n = LF_CELL, normal_c
    job.of_h.variant_forward(v)
    job.k.normalise(normal_c, H, scale_at(job, norm.scale_c, kept), LAYER_NORM_EPSILON, rows, H)
    v.parts, v.n = LF_OUTPUT, at(norm.u, first_row * H, job.k)
    job.k.multiply_add(v.n, H, strided(normal_c, H), strided(norm.w_c, 0), strided(norm.b_c, 0), rows, H)
    job.of_h.variant_forward(v)


cdef void normed_gates(ForwardJob *job, lf_variant_forward *v, Py_ssize_t kept) noexcept nogil:
    """The same with layer norm of each gate: of both parts together, with what peepholes add."""
    cdef Py_ssize_t H = job.H, rows = v.step.rows
    cdef char *sums = at(job.variant.norm.hh, kept * 4 * H, job.k)
    cdef lf_rows c_prev = strided(<const char *>v.step.c_prev, v.step.c_row)
    job.k.multiply_add(sums, 4 * H, strided(sums, 4 * H), strided(NULL, 0),
                       strided(<const char *>v.step.projected, 4 * H), rows, 4 * H)
    normalise_gate(job, v, 0, c_prev, kept)
    normalise_gate(job, v, 1, c_prev, kept)
    normalise_gate(job, v, 2, strided(NULL, 0), kept)
    v.parts, v.n = LF_CELL, at(job.variant.norm.c, kept * H, job.k)
    job.of_h.variant_forward(v)  # copies a of o, whatever is there
    normalise_gate(job, v, 3, strided(<const char *>v.n, H), kept)
    v.parts = LF_OUTPUT
    job.of_h.variant_forward(v)


cdef void normalise_gate(ForwardJob *job, lf_variant_forward *v, int gate, lf_rows c, Py_ssize_t kept) noexcept nogil:
    """The pre-activation of one gate, from its sums; `c` is what its peepholes see."""
    cdef Py_ssize_t H = job.H, first = gate * H, rows = v.step.rows
    cdef const ForwardNorm *norm = &job.variant.norm
    cdef char *normal = at(norm.hh, kept * 4 * H + first, job.k)
    cdef char *scale = scale_at(job, norm.scale_hh, kept + gate * job.rows.total)
    if norm.peephole != NULL and c.data != NULL:  # weights i, f, o
        job.k.multiply_add(normal, 4 * H, c, strided(at(norm.peephole, min(gate, 2) * job.step.c_row, job.k), 0),
                           strided(normal, 4 * H), rows, H)
    job.k.normalise(normal, 4 * H, scale, GATE_NORM_EPSILON, rows, H)
    job.k.multiply_add(at(<char *>v.a, first, job.k), v.a_row, strided(normal, 4 * H),
                       strided(at(norm.w_hh, first, job.k), 0), strided(at(norm.bias, first, job.k), 0), rows, H)
