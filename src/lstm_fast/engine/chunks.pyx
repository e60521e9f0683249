"""How backward cuts time into chunks."""

from lstm_fast.engine.backward_job cimport BackwardJob, time_of
from lstm_fast.engine.batch cimport Ragged, Rows, rows_at, rows_of_batch
from lstm_fast.engine.cell cimport Cell
from lstm_fast.engine.memory cimport Buffer, new_buffer, times
from lstm_fast.engine.plan cimport FOLLOWED_ROWS

# dgates of a chunk stay in the L2 cache between the steps and the products. It has at least as many rows as a sum over
# them has terms in one piece.
cdef size_t CHUNK_BYTES = 1 << 19
cdef Py_ssize_t LEAST_CHUNK_ROWS = 256
# Steps of a chunk of so few rows of one panel that nobody shares them: others follow it (see backward_followed.pyx).
cdef Py_ssize_t FOLLOWED_CHUNK = 50


cdef void cut_into_chunks(BackwardJob *job, Py_ssize_t chunk_rows) noexcept:
    """Fill `bounds`, of room for T + 1. Depends on the batch alone: the bits of the weights' gradients do on it."""
    cdef Py_ssize_t s = job.batch.T, rows = 0, running
    job.chunks = 0
    job.bounds[0] = s
    while s > 0:
        running = rows_at(job.batch, time_of(job, s - 1))
        if rows > 0 and rows + running > chunk_rows:
            job.chunks += 1
            job.bounds[job.chunks] = s
            rows = 0
        rows += running
        s -= 1
    if rows > 0:
        job.chunks += 1
    job.bounds[job.chunks] = 0


cdef Py_ssize_t whole_rows(Cell cell, Py_ssize_t B, int bands) except? -1:
    """Of a chunk that nobody follows: the most rows of a batch in so many bands (see sums.pyx)."""
    cdef Py_ssize_t rows = <Py_ssize_t>(CHUNK_BYTES // times(4 * cell.hidden_size, cell.k.itemsize))
    return max(max(rows, LEAST_CHUNK_ROWS) * bands, B)


cdef Py_ssize_t chunk_rows_of(Cell cell, Py_ssize_t B, int bands) except? -1:
    """The most rows of a chunk."""
    if B <= FOLLOWED_ROWS and cell.hidden_size <= 4 * cell.k.lanes:
        return FOLLOWED_CHUNK * max(B, 1)
    return whole_rows(cell, B, bands)


def segments(Cell cell not None, Py_ssize_t T, Py_ssize_t B, Ragged ragged, bint reverse, Py_ssize_t steps, int bands):
    """Cut a sequence into segments that can be differentiated one by one, with the same bits.

    Parameters are those of the sequence, the least time steps of a segment, and the batch's `bands`.

    Returns
    -------
    list of (int, int)
        The first time of each segment and the one after its last, in the order of forward. Each has `steps`
        time steps or a few more, to hold whole chunks of `backward`, and so many of these as are no shorter than
        others; the first may have fewer.
    """
    cdef Rows rows = rows_of_batch(T, B, ragged)
    cdef BackwardJob job
    cdef Buffer bounds = new_buffer(T + 1, sizeof(Py_ssize_t))
    cdef Py_ssize_t n, high = T, chunk_rows = chunk_rows_of(cell, B, bands), chunks = 0
    job.rows, job.batch, job.reverse, job.bounds = &rows, &rows, reverse, <Py_ssize_t *>bounds.data
    cut_into_chunks(&job, chunk_rows)
    found = []
    for n in range(1, job.chunks + 1):
        chunks += 1
        if n == job.chunks or (high - job.bounds[n] >= steps and chunks >= whole_rows(cell, B, bands) // chunk_rows):
            found.append((T - high, T - job.bounds[n]) if reverse else (job.bounds[n], high))
            high, chunks = job.bounds[n], 0
    return found[::-1] or [(0, 0)]
