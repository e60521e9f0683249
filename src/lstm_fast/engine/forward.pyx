"""Forward of chained layers or of two directions: one call of the engine.

    plan_call       how it is spread over threads and cut into chunks of time
    carve_scratch   memory that it needs while it runs
    set_up_jobs     the job of each layer or direction, and what it keeps for backward
    run_chunks      the time loop of one thread, which `schedule` starts on each
    write_results   the last states
"""

cimport numpy as cnp
from libc.string cimport memcpy, memmove, memset

from lstm_fast.engine.batch cimport Ragged, Rows, rows_of, share_rows
from lstm_fast.engine.cell cimport Cell
from lstm_fast.engine.following cimport Following, begin_following
from lstm_fast.engine.forward_followed cimport ROOMS, chunks_of, run_followed
from lstm_fast.engine.forward_job cimport ForwardJob, ForwardNorm, ForwardVariant, c_row, y_at
from lstm_fast.engine.forward_layer cimport chunk_end, copy_x, copy_y, mark_chunks, run_chunk, run_step
from lstm_fast.engine.forward_variant cimport set_up_variant
from lstm_fast.engine.matrix cimport operand_row
from lstm_fast.engine.memory cimport (SMALL_MARGIN, SMALL_SCRATCH, Arena, Buffer, arena_of, at, copy_rows, data_of,
                                      new_array, new_buffer, take, times)
from lstm_fast.engine.plan cimport Place, Split, plan, slab_of
from lstm_fast.engine.runtime.gemm cimport load_gemm
from lstm_fast.engine.runtime.kernels cimport lf_barrier_init, lf_counter_set, lf_counter_wait
from lstm_fast.engine.schedule cimport Schedule, begin, run_all
from lstm_fast.engine.sums cimport bands_of
from lstm_fast.engine.tape cimport Noise, Tape, new_tape

cnp.import_array()

# The projected input of a chunk of time steps stays in the L2 cache between projection and use, beside the weights of
# a few panels: half of the cache. Of fewer rows a chunk would wait for the weights of the projection.
cdef size_t CHUNK_BYTES = 1 << 19
cdef Py_ssize_t CHUNK_ROWS = 48
# In lower precision the product is done before weights come that stay in no L2 cache: so many bytes of these are read
# for more rows at once, though their results go through the L3 cache.
cdef size_t FAR_WEIGHTS = 1 << 19
cdef size_t CHUNK_BYTES_OF_FAR = 1 << 21
# In a pipeline of layers, and where threads project the input ahead of the one that computes the steps, a call has so
# many chunks, unless they got fewer rows than a tile or two.
cdef Py_ssize_t PIPELINE_CHUNKS = 8
cdef Py_ssize_t AHEAD_CHUNKS = 16
cdef Py_ssize_t LEAST_CHUNK_ROWS = 12
# Gates that are kept for backward are written past the caches, where there are many of them and weights besides, whose
# place they would take: forward in bfloat16 at (25, 128, 256, 512) takes 21 ms instead of 28, in float32 62 instead of
# 66 (AVX-512, Xeon). It takes whole cache lines.
cdef size_t STREAMED_TAPE = 16 << 20
cdef size_t STREAMED_BESIDE = 2 << 20
# A core that writes to addresses one after the other fetches those that follow, up to the end of a page. Where a thread
# writes less than that at a time, and then the rows of the next thread come, it takes lines that this one is writing:
# 75 ns for each array and time if the cores are near one another, 330 if they are not (EPYC 9004).
cdef Py_ssize_t PAGE = 4096


cdef struct Call:
    ForwardJob *jobs
    int count                 # of jobs: layers, each the input of the next (chained), or else directions
    bint chained, training, blas
    bint variants             # whether some cell is not a plain one
    Rows rows
    Py_ssize_t H, P, padded   # of every cell
    size_t size               # bytes of a number
    Split split
    Py_ssize_t border         # rows from this one on are apart from the others; B: none are
    double work               # multiply-adds
    Py_ssize_t chunk_rows     # rows whose input is projected at once
    char *projected           # their projected input, one for each group of threads
    size_t projected_size     # in bytes; where threads project ahead, so many for each of ROOMS
    Following *following      # then one for each group
    char *zeros               # an absent h0, (B, P)
    Py_ssize_t *chunks        # for units in pieces: the first step of the chunk of each, (T,)
    Schedule schedule


cdef void plan_call(Call *call, list cells, bint ragged) except *:
    """How the call is split over threads, and how large its chunks of time are."""
    cdef Cell cell
    cdef Py_ssize_t T = call.rows.T, B = call.rows.B, H = call.H, P = call.P, inputs = 0
    cdef double step_work = <double>call.rows.total / max(T, 1) * 4 * H * P
    cdef size_t chunk_bytes = CHUNK_BYTES
    cdef bint layer_norm = False
    for cell in cells:
        if not cell.full and cell.gates_ih.size >= FAR_WEIGHTS:
            chunk_bytes = CHUNK_BYTES_OF_FAR
        inputs += 4 * cell.input_size + cell.proj_size
        call.variants, layer_norm = call.variants or not cell.plain, layer_norm or cell.layer_norm
        call.blas = (call.blas and cell.kept_ih is not None and call.rows.total > 0
                     and times(call.rows.total, max(4 * H, cell.input_size)) < 2**31)
    cell = cells[0]
    call.work = <double>call.rows.total * H * (call.count * 4.0 * P + inputs)
    call.split = plan(call.count, call.chained, 1, T, 1 if call.blas else call.rows.total // max(T, 1), ragged,
                      cell.panels, times(times(4, call.padded), P) * call.size, step_work, call.work,
                      2 if cell.proj_size or layer_norm else 1, not call.blas, False)
    call.chunk_rows = max(CHUNK_ROWS, <Py_ssize_t>(chunk_bytes // (times(4 * call.padded, call.size))))
    call.chunk_rows = max(B, min(call.rows.total, call.chunk_rows))
    if call.chained and call.split.groups > 1:
        call.chunk_rows = max(B, LEAST_CHUNK_ROWS, min(call.chunk_rows, call.rows.total // PIPELINE_CHUNKS))
    if call.split.followed:
        call.chunk_rows = max(B, LEAST_CHUNK_ROWS, min(CHUNK_ROWS, call.rows.total // AHEAD_CHUNKS))
    call.projected_size = (times(times(4 * call.padded, call.chunk_rows), call.size) + 63) // 64 * 64


cdef Py_ssize_t border_of(const Call *call, Cell cell, list bounds) except -1:
    """The row with which the second half of the threads begins, where these rows are to be apart; else B."""
    cdef Py_ssize_t B = call.rows.B, border = B
    if cell.proj_size:  # whose product writes all rows of a thread at once
        return B
    if call.training:
        border = bounds[1]
    elif call.split.by_rows and call.split.threads > 1 and not call.variants:
        border = B // 2
    return border if call.rows.counts == NULL and border * call.padded * <Py_ssize_t>call.size < PAGE else B


cdef void carve_scratch(Call *call, list cells, list noise, Arena *arena) except *:
    """Give the call its pieces of an arena; where that is too small, it has counted what is needed."""
    cdef ForwardJob counted
    cdef ForwardJob *job
    cdef Cell cell
    cdef Py_ssize_t n, B = call.rows.B
    call.jobs = <ForwardJob *>take(arena, call.count * sizeof(ForwardJob))
    call.projected = take(arena, call.split.groups * (ROOMS if call.split.followed else 1) * call.projected_size)
    if call.split.followed:
        call.following = <Following *>take(arena, call.split.groups * sizeof(Following))
    call.zeros = take(arena, B * call.P * call.size)
    if call.split.in_pieces and not call.split.by_rows:
        call.chunks = <Py_ssize_t *>take(arena, call.rows.T * sizeof(Py_ssize_t))
    for n in range(call.count):
        cell = cells[n]
        job = &counted if call.jobs == NULL else &call.jobs[n]
        memset(job, 0, sizeof(ForwardJob))
        if call.split.by_rows and call.rows.counts != NULL:
            job.own_x = take(arena, times(times(call.chunk_rows, cell.input_size), call.size))
        if cell.proj_size:
            job.unprojected_h = take(arena, B * call.H * call.size)
        if not call.training:  # else tapes have these
            job.step.c = take(arena, times(B, call.padded) * call.size + (PAGE if call.border < B else 0))
            if call.chained and n < call.count - 1:
                job.y = take(arena, times(times(call.rows.total, call.P), call.size))
        if not cell.full:
            job.operands_size = operands_size(call, cell)
            job.operands = take(arena, call.split.threads * job.operands_size)
        if call.variants:
            carve_variant(call, job, cell, noise is not None and (<Noise>noise[n]).recurrent is not None, arena)


cdef Py_ssize_t operands_size(const Call *call, Cell cell) except *:
    """Bytes of the most that a thread rounds at once, in whole cache lines."""
    cdef size_t x = times(call.chunk_rows, operand_row(cell.of_x, cell.input_size) * <Py_ssize_t>cell.of_x.operand_size)
    cdef size_t h = times(call.rows.B, operand_row(cell.of_h, max(call.H, call.P)) * <Py_ssize_t>cell.of_h.operand_size)
    return (max(x, h) + 63) // 64 * 64


cdef void carve_variant(const Call *call, ForwardJob *job, Cell cell, bint masked, Arena *arena) except *:
    """The same for what only a variant of the cell has."""
    cdef ForwardVariant counted
    cdef Py_ssize_t B = call.rows.B, H = call.H, parts = call.split.threads
    cdef size_t size = call.size
    job.variant = <ForwardVariant *>take(arena, sizeof(ForwardVariant))
    cdef ForwardVariant *variant = &counted if job.variant == NULL else job.variant
    cdef ForwardNorm *norm = &variant.norm
    memset(variant, 0, sizeof(ForwardVariant))
    if masked:
        variant.masked_h = take(arena, times(parts * B, call.P) * size)
    if not cell.layer_norm:
        return
    if not cell.norm_of_gates:
        norm.u = take(arena, times(B, H) * size)
    if not call.training:  # else the tape has these
        variant.step.a = take(arena, times(B, 4 * call.padded) * size)
        norm.hh, norm.c = take(arena, times(B, 4 * H) * size), take(arena, times(B, H) * size)


cdef list set_up_jobs(Call *call, list cells, cnp.ndarray x, cnp.ndarray kept, cnp.ndarray h0, cnp.ndarray c0,
                      cnp.ndarray y, bint reverse, Ragged ragged, list bounds, list noise):
    """Fill the jobs in, and return the tapes that they write in training, else None."""
    cdef Cell cell
    cdef Tape tape = None, below
    cdef ForwardJob *job
    cdef Py_ssize_t n, B = call.rows.B, H = call.H, P = call.P
    cdef bint top
    cdef list tapes = [] if call.training else None
    if h0 is None:
        memset(call.zeros, 0, B * P * call.size)
    for n in range(call.count):
        cell, job, top = cells[n], &call.jobs[n], n == call.count - 1 or not call.chained
        set_up_weights(job, call, cell)
        job.reverse = reverse or (not call.chained and n == 1)
        job.h0 = call.zeros if h0 is None else at(data_of(h0), n * B * P, job.k)
        job.x = data_of(x)
        if top and y is not None:
            job.users_y = at(data_of(y), 0 if call.chained else n * P, job.k)
            job.users_t = cnp.PyArray_STRIDE(y, 0) // <Py_ssize_t>call.size
            job.users_b = cnp.PyArray_STRIDE(y, cnp.PyArray_NDIM(y) - 2) // <Py_ssize_t>call.size
        if call.training:
            below, tape = tape, new_tape(cell, ragged, bounds, job.rows, job.reverse, job.border)
            tape.x_owner, tape.x = kept, data_of(kept)
            if kept is not x and n == 0:
                job.kept_x = data_of(kept)
            if call.chained and below is not None:
                tape.x_owner = below.memory
                tape.x = job.x = at(below.h, 0 if reverse else B * P, job.k)
            tapes.append(tape)
            set_up_hidden(job, tape, top)
            job.step.c, job.step.gates = tape.c, tape.gates
            job.step.stream = (job.k.lanes * call.size == 64 and tape.size >= STREAMED_TAPE
                               and cell.gates_hh.size >= STREAMED_BESIDE)
        else:
            if call.chained and n > 0:
                job.x = call.jobs[n - 1].y
            if top:
                job.y, job.y_t, job.y_b = job.users_y, job.users_t, job.users_b
                job.users_y = NULL
            else:
                job.y_t, job.y_b = B * P, P
        job.step.y_row = H if cell.proj_size else job.y_b
        if call.variants:
            set_up_variant(job, cell, None if noise is None else noise[n], tape)
        if call.split.followed:
            begin_following(&call.following[n], &call.schedule.waited, &call.schedule.stood_by)
        set_up_c0(job, NULL if c0 is None else at(data_of(c0), n * B * H, job.k))
    return tapes


cdef void set_up_hidden(ForwardJob *job, Tape tape, bint top) noexcept:
    """Where h of a tape is, with h0. Rows that are apart are so in the top layer alone: others are read as an input."""
    cdef Py_ssize_t T = job.rows.T, P = job.P, near = job.border if top else job.rows.B, apart = job.rows.B - near
    cdef Py_ssize_t total = job.rows.total - T * apart
    cdef char *h = at(tape.h, (total + near) * P, job.k)
    tape.h_apart = apart > 0
    job.y, job.y_t, job.y_b = at(tape.h, 0 if job.reverse else near * P, job.k), near * P, P
    memcpy(at(tape.h, total * P if job.reverse else 0, job.k), job.h0, near * P * job.k.itemsize)
    if apart > 0:
        job.y_apart, job.y_apart_t = at(h, 0 if job.reverse else apart * P, job.k), apart * P
        memcpy(at(h, T * apart * P if job.reverse else 0, job.k), at(job.h0, near * P, job.k),
               apart * P * job.k.itemsize)


cdef void set_up_c0(ForwardJob *job, const char *c0) noexcept:
    """Of all rows; NULL: zeros."""
    cdef Py_ssize_t row, padded = job.step.c_row * job.k.itemsize, size = job.H * job.k.itemsize
    cdef char *c = <char *>job.step.c
    for row in range(job.rows.B):
        if c0 == NULL:
            memset(c + c_row(job, -1, row) * padded, 0, padded)
        else:
            copy_rows(c + c_row(job, -1, row) * padded, padded, c0 + row * size, size, 1, size)


cdef void set_up_weights(ForwardJob *job, Call *call, Cell cell) except *:
    """What follows from the weights and from the plan."""
    job.k, job.rows, job.chunk_rows = cell.k, &call.rows, call.chunk_rows
    job.chunk_steps = call.chunk_rows // max(1, call.rows.B)
    job.of_x, job.of_h, job.rounds_x = cell.of_x, cell.of_h, cell.rounds_x
    job.training, job.by_rows = call.training, call.split.by_rows
    job.I, job.H, job.P, job.panels = cell.input_size, call.H, call.P, cell.panels
    job.gemm = load_gemm(call.size) if call.blas else NULL
    job.w_ih = data_of(cell.kept_ih) if call.blas else cell.gates_ih.data
    job.bias = data_of(cell.bias_sum) if call.blas else cell.bias.data
    job.w_hr = cell.project_hr.data if cell.proj_size else NULL
    job.step.depth, job.step.hidden_size, job.step.w = job.P, job.H, cell.gates_hh.data
    job.step.c_row, job.border = cell.padded, call.border
    job.c_gap = PAGE // (cell.padded * <Py_ssize_t>call.size)
    if call.blas or cell.layer_norm:
        job.step.projected_row, job.step.projected_panel, job.step.projected_gate = 4 * job.H, cell.k.lanes, job.H
    else:
        job.step.projected_row = 4 * cell.k.lanes
        job.step.projected_panel, job.step.projected_gate = job.step.projected_row * call.chunk_rows, cell.k.lanes
    lf_barrier_init(&job.barrier, &call.schedule.waited)
    lf_counter_set(&job.done, 0)


cdef void run_chain(Call *call, Py_ssize_t first_job, Py_ssize_t end_job, Py_ssize_t first_step,
                    Py_ssize_t end_step, const Place *here) noexcept nogil:
    """One thread's share of some layers, which go through time together, a chunk after the other."""
    cdef char *projected = call.projected + here.group * call.projected_size
    cdef Py_ssize_t s = first_step, first_row = 0, end_row = call.rows.B, end, j
    cdef bint pipelined = call.chained and call.split.groups > 1
    if call.split.by_rows:
        share_rows(&call.rows, 0, call.rows.T, here.part, here.parts, &first_row, &end_row)
    while s < end_step:
        end = chunk_end(&call.jobs[first_job], s, end_step, first_row, end_row)
        for j in range(first_job, end_job):
            if pipelined and j > 0:
                lf_counter_wait(&call.jobs[j - 1].done, end, &call.schedule.waited)
            run_chunk(&call.jobs[j], s, end, projected, first_row, end_row, here.part, here.parts)
            if pipelined and here.part == 0:
                lf_counter_set(&call.jobs[j].done, end)
        s = end


cdef void run_chunks(void *what, Py_ssize_t first_step, Py_ssize_t end_step, const Place *here) noexcept nogil:
    """One thread's share of some time steps of all jobs."""
    cdef Call *call = <Call *>what
    cdef Py_ssize_t j
    for j in range(here.first_job, here.first_job + 1 if call.chained else here.end_job):
        run_chain(call, j, here.end_job if call.chained else j + 1, first_step, end_step, here)


cdef void run_ahead(void *what, Py_ssize_t first_chunk, Py_ssize_t end_chunk, const Place *here) noexcept nogil:
    """The same of some chunks, where threads project the input ahead of one."""
    cdef Call *call = <Call *>what
    cdef Py_ssize_t j
    for j in range(here.first_job, here.end_job):  # more than one only if there are fewer threads than groups
        run_followed(&call.jobs[j], &call.following[j], call.projected + j * ROOMS * call.projected_size,
                     call.projected_size, first_chunk, end_chunk, here)


cdef void run_steps(void *what, Py_ssize_t first_step, Py_ssize_t end_step, const Place *here) noexcept nogil:
    """A share of the units of each of some steps of the only job."""
    cdef Call *call = <Call *>what
    cdef Py_ssize_t s
    for s in range(first_step, end_step):
        run_step(&call.jobs[0], s, call.chunks, call.projected, here.part, here.parts)


cdef void write_results(const Call *call, cnp.ndarray hn, cnp.ndarray cn) noexcept:
    """The state after the last step of each row, and what the threads have not copied: x to the tapes, y from them."""
    cdef const ForwardJob *job
    cdef Py_ssize_t n, row, t, T = call.rows.T, B = call.rows.B, H = call.H, P = call.P
    for n in range(call.count):
        job = &call.jobs[n]
        for row in range(B):
            t = T - 1 if call.rows.lengths == NULL else call.rows.lengths[row] - 1
            if job.reverse and t > 0:
                t = 0
            memmove(at(data_of(hn), (n * B + row) * P, job.k),
                    at(job.h0, row * P, job.k) if t < 0 else y_at(job, t, row), P * call.size)
            memcpy(at(data_of(cn), (n * B + row) * H, job.k),
                   at(<char *>job.step.c, c_row(job, t, row) * call.padded, job.k), H * call.size)
        if call.split.in_pieces and not call.split.by_rows:
            if job.kept_x != NULL:
                copy_x(job, 0, T, 0, 1)
            if job.users_y != NULL:
                copy_y(job, 0, T, 0, B)


cpdef list forward(list cells, tuple arrays, int directions=1, bint reverse=False, Ragged ragged=None,
                   bint training=False, bint blas=False, list noise=None, bint copy=False, list bounds=None):
    """Run chained layers of one direction, or one layer in two.

    The caller has checked: every array has the cells' dtype in native byte order and is aligned, the shapes fit,
    `x`, `h0`, `c0`, `hn` and `cn` are C-contiguous, and the last axis of `y` is. H is `hidden_size`, P the columns
    of h, the same in all L cells.

    Parameters
    ----------
    cells : list of Cell
        With ``directions=1``, layers from the lowest; with 2, forward and reverse of one layer. Prepared for training
        and for BLAS, where these are wanted.
    arrays : tuple (x, h0, c0, y, hn, cn), of which the last three are written:

    x : ndarray, shape (T, B, I), (B, I) for one step, or (N, I) of a ragged batch
    h0, c0 : ndarray, shapes (L, B, P) and (L, B, H); None for zeros
    y : ndarray, shape of x but for directions P columns
        In input order. None in training: not wanted.
    hn, cn : ndarray, shapes (L, B, P) and (L, B, H)
        The state after the last step. `hn` may be `h0`, `cn` may be `c0`.
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
    copy : bool
        In training, keep a copy of `x`.
    bounds : list of int, optional
        Bands of the batch in backward, if these are not those of this call alone: see `bands_of`.

    Returns
    -------
    list of Tape
        One for each cell; None unless training. They keep a reference to `x`, to which the caller must not
        write, or to its copy.
    """
    cdef Call call
    cdef Arena arena
    cdef char[SMALL_SCRATCH + SMALL_MARGIN] small
    cdef Buffer scratch
    cdef Cell cell = cells[0]
    cdef list tapes
    cdef cnp.ndarray x, h0, c0, y, hn, cn, kept
    x, h0, c0, y, hn, cn = arrays
    call.count, call.chained, call.training, call.blas = <int>len(cells), directions == 1, training, blas
    call.variants = noise is not None
    call.rows = rows_of(x, ragged)
    call.H, call.P, call.padded, call.size = cell.hidden_size, cell.output_size, cell.padded, cell.k.itemsize
    plan_call(&call, cells, ragged is not None)
    if training and bounds is None:
        bounds = bands_of(cells, call.rows.T, call.rows.B, ragged, noise is None and not blas)
    call.border = border_of(&call, cell, bounds)
    arena = arena_of(small, SMALL_SCRATCH)
    carve_scratch(&call, cells, noise, &arena)
    if arena.used > SMALL_SCRATCH:
        scratch = new_buffer(arena.used, 1)
        arena = arena_of(scratch.data, arena.used)
        carve_scratch(&call, cells, noise, &arena)
    kept = x
    if copy and training:
        kept = new_array(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cell.type_number)
    tapes = set_up_jobs(&call, cells, x, kept, h0, c0, y, reverse, ragged, bounds, noise)
    if call.rows.total > 0:
        if call.split.in_pieces and not call.split.by_rows:
            mark_chunks(call.jobs, call.chunks)
            begin(&call.schedule, call.split, call.count, call.rows.T, call.work, &call, run_steps)
            call.schedule.meet = True
        elif call.split.followed:
            begin(&call.schedule, call.split, call.count, chunks_of(call.jobs), call.work, &call, run_ahead)
        else:
            begin(&call.schedule, call.split, call.count, call.rows.T, call.work, &call, run_chunks)
            call.schedule.slab = slab_of(call.rows.T, call.chunk_rows // call.rows.B)
        run_all(&call.schedule, call.blas)
    write_results(&call, hn, cn)
    return tapes
