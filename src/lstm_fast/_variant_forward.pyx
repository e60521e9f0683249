"""One step of a variant of the cell: as that of a plain one, or, with layer norm, of whole rows between products."""

from ._engine cimport rows_at, rows_before, strided
from ._kernels cimport LF_CELL, LF_OUTPUT, lf_cell_forward, lf_product, lf_variant_forward
from ._layer_forward cimport Job, NormJob, at


cdef void normalise_input(Job *job, Py_ssize_t first_t, Py_ssize_t last_t, Py_ssize_t first_row,
                          Py_ssize_t last_row, char *projected) noexcept nogil:
    """Layer norm of what `project` wrote, for some rows of the times first_t .. last_t - 1."""
    cdef Py_ssize_t t, row, first = rows_before(job.rows, first_t), origin
    for t in range(first_t, last_t):
        row = rows_before(job.rows, t) + first_row
        origin = row if job.training else row - first
        job.k.normalise(<char *>at(projected, (row - first) * 4 * job.H, job), 4 * job.H,
                        <char *>at(job.variant.norm.scale_ih, origin, job),
                        max(0, min(last_row, rows_at(job.rows, t)) - first_row), 4 * job.H)


cdef void variant_rows(Job *job, const lf_cell_forward *plain, Py_ssize_t row_at_t, Py_ssize_t first_row,
                       int part) noexcept nogil:
    """A step that is set up for a plain cell; `row_at_t`: rows of earlier times, `first_row`: of the batch."""
    cdef lf_variant_forward v = job.variant.step
    cdef lf_cell_forward step
    cdef Py_ssize_t row = row_at_t + first_row
    cdef char *masked
    v.step = plain
    v.h_prev, v.h_prev_row = plain.h, plain.h_row
    if v.zone_h != NULL:
        v.zone_h = at(<const char *>v.zone_h, row * v.zone_row, job)
    if v.zone_c != NULL:
        v.zone_c = at(<const char *>v.zone_c, row * v.zone_row, job)
    if v.a != NULL:
        v.a = <char *>at(<const char *>v.a, (row if job.training else first_row) * v.a_row, job)
    if job.variant.recurrent != NULL:
        step = plain[0]
        masked = <char *>at(job.variant.masked_h, (part * job.rows.B + first_row) * job.P, job)
        job.k.multiply_add(masked, job.P, strided(<const char *>step.h, step.h_row),
                           strided(at(job.variant.recurrent, first_row * job.P, job), job.P), strided(NULL, 0),
                           step.rows, job.P)
        step.h, step.h_row = masked, job.P
        v.step = &step
    if job.variant.layer_norm:
        normed_rows(job, &v, row if job.training else first_row, first_row)
    else:
        job.k.variant_forward(&v)


cdef void normed_rows(Job *job, lf_variant_forward *v, Py_ssize_t kept, Py_ssize_t first_row) noexcept nogil:
    """The same with layer norm; `kept`: where the job has what it keeps in training."""
    cdef Py_ssize_t H = job.H, rows = v.step.rows
    cdef const NormJob *norm = &job.variant.norm
    cdef char *normal_hh = <char *>at(norm.hh, kept * 4 * H, job)
    cdef char *normal_c = <char *>at(norm.c, kept * H, job)
    cdef lf_product p
    p.rows, p.depth, p.columns = rows, job.P, 4 * H
    p.a, p.a_row, p.a_step = v.step.h, v.step.h_row, 1
    p.b = v.step.w
    p.init, p.accumulate, p.stream = NULL, False, False
    p.out, p.out_row, p.out_panel = normal_hh, 4 * H, 4 * job.k.lanes
    p.first_panel, p.last_panel = 0, (4 * H + p.out_panel - 1) // p.out_panel
    job.k.product(&p)
    job.k.normalise(normal_hh, 4 * H, <char *>at(norm.scale_hh, kept, job), rows, 4 * H)
    job.k.multiply_add(v.a, v.a_row, strided(<const char *>v.step.x, 4 * H), strided(norm.w_ih, 0),
                       strided(norm.bias, 0), rows, 4 * H)
    job.k.multiply_add(v.a, v.a_row, strided(normal_hh, 4 * H), strided(norm.w_hh, 0),
                       strided(<const char *>v.a, v.a_row), rows, 4 * H)
    v.parts, v.n = LF_CELL, normal_c
    job.k.variant_forward(v)
    job.k.normalise(normal_c, H, <char *>at(norm.scale_c, kept, job), rows, H)
    v.parts, v.n = LF_OUTPUT, <char *>at(norm.u, first_row * H, job)
    job.k.multiply_add(v.n, H, strided(normal_c, H), strided(norm.w_c, 0), strided(norm.b_c, 0), rows, H)
    job.k.variant_forward(v)
