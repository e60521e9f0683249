"""One step of a variant of the cell: the recurrent product, then its elementwise part; with layer norm, whole rows.

A plain cell is computed in the registers of its product. A variant's pre-activations pass through memory, which
stays in the L1 cache: see `lf_variant_forward`.
"""

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


cdef void variant_rows(Job *job, const lf_cell_forward *step, Py_ssize_t row_at_t, Py_ssize_t first_row,
                       int part) noexcept nogil:
    """A step that is set up for a plain cell; `row_at_t`: rows of earlier times, `first_row`: of the batch."""
    cdef Py_ssize_t H = job.H, P = job.P, panel = 4 * job.k.lanes, row = row_at_t + first_row
    cdef Py_ssize_t kept = row if job.training else first_row  # where the job has what it keeps in training
    cdef lf_variant_forward v = job.variant.step
    cdef const NormJob *norm = &job.variant.norm
    cdef lf_product p
    cdef char *masked
    cdef char *normal_hh
    cdef char *normal_c
    v.step, v.x = step, step.x
    v.a = <char *>at(<const char *>v.a, kept * v.a_row, job)
    v.h_prev, v.h_prev_row = step.h, step.h_row
    if v.zone_h != NULL:
        v.zone_h = at(<const char *>v.zone_h, row * v.zone_row, job)
    if v.zone_c != NULL:
        v.zone_c = at(<const char *>v.zone_c, row * v.zone_row, job)

    p.rows, p.depth, p.columns = step.rows, P, panel * job.panels
    p.a, p.a_row, p.a_step = step.h, step.h_row, 1
    if job.variant.recurrent != NULL:
        masked = <char *>at(job.variant.masked_h, (part * job.rows.B + first_row) * P, job)
        job.k.multiply_add(masked, P, strided(<const char *>step.h, step.h_row),
                           strided(at(job.variant.recurrent, first_row * P, job), P), strided(NULL, 0), step.rows, P)
        p.a, p.a_row = masked, P
    p.b = step.w
    p.init, p.accumulate, p.stream = NULL, False, False
    p.out, p.out_row, p.out_panel = v.a, v.a_row, panel
    p.first_panel, p.last_panel = step.first_panel, step.last_panel
    if not job.variant.layer_norm:
        job.k.product(&p)
        job.k.variant_forward(&v)
        return

    normal_hh = <char *>at(norm.hh, kept * 4 * H, job)
    normal_c = <char *>at(norm.c, kept * H, job)
    p.columns, p.out, p.out_row = 4 * H, normal_hh, 4 * H
    p.first_panel, p.last_panel = 0, (4 * H + panel - 1) // panel
    job.k.product(&p)
    job.k.normalise(normal_hh, 4 * H, <char *>at(norm.scale_hh, kept, job), step.rows, 4 * H)
    job.k.multiply_add(v.a, v.a_row, strided(<const char *>step.x, 4 * H), strided(norm.w_ih, 0),
                       strided(norm.bias, 0), step.rows, 4 * H)
    job.k.multiply_add(v.a, v.a_row, strided(normal_hh, 4 * H), strided(norm.w_hh, 0),
                       strided(<const char *>v.a, v.a_row), step.rows, 4 * H)
    v.parts, v.n, v.x = LF_CELL, normal_c, NULL
    job.k.variant_forward(&v)
    job.k.normalise(normal_c, H, <char *>at(norm.scale_c, kept, job), step.rows, H)
    v.parts, v.n = LF_OUTPUT, <char *>at(norm.u, first_row * H, job)
    job.k.multiply_add(v.n, H, strided(normal_c, H), strided(norm.w_c, 0), strided(norm.b_c, 0), step.rows, H)
    job.k.variant_forward(&v)
