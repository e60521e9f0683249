"""Forward of chained layers or of two directions: the time loop, its threads, and the input projection."""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.string cimport memcpy, memmove, memset

from ._engine import held_to_one_thread
from ._engine cimport (Buffer, Cell, Noise, Ragged, Rows, Tape, carve, copy_rows, data_or_null, layout_of_gates,
                       load_gemm, new_buffer, new_norm, rounded, rows_at, rows_before, rows_of, times)
from ._kernels cimport (LF_CELL, LF_OUTPUT, lf_barrier_init, lf_fpenv, lf_fpenv_enter, lf_fpenv_leave, lf_progress_set,
                        lf_progress_wait, lf_variant_forward)
from ._layer_forward cimport Job, NormJob, VariantJob, at, c_row, run_chunk, y_at
from ._threads cimport Place, Split, place, plan, team_size, used_threads

cnp.import_array()

# The projected input of a chunk of time steps stays in the L2 cache between projection and use, beside the weights of
# a few panels: half of the cache. Of fewer rows a chunk would wait for the weights of the projection.
cdef size_t CHUNK_BYTES = 1 << 19
cdef Py_ssize_t CHUNK_ROWS = 48
# In a pipeline of layers a call has so many chunks, unless they got fewer rows than a tile or two.
cdef Py_ssize_t PIPELINE_CHUNKS = 8
cdef Py_ssize_t LEAST_CHUNK_ROWS = 12
# Multiply-adds of one thread between two looks at signals: 0.1 to 0.3 s.
cdef double WORK_PER_SIGNAL_CHECK = 4e9


cdef struct Stage:
    # The jobs of a call: layers, each the input of the next, or else directions.
    Job *jobs
    int count
    bint chained
    int groups
    Py_ssize_t chunk_rows     # rows whose input is projected at once
    char *projected           # their projected input, one for each group
    size_t projected_size     # in bytes


cdef Py_ssize_t chunk_end(const Stage *stage, const Job *job, Py_ssize_t first_step,
                          Py_ssize_t last_step) noexcept nogil:
    """The step after a chunk that begins with `first_step`."""
    cdef Py_ssize_t T = job.rows.T, s = first_step, rows = 0
    if job.rows.counts == NULL:
        return min(last_step, first_step + max(1, stage.chunk_rows // job.rows.B))
    while s < last_step:
        rows += rows_at(job.rows, T - 1 - s if job.reverse else s)
        if rows > stage.chunk_rows and s > first_step:
            break
        s += 1
    return s


cdef void run_chain(const Stage *stage, Py_ssize_t first_job, Py_ssize_t last_job, Py_ssize_t first_step,
                    Py_ssize_t last_step, Place here) noexcept nogil:
    """One thread's share of some layers, which go through time together, a chunk after the other."""
    cdef char *projected = stage.projected + here.group * stage.projected_size
    cdef Py_ssize_t s = first_step, end, j
    cdef bint pipelined = stage.chained and stage.groups > 1
    while s < last_step:
        end = chunk_end(stage, &stage.jobs[first_job], s, last_step)
        for j in range(first_job, last_job):
            if pipelined and j > 0:
                lf_progress_wait(&stage.jobs[j - 1].done, end)
            run_chunk(&stage.jobs[j], s, end, projected, here.part, here.parts)
            if pipelined and here.part == 0:
                lf_progress_set(&stage.jobs[j].done, end)
        s = end


cdef void work(const Stage *stage, Py_ssize_t first_step, Py_ssize_t last_step, int thread,
               int threads) noexcept nogil:
    """One thread's share of some time steps of all jobs."""
    cdef lf_fpenv saved = lf_fpenv_enter()
    cdef Place here = place(thread, threads, stage.groups, stage.count)
    cdef Py_ssize_t j
    if stage.chained:
        run_chain(stage, here.first_job, here.last_job, first_step, last_step, here)
    else:
        for j in range(here.first_job, here.last_job):
            run_chain(stage, j, j + 1, first_step, last_step, here)
    lf_fpenv_leave(saved)


cdef void run(Stage *stage, Py_ssize_t first_step, Py_ssize_t last_step, int threads) noexcept:
    """Some time steps on `threads` threads, without the GIL."""
    cdef int j
    if threads == 1:
        with nogil:
            work(stage, first_step, last_step, 0, 1)
        return
    used_threads()
    for j in range(stage.count):
        lf_barrier_init(&stage.jobs[j].barrier)
        lf_progress_set(&stage.jobs[j].done, first_step)
    with nogil, parallel(num_threads=threads):
        work(stage, first_step, last_step, threadid(), team_size())


cdef void run_all(Stage *stage, Py_ssize_t T, Py_ssize_t segment, int threads) except *:
    """All time steps, looking at signals after every segment."""
    cdef Py_ssize_t s = 0
    while s < T:
        run(stage, s, min(s + segment, T), threads)
        s += segment
        PyErr_CheckSignals()


cdef void set_up(Job *job, Cell cell, const Rows *rows, bint reverse, bint blas,
                 Py_ssize_t chunk_rows) except *:
    """What follows from the weights; x, y, h0, c and gates are the caller's to set."""
    memset(job, 0, sizeof(Job))
    job.k, job.rows, job.reverse, job.chunk_rows = cell.k, rows, reverse, chunk_rows
    job.I, job.H, job.P, job.panels = cell.input_size, cell.hidden_size, cell.output_size, cell.panels
    job.gemm = load_gemm(cell.k.itemsize) if blas else NULL
    w_ih = cell.w_ih if cell.kept_ih is None else cell.kept_ih
    job.w_ih = <char *>cnp.PyArray_DATA(w_ih) if blas else cell.gates_ih.data
    job.bias = <char *>cnp.PyArray_DATA(cell.bias_sum) if blas else cell.bias.data
    job.w_hr = cell.project_hr.data if cell.proj_size else NULL
    job.step.depth, job.step.hidden_size, job.step.w = job.P, job.H, cell.gates_hh.data
    job.step.c_row = cell.padded
    if blas or cell.layer_norm:
        job.step.x_row, job.step.x_panel, job.step.x_gate = 4 * job.H, cell.k.lanes, job.H
    else:
        job.step.x_row = 4 * cell.k.lanes
        job.step.x_panel, job.step.x_gate = job.step.x_row * chunk_rows, cell.k.lanes


cdef size_t variant_size(Cell cell, size_t rows, int threads, bint training) except? 0:
    """Scratch memory that a variant of the cell needs for `rows` rows, at most."""
    cdef size_t columns = <size_t>threads * cell.output_size
    if cell.layer_norm:
        columns += cell.hidden_size if training else 8 * cell.padded + 2 * cell.hidden_size + 3
    return rounded(sizeof(VariantJob)) + times(times(rows, columns) + 512, cell.k.itemsize)


cdef void set_up_variant(Job *job, Cell cell, Noise noise, Tape tape, Py_ssize_t chunk_rows, int threads,
                         char **free) except *:
    """The parts of a job that only variants have: with `tape` in training, else in the free memory."""
    cdef Py_ssize_t B = job.rows.B, H = job.H, size = cell.k.itemsize
    cdef VariantJob *variant = <VariantJob *>carve(free, sizeof(VariantJob))
    cdef lf_variant_forward *step = &variant.step
    cdef NormJob *norm = &variant.norm
    memset(variant, 0, sizeof(VariantJob))
    job.variant = variant
    step.variant = &cell.variant
    step.parts = LF_CELL | LF_OUTPUT
    layout_of_gates(cell, &step.a_row, &step.a_panel, &step.a_gate)
    if tape is not None:
        step.a = tape.gates.data
    elif cell.layer_norm:
        step.a = carve(free, B * 4 * cell.padded * size)
    if noise is not None:
        variant.recurrent = data_or_null(noise.recurrent)
        step.zone_h, step.zone_c = data_or_null(noise.zone_h), data_or_null(noise.zone_c)
        step.zone_row = noise.zone_row
    if variant.recurrent != NULL:
        variant.masked_h = carve(free, threads * B * job.P * size)
    variant.layer_norm = cell.layer_norm
    if not cell.layer_norm:
        return
    norm.w_ih, norm.w_hh = <char *>cnp.PyArray_DATA(cell.w_ln_ih), <char *>cnp.PyArray_DATA(cell.w_ln_hh)
    norm.w_c, norm.b_c = <char *>cnp.PyArray_DATA(cell.w_ln_c), <char *>cnp.PyArray_DATA(cell.b_ln_c)
    norm.bias = <char *>cnp.PyArray_DATA(cell.norm_bias)
    norm.u = carve(free, B * H * size)
    if tape is not None:
        tape.norm = new_norm(cell, job.rows.total)
        norm.ih, norm.hh, norm.c = tape.norm.ih.data, tape.norm.hh.data, tape.norm.c.data
        norm.scale_ih, norm.scale_hh = tape.norm.scale_ih.data, tape.norm.scale_hh.data
        norm.scale_c = tape.norm.scale_c.data
    else:
        norm.hh, norm.c = carve(free, B * 4 * H * size), carve(free, B * H * size)
        norm.scale_ih, norm.scale_hh = carve(free, chunk_rows * size), carve(free, B * size)
        norm.scale_c = carve(free, B * size)


cdef Tape new_tape(Cell cell, Ragged ragged, const Job *job):
    """A tape whose buffers have room for all rows."""
    cdef Tape tape = Tape.__new__(Tape)
    cdef size_t rows = <size_t>job.rows.total, all_rows = rows + <size_t>job.rows.B
    tape.cell, tape.ragged, tape.rows, tape.reverse = cell, ragged, job.rows[0], job.reverse
    tape.gates = new_buffer(times(times(rows, 4), cell.padded), cell.k.itemsize)
    tape.c = new_buffer(times(all_rows, cell.padded), cell.k.itemsize)
    tape.h = new_buffer(times(all_rows, cell.output_size), cell.k.itemsize)
    return tape


cdef list compute(list cells, cnp.ndarray x, cnp.ndarray h0, cnp.ndarray c0, cnp.ndarray y, cnp.ndarray hn,
                  cnp.ndarray cn, int directions, bint reverse, Ragged ragged, bint training, bint blas,
                  list noise=None):
    """See `forward`."""
    cdef Stage stage
    cdef Split split
    cdef Job *job
    cdef Cell cell = cells[0]
    cdef Tape tape, below = None
    cdef Rows rows = rows_of(x, ragged)
    cdef Py_ssize_t T = rows.T, B = rows.B, L = len(cells), H = cell.hidden_size, P = cell.output_size
    cdef Py_ssize_t padded = cell.padded, size = cell.k.itemsize, n, t, segment, row, inputs = 0
    cdef size_t row_size = times(B, padded), all_rows = <size_t>rows.total
    cdef size_t inner_y, variants = 0
    cdef bint plain = noise is None, layer_norm = False
    cdef list tapes = []
    cdef Buffer scratch
    cdef char *free
    cdef char *zeros
    cdef char *c
    cdef char *kept_y
    cdef double step_work = <double>rows.total / max(T, 1) * 4 * H * P, total_work

    stage.count, stage.chained = <int>L, directions == 1
    for cell in cells:
        inputs += 4 * cell.input_size + cell.proj_size
        plain, layer_norm = plain and cell.plain, layer_norm or cell.layer_norm
        blas = blas and times(all_rows, max(4 * H, cell.input_size)) < 2**31
    blas = blas and rows.total > 0
    total_work = <double>rows.total * H * (L * 4.0 * P + inputs)
    split = plan(stage.count, stage.chained, T, 1 if blas else B, ragged is not None, 1 if layer_norm else cell.panels,
                 times(times(4, padded), P) * size, step_work, total_work)
    stage.groups = split.groups
    stage.chunk_rows = max(CHUNK_ROWS, <Py_ssize_t>(CHUNK_BYTES // (times(4 * padded, size))))
    stage.chunk_rows = max(B, min(rows.total, stage.chunk_rows))
    if stage.chained and stage.groups > 1:
        stage.chunk_rows = max(B, LEAST_CHUNK_ROWS, min(stage.chunk_rows, rows.total // PIPELINE_CHUNKS))

    # One block of scratch: the jobs, projected input, zeros for an absent h0, and for each job c, h before the
    # projection, y that is only the input of the next layer, and what a variant needs.
    stage.projected_size = times(times(4 * padded, stage.chunk_rows), size)
    row_size *= size
    inner_y = 0 if training or directions == 2 else times(times(all_rows, P), size)
    if not plain:
        variants = variant_size(cell, max(B, stage.chunk_rows), split.threads, training)
    scratch = new_buffer(rounded(L * sizeof(Job)) + split.groups * rounded(stage.projected_size)
                         + rounded(B * P * size) + L * (2 * rounded(row_size) + rounded(inner_y) + variants), 1)
    free = scratch.data
    stage.jobs = <Job *>carve(&free, L * sizeof(Job))
    stage.projected_size = rounded(stage.projected_size)
    stage.projected = carve(&free, split.groups * stage.projected_size)
    zeros = carve(&free, B * P * size)
    if h0 is None:
        memset(zeros, 0, B * P * size)
    for n in range(L):
        cell, job = cells[n], &stage.jobs[n]
        set_up(job, cell, &rows, reverse or (directions == 2 and n == 1), blas, stage.chunk_rows)
        job.training, job.by_rows = training, split.by_rows
        job.unprojected_h = carve(&free, row_size)
        job.h0 = zeros if h0 is None else <char *>at(<char *>cnp.PyArray_DATA(h0), n * B * P, job)
        job.x = <char *>cnp.PyArray_DATA(x)
        tape = None
        if training:
            cell.prepare_backward(blas)
            tape = new_tape(cell, ragged, job)
            tape.x_owner, tape.x = x, job.x
            if below is not None and stage.chained:
                tape.x_owner = below.h
                tape.x = job.x = at(below.h.data, 0 if reverse else B * P, job)
            below = tape
            tapes.append(tape)
            memcpy(<char *>at(tape.h.data, rows.total * P if job.reverse else 0, job), job.h0, B * P * size)
            job.y, job.y_t, job.y_b = <char *>at(tape.h.data, 0 if job.reverse else B * P, job), B * P, P
            job.step.c, job.step.gates = tape.c.data, tape.gates.data
        else:
            if n > 0 and stage.chained:
                job.x = stage.jobs[n - 1].y
            if n < L - 1 and stage.chained:
                job.y, job.y_t, job.y_b = carve(&free, inner_y), B * P, P
            else:
                to_user(job, y, 0 if stage.chained else n * P)
            job.step.c = carve(&free, row_size)
        job.step.y_row = H if cell.proj_size else job.y_b
        if not plain:
            set_up_variant(job, cell, None if noise is None else noise[n], tape, stage.chunk_rows, split.threads, &free)
            if training:
                tape.variant, tape.noise = True, None if noise is None else noise[n]
        if c0 is None:
            memset(job.step.c, 0, row_size)
        else:
            copy_rows(<char *>job.step.c, padded * size, at(<char *>cnp.PyArray_DATA(c0), n * B * H, job), H * size,
                      B, H * size)

    segment = <Py_ssize_t>min(<double>T, 1 + WORK_PER_SIGNAL_CHECK * split.threads * T / (total_work + 1))
    if rows.total > 0:
        if blas:
            with held_to_one_thread():
                run_all(&stage, T, segment, split.threads)
        else:
            run_all(&stage, T, segment, split.threads)

    for n in range(L):
        job = &stage.jobs[n]
        for row in range(B):  # the last step of each row
            t = 0 if job.reverse else T - 1
            if ragged is not None:
                t = -1 if rows.lengths[row] == 0 else 0 if job.reverse else rows.lengths[row] - 1
            elif T == 0:
                t = -1
            memmove(<char *>at(<char *>cnp.PyArray_DATA(hn), (n * B + row) * P, job),
                    at(job.h0, row * P, job) if t < 0 else y_at(job, t, row), P * size)
            c = <char *>job.step.c
            memcpy(<char *>at(<char *>cnp.PyArray_DATA(cn), (n * B + row) * H, job),
                   at(c, (row if t < 0 else c_row(job, t) + row) * padded, job), H * size)
        if training and y is not None and (n == L - 1 or not stage.chained):
            kept_y = job.y
            to_user(job, y, 0 if stage.chained else n * P)
            for t in range(T):
                for row in range(rows_at(&rows, t)):
                    memcpy(y_at(job, t, row), at(kept_y, (rows_before(&rows, t) + row) * P, job), P * size)
    return tapes


def forward(list cells not None, cnp.ndarray x, cnp.ndarray h0, cnp.ndarray c0, cnp.ndarray y,
            cnp.ndarray hn, cnp.ndarray cn, *, int directions=1, bint reverse=False, Ragged ragged=None,
            bint training=False, bint blas=False, list noise=None):
    """Run chained layers of one direction, or one layer in two.

    The caller has checked: every array has the cells' dtype in native byte order, the shapes fit, `x`,
    `h0`, `c0`, `hn` and `cn` are C-contiguous, and the last axis of `y` is. H is `hidden_size`, P the
    columns of h, the same in all L cells.

    Parameters
    ----------
    cells : list of Cell
        With ``directions=1``, layers from the lowest; with 2, forward and reverse of one layer.
    x : ndarray, shape (T, B, I), (B, I) for one step, or (N, I) of a ragged batch
    h0, c0 : ndarray, shapes (L, B, P) and (L, B, H); None for zeros
    y : ndarray, shape of x but for directions P columns
        Written, in input order. None in training: not wanted.
    hn, cn : ndarray, shapes (L, B, P) and (L, B, H)
        Written: the state after the last step. `hn` may be `h0`, `cn` may be `c0`.
    directions : int
    reverse : bool
        From the last time down to 0; with two directions, the second does so anyway.
    ragged : Ragged, optional
        The rows of a batch of different lengths.
    training : bool
        Keep what `backward` needs.
    blas : bool
        Project the input with BLAS instead of the own product.
    noise : list of Noise, optional
        For each cell.

    Returns
    -------
    list of Tape
        One for each cell, or none unless training. They keep a reference to `x`: the caller must not
        write to it.
    """
    return compute(cells, x, h0, c0, y, hn, cn, directions, reverse, ragged, training, blas, noise)


cdef void to_user(Job *job, cnp.ndarray y, Py_ssize_t column) noexcept:
    """Let the job write to some columns of y, (T, B, columns) or (N, columns)."""
    cdef int rows_axis = cnp.PyArray_NDIM(y) - 2
    job.y = <char *>at(<char *>cnp.PyArray_DATA(y), column, job)
    job.y_t = cnp.PyArray_STRIDE(y, 0) // <Py_ssize_t>job.k.itemsize
    job.y_b = cnp.PyArray_STRIDE(y, rows_axis) // <Py_ssize_t>job.k.itemsize
