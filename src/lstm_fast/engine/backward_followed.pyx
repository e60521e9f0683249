"""Backward where one thread computes the steps, which nobody can share, and the others follow it.

A stage is a chunk of time of a layer, in the order of their steps. The steps of a stage leave units of work, which
threads take in their order:

    packing what dgates are multiplied with; dx of each block of steps, once these are done
    shares of the sums and products over all steps
    with projection, shares of that one

A unit waits for those of the parts before. Stages have two scratches in turn: while others do what a stage leaves, the
first thread computes the steps of the next one.
"""

from lstm_fast.engine.backward_job cimport (OF_HIDDEN, OF_INPUT, OF_UNPROJECTED, BackwardJob, Chunk, Scratch,
                                            chunk_of)
from lstm_fast.engine.backward_layer cimport (add_product, add_vectors, dx_of_steps, hidden_before, keep_first_step,
                                              pack_operand, run_steps)
from lstm_fast.engine.following cimport Following, work_until
from lstm_fast.engine.plan cimport Place
from lstm_fast.engine.runtime.kernels cimport lf_counter_wait

# Shares of a product for each thread: the threads end together but for one share's time. And rows of a share, at least.
cdef int SHARES = 2
cdef Py_ssize_t LEAST_ROWS = 8


cdef struct Stages:
    BackwardJob *jobs       # of the layers, from the lowest
    Py_ssize_t layers
    const Scratch *scratch  # two
    Following *following
    Py_ssize_t products     # the first unit of a stage that belongs to these,
    Py_ssize_t projections  # or to that with projection,
    Py_ssize_t units        # and how many a stage has
    int shares              # of a product


cdef void run_followed(BackwardJob *jobs, const Scratch *scratch, Following *following, Py_ssize_t first_chunk,
                       Py_ssize_t end_chunk, const Place *here) noexcept nogil:
    """One thread's share of some chunks of the layers of a group."""
    cdef Stages stages
    cdef BackwardJob *job = &jobs[here.first_job]
    cdef Py_ssize_t j, n, blocks = 0, stage
    stages.jobs, stages.layers = job, here.end_job - here.first_job
    stages.scratch, stages.following, stages.shares = scratch, following, 1
    for j in range(here.first_job, here.end_job):
        for n in range(jobs[j].chunks):
            blocks = max(blocks, (jobs[j].bounds[n] - jobs[j].bounds[n + 1] + job.block - 1) // job.block)
    if here.parts > 1:
        stages.shares = <int>max(1, min(SHARES * here.parts, 4 * job.H // LEAST_ROWS))
    stages.products = 2 + blocks
    stages.projections = stages.units = stages.products + 2 * stages.shares
    if job.columns_hr != NULL:
        stages.projections += 1  # packing
        stages.units = stages.projections + stages.shares
    if here.part == 0:
        for stage in range(first_chunk * stages.layers, end_chunk * stages.layers):
            lead(&stages, stage)
    stage = end_chunk * stages.layers
    work_until(following, stage * stages.units, stage * stages.units, run_unit, &stages)


cdef BackwardJob *job_of(const Stages *stages, Py_ssize_t stage) noexcept nogil:
    """A layer before the one below."""
    return &stages.jobs[stages.layers - 1 - stage % stages.layers]


cdef void lead(const Stages *stages, Py_ssize_t stage) noexcept nogil:
    """The steps of a stage, as soon as it has a scratch and the gradients of the layer above."""
    cdef BackwardJob *job = job_of(stages, stage)
    cdef const Scratch *scratch = &stages.scratch[stage % 2]
    cdef Py_ssize_t n = stage // stages.layers, before = (stage - 1) * stages.units
    cdef Chunk chunk
    work_until(stages.following, before if stage % stages.layers == 0 else before + stages.products,
               stage * stages.units, run_unit, stages)
    if n < job.chunks:
        chunk = chunk_of(job, n)
        run_steps(job, scratch, n, 0, 1)
        keep_first_step(job, scratch, &chunk)


cdef void run_unit(const void *what, Py_ssize_t number) noexcept nogil:
    cdef const Stages *stages = <const Stages *>what
    cdef Py_ssize_t stage = number // stages.units, unit = number % stages.units
    cdef BackwardJob *job = job_of(stages, stage)
    cdef const Scratch *scratch = &stages.scratch[stage % 2]
    cdef Following *following = stages.following
    cdef Py_ssize_t T = job.rows.T, n = stage // stages.layers, earlier = 0, high, until
    cdef Chunk chunk
    if n >= job.chunks:
        return
    chunk = chunk_of(job, n)
    if unit >= stages.products:
        earlier = stages.products if unit < stages.projections else stages.projections
    lf_counter_wait(&following.finished, stage * stages.units + earlier, following.waited)
    if unit == 0:
        pack_operand(job, scratch, &chunk, OF_INPUT, scratch.packed[OF_INPUT], 0, 1)
    elif unit == 1:
        hidden_before(job, scratch, chunk.first_t, chunk.end_t, 0, 1)
        pack_operand(job, scratch, &chunk, OF_HIDDEN, scratch.packed[OF_HIDDEN], 0, 1)
    elif unit < stages.products:
        high = chunk.high - (unit - 2) * job.block
        if high > chunk.low:
            until = max(chunk.low, high - job.block)
            lf_counter_wait(&job.done, T - until, following.stood_by)
            dx_of_steps(job, scratch, &chunk, until, high, 0, 1)
    else:
        run_product(stages, job, scratch, &chunk, <int>(unit - stages.products))


cdef void run_product(const Stages *stages, BackwardJob *job, const Scratch *scratch, const Chunk *chunk,
                      int unit) noexcept nogil:
    """One of the units that need all steps of the chunk."""
    cdef int operand = unit // stages.shares, share = unit % stages.shares
    if unit == 2 * stages.shares:
        pack_operand(job, scratch, chunk, OF_UNPROJECTED, scratch.packed[OF_UNPROJECTED], 0, 1)
        return
    if operand == OF_INPUT:
        add_vectors(job, scratch, chunk, share, stages.shares)
    elif operand > OF_HIDDEN:
        operand, share = OF_UNPROJECTED, unit - 1 - 2 * stages.shares
    add_product(job, scratch, chunk, operand, scratch.packed[operand], share, stages.shares)
