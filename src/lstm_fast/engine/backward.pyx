"""Backward of chained layers or of two directions: one call of the engine.

    plan_call       how it is spread over threads and cut into chunks of time
    carve_scratch   memory that it needs while it runs
    set_up_jobs     the job of each layer or direction, from its tape
    run_chunks      the chunks of one thread, from the last to the first: `schedule` starts it on each
"""

cimport numpy as cnp
from libc.string cimport memset

from lstm_fast.engine.runtime.arithmetic import add
from lstm_fast.engine.backward_job cimport OPERANDS, BackwardJob, BackwardVariant, Scratch, panels_of
from lstm_fast.engine.backward_followed cimport run_followed
from lstm_fast.engine.backward_layer cimport PHASES, run_chunk, run_phase, run_unit
from lstm_fast.engine.backward_variant cimport set_up_variant
from lstm_fast.engine.batch cimport Rows, set_band
from lstm_fast.engine.cell cimport Cell
from lstm_fast.engine.chunks cimport chunk_rows_of, cut_into_chunks
from lstm_fast.engine.following cimport Following, begin_following
from lstm_fast.engine.matrix cimport operand_row
from lstm_fast.engine.memory cimport (SMALL_MARGIN, SMALL_SCRATCH, Arena, Buffer, arena_of, at, copied, copy_rows,
                                      data_of, data_or_null, new_array, new_buffer, take, times)
from lstm_fast.engine.plan cimport Place, Split, plan
from lstm_fast.engine.runtime.gemm cimport load_gemm
from lstm_fast.engine.runtime.kernels cimport lf_barrier_init, lf_counter_set
from lstm_fast.engine.schedule cimport Schedule, begin, run_all
from lstm_fast.engine.sums cimport Sum, Sums
from lstm_fast.engine.tape cimport Tape

cnp.import_array()

# Rows of the weights' gradients for each thread, from which it packs what they are multiplied with for itself. It then
# meets the others twice in a chunk instead of five times, and reads less that another core has just written, 4 to 7 ns
# a cache line: two threads are 1.6 times as fast as one at (100, 8, 64, 64), instead of 1.5 (AVX-512, Xeon).
cdef Py_ssize_t PACKER_ROWS = 64
# Bytes of weights that stay in a cache while a thread computes dx of few rows after few, and rows that are not few.
cdef size_t CACHED_WEIGHTS = 1 << 19
cdef Py_ssize_t MANY_ROWS = 32
# What the cells of a step cost, and other small things, in columns of a product.
cdef Py_ssize_t CELL_COST = 8
# In a pipeline of layers dx goes to the layer below in so many blocks.
cdef Py_ssize_t PIPELINE_BLOCKS = 8
# Steps of a block whose dx is computed by those who follow the thread that computes the steps.
cdef Py_ssize_t FOLLOWED_STEPS = 16


cdef struct Call:
    BackwardJob *jobs         # of each band of the batch, all that there are in one
    int layers                # each the input of the next (chained), or else directions
    int bands                 # of the batch: see sums.pyx
    int count                 # of jobs
    bint chained, blas
    bint layer_norm           # whether some cell has it
    Rows rows
    Rows *of_bands            # those of each band
    Py_ssize_t *times         # for these, if they are ragged: 2 (T + 1) of each
    Py_ssize_t H, P, padded   # of every cell
    size_t size               # bytes of a number
    Split split
    double work               # multiply-adds
    Py_ssize_t chunk_rows     # the most rows of a chunk,
    Py_ssize_t band_rows      # and of it in a band
    Py_ssize_t widest         # the most columns of an input or of h
    size_t packed_size        # bytes of the widest of these, packed
    int packers               # threads of a group that pack it for themselves; 1: they share one
    Scratch *scratch          # one for each group of threads; two, where threads follow one
    Following *following      # then one for each group
    double[PHASES] cost       # of the phases of a chunk, beside one another: what they multiply a row of dgates by
    Schedule schedule


cdef void plan_call(Call *call, list tapes) except *:
    """How the call is split over threads, and how large its chunks of time are."""
    cdef Tape tape
    cdef Cell cell = None
    cdef Py_ssize_t H = call.H, P = call.P, T = call.rows.T, B = call.rows.B
    cdef size_t size = call.size
    cdef double total = call.rows.total, step_work = total / max(T, 1) / call.bands * 4 * H * P
    call.work, call.widest, call.layer_norm = 0, max(H, P), False
    for tape in tapes:
        cell = tape.cell
        call.blas = call.blas and cell.kept_ih is not None
        call.layer_norm = call.layer_norm or cell.layer_norm
        call.widest = max(call.widest, cell.input_size)
        call.work += total * call.padded * (8 * P + 8 * cell.input_size + (3 * P if cell.proj_size else 0))
    call.band_rows = call.chunk_rows = min(call.rows.total, chunk_rows_of(cell, B, call.bands))
    if call.bands > 1 and call.rows.counts == NULL:
        call.band_rows = call.chunk_rows // B * ((B + call.bands - 1) // call.bands)
    call.split = plan(call.layers, call.chained, call.bands, T, call.rows.total // max(T, 1), call.rows.counts != NULL,
                      1 if call.layer_norm else panels_of(H, cell.k), times(4 * H, P) * size, step_work, call.work,
                      2 if cell.proj_size else 1, not call.blas, True)
    call.blas = call.blas and times(call.chunk_rows, max(4 * H, call.widest)) < 2**31
    call.packed_size = times(times(call.band_rows, panels_of(call.widest, cell.k) * 4 * cell.k.lanes), size)
    tape = tapes[0]
    call.cost = [P + CELL_COST, tape.cell.input_size + CELL_COST, tape.cell.input_size, CELL_COST, P,
                 CELL_COST if tape.cell.proj_size else 0, P // 4 if tape.cell.proj_size else 0]
    call.packers = (call.split.threads + call.split.groups - 1) // call.split.groups
    if call.blas:
        call.packed_size = 0
    if call.blas or call.split.in_pieces or call.split.followed or 4 * H < PACKER_ROWS * call.packers:
        call.packers = 1


cdef void carve_scratch(Call *call, list tapes, Arena *arena) except *:
    """Give the call its pieces of an arena; where that is too small, it has counted what is needed."""
    cdef BackwardJob counted
    cdef BackwardVariant unused
    cdef Scratch measured
    cdef BackwardJob *job
    cdef BackwardVariant *variant
    cdef Tape tape = tapes[0]
    cdef Py_ssize_t n, B = call.rows.B, H = call.H, P = call.P
    cdef Py_ssize_t groups = call.bands if call.split.in_pieces else call.split.groups
    cdef Py_ssize_t scratches = (1 + call.split.followed) * groups
    cdef size_t size = call.size
    call.jobs = <BackwardJob *>take(arena, call.count * sizeof(BackwardJob))
    call.of_bands = <Rows *>take(arena, call.bands * sizeof(Rows))
    call.times = NULL
    if call.bands > 1 and call.rows.counts != NULL:
        call.times = <Py_ssize_t *>take(arena, call.bands * 2 * (call.rows.T + 1) * sizeof(Py_ssize_t))
    if call.split.followed:
        call.following = <Following *>take(arena, groups * sizeof(Following))
    call.scratch = <Scratch *>take(arena, scratches * sizeof(Scratch))
    for n in range(scratches):
        carve_chunk(&measured if call.scratch == NULL else &call.scratch[n], call, tape, arena)
    for n in range(call.count):
        tape = tapes[n % call.layers]
        job = &counted if call.jobs == NULL else &call.jobs[n]
        memset(job, 0, sizeof(BackwardJob))
        job.dc, job.dgates_after = take(arena, times(B, call.padded) * size), take(arena, times(B, 4 * H) * size)
        job.bounds = <Py_ssize_t *>take(arena, (call.rows.T + 1) * sizeof(Py_ssize_t))
        if call.chained and 0 < n < call.layers:
            job.dx = take(arena, times(times(call.rows.total, P), size))
        if tape.variant:
            job.variant = <BackwardVariant *>take(arena, sizeof(BackwardVariant))
            variant = &unused if job.variant == NULL else job.variant
            memset(variant, 0, sizeof(BackwardVariant))
            if tape.noise is not None and tape.noise.recurrent is not None:
                variant.dmasked = take(arena, times(B, P) * size)


cdef void carve_chunk(Scratch *scratch, const Call *call, Tape tape, Arena *arena) except *:
    """The same for what a group of threads needs for a chunk, as far as the cells need it."""
    cdef bint projected = tape.cell.proj_size > 0
    cdef bint masked = tape.noise is not None and tape.noise.recurrent is not None
    cdef size_t rows = call.band_rows, size = call.size, columns
    cdef char *packed = NULL
    cdef int operand
    cdef size_t dgates_size = times(times(rows, 4 * call.H), size)
    cdef size_t p_size = times(times(rows, call.P), size), h_size = times(times(rows, call.H), size)
    memset(scratch, 0, sizeof(Scratch))
    scratch.dgates = scratch.dgates_ih = scratch.dgates_hh = take(arena, dgates_size)
    if call.layer_norm:
        scratch.dgates_ih = scratch.dgates_hh = take(arena, dgates_size)
    for operand in range(OPERANDS):
        if operand == 0 or call.split.followed:
            packed = take(arena, times(call.packers, call.packed_size))
        scratch.packed[operand] = packed
    if call.bands > 1 and tape.ragged is not None:
        scratch.dx = take(arena, times(times(rows, call.widest), size))
    if tape.ragged is not None or masked:
        scratch.h_before = take(arena, p_size)
    if projected or tape.noise is not None:
        scratch.dy = take(arena, p_size)
    if projected:
        scratch.hidden = take(arena, h_size)
    if tape.variant and tape.cell.peephole is not None:
        scratch.dpeephole = take(arena, 3 * h_size)
    if call.layer_norm:
        scratch.du, scratch.dw_hh = take(arena, h_size), take(arena, dgates_size)
        if not tape.cell.norm_of_gates:
            scratch.dgates_ih, scratch.dw_ih = take(arena, dgates_size), take(arena, dgates_size)
            scratch.dn, scratch.dw_c = take(arena, h_size), take(arena, h_size)
    scratch.of_ih, scratch.of_hh, scratch.of_dy = scratch.dgates_ih, scratch.dgates_hh, scratch.dy
    if not tape.cell.full:
        scratch.of_ih = scratch.of_hh = take(arena, dgates_size)
        if call.layer_norm and not tape.cell.norm_of_gates:
            scratch.of_ih = take(arena, dgates_size)
        if projected:
            columns = times(rows, operand_row(tape.cell.of_h, call.P))
            scratch.of_dy = take(arena, times(columns, size))
            if scratch.of_dy != NULL and columns > rows * call.P:
                memset(scratch.of_dy, 0, columns * size)  # what rows are padded with is not written again


cdef void set_up_bands(Call *call, Sums sums) except *:
    """Fill in which rows each band has."""
    cdef int band
    if call.bands == 1:
        call.of_bands[0] = call.rows
        return
    for band in range(call.bands):
        set_band(&call.of_bands[band], &call.rows, sums.bounds[band], sums.bounds[band + 1],
                 call.times + band * 2 * (call.rows.T + 1))


cdef void set_up_jobs(Call *call, list tapes, cnp.ndarray dy, cnp.ndarray dh, cnp.ndarray dc, list dxs,
                      Sums sums) except *:
    """Fill the jobs in."""
    cdef Tape tape
    cdef Cell cell
    cdef BackwardJob *job
    cdef Sum into
    cdef Py_ssize_t j, n, first, end, T = call.rows.T, B = call.rows.B, H = call.H, P = call.P, size = call.size
    cdef int rows_axis, band
    for j in range(call.count):
        band, n = <int>(j // call.layers), j % call.layers
        first, end = sums.bounds[band], sums.bounds[band + 1]
        tape, job = tapes[n], &call.jobs[j]
        cell = tape.cell
        job.k, job.rows, job.batch, job.reverse = cell.k, &call.of_bands[band], &call.rows, tape.reverse
        job.I, job.H, job.P, job.padded = cell.input_size, H, P, call.padded
        job.gemm, job.of = load_gemm(size) if call.blas else NULL, cell.of_h
        job.dy_row = P if cell.full else operand_row(cell.of_h, P)
        job.by_rows, job.block, job.waited = call.split.by_rows, T, &call.schedule.waited
        job.pipelined = call.chained and call.layers > 1 and call.split.groups > 1 and call.bands == 1
        job.packed_size = call.packed_size if call.packers > 1 else 0
        job.dx_by_rows = (job.by_rows and job.rows.counts == NULL and not call.blas and not job.pipelined
                          and (times(4 * H, job.I) * size <= CACHED_WEIGHTS or call.chunk_rows >= MANY_ROWS * B))
        job.dx_by_rows = job.dx_by_rows or (call.bands > 1 and job.rows.counts == NULL)
        if call.split.followed:
            job.block = FOLLOWED_STEPS
        if job.pipelined:
            job.block = max(1, T // PIPELINE_BLOCKS)
            job.above = &call.jobs[n + 1].done if n < call.layers - 1 else NULL
        job.kept = job.rows if tape.border < B else job.batch
        job.kept_h = job.rows if tape.h_apart else job.batch
        job.x = at(tape.x, first * job.I, job.k)
        job.h = at(tape.h, (first * (T + 1) if tape.h_apart else first) * P, job.k)
        job.gates = at(tape.gates, (first * T if tape.border < B else first) * 4 * call.padded, job.k)
        job.c = at(tape.c, (first * (T + 1) if tape.border < B else first) * call.padded, job.k)
        job.w_ih = data_of(cell.kept_ih) if call.blas else NULL
        job.columns_ih = cell.columns_ih.data if cell.columns_ih is not None else NULL
        job.columns_hh = cell.columns_hh.data
        job.columns_hr = cell.columns_hr.data if cell.proj_size else NULL
        if call.chained and n < call.layers - 1:
            job.dy, job.dy_t, job.dy_b = at(call.jobs[n + 1].dx, first * P, job.k), B * P, P
        elif dy is not None:
            rows_axis = cnp.PyArray_NDIM(dy) - 2
            job.dy_t, job.dy_b = cnp.PyArray_STRIDE(dy, 0) // size, cnp.PyArray_STRIDE(dy, rows_axis) // size
            job.dy = at(data_of(dy), first * job.dy_b + (0 if call.chained else n * P), job.k)
        if not call.chained or n == 0:
            job.dx = data_or_null(dxs[n])
        else:
            job.dx = call.jobs[n].dx
        if job.dx != NULL:
            job.dx = at(job.dx, first * job.I, job.k)
        job.dh = at(data_of(dh), (n * B + first) * P, job.k)
        into = sums.of(n, band)
        job.dw_ih, job.dw_hh, job.dw_hr, job.db = into.w_ih, into.w_hh, into.w_hr, into.bias
        job.accumulate = sums.begun
        if tape.variant:
            set_up_variant(job, tape, sums.by_name(n))
        copy_rows(job.dc, call.padded * size, at(data_of(dc), (n * B + first) * H, job.k), H * size, end - first,
                  H * size)
        cut_into_chunks(job, call.chunk_rows)
        lf_barrier_init(&job.barrier, job.waited)
        lf_counter_set(&job.done, 0)


cdef void run_chunks(void *what, Py_ssize_t first_chunk, Py_ssize_t end_chunk, const Place *here) noexcept nogil:
    """One thread's share of some chunks of all jobs, counted from the last time step."""
    cdef Call *call = <Call *>what
    cdef Py_ssize_t j, n
    if call.split.followed:
        run_followed(call.jobs, &call.scratch[2 * here.group], &call.following[here.group], first_chunk, end_chunk,
                     here)
        return
    for n in range(first_chunk, end_chunk):
        for j in range(here.end_job - 1, here.first_job - 1, -1):  # a layer before the one below
            if n < call.jobs[j].chunks:
                run_chunk(&call.jobs[j], &call.scratch[here.group], n, here.part, here.parts)


cdef void run_phases(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """A piece of some phases, counted through those of each layer or direction of each chunk; each band has pieces."""
    cdef Call *call = <Call *>what
    cdef Py_ssize_t u, n, j
    cdef int pieces = here.parts // call.bands, band = here.part // pieces
    for u in range(first, end):
        n, j = u // (PHASES * call.layers), call.layers - 1 - u // PHASES % call.layers
        j += band * call.layers
        if n < call.jobs[j].chunks:
            run_phase(&call.jobs[j], &call.scratch[band], n, <int>(u % PHASES), here.part % pieces, pieces)


cdef void run_units(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """A share of each of some units of the only job: each step of a chunk is one, and so are its phases."""
    cdef Call *call = <Call *>what
    cdef BackwardJob *job = &call.jobs[0]
    cdef Py_ssize_t u, n = 0
    for u in range(first, end):
        while u >= first_unit(job, n + 1):
            n += 1
        run_unit(job, call.scratch, n, u - first_unit(job, n), here.part, here.parts)


cdef Py_ssize_t first_unit(const BackwardJob *job, Py_ssize_t n) noexcept nogil:
    """That of chunk n."""
    return job.rows.T - job.bounds[n] + n * PHASES


cpdef tuple backward(list tapes, cnp.ndarray dy, cnp.ndarray dhn, cnp.ndarray dcn, Sums sums=None, bint blas=False,
                     bint of_input=True):
    """Gradients of what one call of `forward` computed.

    The caller has checked: the gradients have the cells' dtype in native byte order, the shapes fit, `dhn`
    and `dcn` are C-contiguous, and the last axis of `dy` is. H is `hidden_size`, P the columns of h.

    Parameters
    ----------
    tapes : list of Tape
        From `forward`; not changed.
    dy : ndarray, shape of y, or None for zeros
    dhn, dcn : ndarray, shapes (L, B, P) and (L, B, H), or None for zeros
    sums : Sums, optional
        To which the gradients of the parameters are added, where others of other time steps may be.
    blas : bool
        BLAS instead of the own products over whole chunks.
    of_input : bool
        Whether dx is wanted. Then the cells have to be prepared for it.

    Returns
    -------
    dx : ndarray, shape of x, or None
    dh0, dc0 : ndarray, shapes (L, B, P) and (L, B, H)
    grads : list of ndarray
        Of all parameters of the first cell, in order, then of the others; None with `sums`.
    """
    cdef Call call
    cdef Arena arena
    cdef char[SMALL_SCRATCH + SMALL_MARGIN] small
    cdef Buffer scratch
    cdef Tape tape = tapes[0]
    cdef Cell cell = tape.cell
    cdef cnp.ndarray x = tape.x_owner
    cdef Py_ssize_t n, j, first, end, B = tape.rows.B, L = len(tapes), chunks
    cdef bint own = sums is None
    call.chained = L == 1 or (<Tape>tapes[1]).x_owner is tape.memory
    call.blas, call.rows, call.size = blas, tape.rows, cell.k.itemsize
    call.H, call.P, call.padded = cell.hidden_size, cell.output_size, cell.padded
    for tape in tapes:
        if tape.cell.columns_ih is None and (of_input or (call.chained and tape is not tapes[0])):
            raise RuntimeError("the weights were packed for no gradient of the input")
    dh, dc = copy_or_zeros(dhn, L, B, call.P, cell.type_number), copy_or_zeros(dcn, L, B, call.H, cell.type_number)
    if own:
        sums = new_sums(tapes)
    elif tape.border < B and sums.bounds[1] != tape.border:
        raise RuntimeError("the tapes have other bands than the sums")
    call.layers, call.bands, call.count = <int>L, sums.bands, <int>L * sums.bands
    dxs = [new_array(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), cell.type_number) if of_input else None
           for _ in range(1 if call.chained else L)]
    if call.rows.total == 0:
        sums.nothing()
        if of_input:
            dxs[0][...] = 0
        return dxs[0], dh, dc, sums.total() if own else None

    plan_call(&call, tapes)
    arena = arena_of(small, SMALL_SCRATCH)
    carve_scratch(&call, tapes, &arena)
    if arena.used > SMALL_SCRATCH:
        scratch = new_buffer(arena.used, 1)
        arena = arena_of(scratch.data, arena.used)
        carve_scratch(&call, tapes, &arena)
    set_up_bands(&call, sums)
    set_up_jobs(&call, tapes, dy, dh, dc, dxs, sums)
    if call.split.followed:
        for n in range(call.split.groups):
            begin_following(&call.following[n], &call.schedule.waited, &call.schedule.stood_by)
    chunks = 0
    for n in range(call.count):
        chunks = max(chunks, call.jobs[n].chunks)
    if call.split.in_pieces:
        if call.split.by_rows:
            begin(&call.schedule, call.split, call.count, chunks * PHASES * L, call.work, &call, run_phases)
            call.schedule.cost, call.schedule.period = call.cost, PHASES
        else:
            begin(&call.schedule, call.split, call.count, first_unit(call.jobs, chunks), call.work, &call, run_units)
        call.schedule.meet = call.bands == 1 or call.split.threads > call.bands
    else:
        begin(&call.schedule, call.split, call.count, chunks, call.work, &call, run_chunks)
    run_all(&call.schedule, call.blas)
    sums.begun = True
    for j in range(call.count):
        first, end = sums.bounds[j // L], sums.bounds[j // L + 1]
        copy_rows(at(data_of(dc), (j % L * B + first) * call.H, cell.k), call.H * call.size, call.jobs[j].dc,
                  call.padded * call.size, end - first, call.H * call.size)
    for dx in dxs[1:]:
        if of_input:
            add(dxs[0], dx)
    return dxs[0], dh, dc, sums.total() if own else None


cdef object copy_or_zeros(cnp.ndarray a, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t n2, int type_number):
    cdef cnp.npy_intp[3] shape = [n0, n1, n2]
    return cnp.PyArray_ZEROS(3, shape, type_number, False) if a is None else copied(a)


cdef Sums new_sums(list tapes):
    """For one call alone."""
    cdef Tape tape
    return Sums([tape.cell for tape in tapes], (<Tape>tapes[0]).bounds)
