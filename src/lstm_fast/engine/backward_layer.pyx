"""One layer and direction, backward through a chunk of time.

The steps run one after the other, from the last, and leave the gradients of the pre-activations, dgates.
Then come the products over all steps, which do not depend on one another:

    dx = dgates w_ih    dw_ih += dgates' x    dw_hh += dgates' h(t-1)    db += sum of dgates

These are the phases of a chunk: its steps; dx, the sums and packing x; dw_ih; packing h; dw_hh; and with projection
packing o tanh(c) and dw_hr. Threads meet after each, or where each packs for itself only where it needs the others.
"""

from libc.string cimport memcpy

from lstm_fast.engine.backward_job cimport (OF_HIDDEN, OF_INPUT, OF_UNPROJECTED, BackwardJob, Chunk, Scratch, chunk_of,
                                            dy_at, operands_at, panels_of, product_of, product_of_dy, round_dy,
                                            round_gates, time_of)
from lstm_fast.engine.backward_variant cimport masked_product, variant_gradients, variant_rows
from lstm_fast.engine.batch cimport Rows, Run, next_run, rows_at, rows_before, share_rows
from lstm_fast.engine.memory cimport at, strided
from lstm_fast.engine.plan cimport cache_of_core, share
from lstm_fast.engine.runtime.kernels cimport (lf_barrier_wait, lf_cell_backward, lf_counter_set, lf_counter_wait,
                                               lf_product)


# Large gradients of few rows, to which nothing more is added, are written past the caches: there they would take the
# place of the weights, after being read from memory for nothing. (1, 1, 512, 512) takes 542 us instead of 770,
# (50, 1, 512, 512) 8.8 ms instead of 9.2. Two threads write them faster into their two L2 caches, if these hold them:
# past caches of 1 MiB (1, 1, 512, 512) takes two 300 to 450 us instead of 450 to 510 (one 450).
cdef Py_ssize_t STREAMED_ROWS = 64
cdef Py_ssize_t STREAMED_BYTES = 2 << 20


cdef void step_rows(BackwardJob *job, const Scratch *scratch, Py_ssize_t t, Py_ssize_t origin, const char *later,
                    Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts) noexcept nogil:
    """The rows first_row .. end_row - 1 at time t.

    `later` is of_hh of the step after it for the job's row 0; NULL: the row has none. `origin` is the row with which
    the chunk begins.
    """
    cdef Py_ssize_t H = job.H, P = job.P, rows = end_row - first_row, row, column, columns
    cdef Py_ssize_t row_at_t = rows_before(job.kept, t) + first_row, before
    cdef Py_ssize_t in_chunk = rows_before(job.rows, t) + first_row - origin
    cdef lf_cell_backward step
    cdef lf_product p
    p = product_of(job, rows, later, 4 * H if later != NULL else 0, job.columns_hh, P, part, parts)
    if later != NULL:
        p.a = operands_at(job, later, first_row * 4 * H)
        if job.dy != NULL:
            p.init, p.init_row = dy_at(job, t, first_row), job.dy_b
    else:
        column = p.first_panel * 4 * job.k.lanes
        columns = min(P, p.end_panel * 4 * job.k.lanes) - column
        if job.dy != NULL and columns > 0:
            for row in range(first_row, end_row):
                job.k.add_rows(at(job.dh, row * P + column, job.k), at(dy_at(job, t, row), column, job.k), 0, 1,
                               columns)
        p.init, p.init_row = at(job.dh, first_row * P, job.k), P
    before = first_row  # c0
    if t != time_of(job, 0) and first_row < rows_at(job.rows, t + 1 if job.reverse else t - 1):
        before += job.kept.B + rows_before(job.kept, t + 1 if job.reverse else t - 1)
    if job.variant != NULL:
        variant_rows(job, scratch, &p, row_at_t, in_chunk, before, first_row, later != NULL, part, parts)
        return
    if job.columns_hr != NULL:
        p.out = at(scratch.dy, in_chunk * P, job.k)
        job.of.product(&p)
        round_dy(job, scratch, in_chunk, &p)
        lf_barrier_wait(&job.barrier, parts)
        p = product_of_dy(job, scratch, rows, in_chunk, part, parts)
    step.product = p
    step.gates = at(job.gates, row_at_t * 4 * job.padded, job.k)
    step.c_prev = at(job.c, before * job.padded, job.k)
    step.c = at(job.c, (job.kept.B + row_at_t) * job.padded, job.k)
    step.dc = at(job.dc, first_row * job.padded, job.k)
    step.dgates = at(scratch.dgates, in_chunk * 4 * H, job.k)
    step.unprojected_h = at(scratch.hidden, in_chunk * H, job.k) if job.columns_hr != NULL else NULL
    job.of.cell_backward(&step)
    round_gates(job, operands_at(job, scratch.of_hh, in_chunk * 4 * H), <const char *>step.dgates, rows, &p)


cdef void step_back(BackwardJob *job, const Scratch *scratch, Py_ssize_t s, Py_ssize_t origin, const char *later,
                    Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts) noexcept nogil:
    """Step s for some rows and one of `parts` shares of the units; in a ragged batch some rows begin here."""
    cdef Py_ssize_t t = time_of(job, s), after = 0, before = rows_that_go_on(job, s), row = first_row, end
    end_row = min(end_row, rows_at(job.rows, t))
    if s < job.rows.T - 1:
        after = rows_at(job.rows, time_of(job, s + 1))
    # Rows with an equal past and future: those that go on, those that begin here, those of one step only.
    while row < end_row:
        end = end_row
        if row < after:
            end = min(end, after)
        if row < before:
            end = min(end, before)
        step_rows(job, scratch, t, origin, later if row < after else NULL, row, end, part, parts)
        row = end


cdef Py_ssize_t rows_that_go_on(const BackwardJob *job, Py_ssize_t s) noexcept nogil:
    """How many rows of step s were running in the step before, forward."""
    return 0 if s == 0 else min(rows_at(job.rows, time_of(job, s)), rows_at(job.rows, time_of(job, s - 1)))


cdef void end_rows(BackwardJob *job, const Scratch *scratch, Py_ssize_t s, Py_ssize_t origin, Py_ssize_t first_row,
                   Py_ssize_t end_row, int part, int parts) noexcept nogil:
    """After step s, the gradients of the initial state of those rows that forward began with it."""
    cdef Py_ssize_t t = time_of(job, s), H = job.H, row
    cdef lf_product p
    first_row, end_row = max(first_row, rows_that_go_on(job, s)), min(end_row, rows_at(job.rows, t))
    if first_row < end_row:
        row = rows_before(job.rows, t) - origin + first_row
        p = product_of(job, end_row - first_row, operands_at(job, scratch.of_hh, row * 4 * H), 4 * H, job.columns_hh,
                       job.P, part, parts)
        p.out = at(job.dh, first_row * job.P, job.k)
        p.accumulate = job.variant != NULL and job.variant.step.zone_h != NULL  # there is what went past the cell
        masked_product(job, &p, first_row)


cdef const char *later_dgates(const BackwardJob *job, const Scratch *scratch, Py_ssize_t n, Py_ssize_t s,
                              Py_ssize_t origin) noexcept nogil:
    """Where those of the step after s are, which is a step of chunk n."""
    if s == job.bounds[n] - 1:
        return job.dgates_after
    return operands_at(job, scratch.of_hh, (rows_before(job.rows, time_of(job, s + 1)) - origin) * 4 * job.H)


cdef void input_gradient(const BackwardJob *job, char *dx, const char *dgates, Py_ssize_t rows, int part,
                         int parts) noexcept nogil:
    """dx of some rows, whose dgates are given as operands: one of `parts` shares of them."""
    cdef Py_ssize_t I = job.I, H = job.H, row, end_row
    cdef lf_product p
    if job.dx == NULL:
        return
    share(rows, part, parts, &row, &end_row)
    dgates = operands_at(job, dgates, row * 4 * H)
    dx = at(dx, row * I, job.k)
    if job.gemm != NULL:
        job.gemm(False, False, <int>(end_row - row), <int>I, <int>(4 * H), dgates, <int>(4 * H), job.w_ih, <int>I,
                 dx, <int>I, False)
    else:
        p = product_of(job, end_row - row, dgates, 4 * H, job.columns_ih, I, 0, 1)
        p.out = dx
        job.of.product(&p)


cdef void put_input_gradient(const BackwardJob *job, const char *dx, Py_ssize_t first_t, Py_ssize_t end_t, int part,
                             int parts) noexcept nogil:
    """Put what this thread has computed of a band's dx, at the times first_t .. end_t - 1, where the batch has it."""
    cdef Py_ssize_t t, row, size = job.I * job.k.itemsize, origin = rows_before(job.rows, first_t)
    cdef Py_ssize_t first, end, low, high
    if job.dx == NULL:
        return
    share(rows_before(job.rows, end_t) - origin, part, parts, &first, &end)
    for t in range(first_t, end_t):
        row = rows_before(job.rows, t) - origin
        low, high = max(first, row), min(end, row + rows_at(job.rows, t))
        if low < high:
            memcpy(job.dx + (rows_before(job.batch, t) + low - row) * size, dx + low * size, (high - low) * size)


cdef void own_input_gradient(const BackwardJob *job, const char *dgates, Py_ssize_t origin, Py_ssize_t first_t,
                             Py_ssize_t end_t, int part, int parts) noexcept nogil:
    """dx of the chunk's times first_t .. end_t - 1, of the rows of the batch whose dgates this thread has computed."""
    cdef Py_ssize_t I = job.I, H = job.H, first_row, end_row, row, step, n = 0
    cdef lf_product p
    cdef Run run
    if job.dx == NULL:
        return
    share_rows(job.rows, first_t, end_t, part, parts, &first_row, &end_row)
    while next_run(job.batch, first_t, end_t, first_row, end_row, n, &run):
        if run.step > 1:  # all times of a row
            row, step = run.start - rows_before(job.batch, first_t), job.rows.B
        else:
            row, step = rows_before(job.rows, first_t + n) - origin + first_row, 1
        p = product_of(job, run.count, operands_at(job, dgates, row * 4 * H), 4 * H, job.columns_ih, I, 0, 1)
        p.a_row, p.out_row = step * 4 * H, run.step * I
        p.out = at(job.dx, run.start * I, job.k)
        job.of.product(&p)
        n += 1


cdef void pack_right(const BackwardJob *job, char *packed, const char *m, Py_ssize_t rows, Py_ssize_t columns, int part,
                     int parts) noexcept nogil:
    """Pack m (rows, columns) for `outer`: one of `parts` shares of it."""
    cdef Py_ssize_t first_panel, end_panel
    if job.gemm == NULL:
        share(panels_of(columns, job.k), part, parts, &first_panel, &end_panel)
        job.of.pack_columns(packed, m, columns, rows, columns, first_panel, end_panel, 0, rows)


cdef void pack_times(const BackwardJob *job, char *packed, const char *m, const Rows *of_m, Py_ssize_t first_t,
                     Py_ssize_t end_t, Py_ssize_t columns, int part, int parts) noexcept nogil:
    """The same of an array with these rows, whose row 0 is the job's first one at time first_t."""
    cdef Py_ssize_t t, row, first_panel, end_panel, origin = rows_before(job.rows, first_t)
    cdef Py_ssize_t rows = rows_before(job.rows, end_t) - origin
    if job.rows.B == of_m.B:
        pack_right(job, packed, m, rows, columns, part, parts)
        return
    share(panels_of(columns, job.k), part, parts, &first_panel, &end_panel)
    for t in range(first_t, end_t):
        row = rows_before(job.rows, t) - origin
        job.of.pack_columns(packed, at(m, (rows_before(of_m, t) - rows_before(of_m, first_t) - row) * columns, job.k),
                            columns, rows, columns, first_panel, end_panel, row, row + rows_at(job.rows, t))


cdef void outer(const BackwardJob *job, const char *packed, bint accumulate, char *dw, Py_ssize_t dw_rows,
                const char *d, Py_ssize_t d_row, const char *m, Py_ssize_t rows, Py_ssize_t columns, int part,
                int parts) noexcept nogil:
    """dw (dw_rows, columns) = or += d (rows, dw_rows)' m (rows, columns): one of `parts` shares of dw's rows.

    d is operands, d_row from one row to the next, and m is packed.

    A row of dw is summed over `rows` in order, whoever does it: the bits do not depend on the threads.
    """
    cdef Py_ssize_t first, end, size = dw_rows * columns * <Py_ssize_t>job.k.itemsize
    cdef lf_product p
    share(dw_rows, part, parts, &first, &end)
    if job.gemm != NULL:
        job.gemm(True, False, <int>(end - first), <int>columns, <int>rows, at(d, first, job.k), <int>d_row,
                 m, <int>columns, at(dw, first * columns, job.k), <int>columns, accumulate)
        return
    p = product_of(job, end - first, operands_at(job, d, first), rows, packed, columns, 0, 1)
    p.a_row, p.a_step = 1, d_row
    p.out = at(dw, first * columns, job.k)
    p.accumulate = accumulate
    p.stream = (not accumulate and rows <= STREAMED_ROWS and size >= STREAMED_BYTES
                and (parts == 1 or size > parts * cache_of_core))
    job.of.product(&p)


cdef const char *hidden_before(const BackwardJob *job, const Scratch *scratch, Py_ssize_t first_t, Py_ssize_t end_t,
                               int part, int parts) noexcept nogil:
    """h(t-1) of the times first_t .. end_t - 1, (rows, P): where that has to be gathered, one of `parts` shares of it.

    Without parts it is only told where it is.
    """
    cdef Py_ssize_t t, first, end, row_size = job.P * job.k.itemsize, running, before
    cdef const char *start = job.h  # of h0, and of y
    cdef const char *y = job.h + job.batch.B * row_size
    cdef const char *recurrent = NULL
    if job.variant != NULL:
        recurrent = job.variant.recurrent
    if job.rows.counts == NULL and recurrent == NULL:
        return job.h + (first_t + job.reverse) * job.kept_h.B * row_size
    if job.reverse:
        start, y = job.h + job.batch.total * row_size, job.h
    cdef char *out = scratch.h_before
    if parts == 0:
        return out
    share(end_t - first_t, part, parts, &first, &end)
    for t in range(first_t + first, first_t + end):
        before, running = t + 1 if job.reverse else t - 1, 0
        out = scratch.h_before + (rows_before(job.rows, t) - rows_before(job.rows, first_t)) * row_size
        if 0 <= before < job.rows.T:
            running = min(rows_at(job.rows, t), rows_at(job.rows, before))
            memcpy(out, y + rows_before(job.batch, before) * row_size, running * row_size)
        memcpy(out + running * row_size, start + running * row_size,
               (rows_at(job.rows, t) - running) * row_size)
        if recurrent != NULL:
            job.k.multiply_add(out, job.P, strided(out, job.P), strided(recurrent, job.P), strided(NULL, 0),
                               rows_at(job.rows, t), job.P)
    return scratch.h_before


cdef void dx_of_steps(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, Py_ssize_t low,
                      Py_ssize_t high, int part, int parts) noexcept nogil:
    """dx of the steps low .. high - 1 of a chunk: one of `parts` shares of its rows."""
    cdef Py_ssize_t row = rows_before(job.rows, time_of(job, high - 1 if job.reverse else low))
    cdef Py_ssize_t end = rows_before(job.rows, time_of(job, low if job.reverse else high - 1) + 1)
    input_gradient(job, at(job.dx, row * job.I, job.k),
                   operands_at(job, scratch.of_ih, (row - chunk.origin) * 4 * job.H), end - row, part, parts)


cdef void run_steps(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int part, int parts) noexcept nogil:
    """The steps of chunk n, from the last; in a pipeline with dx after each block of them."""
    cdef Chunk chunk = chunk_of(job, n)
    cdef Py_ssize_t T = job.rows.T, s = chunk.high, high, until, first_row = 0, end_row = job.rows.B
    cdef int step_part = part, step_parts = parts
    if job.by_rows:
        share_rows(job.rows, chunk.first_t, chunk.end_t, part, parts, &first_row, &end_row)
        step_part, step_parts = 0, 1
    while s > chunk.low:
        high, until = s, max(chunk.low, s - job.block)
        if job.above != NULL:
            lf_counter_wait(job.above, T - until, job.waited)
        while s > until:
            s -= 1
            step_back(job, scratch, s, chunk.origin, later_dgates(job, scratch, n, s, chunk.origin), first_row, end_row,
                      step_part, step_parts)
            lf_barrier_wait(&job.barrier, step_parts)
            end_rows(job, scratch, s, chunk.origin, first_row, end_row, step_part, step_parts)
        if job.pipelined:
            lf_barrier_wait(&job.barrier, parts)
            dx_of_steps(job, scratch, &chunk, until, high, part, parts)
            lf_barrier_wait(&job.barrier, parts)
        if part == 0:
            lf_counter_set(&job.done, T - until)


cdef void keep_first_step(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk) noexcept nogil:
    """Its dgates, for the chunk before this one."""
    cdef Py_ssize_t t = time_of(job, chunk.low), row = rows_before(job.rows, t) - chunk.origin
    if chunk.low > 0:
        memcpy(job.dgates_after, operands_at(job, scratch.of_hh, row * 4 * job.H),
               rows_at(job.rows, t) * 4 * job.H * job.of.operand_size)


cdef void add_vectors(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, int part,
                      int parts) noexcept nogil:
    """Add a chunk's terms to the gradients of all that is no matrix: one of `parts` shares of them."""
    cdef Py_ssize_t first, end
    if job.db != NULL:
        share(4 * job.H, part, parts, &first, &end)
        job.k.add_rows(at(job.db, first, job.k), at(scratch.dgates, first, job.k), 4 * job.H, chunk.rows, end - first)
    if job.variant != NULL:
        variant_gradients(job, scratch, chunk.rows, part, parts)


cdef const char *operand_of(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk,
                            int operand) noexcept nogil:
    """Where the right-hand side of a gradient begins."""
    if operand == OF_INPUT:
        return at(job.x, rows_before(job.batch, chunk.first_t) * job.I, job.k)
    if operand == OF_HIDDEN:
        return hidden_before(job, scratch, chunk.first_t, chunk.end_t, 0, 0)
    return scratch.hidden


cdef void pack_operand(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, int operand, char *packed,
                       int part, int parts) noexcept nogil:
    """Pack the right-hand side of a gradient: one of `parts` shares of it."""
    cdef const char *m = operand_of(job, scratch, chunk, operand)
    if operand == OF_UNPROJECTED and job.columns_hr == NULL:
        return
    if operand == OF_UNPROJECTED or m == scratch.h_before:
        pack_right(job, packed, m, chunk.rows, job.H if operand == OF_UNPROJECTED else job.P, part, parts)
    else:
        pack_times(job, packed, m, job.batch if operand == OF_INPUT else job.kept_h, chunk.first_t, chunk.end_t,
                   job.I if operand == OF_INPUT else job.P, part, parts)


cdef void add_product(const BackwardJob *job, const Scratch *scratch, const Chunk *chunk, int operand,
                      const char *packed, int part, int parts) noexcept nogil:
    """Add a chunk's product to the gradient of a matrix: one of `parts` shares of it."""
    cdef const char *m = operand_of(job, scratch, chunk, operand)
    cdef bint accumulate = job.accumulate or chunk.n > 0
    cdef Py_ssize_t H = job.H
    if operand == OF_INPUT:
        outer(job, packed, accumulate, job.dw_ih, 4 * H, scratch.of_ih, 4 * H, m, chunk.rows, job.I, part, parts)
    elif operand == OF_HIDDEN:
        outer(job, packed, accumulate, job.dw_hh, 4 * H, scratch.of_hh, 4 * H, m, chunk.rows, job.P, part, parts)
    elif job.columns_hr != NULL:
        outer(job, packed, accumulate, job.dw_hr, job.P, scratch.of_dy, job.dy_row, m, chunk.rows, H, part, parts)


cdef void run_phase(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int phase, int part,
                    int parts) noexcept nogil:
    """One of `parts` shares of a phase of chunk n."""
    cdef Chunk chunk = chunk_of(job, n)
    cdef int operand = (phase - 1) // 2, packer = part, packers = parts
    cdef char *packed
    if phase == 0:
        run_steps(job, scratch, n, part, parts)
        return
    if phase == 1:
        if job.dx_by_rows:
            own_input_gradient(job, scratch.of_ih, chunk.origin, chunk.first_t, chunk.end_t, part, parts)
        elif scratch.dx != NULL:
            input_gradient(job, scratch.dx, scratch.of_ih, chunk.rows, part, parts)
            put_input_gradient(job, scratch.dx, chunk.first_t, chunk.end_t, part, parts)
        elif not job.pipelined:
            dx_of_steps(job, scratch, &chunk, chunk.low, chunk.high, part, parts)
        hidden_before(job, scratch, chunk.first_t, chunk.end_t, part, parts)
        add_vectors(job, scratch, &chunk, part, parts)
        if part == 0:
            keep_first_step(job, scratch, &chunk)
    packed = scratch.packed[operand] + part * job.packed_size
    if job.packed_size:
        packer, packers = 0, 1
    if phase % 2:
        pack_operand(job, scratch, &chunk, operand, packed, packer, packers)
    else:
        add_product(job, scratch, &chunk, operand, packed, part, parts)


cdef void run_unit(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, Py_ssize_t u, int part,
                   int parts) noexcept nogil:
    """A share of unit u of chunk n: of its steps, what ends them, and the other phases.

    Nobody waits here: all shares of the unit before have to be done. A step ends what the one before it has left.
    """
    cdef Py_ssize_t s = job.bounds[n] - 1 - u, low = job.bounds[n + 1]
    cdef Py_ssize_t origin = rows_before(job.rows, time_of(job, job.bounds[n] - 1 if job.reverse else low))
    if u > 0 and s >= low - 1:
        end_rows(job, scratch, s + 1, origin, 0, job.rows.B, part, parts)
    if s >= low:
        step_back(job, scratch, s, origin, later_dgates(job, scratch, n, s, origin), 0, job.rows.B, part, parts)
    elif s < low - 1:
        run_phase(job, scratch, n, <int>(low - 1 - s), part, parts)


cdef void run_chunk(BackwardJob *job, const Scratch *scratch, Py_ssize_t n, int part, int parts) noexcept nogil:
    """One thread's share of chunk n."""
    cdef int phase, phases = PHASES if job.columns_hr != NULL else PHASES - 2
    # Who packs for itself needs of the others their steps, and h where they have gathered it.
    cdef bint alone = job.packed_size > 0
    cdef bint gathered = job.rows.counts != NULL or (job.variant != NULL and job.variant.recurrent != NULL)
    for phase in range(phases):
        run_phase(job, scratch, n, phase, part, parts)
        if not alone or phase == 0 or (phase == 1 and gathered) or phase == phases - 1:
            lf_barrier_wait(&job.barrier, parts)
