"""One layer and direction, forward through a chunk of time: input projection, then step by step."""

from libc.string cimport memcpy

from lstm_fast.engine.batch cimport Run, next_run, rows_at, rows_before
from lstm_fast.engine.forward_job cimport ForwardJob, c_row, first_time, gates_row, is_apart, place_in_chunk, y_at
from lstm_fast.engine.forward_variant cimport normalise_input, variant_rows
from lstm_fast.engine.matrix cimport rounded
from lstm_fast.engine.memory cimport at
from lstm_fast.engine.plan cimport share
from lstm_fast.engine.runtime.kernels cimport lf_barrier_wait, lf_cell_forward, lf_product


cdef void project(ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_row, Py_ssize_t end_row,
                  Py_ssize_t first_panel, Py_ssize_t end_panel, char *projected, char *operands) noexcept nogil:
    """x w_ih' + bias of the times first_t .. end_t - 1 into the chunk's buffer, for some rows and panels."""
    cdef Py_ssize_t panel = 4 * job.k.lanes, n = 0, first = rows_before(job.rows, first_t)
    cdef Py_ssize_t own = first_row * job.chunk_steps
    cdef lf_product p
    cdef Run run
    cdef bint apart = is_apart(job)
    p.depth = job.I
    p.columns = panel * job.panels
    p.a_step = 1
    p.b = job.w_ih
    p.init, p.init_row, p.init_panel = job.bias, 0, panel
    p.accumulate = p.stream = False
    p.out_panel = panel * job.chunk_rows
    p.first_panel, p.end_panel = first_panel, end_panel
    if job.variant != NULL and job.variant.layer_norm:  # whole rows in columns
        p.columns, p.out_panel = 4 * job.H, panel
    if apart and job.own_x != NULL:
        p.rows = gather(job, at(job.own_x, own * job.I, job.k), first_t, end_t, first_row, end_row)
        if p.rows > 0:
            project_rows(job, &p, at(job.own_x, own * job.I, job.k), 1, projected, own, 1, operands)
        return
    while next_run(job.rows, first_t, end_t, first_row, end_row, n, &run):
        p.rows = run.count
        project_rows(job, &p, at(job.x, run.start * job.I, job.k), run.step, projected,
                     own + run.own_start if apart else run.start - first, run.own_step if apart else run.step, operands)
        n += 1


cdef Py_ssize_t gather(const ForwardJob *job, char *x, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_row,
                       Py_ssize_t end_row) noexcept nogil:
    """Copy the input of a thread's rows of a ragged batch, few of which follow one another; returns how many."""
    cdef Py_ssize_t t, rows, copied = 0, size = job.I * <Py_ssize_t>job.k.itemsize
    for t in range(first_t, end_t):
        rows = max(0, min(end_row, rows_at(job.rows, t)) - first_row)
        memcpy(x + copied * size, job.x + (rows_before(job.rows, t) + first_row) * size, rows * size)
        copied += rows
    return copied


cdef void project_rows(const ForwardJob *job, lf_product *p, const char *x, Py_ssize_t x_step, char *projected,
                       Py_ssize_t row, Py_ssize_t row_step, char *operands) noexcept nogil:
    """Project p.rows rows of input, each x_step after the one before, to the chunk's rows row, row + row_step ..."""
    cdef Py_ssize_t row_size = job.step.projected_row
    p.a, p.a_row = x, x_step * job.I
    if job.rounds_x:
        p.a = rounded(job.of_x, operands, p.a, &p.a_row, p.rows, job.I)
    p.out, p.out_row = at(projected, row * row_size, job.k), row_step * row_size
    job.of_x.product(p)


cdef void project_blas(ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_panel,
                       Py_ssize_t end_panel, char *projected) noexcept nogil:
    """The same through BLAS, into rows (i, f, g, o) of 4H, for all rows."""
    cdef Py_ssize_t H = job.H, row, gate, gates = 4, column
    cdef Py_ssize_t first = first_panel * job.k.lanes, units = min(H, end_panel * job.k.lanes) - first
    cdef Py_ssize_t start = rows_before(job.rows, first_t), rows = rows_before(job.rows, end_t) - start
    if units == H:
        units, gates = 4 * H, 1
    for gate in range(gates):
        column = gate * H + first
        for row in range(rows):
            memcpy(at(projected, row * 4 * H + column, job.k), at(job.bias, column, job.k),
                   units * job.k.itemsize)
        job.gemm(False, True, <int>rows, <int>units, <int>job.I, at(job.x, start * job.I, job.k),
                 <int>job.I, at(job.w_ih, column * job.I, job.k), <int>job.I,
                 at(projected, column, job.k), <int>(4 * H), True)


cdef void project_hidden(ForwardJob *job, char *y, Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts,
                         char *operands) noexcept nogil:
    """y(t) = (o tanh(c)) w_hr' for some rows; one of `parts` shares of the columns."""
    cdef lf_product p
    cdef Py_ssize_t panel = 4 * job.k.lanes
    p.rows = end_row - first_row
    p.depth = job.H
    p.columns = job.P
    p.a_row, p.a_step = job.H, 1
    p.a = rounded(job.of_h, operands, at(job.unprojected_h, first_row * job.H, job.k), &p.a_row, p.rows, job.H)
    p.b = job.w_hr
    p.init, p.accumulate, p.stream = NULL, False, False
    p.out = y
    p.out_row, p.out_panel = job.y_b, panel
    share((job.P + panel - 1) // panel, part, parts, &p.first_panel, &p.end_panel)
    job.of_h.product(&p)


cdef void step_rows(ForwardJob *job, lf_cell_forward *step, const char *projected, Py_ssize_t t, Py_ssize_t before,
                    Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts, char *operands) noexcept nogil:
    """The rows first_row .. end_row - 1 at time t, after that at time `before`; -1: their first step.

    `projected` is that of first_row.
    """
    step.rows = end_row - first_row
    step.projected = projected
    if before < 0:
        step.h, step.h_row = at(job.h0, first_row * job.P, job.k), job.P
        step.c_prev = at(<const char *>job.step.c, c_row(job, -1, first_row) * step.c_row, job.k)
    else:
        step.h, step.h_row = y_at(job, before, first_row), job.y_b
        step.c_prev = at(<const char *>job.step.c, c_row(job, before, first_row) * step.c_row, job.k)
    step.c = at(<const char *>job.step.c, c_row(job, t, first_row) * step.c_row, job.k)
    if job.training:
        step.gates = at(<const char *>job.step.gates, 4 * gates_row(job, t, first_row) * step.c_row, job.k)
    if job.w_hr == NULL:
        step.y = y_at(job, t, first_row)
    else:
        step.y = at(job.unprojected_h, first_row * job.H, job.k)
    if job.variant == NULL:
        step.h = rounded(job.of_h, operands, step.h, &step.h_row, step.rows, job.P)
        job.of_h.cell_forward(step)
    else:
        variant_rows(job, step, rows_before(job.rows, t), first_row, part, parts, operands)


cdef Py_ssize_t take_step(ForwardJob *job, lf_cell_forward *step, Py_ssize_t s, Py_ssize_t first_t, char *projected,
                          Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts,
                          char *operands) noexcept nogil:
    """Step number s, of some rows and of the panels of `step`; returns the row after the last one that has it.

    The chunk's projected input begins with first_t.
    """
    cdef Py_ssize_t T = job.rows.T, t = T - 1 - s if job.reverse else s, before = t + 1 if job.reverse else t - 1
    cdef Py_ssize_t end = max(first_row, min(end_row, rows_at(job.rows, t)))
    cdef Py_ssize_t running = first_row if s == 0 else max(first_row, min(end, rows_at(job.rows, before)))
    cdef Py_ssize_t x_row = step.projected_row, row = first_row, stop
    cdef const char *x = at(projected, place_in_chunk(job, first_t, t, first_row, end_row) * x_row, job.k)
    step.descending = s & 1  # begin with the weights that the step before read last: some are in a nearer cache
    while row < end:
        stop = running if row < running else end
        if row < job.border:
            stop = min(stop, job.border)
        step_rows(job, step, at(x, (row - first_row) * x_row, job.k), t, before if row < running else -1, row, stop,
                  part, parts, operands)
        row = stop
    return end


cdef void copy_x(const ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, int part, int parts) noexcept nogil:
    """One of `parts` shares of x of the times first_t .. end_t - 1, for backward; not of a ragged batch."""
    cdef Py_ssize_t first, end, row = job.rows.B * job.I
    share(end_t - first_t, part, parts, &first, &end)
    memcpy(at(job.kept_x, (first_t + first) * row, job.k), at(job.x, (first_t + first) * row, job.k),
           (end - first) * row * job.k.itemsize)


cdef void copy_y(const ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_row,
                 Py_ssize_t end_row) noexcept nogil:
    """Some rows of y at the times first_t .. end_t - 1, for the user.

    They end in the middle, where what a core fetches ahead is its own: see PAGE in forward.pyx.
    """
    cdef Py_ssize_t t, n, row, rows, half, start
    for t in range(first_t, end_t):
        start = t * job.users_t if job.rows.offsets == NULL else job.rows.offsets[t] * job.users_b
        rows = max(0, min(end_row, rows_at(job.rows, t)) - first_row)
        half = rows - rows // 2
        for n in range(rows):
            row = first_row + (n if n < half else rows - 1 - (n - half))
            memcpy(at(job.users_y, start + row * job.users_b, job.k), y_at(job, t, row), job.P * job.k.itemsize)


cdef Py_ssize_t chunk_end(const ForwardJob *job, Py_ssize_t first_step, Py_ssize_t end_step, Py_ssize_t first_row,
                          Py_ssize_t end_row) noexcept nogil:
    """The step after a chunk of a thread with these rows that begins with `first_step`."""
    cdef Py_ssize_t T = job.rows.T, s = first_step, room = (end_row - first_row) * job.chunk_steps
    if job.rows.counts == NULL:
        return min(end_step, first_step + job.chunk_steps)
    while s < end_step:
        room -= max(0, min(end_row, rows_at(job.rows, T - 1 - s if job.reverse else s)) - first_row)
        if room < 0:
            break
        s += 1
    return s


cdef void mark_chunks(const ForwardJob *job, Py_ssize_t *chunks) noexcept nogil:
    """Say with which step the chunk of each step begins."""
    cdef Py_ssize_t s = 0, first, end
    while s < job.rows.T:
        first, end = s, chunk_end(job, s, job.rows.T, 0, job.rows.B)
        while s < end:
            chunks[s] = first
            s += 1


cdef char *projected_at(const ForwardJob *job, Py_ssize_t first_t, char *projected) noexcept nogil:
    """Where the projected input of a chunk is that begins with time first_t: in `projected`, unless it is kept."""
    if job.variant != NULL and job.variant.norm.ih != NULL:
        return at(job.variant.norm.ih, rows_before(job.rows, first_t) * 4 * job.H, job.k)
    return projected


cdef void project_chunk(ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, char *projected, Py_ssize_t first_row,
                        Py_ssize_t end_row, int part, int parts, char *operands) noexcept nogil:
    """Project the input of a chunk, some rows of it, and one of `parts` shares of the units."""
    cdef Py_ssize_t first_panel, end_panel, first, end
    projected = projected_at(job, first_t, projected)
    share(job.panels, part, parts, &first_panel, &end_panel)
    if job.gemm != NULL:
        project_blas(job, first_t, end_t, first_panel, end_panel, projected)
    else:
        project(job, first_t, end_t, first_row, end_row, first_panel, end_panel, projected, operands)
    if job.variant != NULL and job.variant.layer_norm and not job.variant.norm.of_gates:
        lf_barrier_wait(&job.barrier, parts)
        share(end_t - first_t, part, parts, &first, &end)
        normalise_input(job, first_t, first_t + first, first_t + end, first_row, end_row, projected)


cdef void step_chunk(ForwardJob *job, Py_ssize_t first_step, Py_ssize_t end_step, char *projected,
                     Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts, char *operands) noexcept nogil:
    """The same of its steps."""
    cdef lf_cell_forward step = job.step
    cdef Py_ssize_t T = job.rows.T, first_t = first_time(job, first_step, end_step), end_at_t, s
    projected = projected_at(job, first_t, projected)
    share(job.panels, part, parts, &step.first_panel, &step.end_panel)
    for s in range(first_step, end_step):
        end_at_t = take_step(job, &step, s, first_t, projected, first_row, end_row, part, parts, operands)
        if job.w_hr != NULL and end_at_t > first_row:
            lf_barrier_wait(&job.barrier, parts)
            project_hidden(job, y_at(job, T - 1 - s if job.reverse else s, first_row), first_row, end_at_t, part,
                           parts, operands)
        lf_barrier_wait(&job.barrier, parts)


cdef void run_chunk(ForwardJob *job, Py_ssize_t first_step, Py_ssize_t end_step, char *projected,
                    Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts) noexcept nogil:
    """One thread's share of a chunk: its own rows of all units, or its own units of all rows.

    `projected` has room for the projected input of `job.chunk_rows` rows: see `lf_cell_forward.x`.
    """
    cdef Py_ssize_t first_t = first_time(job, first_step, end_step), end_t = first_t + end_step - first_step
    cdef Py_ssize_t first, end
    cdef char *operands = job.operands + part * job.operands_size
    if job.kept_x != NULL:
        copy_x(job, first_t, end_t, part, parts)
    if job.by_rows:
        part, parts = 0, 1
    project_chunk(job, first_t, end_t, projected, first_row, end_row, part, parts, operands)
    step_chunk(job, first_step, end_step, projected, first_row, end_row, part, parts, operands)
    if job.users_y != NULL:
        share(end_t - first_t, part, parts, &first, &end)
        copy_y(job, first_t + first, first_t + end, first_row, end_row)


cdef void run_step(ForwardJob *job, Py_ssize_t s, const Py_ssize_t *chunks, char *projected, int part,
                   int parts) noexcept nogil:
    """One share of the units of one step, and before the first one of a chunk of its input: see mark_chunks.

    Nobody waits here: all shares of the step before have to be done.
    """
    cdef lf_cell_forward step = job.step
    cdef Py_ssize_t T = job.rows.T, end_step = s + 1, first_t
    cdef char *operands = job.operands + part * job.operands_size
    while end_step < T and chunks[end_step] == chunks[s]:
        end_step += 1
    first_t = first_time(job, chunks[s], end_step)
    share(job.panels, part, parts, &step.first_panel, &step.end_panel)
    if s == chunks[s]:
        project(job, first_t, T - s if job.reverse else end_step, 0, job.rows.B, step.first_panel, step.end_panel,
                projected, operands)
    take_step(job, &step, s, first_t, projected, 0, job.rows.B, part, parts, operands)
