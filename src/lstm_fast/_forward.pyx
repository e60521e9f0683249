"""Forward of one layer and direction: the time loop, its threads, and the input projection."""

cimport numpy as cnp
from cpython.exc cimport PyErr_CheckSignals
from cython.parallel cimport parallel, threadid
from libc.string cimport memcpy, memset

from contextlib import nullcontext

import numpy as np

from ._blas cimport gemm_function
from ._engine import held_to_one_thread
from ._engine cimport Buffer, Cell, Tape, borrow, copy_rows, give_back, load_gemm, new_buffer, times
from ._kernels cimport (lf_barrier, lf_barrier_init, lf_barrier_wait, lf_cell_forward, lf_fpenv,
                        lf_fpenv_enter, lf_fpenv_leave, lf_kernels, lf_product)
from ._threads cimport Split, plan, share, team_size, used_threads

cnp.import_array()

cdef extern from *:
    """
    #undef I /* complex.h's, which NumPy includes */
    """

# The projected input of a chunk of time steps stays in the L2 cache between projection and use.
cdef size_t CHUNK_BYTES = 1 << 20
# Multiply-adds of one thread between two looks at signals: 0.1 to 0.3 s.
cdef double WORK_PER_SIGNAL_CHECK = 4e9


cdef struct Job:
    const lf_kernels *k
    gemm_function gemm        # NULL: own product
    lf_barrier barrier
    bint by_rows, reverse
    Py_ssize_t T, B, I, H, P  # P: columns of h and y
    Py_ssize_t panels         # of units
    Py_ssize_t chunk          # time steps whose input is projected at once
    const char *x
    const char *h0            # (B, P)
    const char *w_ih          # own product: packed in gates; BLAS: (4H, I)
    const char *bias          # own product: packed in gates; BLAS: (4H,)
    const char *w_hr          # packed in columns, or NULL
    char *projected           # input of a chunk: see lf_cell_forward.x
    char *unprojected_h       # with w_hr: (B, H)
    char *y
    Py_ssize_t y_t, y_b       # strides of y
    lf_cell_forward step      # what is the same in every step
    Py_ssize_t c_step         # from one step's c to the next: 0 in inference
    Py_ssize_t gates_step


cdef inline const char *at(const char *p, Py_ssize_t elements, const Job *job) noexcept nogil:
    return p + elements * <Py_ssize_t>job.k.itemsize


cdef void project(Job *job, Py_ssize_t t, Py_ssize_t steps, Py_ssize_t first_row, Py_ssize_t last_row,
                  Py_ssize_t first_panel, Py_ssize_t last_panel) noexcept nogil:
    """x w_ih' + bias of the times t .. t + steps - 1 into the chunk's buffer, for some rows and panels."""
    cdef Py_ssize_t panel = 4 * job.k.lanes, n, rows = last_row - first_row
    cdef lf_product p
    p.rows = rows
    p.depth = job.I
    p.columns = panel * job.panels
    p.a_row, p.a_step = job.I, 1
    p.b = job.w_ih
    p.init, p.init_row, p.init_panel = job.bias, 0, panel
    p.out_row, p.out_panel = panel, panel * job.chunk * job.B
    p.first_panel, p.last_panel = first_panel, last_panel
    if rows == job.B:  # the rows of all these times are adjacent: one product
        p.rows, steps = rows * steps, 1
    for n in range(steps):
        p.a = at(job.x, ((t + n) * job.B + first_row) * job.I, job)
        p.out = <char *>at(job.projected, (n * job.B + first_row) * panel, job)
        job.k.product(&p)


cdef void project_blas(Job *job, Py_ssize_t t, Py_ssize_t steps, Py_ssize_t first_panel,
                       Py_ssize_t last_panel) noexcept nogil:
    """The same through BLAS, into rows (i, f, g, o) of 4H, for all rows."""
    cdef Py_ssize_t H = job.H, rows = steps * job.B, row, gate, gates = 4, column
    cdef Py_ssize_t first = first_panel * job.k.lanes, units = min(H, last_panel * job.k.lanes) - first
    if units == H:
        units, gates = 4 * H, 1
    for gate in range(gates):
        column = gate * H + first
        for row in range(rows):
            memcpy(<char *>at(job.projected, row * 4 * H + column, job), at(job.bias, column, job),
                   units * job.k.itemsize)
        job.gemm(False, True, <int>rows, <int>units, <int>job.I, at(job.x, t * job.B * job.I, job),
                 <int>job.I, at(job.w_ih, column * job.I, job), <int>job.I,
                 <char *>at(job.projected, column, job), <int>(4 * H))


cdef void project_hidden(Job *job, char *y, Py_ssize_t first_row, Py_ssize_t last_row, int part,
                         int parts) noexcept nogil:
    """y(t) = (o tanh(c)) w_hr' for some rows; one of `parts` shares of the columns."""
    cdef lf_product p
    cdef Py_ssize_t panel = 4 * job.k.lanes
    p.rows = last_row - first_row
    p.depth = job.H
    p.columns = job.P
    p.a = at(job.unprojected_h, first_row * job.H, job)
    p.a_row, p.a_step = job.H, 1
    p.b = job.w_hr
    p.init = NULL
    p.out = <char *>at(y, first_row * job.y_b, job)
    p.out_row, p.out_panel = job.y_b, panel
    share((job.P + panel - 1) // panel, part, parts, &p.first_panel, &p.last_panel)
    job.k.product(&p)


cdef void work(Job *job, Py_ssize_t first_step, Py_ssize_t last_step, int thread, int threads) noexcept nogil:
    """One thread's share of some time steps: its own rows of all units, or its own units of all rows."""
    cdef lf_fpenv saved = lf_fpenv_enter()
    cdef lf_cell_forward step = job.step
    cdef Py_ssize_t first_row = 0, last_row = job.B, s, t, chunk_end, chunk_t, c_at, h_row
    cdef const char *h
    cdef char *y
    cdef int part = thread, parts = threads, meeting = threads
    if job.by_rows:
        share(job.B, thread, threads, &first_row, &last_row)
        part, parts, meeting = 0, 1, 1
    share(job.panels, part, parts, &step.first_panel, &step.last_panel)
    step.rows = last_row - first_row
    s = first_step
    while s < last_step:
        chunk_end = min(s + job.chunk, last_step)
        chunk_t = job.T - chunk_end if job.reverse else s
        if job.gemm != NULL:
            project_blas(job, chunk_t, chunk_end - s, step.first_panel, step.last_panel)
        else:
            project(job, chunk_t, chunk_end - s, first_row, last_row, step.first_panel, step.last_panel)
        while s < chunk_end:
            t = job.T - 1 - s if job.reverse else s
            h, h_row = job.h0, job.P
            if s > 0:
                h, h_row = at(job.y, (t + 1 if job.reverse else t - 1) * job.y_t, job), job.y_b
            step.h, step.h_row = at(h, first_row * h_row, job), h_row
            step.x = at(job.projected, ((t - chunk_t) * job.B + first_row) * step.x_row, job)
            c_at = s * job.c_step + first_row * step.c_row
            step.c_prev = at(<const char *>job.step.c, c_at, job)
            step.c = <char *>at(<const char *>job.step.c, c_at + job.c_step, job)
            if job.step.gates != NULL:
                step.gates = <char *>at(<const char *>job.step.gates,
                                        s * job.gates_step + first_row * 4 * step.c_row, job)
            y = <char *>at(job.y, t * job.y_t, job)
            if job.w_hr == NULL:
                step.y = <char *>at(y, first_row * job.y_b, job)
            else:
                step.y = <char *>at(job.unprojected_h, first_row * job.H, job)
            job.k.cell_forward(&step)
            if job.w_hr != NULL:
                lf_barrier_wait(&job.barrier, meeting)
                project_hidden(job, y, first_row, last_row, part, parts)
            lf_barrier_wait(&job.barrier, meeting)
            s += 1
    lf_fpenv_leave(saved)


cdef void run(Job *job, Py_ssize_t first_step, Py_ssize_t last_step, int threads) noexcept:
    """Some time steps on `threads` threads, without the GIL."""
    if threads == 1:
        with nogil:
            work(job, first_step, last_step, 0, 1)
        return
    used_threads()
    lf_barrier_init(&job.barrier)
    with nogil, parallel(num_threads=threads):
        work(job, first_step, last_step, threadid(), team_size())


def forward(Cell cell not None, cnp.ndarray x, cnp.ndarray h0, cnp.ndarray c0, cnp.ndarray y,
            cnp.ndarray hn, cnp.ndarray cn, bint reverse=False, bint training=False, bint blas=False):
    """Run one layer in one direction.

    The caller has checked: every array has the cell's dtype in native byte order, the shapes fit, `x`,
    `h0`, `c0`, `hn` and `cn` are C-contiguous, and the last axis of `y` is. H is `hidden_size`, P the
    columns of h.

    Parameters
    ----------
    cell : Cell
    x : ndarray, shape (T, B, I)
    h0, c0 : ndarray, shapes (B, P) and (B, H); None for zeros
    y : ndarray, shape (T, B, P)
        Written, in input order.
    hn, cn : ndarray, shapes (B, P) and (B, H)
        Written: the state after the last step (reverse: after t = 0). `hn` may be `h0`, `cn` may be `c0`.
    reverse : bool
        From t = T - 1 down to 0.
    training : bool
        Keep what `backward` needs.
    blas : bool
        Project the input with BLAS instead of the own product.

    Returns
    -------
    Tape or None
        None unless training. It keeps a reference to `x`: the caller must not write to it.
    """
    cdef Job job
    cdef Py_ssize_t T = cnp.PyArray_DIM(x, 0), B = cnp.PyArray_DIM(x, 1), s, end, segment
    cdef Py_ssize_t H = cell.hidden_size, P = cell.output_size, padded = cell.padded
    cdef Py_ssize_t size = cell.k.itemsize
    cdef Buffer scratch, c_buffer, gates_buffer = None
    cdef Tape tape = None
    cdef Split split
    # A copy: hn may be h0, and gets its new value before the tape is made.
    initial_h = None if not training else np.zeros((B, P), x.dtype) if h0 is None else h0.copy()
    cdef size_t weights, projected_size, c_size, row_size = times(B, padded)
    cdef double step_work = <double>B * 4 * H * P
    cdef Py_ssize_t other_columns = 4 * cell.input_size + cell.proj_size
    cdef double total_work = T * (step_work + <double>B * H * other_columns)

    blas = blas and T > 0 and B > 0 and times(times(T, B), max(4 * H, cell.input_size)) < 2**31
    job.k, job.T, job.B, job.I, job.H, job.P = cell.k, T, B, cell.input_size, H, P
    job.panels, job.reverse = cell.panels, reverse
    job.chunk = max(1, min(T, <Py_ssize_t>(CHUNK_BYTES // (times(times(row_size, 4), size) + 1))))
    job.gemm = load_gemm(size) if blas else NULL
    job.w_ih = <char *>cnp.PyArray_DATA(cell.w_ih) if blas else cell.gates_ih.data
    job.bias = <char *>cnp.PyArray_DATA(cell.bias_sum) if blas else cell.bias.data
    job.w_hr = cell.project_hr.data if cell.proj_size else NULL
    weights = times(times(4, padded), P) * size
    split = plan(1 if blas else B, job.panels, weights, step_work, total_work)
    job.by_rows = split.by_rows
    if training:
        cell.prepare_backward(blas)
        tape = Tape.__new__(Tape)
        tape.gates = gates_buffer = new_buffer(times(times(row_size, 4), T), size)
        tape.c = c_buffer = new_buffer(times(row_size, T + 1), size)
    # One block of scratch: projected input, c, h before the projection, and zeros for an absent h0.
    projected_size = times(times(row_size, 4), job.chunk)
    c_size = 0 if training else row_size
    scratch = borrow(projected_size + c_size + row_size + times(B, P), size)
    job.x, job.y = <char *>cnp.PyArray_DATA(x), <char *>cnp.PyArray_DATA(y)
    job.y_t, job.y_b = cnp.PyArray_STRIDE(y, 0) // size, cnp.PyArray_STRIDE(y, 1) // size
    job.projected = scratch.data
    job.unprojected_h = scratch.data + (projected_size + c_size) * size
    job.step.c = c_buffer.data if training else scratch.data + projected_size * size
    job.step.gates = gates_buffer.data if training else NULL
    job.c_step = row_size if training else 0
    job.gates_step = 4 * row_size
    job.step.depth, job.step.hidden_size, job.step.w = P, H, cell.gates_hh.data
    job.step.c_row = padded
    job.step.y_row = H if cell.proj_size else job.y_b
    if blas:
        job.step.x_row, job.step.x_panel, job.step.x_gate = 4 * H, cell.k.lanes, H
    else:
        job.step.x_row = 4 * cell.k.lanes
        job.step.x_panel, job.step.x_gate = 4 * cell.k.lanes * job.chunk * B, cell.k.lanes
    if c0 is None:
        memset(job.step.c, 0, row_size * size)
    else:
        copy_rows(<char *>job.step.c, padded * size, <char *>cnp.PyArray_DATA(c0), H * size, B, H * size)
    if h0 is None:
        job.h0 = job.unprojected_h + row_size * size
        memset(<char *>job.h0, 0, B * P * size)
    else:
        job.h0 = <char *>cnp.PyArray_DATA(h0)
    segment = <Py_ssize_t>min(<double>T, 1 + WORK_PER_SIGNAL_CHECK * split.threads * T / (total_work + 1))
    s = 0
    with held_to_one_thread() if blas else nullcontext():
        while s < T and B > 0:
            end = min(s + segment, T)
            run(&job, s, end, split.threads)
            s = end
            PyErr_CheckSignals()

    if T > 0 and B > 0:
        copy_rows(<char *>cnp.PyArray_DATA(hn), P * size,
                  at(job.y, 0 if reverse else (T - 1) * job.y_t, &job), job.y_b * size, B, P * size)
    elif cnp.PyArray_DATA(hn) != job.h0:
        memcpy(cnp.PyArray_DATA(hn), job.h0, B * P * size)
    copy_rows(<char *>cnp.PyArray_DATA(cn), H * size,
              at(<const char *>job.step.c, T * job.c_step, &job), padded * size, B, H * size)
    give_back(scratch)
    if training:
        tape.cell, tape.T, tape.B, tape.reverse, tape.x = cell, T, B, reverse, x
        tape.h0 = initial_h
        if cell.proj_size:
            tape.h = np.empty((T + 1, B, P), x.dtype)
            tape.h[T if reverse else 0] = initial_h
            tape.h[0 if reverse else 1:][:T] = y
    return tape
