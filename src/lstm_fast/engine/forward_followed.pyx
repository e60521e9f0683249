"""Forward where one thread computes the steps, which nobody can share, and the others project the input ahead of it.

Time is cut into chunks of so many steps. Each is a unit of work: its input is projected into a room, once the steps of
the chunk that had this room are done; then the user gets y of these. A few units without a chunk follow, for y of the
last ones.
"""

from lstm_fast.engine.following cimport Following, work_until
from lstm_fast.engine.forward_job cimport ForwardJob, first_time
from lstm_fast.engine.forward_layer cimport copy_x, copy_y, project_chunk, step_chunk
from lstm_fast.engine.plan cimport Place
from lstm_fast.engine.runtime.kernels cimport lf_counter_set, lf_counter_wait


cdef struct Chunks:
    ForwardJob *job
    Following *following
    char *projected  # rooms,
    size_t room      # of so many bytes
    char *operands   # what the thread rounds


cdef Py_ssize_t chunks_of(const ForwardJob *job) noexcept nogil:
    return (job.rows.T + job.chunk_steps - 1) // job.chunk_steps


cdef Py_ssize_t end_of(const ForwardJob *job, Py_ssize_t chunk) noexcept nogil:
    """The step after its last."""
    return min(job.rows.T, (chunk + 1) * job.chunk_steps)


cdef Py_ssize_t time_of(const ForwardJob *job, Py_ssize_t chunk) noexcept nogil:
    """The first of its times."""
    return first_time(job, chunk * job.chunk_steps, end_of(job, chunk))


cdef void run_followed(ForwardJob *job, Following *following, char *projected, size_t room, Py_ssize_t first_chunk,
                       Py_ssize_t end_chunk, const Place *here) noexcept nogil:
    """One thread's share of some chunks of the job of a group."""
    cdef Chunks chunks
    cdef Py_ssize_t n, units = end_chunk
    chunks.job, chunks.following, chunks.projected, chunks.room = job, following, projected, room
    chunks.operands = job.operands + here.part * job.operands_size
    if end_chunk == chunks_of(job):
        units += ROOMS
    if here.part == 0:
        for n in range(first_chunk, end_chunk):
            work_until(following, n + 1, min(units, n + ROOMS), run_unit, &chunks)
            step_chunk(job, n * job.chunk_steps, end_of(job, n), projected + n % ROOMS * room, 0, job.rows.B, 0, 1,
                       chunks.operands)
            lf_counter_set(&job.done, end_of(job, n))
    work_until(following, units, units, run_unit, &chunks)


cdef void run_unit(const void *what, Py_ssize_t unit) noexcept nogil:
    cdef const Chunks *chunks = <const Chunks *>what
    cdef ForwardJob *job = chunks.job
    cdef Py_ssize_t t, before = unit - ROOMS
    if before >= 0:
        lf_counter_wait(&job.done, end_of(job, before), chunks.following.stood_by)
        if job.users_y != NULL:
            t = time_of(job, before)
            copy_y(job, t, t + end_of(job, before) - before * job.chunk_steps, 0, job.rows.B)
    if unit < chunks_of(job):
        t = time_of(job, unit)
        if job.kept_x != NULL:
            copy_x(job, t, t + end_of(job, unit) - unit * job.chunk_steps, 0, 1)
        project_chunk(job, t, t + end_of(job, unit) - unit * job.chunk_steps,
                      chunks.projected + unit % ROOMS * chunks.room, 0, job.rows.B, 0, 1, chunks.operands)
    lf_counter_wait(&chunks.following.finished, unit, chunks.following.waited)  # for those before
