"""Backward of one layer and direction: the time loop, its threads, and the gradients of the weights.

A chunk of time steps at a time, from the last to the first. Within a chunk the steps run one after the
other and leave the gradients of the pre-activations, dgates; then the products over the whole chunk, which
do not depend on one another, take them while they are in the cache:

    dx = dgates w_ih    dw_ih += dgates' x    dw_hh += dgates' h(t-1)    db += sum of dgates
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.string cimport memcpy, memset

from contextlib import nullcontext

import numpy as np

from ._blas cimport gemm_function
from ._engine import held_to_one_thread
from ._engine cimport Buffer, Cell, Tape, add, borrow, copy_rows, give_back, load_gemm, times
from ._kernels cimport (lf_barrier, lf_barrier_init, lf_barrier_wait, lf_cell_backward, lf_fpenv,
                        lf_fpenv_enter, lf_fpenv_leave, lf_kernels, lf_product)
from ._threads cimport Split, plan, share, team_size, used_threads

cnp.import_array()

cdef extern from *:
    """
    #undef I /* complex.h's, which NumPy includes */
    """

# dgates of a chunk stay in the L2 cache between the steps and the products.
cdef size_t CHUNK_BYTES = 1 << 19
cdef Py_ssize_t LEAST_CHUNK_ROWS = 512
cdef double WORK_PER_SIGNAL_CHECK = 4e9
# Multiply-adds from which BLAS is the faster one for the gradients of the weights.
cdef double BLAS_WORK = 4e6


cdef struct Job:
    const lf_kernels *k
    gemm_function gemm             # NULL: own products for the gradients of the weights
    bint gemm_dx                   # BLAS for dx too
    lf_barrier barrier
    bint by_rows, reverse
    Py_ssize_t T, B, I, H, P       # P: columns of h and y
    Py_ssize_t padded, panels, chunk
    const char *x                  # (T, B, I)
    const char *h0                 # (B, P)
    const char *h                  # with projection: h before (reverse: after) each time, (T + 1, B, P)
    const char *gates              # (T, B, 4, padded), by step
    const char *c                  # (T + 1, B, padded), by step
    const char *w_ih               # (4H, I), for BLAS
    const char *columns_ih         # packed in columns: (4H, I), (4H, P), (P, H)
    const char *columns_hh
    const char *columns_hr         # NULL without projection
    const char *dy                 # NULL: zeros
    Py_ssize_t dy_t, dy_b          # its strides
    const char *dh_last            # (B, P): gradient of the last step's h, dy included
    char *dx                       # (T, B, I)
    char *dh0                      # (B, P)
    char *dc                       # (B, padded): of c(t) on its way down
    char *dw_ih
    char *dw_hh
    char *db
    char *dw_hr
    char *dgates[2]                # (chunk, B, 4H) each, by time; of this chunk and the one after it
    char *h_chunk                  # (chunk + 1, B, H): h(t-1), or with projection o tanh(c)
    char *dh_chunk                 # with projection: (chunk, B, P), gradients of y(t)
    char *packed                   # a right-hand side of the weights' gradients, packed in columns


cdef inline const char *at(const char *p, Py_ssize_t elements, const Job *job) noexcept nogil:
    return p + elements * <Py_ssize_t>job.k.itemsize


cdef Py_ssize_t panels_of(Py_ssize_t columns, const Job *job) noexcept nogil:
    return (columns + 4 * job.k.lanes - 1) // (4 * job.k.lanes)


cdef lf_product product_of(Job *job, Py_ssize_t rows, const char *a, Py_ssize_t depth, const char *b,
                           Py_ssize_t columns, int part, int parts) noexcept nogil:
    """a (rows, depth) b for one of `parts` shares of the columns; init and out are the caller's to set."""
    cdef lf_product p
    p.rows, p.depth, p.columns = rows, depth, columns
    p.a, p.a_row, p.a_step = a, depth, 1
    p.b = b
    p.init, p.init_row, p.init_panel = NULL, 0, 4 * job.k.lanes
    p.out, p.out_row, p.out_panel = NULL, columns, 4 * job.k.lanes
    share(panels_of(columns, job), part, parts, &p.first_panel, &p.last_panel)
    return p


cdef void outer(Job *job, char *dw, Py_ssize_t dw_rows, const char *d, const char *m, Py_ssize_t rows,
                Py_ssize_t columns, int thread, int threads) noexcept nogil:
    """dw (dw_rows, columns) += d (rows, dw_rows)' m (rows, columns), each thread some rows of dw.

    A row of dw is summed over `rows` in order, whoever does it: the bits do not depend on the threads.
    """
    cdef Py_ssize_t first, last, first_panel, last_panel
    cdef lf_product p
    share(dw_rows, thread, threads, &first, &last)
    if job.gemm != NULL:
        job.gemm(True, False, <int>(last - first), <int>columns, <int>rows, at(d, first, job), <int>dw_rows,
                 m, <int>columns, <char *>at(dw, first * columns, job), <int>columns)
        return
    share(panels_of(columns, job), thread, threads, &first_panel, &last_panel)
    job.k.pack_columns(job.packed, m, columns, rows, columns, first_panel, last_panel)
    lf_barrier_wait(&job.barrier, threads)
    p.rows, p.depth, p.columns = last - first, rows, columns
    p.a, p.a_row, p.a_step = at(d, first, job), 1, dw_rows
    p.b = job.packed
    p.out = <char *>at(dw, first * columns, job)
    p.out_row, p.out_panel = columns, 4 * job.k.lanes
    p.init, p.init_row, p.init_panel = p.out, p.out_row, p.out_panel
    p.first_panel, p.last_panel = 0, panels_of(columns, job)
    job.k.product(&p)
    lf_barrier_wait(&job.barrier, threads)


cdef void step_back(Job *job, Py_ssize_t s, const char *later, char *dgates, char *h, char *dh,
                    Py_ssize_t first_row, Py_ssize_t last_row, int part, int parts,
                    int meeting) noexcept nogil:
    """Step s, for some rows and one of `parts` shares of the units.

    `later` is dgates of step s + 1. `dgates` and `h` receive this step's gradients and o tanh(c); with
    projection, `dh` receives the gradient of y(t).
    """
    cdef Py_ssize_t H = job.H, P = job.P, rows = last_row - first_row
    cdef Py_ssize_t t = job.T - 1 - s if job.reverse else s, at_s = s * job.B + first_row
    cdef lf_cell_backward step
    cdef lf_product p
    p = product_of(job, rows, at(later, first_row * 4 * H, job), 4 * H if s < job.T - 1 else 0,
                   job.columns_hh, P, part, parts)
    if s == job.T - 1:
        p.init, p.init_row = at(job.dh_last, first_row * P, job), P
    elif job.dy != NULL:
        p.init, p.init_row = at(job.dy, t * job.dy_t + first_row * job.dy_b, job), job.dy_b
    if job.columns_hr != NULL:
        p.out = <char *>at(dh, first_row * P, job)
        job.k.product(&p)
        lf_barrier_wait(&job.barrier, meeting)
        p = product_of(job, rows, <const char *>p.out, P, job.columns_hr, H, part, parts)
    step.product = p
    step.gates = at(job.gates, at_s * 4 * job.padded, job)
    step.c_prev = at(job.c, at_s * job.padded, job)
    step.c = at(job.c, (at_s + job.B) * job.padded, job)
    step.dc = <char *>at(job.dc, first_row * job.padded, job)
    step.dgates = <char *>at(dgates, first_row * 4 * H, job)
    step.h = <char *>at(h, first_row * H, job)
    job.k.cell_backward(&step)


cdef void add_gradients(Job *job, const char *dgates, const char *h, Py_ssize_t t, Py_ssize_t steps,
                        int thread, int threads) noexcept nogil:
    """dx of the times t .. t + steps - 1, and what they add to the gradients of the weights."""
    cdef Py_ssize_t I = job.I, H = job.H, P = job.P, rows = steps * job.B, first, last
    cdef const char *x = at(job.x, t * job.B * I, job)
    cdef char *dx = <char *>at(job.dx, t * job.B * I, job)
    cdef const char *h_before
    cdef lf_product p
    share(rows, thread, threads, &first, &last)
    if job.gemm_dx:
        dx = <char *>at(dx, first * I, job)
        memset(dx, 0, (last - first) * I * job.k.itemsize)
        job.gemm(False, False, <int>(last - first), <int>I, <int>(4 * H), at(dgates, first * 4 * H, job),
                 <int>(4 * H), job.w_ih, <int>I, dx, <int>I)
    else:
        p = product_of(job, last - first, at(dgates, first * 4 * H, job), 4 * H, job.columns_ih, I, 0, 1)
        p.out = <char *>at(dx, first * I, job)
        job.k.product(&p)
    share(4 * H, thread, threads, &first, &last)
    job.k.add_rows(<char *>at(job.db, first, job), at(dgates, first, job), 4 * H, rows, last - first)
    outer(job, job.dw_ih, 4 * H, dgates, x, rows, I, thread, threads)
    if job.columns_hr == NULL:
        outer(job, job.dw_hh, 4 * H, dgates, h, rows, H, thread, threads)
    else:
        h_before = at(job.h, (t + job.reverse) * job.B * P, job)
        outer(job, job.dw_hh, 4 * H, dgates, h_before, rows, P, thread, threads)
        outer(job, job.dw_hr, P, job.dh_chunk, h, rows, H, thread, threads)


cdef void work(Job *job, Py_ssize_t first_chunk, Py_ssize_t last_chunk, int thread,
               int threads) noexcept nogil:
    """One thread's share of some chunks, counted from the last time step."""
    cdef lf_fpenv saved = lf_fpenv_enter()
    cdef Py_ssize_t B = job.B, H = job.H, step_size = B * 4 * H, n, s, low, high, t, slot = 0, ahead
    cdef Py_ssize_t first_row = 0, last_row = B, row, end_row
    cdef int part = thread, parts = threads, meeting = threads
    cdef bint projected = job.columns_hr != NULL
    cdef char *dgates
    cdef char *h
    cdef const char *later
    cdef lf_product p
    if job.by_rows:
        share(B, thread, threads, &first_row, &last_row)
        part, parts, meeting = 0, 1, 1
    ahead = -1 if job.reverse else 1  # from the slot of step s to that of step s + 1
    for n in range(first_chunk, last_chunk):
        high = job.T - n * job.chunk
        low = max(0, high - job.chunk)
        t = job.T - high if job.reverse else low
        dgates = job.dgates[n & 1]
        # The slot of step s holds h(s - 1); cell_backward gives h(s), for the slot ahead.
        h = job.h_chunk if projected or not job.reverse else <char *>at(job.h_chunk, B * H, job)
        for s in range(high - 1, low - 1, -1):
            slot = (job.T - 1 - s if job.reverse else s) - t
            if s + 1 < high or n == 0:
                later = at(dgates, (slot + ahead if s + 1 < high else slot) * step_size, job)
            else:
                later = at(job.dgates[(n - 1) & 1], (job.chunk - 1 if job.reverse else 0) * step_size, job)
            step_back(job, s, later, <char *>at(dgates, slot * step_size, job),
                      <char *>at(h, (slot if projected else slot + ahead) * B * H, job),
                      <char *>at(job.dh_chunk, slot * B * job.P, job), first_row, last_row, part, parts,
                      meeting)
            lf_barrier_wait(&job.barrier, meeting)
        if not projected:
            share(B, thread, threads, &row, &end_row)
            if low == 0:
                memcpy(<char *>at(h, (slot * B + row) * H, job), at(job.h0, row * H, job),
                       (end_row - row) * H * job.k.itemsize)
            else:
                job.k.hidden(<char *>at(h, (slot * B + row) * H, job),
                             at(job.gates, ((low - 1) * B + row) * 4 * job.padded, job),
                             at(job.c, (low * B + row) * job.padded, job), end_row - row, H)
        lf_barrier_wait(&job.barrier, threads)
        add_gradients(job, dgates, h, t, high - low, thread, threads)
        lf_barrier_wait(&job.barrier, threads)
        if low == 0:
            p = product_of(job, B, at(dgates, slot * step_size, job), 4 * H, job.columns_hh, job.P, thread,
                           threads)
            p.out = job.dh0
            job.k.product(&p)
    lf_fpenv_leave(saved)


cdef void run(Job *job, Py_ssize_t first_chunk, Py_ssize_t last_chunk, int threads) noexcept:
    """Some chunks on `threads` threads, without the GIL."""
    if threads == 1:
        with nogil:
            work(job, first_chunk, last_chunk, 0, 1)
        return
    used_threads()
    lf_barrier_init(&job.barrier)
    with nogil, parallel(num_threads=threads):
        work(job, first_chunk, last_chunk, threadid(), team_size())


def backward(Tape tape not None, cnp.ndarray dy, cnp.ndarray dhn, cnp.ndarray dcn, use_blas=None):
    """Gradients of one layer in one direction.

    The caller has checked: the gradients have the cell's dtype in native byte order, the shapes fit, `dhn`
    and `dcn` are C-contiguous, and the last axis of `dy` is. H is `hidden_size`, P the columns of h.

    Parameters
    ----------
    tape : Tape
        From `forward`; not changed.
    dy : ndarray, shape (T, B, P), or None for zeros
    dhn, dcn : ndarray, shapes (B, P) and (B, H), or None for zeros
    use_blas : bool or None
        BLAS instead of the own products; None: for the gradients of the weights, where it is faster.

    Returns
    -------
    dx : ndarray, shape (T, B, I)
    dh0, dc0 : ndarray, shapes (B, P) and (B, H)
    grads : dict
        By the names of `Cell`'s parameters, those it was made from.
    """
    cdef Job job
    cdef Cell cell = tape.cell
    cdef Py_ssize_t T = tape.T, B = tape.B, I = cell.input_size, H = cell.hidden_size, P = cell.output_size
    cdef Py_ssize_t padded = cell.padded, size = cell.k.itemsize, chunk, chunks, n, end, segment
    cdef Buffer scratch
    cdef Split split
    cdef bint blas
    cdef size_t dgates_size, h_size, dh_size, packed_size
    cdef double step_work = <double>B * 4 * H * P
    cdef double total_work = T * (2 * step_work + <double>B * H * (8 * I + (3 * P if cell.proj_size else 0)))
    dtype = tape.x.dtype
    dh_last = np.zeros((B, P), dtype) if dhn is None else dhn.copy()
    if T > 0 and dy is not None:
        add(dh_last, dy[0 if tape.reverse else T - 1])
    dx, dh0, dc0 = np.empty((T, B, I), dtype), np.empty((B, P), dtype), np.zeros((B, H), dtype)
    if dcn is not None:
        dc0[:] = dcn
    dw_ih, dw_hh = np.zeros((4 * H, I), dtype), np.zeros((4 * H, P), dtype)
    db, dw_hr = np.zeros(4 * H, dtype), np.zeros((cell.proj_size, H), dtype)
    grads = {"w_ih": dw_ih, "w_hh": dw_hh, "b_ih": db, "b_hh": None, "w_hr": dw_hr}
    if T == 0 or B == 0:
        grads["b_hh"] = db.copy()
        return dx, dh_last, dc0, {name: grads[name] for name in cell.parameters}

    job.k, job.T, job.B, job.I, job.H, job.P = cell.k, T, B, I, H, P
    job.padded, job.panels, job.reverse = padded, cell.panels, tape.reverse
    chunk = max(LEAST_CHUNK_ROWS // B, <Py_ssize_t>(CHUNK_BYTES // times(times(B, 4 * H), size)), 1)
    job.chunk = chunk = min(chunk, T)
    chunks = (T + chunk - 1) // chunk
    blas = use_blas or (use_blas is None and total_work > BLAS_WORK)
    blas = blas and times(times(chunk, B), max(4 * H, I)) < 2**31
    job.gemm_dx = blas and use_blas is True and cell.kept_ih is not None
    job.gemm = load_gemm(size) if blas else NULL
    split = plan(B, panels_of(H, &job), times(4 * H, P) * size, step_work, total_work)
    job.by_rows = split.by_rows

    dgates_size, h_size = times(times(chunk, B), 4 * H), times(times(chunk + 1, B), H)
    dh_size = times(times(chunk, B), P) if cell.proj_size else 0
    packed_size = 0 if blas else times(times(chunk, B), panels_of(max(I, H), &job) * 4 * cell.k.lanes)
    scratch = borrow(2 * dgates_size + h_size + dh_size + packed_size + times(B, padded), size)
    job.packed = scratch.data
    job.dgates[0] = job.packed + packed_size * size
    job.dgates[1] = job.dgates[0] + dgates_size * size
    job.h_chunk = job.dgates[1] + dgates_size * size
    job.dh_chunk = job.h_chunk + h_size * size
    job.dc = job.dh_chunk + dh_size * size

    job.x, job.h0 = <char *>cnp.PyArray_DATA(tape.x), <char *>cnp.PyArray_DATA(tape.h0)
    job.h = <char *>cnp.PyArray_DATA(tape.h) if cell.proj_size else NULL
    job.gates, job.c = tape.gates.data, tape.c.data
    job.w_ih = <char *>cnp.PyArray_DATA(cell.kept_ih) if job.gemm_dx else NULL
    job.columns_ih, job.columns_hh = cell.columns_ih.data, cell.columns_hh.data
    job.columns_hr = cell.columns_hr.data if cell.proj_size else NULL
    job.dy, job.dy_t, job.dy_b = NULL, 0, 0
    if dy is not None:
        job.dy = <char *>cnp.PyArray_DATA(dy)
        job.dy_t, job.dy_b = cnp.PyArray_STRIDE(dy, 0) // size, cnp.PyArray_STRIDE(dy, 1) // size
    job.dh_last = <char *>cnp.PyArray_DATA(dh_last)
    job.dx, job.dh0 = <char *>cnp.PyArray_DATA(dx), <char *>cnp.PyArray_DATA(dh0)
    job.dw_ih, job.dw_hh = <char *>cnp.PyArray_DATA(dw_ih), <char *>cnp.PyArray_DATA(dw_hh)
    job.db, job.dw_hr = <char *>cnp.PyArray_DATA(db), <char *>cnp.PyArray_DATA(dw_hr)
    copy_rows(job.dc, padded * size, <char *>cnp.PyArray_DATA(dc0), H * size, B, H * size)

    segment = <Py_ssize_t>min(<double>chunks, 1 + WORK_PER_SIGNAL_CHECK * split.threads * chunks / total_work)
    n = 0
    with held_to_one_thread() if blas else nullcontext():
        while n < chunks:
            end = min(n + segment, chunks)
            run(&job, n, end, split.threads)
            n = end
            PyErr_CheckSignals()
    copy_rows(<char *>cnp.PyArray_DATA(dc0), H * size, job.dc, padded * size, B, H * size)
    give_back(scratch)
    grads["b_hh"] = db.copy()
    return dx, dh0, dc0, {name: grads[name] for name in cell.parameters}
