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


cdef Py_ssize_t times_of(const ForwardJob *job, Py_ssize_t chunk, Py_ssize_t *first_t) noexcept nogil:
    """Its first time, and the one after its last, which is returned."""
    cdef Py_ssize_t first_step = chunk * job.chunk_steps, end_step = end_of(job, chunk)
    first_t[0] = first_time(job, first_step, end_step)
    return first_t[0] + end_step - first_step


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
    cdef Py_ssize_t before = unit - ROOMS, first_t, end_t
    if before >= 0:
        lf_counter_wait(&job.done, end_of(job, before), chunks.following.stood_by)
        if job.users_y != NULL:
            end_t = times_of(job, before, &first_t)
            copy_y(job, first_t, end_t, 0, job.rows.B)
    if unit < chunks_of(job):
        end_t = times_of(job, unit, &first_t)
        if job.kept_x != NULL:
            copy_x(job, first_t, end_t, 0, 1)
        project_chunk(job, first_t, end_t, chunks.projected + unit % ROOMS * chunks.room, 0, job.rows.B, 0, 1,
                      chunks.operands)
    lf_counter_wait(&chunks.following.finished, unit, chunks.following.waited)  # for those before
