"""Backward of chained layers or of two directions: their chunks of time, threads, and memory.

A chunk of time steps at a time, from the last to the first: see `_layer_backward`.
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.string cimport memset

from ._engine import held_to_one_thread
from ._engine cimport (Buffer, Cell, Ragged, Rows, Tape, add, carve, copy_rows, data_or_null, layout_of_gates,
                       load_gemm, new_array, new_buffer, rounded, rows_at, times)
from ._kernels cimport (LF_CELL, LF_OUTPUT, lf_barrier_init, lf_fpenv, lf_fpenv_enter, lf_fpenv_leave,
                        lf_progress_set, lf_variant_backward)
from ._layer_backward cimport Job, NormJob, Scratch, VariantJob, at, panels_of, run_chunk, time_of
from ._threads cimport Place, Split, place, plan, team_size, used_threads

cnp.import_array()

# dgates of a chunk stay in the L2 cache between the steps and the products.
cdef size_t CHUNK_BYTES = 1 << 19
cdef Py_ssize_t LEAST_CHUNK_ROWS = 512
# In a pipeline of layers dx goes to the layer below in so many blocks.
cdef Py_ssize_t PIPELINE_BLOCKS = 8
cdef double WORK_PER_SIGNAL_CHECK = 4e9


cdef struct Stage:
    # The jobs of a call: layers, each the input of the next, or else directions.
    Job *jobs
    int count
    bint chained
    int groups
    Scratch *scratch               # one for each group


cdef void work(const Stage *stage, Py_ssize_t first_chunk, Py_ssize_t last_chunk, int thread,
               int threads) noexcept nogil:
    """One thread's share of some chunks of all jobs, counted from the last time step."""
    cdef lf_fpenv saved = lf_fpenv_enter()
    cdef Place here = place(thread, threads, stage.groups, stage.count)
    cdef Py_ssize_t j, n
    for n in range(first_chunk, last_chunk):
        for j in range(here.last_job - 1, here.first_job - 1, -1):  # a layer before the one below
            if n < stage.jobs[j].chunks:
                run_chunk(&stage.jobs[j], &stage.scratch[here.group], n, here.part, here.parts)
    lf_fpenv_leave(saved)


cdef void run(Stage *stage, Py_ssize_t first_chunk, Py_ssize_t last_chunk, int threads) noexcept:
    """Some chunks on `threads` threads, without the GIL."""
    cdef int j
    cdef Job *job
    if threads == 1:
        with nogil:
            work(stage, first_chunk, last_chunk, 0, 1)
        return
    used_threads()
    for j in range(stage.count):
        job = &stage.jobs[j]
        lf_barrier_init(&job.barrier)
        lf_progress_set(&job.done, job.rows.T - job.bounds[min(first_chunk, job.chunks)])
    with nogil, parallel(num_threads=threads):
        work(stage, first_chunk, last_chunk, threadid(), team_size())


cdef void run_all(Stage *stage, Py_ssize_t chunks, Py_ssize_t segment, int threads) except *:
    """All chunks, looking at signals after every segment."""
    cdef Py_ssize_t n = 0
    while n < chunks:
        run(stage, n, min(n + segment, chunks), threads)
        n += segment
        PyErr_CheckSignals()


cdef void cut_into_chunks(Job *job, Py_ssize_t chunk_rows) noexcept:
    """Fill `bounds`, of room for T + 1. Depends on the batch alone: the bits of the weights' gradients do on it."""
    cdef Py_ssize_t s = job.rows.T, rows = 0, running
    job.chunks = 0
    job.bounds[0] = s
    while s > 0:
        running = rows_at(job.rows, time_of(job, s - 1))
        if rows > 0 and rows + running > chunk_rows:
            job.chunks += 1
            job.bounds[job.chunks] = s
            rows = 0
        rows += running
        s -= 1
    if rows > 0:
        job.chunks += 1
    job.bounds[job.chunks] = 0


cdef Py_ssize_t chunk_rows_of(Cell cell, Py_ssize_t B):
    return max(LEAST_CHUNK_ROWS, B, <Py_ssize_t>(CHUNK_BYTES // times(4 * cell.hidden_size, cell.k.itemsize)))


def segments(Cell cell not None, Py_ssize_t T, Py_ssize_t B, Ragged ragged, bint reverse, Py_ssize_t steps):
    """Cut a sequence into segments that can be differentiated one by one, with the same bits.

    Returns
    -------
    list of (int, int)
        The first time of each segment and the one after its last, in the order of forward. Each has `steps`
        time steps or a few more, to hold whole chunks of `backward`; the first may have fewer.
    """
    cdef Rows rows
    cdef Job job
    cdef Buffer bounds = new_buffer(T + 1, sizeof(Py_ssize_t))
    cdef Py_ssize_t n, high = T
    rows.T, rows.B, rows.total, rows.counts, rows.offsets, rows.lengths = T, B, T * B, NULL, NULL, NULL
    if ragged is not None:
        rows = ragged.rows
    job.rows, job.reverse, job.bounds = &rows, reverse, <Py_ssize_t *>bounds.data
    cut_into_chunks(&job, chunk_rows_of(cell, B))
    found = []
    for n in range(1, job.chunks + 1):
        if high - job.bounds[n] >= steps or n == job.chunks:
            found.append((T - high, T - job.bounds[n]) if reverse else (job.bounds[n], high))
            high = job.bounds[n]
    return found[::-1] or [(0, 0)]


def in_order(list cells not None, list grads not None):
    """The gradients of some cells in the order of their parameters; no two share memory."""
    cdef list found = []
    cdef dict of_cell
    for cell, of_cell in zip(cells, grads):
        first = True
        for name in (<Cell>cell).parameters:
            if name != "b_ih" and name != "b_hh":
                found.append(of_cell[name])
            else:
                found.append(of_cell["b"] if first else of_cell["b"].copy())
                first = False
    return found


def backward(list tapes not None, cnp.ndarray dy, cnp.ndarray dhn, cnp.ndarray dcn, *, list grads=None,
             bint blas=False):
    """Gradients of what one call of `forward` computed.

    The caller has checked: the gradients have the cells' dtype in native byte order, the shapes fit, `dhn`
    and `dcn` are C-contiguous, and the last axis of `dy` is. H is `hidden_size`, P the columns of h.

    Parameters
    ----------
    tapes : list of Tape
        From `forward`; not changed.
    dy : ndarray, shape of y, or None for zeros
    dhn, dcn : ndarray, shapes (L, B, P) and (L, B, H), or None for zeros
    grads : list of dict, optional
        What this function returned for later time steps, to which the gradients of the weights are added.
    blas : bool
        BLAS instead of the own products over whole chunks.

    Returns
    -------
    dx : ndarray, shape of x
    dh0, dc0 : ndarray, shapes (L, B, P) and (L, B, H)
    grads : list of dict
        For each cell, by the names of its parameters.
    """
    cdef Stage stage
    cdef Split split
    cdef Job *job
    cdef Tape tape = tapes[0]
    cdef Cell cell = tape.cell
    cdef Rows rows = tape.rows
    cdef Py_ssize_t T = rows.T, B = rows.B, L = len(tapes), H = cell.hidden_size, P = cell.output_size
    cdef Py_ssize_t padded = cell.padded, size = cell.k.itemsize, n, segment, widest = 0, chunk_rows, chunks = 0
    cdef size_t dgates_size, p_size, h_size, packed_size, inner_dx, group_size, job_size
    cdef bint layer_norm = False
    cdef int rows_axis
    cdef Buffer scratch
    cdef cnp.ndarray x
    cdef Scratch measured
    cdef char *free = NULL
    cdef double step_work = <double>rows.total / max(T, 1) * 4 * H * P, total_work = 0
    stage.chained = L == 1 or (<Tape>tapes[1]).x_owner is tape.h
    dh, dc = copy_or_zeros(dhn, L, B, P, cell.type_number), copy_or_zeros(dcn, L, B, H, cell.type_number)
    fresh = grads is None
    if fresh:
        grads = [new_gradients((<Tape>tape_).cell) for tape_ in tapes]
    x = <cnp.ndarray>tape.x_owner
    dxs = [new_array(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cell.type_number)
           for _ in range(1 if stage.chained else L)]
    if rows.total == 0:
        if fresh:
            for one in grads:
                for grad in one.values():
                    grad[...] = 0
        dxs[0][...] = 0
        return dxs[0], dh, dc, grads

    for tape in tapes:
        cell = tape.cell
        blas = blas and cell.kept_ih is not None
        layer_norm = layer_norm or cell.layer_norm
        widest = max(widest, cell.input_size, H)
        total_work += rows.total * <double>H * (8 * P + 8 * cell.input_size + (3 * P if cell.proj_size else 0))
    stage.count, chunk_rows = <int>L, min(rows.total, chunk_rows_of(cell, B))
    split = plan(stage.count, stage.chained, T, B, tape.ragged is not None, 1 if layer_norm else panels_of(H, cell.k),
                 times(4 * H, P) * size, step_work, total_work)
    stage.groups = split.groups
    blas = blas and times(chunk_rows, max(4 * H, widest)) < 2**31

    # One block of scratch. For each group: what a chunk needs. For each job: dc, dgates_after, bounds and, in
    # all layers but the lowest, dx.
    dgates_size, p_size = times(times(chunk_rows, 4 * H), size), times(times(chunk_rows, P), size)
    h_size = times(times(chunk_rows, H), size)
    packed_size = 0 if blas else times(times(chunk_rows, panels_of(widest, cell.k) * 4 * cell.k.lanes), size)
    inner_dx = times(times(<size_t>rows.total, P), size) if stage.chained else 0
    set_up_scratch(&measured, &free, tape, layer_norm, dgates_size, p_size, h_size, packed_size)
    group_size = rounded(sizeof(Scratch)) + <size_t>free
    job_size = (rounded(sizeof(Job)) + rounded(B * padded * size) + rounded(B * 4 * H * size)
                + rounded((T + 1) * sizeof(Py_ssize_t)) + rounded(inner_dx))
    if tape.variant:
        job_size += rounded(sizeof(VariantJob)) + rounded(B * P * size)
    scratch = new_buffer(L * job_size + split.groups * group_size, 1)
    free = scratch.data
    stage.jobs = <Job *>carve(&free, L * sizeof(Job))
    stage.scratch = <Scratch *>carve(&free, split.groups * sizeof(Scratch))
    for n in range(split.groups):
        set_up_scratch(&stage.scratch[n], &free, tape, layer_norm, dgates_size, p_size, h_size, packed_size)
    for n in range(L - 1, -1, -1):
        tape, job = tapes[n], &stage.jobs[n]
        cell = tape.cell
        memset(job, 0, sizeof(Job))
        job.k, job.rows, job.reverse = cell.k, &rows, tape.reverse
        job.I, job.H, job.P, job.padded = cell.input_size, H, P, padded
        job.gemm = load_gemm(size) if blas else NULL
        job.by_rows, job.chained, job.block = split.by_rows, stage.chained and L > 1, T
        if job.chained and stage.groups > 1:
            job.block = max(1, T // PIPELINE_BLOCKS)
            job.above = &stage.jobs[n + 1].done if n < L - 1 else NULL
        job.x, job.h, job.gates, job.c = tape.x, tape.h.data, tape.gates.data, tape.c.data
        job.w_ih = data_of(cell.kept_ih) if blas else NULL
        job.columns_ih, job.columns_hh = cell.columns_ih.data, cell.columns_hh.data
        job.columns_hr = cell.columns_hr.data if cell.proj_size else NULL
        if stage.chained and n < L - 1:
            job.dy, job.dy_t, job.dy_b = stage.jobs[n + 1].dx, B * P, P
        elif dy is not None:
            rows_axis = cnp.PyArray_NDIM(dy) - 2
            job.dy = at(<char *>cnp.PyArray_DATA(dy), 0 if stage.chained else n * P, job)
            job.dy_t, job.dy_b = cnp.PyArray_STRIDE(dy, 0) // size, cnp.PyArray_STRIDE(dy, rows_axis) // size
        job.dh = <char *>at(<char *>cnp.PyArray_DATA(dh), n * B * P, job)
        job.dw_ih, job.dw_hh = data_of(grads[n]["w_ih"]), data_of(grads[n]["w_hh"])
        job.dw_hr = data_of(grads[n]["w_hr"]) if cell.proj_size else NULL
        job.db, job.accumulate = data_of(grads[n]["b"]), not fresh
        if tape.variant:
            set_up_variant(job, tape, grads[n], &free)
        job.dc, job.dgates_after = carve(&free, B * padded * size), carve(&free, B * 4 * H * size)
        job.bounds = <Py_ssize_t *>carve(&free, (T + 1) * sizeof(Py_ssize_t))
        job.dx = carve(&free, inner_dx) if stage.chained and n > 0 else data_of(dxs[0 if stage.chained else n])
        copy_rows(job.dc, padded * size, at(<char *>cnp.PyArray_DATA(dc), n * B * H, job), H * size, B, H * size)
        cut_into_chunks(job, chunk_rows)
        chunks = max(chunks, job.chunks)

    segment = <Py_ssize_t>min(<double>chunks, 1 + WORK_PER_SIGNAL_CHECK * split.threads * chunks / total_work)
    if blas:
        with held_to_one_thread():
            run_all(&stage, chunks, segment, split.threads)
    else:
        run_all(&stage, chunks, segment, split.threads)
    for n in range(L):
        job = &stage.jobs[n]
        copy_rows(<char *>at(data_of(dc), n * B * H, job), H * size, job.dc, padded * size, B, H * size)
    for dx in dxs[1:]:
        add(dxs[0], dx)
    return dxs[0], dh, dc, grads


cdef void set_up_scratch(Scratch *scratch, char **free, Tape tape, bint layer_norm, size_t dgates_size,
                         size_t p_size, size_t h_size, size_t packed_size) noexcept:
    """Room for a chunk, as far as the cells need it. From NULL on, `free` counts it."""
    cdef bint projected = tape.cell.proj_size > 0
    cdef bint masked = tape.noise is not None and tape.noise.recurrent is not None
    memset(scratch, 0, sizeof(Scratch))
    scratch.dgates = scratch.dgates_ih = scratch.dgates_hh = carve(free, dgates_size)
    scratch.packed = carve(free, packed_size)
    scratch.h_before = carve(free, p_size if tape.ragged is not None or masked else 0)
    scratch.dy = carve(free, p_size if projected or tape.noise is not None else 0)
    scratch.hidden = carve(free, h_size if projected else 0)
    if not tape.variant:
        return
    scratch.dpeephole = carve(free, 3 * h_size if tape.cell.peephole is not None else 0)
    if layer_norm:
        scratch.dgates_ih, scratch.dgates_hh = carve(free, dgates_size), carve(free, dgates_size)
        scratch.dw_ih, scratch.dw_hh = carve(free, dgates_size), carve(free, dgates_size)
        scratch.du, scratch.dn, scratch.dw_c = carve(free, h_size), carve(free, h_size), carve(free, h_size)


cdef void set_up_variant(Job *job, Tape tape, dict grads, char **free) except *:
    """The parts of a job that only variants have."""
    cdef Cell cell = tape.cell
    cdef VariantJob *variant = <VariantJob *>carve(free, sizeof(VariantJob))
    cdef lf_variant_backward *step = &variant.step
    cdef NormJob *norm = &variant.norm
    memset(variant, 0, sizeof(VariantJob))
    job.variant = variant
    step.variant = &cell.variant
    step.parts = LF_CELL | LF_OUTPUT
    layout_of_gates(cell, &step.a_row, &step.a_panel, &step.a_gate)
    if cell.peephole is not None:
        variant.dw_ch = data_of(grads["w_ch"])
    if tape.noise is not None:
        variant.recurrent = data_or_null(tape.noise.recurrent)
        step.zone_h, step.zone_c = data_or_null(tape.noise.zone_h), data_or_null(tape.noise.zone_c)
        step.zone_row = tape.noise.zone_row
    variant.dmasked = carve(free, job.rows.B * job.P * cell.k.itemsize if variant.recurrent != NULL else 0)
    variant.layer_norm = cell.layer_norm
    if cell.layer_norm:
        norm.w_ih, norm.w_hh, norm.w_c = data_of(cell.w_ln_ih), data_of(cell.w_ln_hh), data_of(cell.w_ln_c)
        norm.b_c = data_of(cell.b_ln_c)
        norm.ih, norm.hh, norm.c = tape.norm.ih.data, tape.norm.hh.data, tape.norm.c.data
        norm.scale_ih, norm.scale_hh = tape.norm.scale_ih.data, tape.norm.scale_hh.data
        norm.scale_c = tape.norm.scale_c.data
        norm.dw_ih, norm.dw_hh = data_of(grads["w_ln_ih"]), data_of(grads["w_ln_hh"])
        norm.dw_c, norm.db_c = data_of(grads["w_ln_c"]), data_of(grads["b_ln_c"])


cdef object copy_or_zeros(cnp.ndarray a, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t n2, int type_number):
    cdef cnp.npy_intp[3] shape = [n0, n1, n2]
    return cnp.PyArray_ZEROS(3, shape, type_number, False) if a is None else a.copy()


cdef char *data_of(cnp.ndarray a) noexcept:
    return <char *>cnp.PyArray_DATA(a)


cdef cnp.ndarray matrix(Py_ssize_t rows, Py_ssize_t columns, Cell cell):
    cdef cnp.npy_intp[2] shape = [rows, columns]
    return new_array(2, shape, cell.type_number)


cdef cnp.ndarray zeros(Py_ssize_t elements, Cell cell):
    cdef cnp.npy_intp[1] shape = [elements]
    return cnp.PyArray_ZEROS(1, shape, cell.type_number, False)


cdef dict new_gradients(Cell cell):
    """Arrays for the gradients of a cell's weights: "b" for both biases."""
    cdef Py_ssize_t H = cell.hidden_size, P = cell.output_size
    cdef dict grads = {"w_ih": matrix(4 * H, cell.input_size, cell), "w_hh": matrix(4 * H, P, cell),
                       "b": zeros(4 * H, cell)}
    if cell.proj_size:
        grads["w_hr"] = matrix(P, H, cell)
    if cell.peephole is not None:
        grads["w_ch"] = zeros(3 * H, cell)
    if cell.layer_norm:
        grads["w_ln_ih"], grads["w_ln_hh"] = zeros(4 * H, cell), zeros(4 * H, cell)
        grads["w_ln_c"], grads["b_ln_c"] = zeros(H, cell), zeros(H, cell)
    return grads
