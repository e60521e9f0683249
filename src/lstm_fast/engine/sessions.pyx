"""Rows of the states of a stream: which ones, taken out side by side, put back, and those with NaN.

States are lists of arrays (L, B, columns) in C order, of float32 or float64, one list for h and c of all layers.
Indices are of intp, (n,), from 0 to B - 1.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from lstm_fast.engine.memory cimport data_of, new_array, real_type
from lstm_fast.engine.plan cimport Place, Split, plan_shares, share
from lstm_fast.engine.runtime.isa cimport kernels
from lstm_fast.engine.schedule cimport Schedule, begin, run_all

cdef extern from *:
    """
    /* Ask for a row of memory that is used soon; rows anywhere are not foreseen by the CPU. */
    static inline void lf_prefetch(const char *row, Py_ssize_t size)
    {
        for (Py_ssize_t n = 0; n < size; n += 64)
            __builtin_prefetch(row + n);
    }
    """
    void lf_prefetch(const char *row, Py_ssize_t size) nogil

cnp.import_array()

ctypedef fused real:
    float
    double

# What an element takes, in multiply-adds, to be moved or looked at.
cdef double MOVED = 2
# Bytes that are asked for ahead of those that are moved: of some rows.
cdef Py_ssize_t AHEAD = 4096


cdef struct Work:
    # One array of a state, and what becomes of its rows
    Py_ssize_t L, B, n, columns, itemsize
    char *all_rows             # (L, B, columns)
    char *some                 # (L, n, columns), or NULL: zeros
    const Py_ssize_t *indices
    bint back                  # from `some`, else to it
    cnp.npy_bool *found        # (B,): where there is NaN


cdef void run(Work *work, Py_ssize_t rows,
              void (*run_share)(void *, Py_ssize_t, Py_ssize_t, const Place *) noexcept nogil) except *:
    cdef Schedule schedule
    cdef Split split = plan_shares(rows, MOVED * rows * work.L * work.columns)
    cdef Place alone
    if split.threads == 1:  # a few rows take less time than a schedule
        alone.part, alone.parts = 0, 1
        with nogil:
            run_share(work, 0, 1, &alone)
        return
    begin(&schedule, split, 1, 1, 0, work, run_share)
    run_all(&schedule, False)


cdef Work work_of(cnp.ndarray state) except *:
    cdef Work work
    work.itemsize = kernels(real_type(state, "state")).itemsize
    if cnp.PyArray_NDIM(state) != 3 or not cnp.PyArray_ISCARRAY_RO(state):
        raise ValueError("state: expected arrays (L, B, columns), aligned and in C order")
    work.L, work.B, work.columns = cnp.PyArray_DIM(state, 0), cnp.PyArray_DIM(state, 1), cnp.PyArray_DIM(state, 2)
    work.all_rows = data_of(state)
    return work


# ---- which rows

cdef bint ascend(const Py_ssize_t *indices, Py_ssize_t n) noexcept:
    cdef Py_ssize_t k
    for k in range(1, n):
        if indices[k] <= indices[k - 1]:
            return False
    return True


cdef void check_distinct(str name, const Py_ssize_t *indices, Py_ssize_t n, Py_ssize_t B) except *:
    """Raise ValueError if one of these indices, which are in range, comes twice."""
    cdef Py_ssize_t k
    if ascend(indices, n):
        return
    cdef bytearray seen = bytearray(B)
    cdef char *marks = seen
    for k in range(n):
        if marks[indices[k]]:
            raise ValueError(f"{name}: expected each row once, got {indices[k]} twice")
        marks[indices[k]] = 1


def rows_of_mask(cnp.ndarray mask not None):
    """The indices at which booleans (B,) are true."""
    if (cnp.PyArray_NDIM(mask) != 1 or cnp.PyArray_TYPE(mask) != cnp.NPY_BOOL
            or not cnp.PyArray_ISCARRAY_RO(mask)):
        raise ValueError("mask: expected booleans (B,)")
    cdef const cnp.npy_bool *given = <const cnp.npy_bool *>cnp.PyArray_DATA(mask)
    cdef Py_ssize_t B = cnp.PyArray_DIM(mask, 0), row, k = 0
    cdef cnp.npy_intp n = 0
    for row in range(B):
        n += given[row]
    cdef cnp.ndarray found = cnp.PyArray_EMPTY(1, &n, cnp.NPY_INTP, False)
    cdef Py_ssize_t *indices = <Py_ssize_t *>cnp.PyArray_DATA(found)
    for row in range(B):
        if given[row]:
            indices[k] = row
            k += 1
    return found


def check_indices(str name not None, cnp.ndarray indices not None, Py_ssize_t B, bint distinct):
    """Bring indices from -B to B - 1, of which the negative ones count from the end, to 0 .. B - 1.

    Raises
    ------
    IndexError
        If a row does not exist.
    ValueError
        With `distinct`, if one comes twice.
    """
    if cnp.PyArray_NDIM(indices) != 1 or cnp.PyArray_TYPE(indices) != cnp.NPY_INTP or not cnp.PyArray_ISCARRAY(indices):
        raise ValueError(f"{name}: expected indices (n,)")
    cdef Py_ssize_t *index = <Py_ssize_t *>cnp.PyArray_DATA(indices)
    cdef Py_ssize_t k, n = cnp.PyArray_DIM(indices, 0)
    for k in range(n):
        if not -B <= index[k] < B:
            raise IndexError(f"{name}: expected {-B} to {B - 1}, got {index[k]}")
        if index[k] < 0:
            index[k] += B
    if distinct:
        check_distinct(name, index, n, B)


cdef void set_indices(Work *work, cnp.ndarray indices) except *:
    """Let the work have these rows, which are there."""
    cdef Py_ssize_t k
    if (cnp.PyArray_NDIM(indices) != 1 or cnp.PyArray_TYPE(indices) != cnp.NPY_INTP
            or not cnp.PyArray_ISCARRAY_RO(indices)):
        raise ValueError("indices: expected intp (n,)")
    work.n, work.indices = cnp.PyArray_DIM(indices, 0), <const Py_ssize_t *>cnp.PyArray_DATA(indices)
    for k in range(work.n):
        if not 0 <= work.indices[k] < work.B:
            raise IndexError(f"indices: expected 0 to {work.B - 1}, got {work.indices[k]}")


# ---- their states

cdef void move_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """One thread's share of the rows."""
    cdef const Work *work = <const Work *>what
    cdef Py_ssize_t layer, k, size = work.columns * work.itemsize, ahead = 1 + AHEAD // (size + 1)
    cdef char *row
    cdef char *of_some
    share(work.n, here.part, here.parts, &first, &end)
    for layer in range(work.L):
        for k in range(first, end):
            if k + ahead < end:
                lf_prefetch(work.all_rows + (layer * work.B + work.indices[k + ahead]) * size, size)
            row = work.all_rows + (layer * work.B + work.indices[k]) * size
            if work.some == NULL:
                memset(row, 0, size)
                continue
            of_some = work.some + (layer * work.n + k) * size
            if work.back:
                memcpy(row, of_some, size)
            else:
                memcpy(of_some, row, size)


def gather(list state not None, cnp.ndarray indices not None):
    """The rows of a state that indices name, in their order: a list of new arrays (L, n, columns)."""
    cdef cnp.ndarray array, some
    cdef cnp.npy_intp[3] shape
    cdef Work work
    cdef list found = []
    for array in state:
        work = work_of(array)
        set_indices(&work, indices)
        shape[0], shape[1], shape[2] = work.L, work.n, work.columns
        some = new_array(3, shape, cnp.PyArray_TYPE(array))
        work.some, work.back = data_of(some), False
        run(&work, work.n, move_share)
        found.append(some)
    return found


def scatter(list state not None, cnp.ndarray indices not None, list some):
    """Write rows, as of `gather`, or zeros for None, to where distinct indices name them."""
    cdef cnp.ndarray array, given
    cdef Work work
    cdef bint ready
    if some is not None and len(some) != len(state):
        raise ValueError(f"some: expected {len(state)} arrays, got {len(some)}")
    for ready in (False, True):  # all of them are checked before one is written
        for k in range(len(state)):
            array = state[k]
            work = work_of(array)
            set_indices(&work, indices)
            work.some, work.back = NULL, True
            if some is not None:
                given = some[k]
                if (cnp.PyArray_TYPE(given) != cnp.PyArray_TYPE(array) or not cnp.PyArray_ISCARRAY_RO(given)
                        or cnp.PyArray_NDIM(given) != 3 or cnp.PyArray_DIM(given, 0) != work.L
                        or cnp.PyArray_DIM(given, 1) != work.n or cnp.PyArray_DIM(given, 2) != work.columns):
                    raise ValueError(f"some: expected ({work.L}, {work.n}, {work.columns}) of {array.dtype}, aligned "
                                     f"and in C order, got {(<object>given).shape} of {given.dtype}")
                work.some = data_of(given)
            if ready:
                run(&work, work.n, move_share)
            elif not cnp.PyArray_ISWRITEABLE(array):
                raise ValueError("state: expected arrays that can be written")


# ---- NaN

cdef bint has_nan(const real *row, Py_ssize_t columns) noexcept nogil:
    cdef Py_ssize_t k
    cdef int found = 0
    for k in range(columns):
        found |= row[k] != row[k]
    return found


cdef void look_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """One thread's share of the rows."""
    cdef const Work *work = <const Work *>what
    cdef Py_ssize_t layer, row
    cdef const char *at_row
    share(work.B, here.part, here.parts, &first, &end)
    for layer in range(work.L):
        for row in range(first, end):
            at_row = work.all_rows + (layer * work.B + row) * work.columns * work.itemsize
            if (has_nan(<const float *>at_row, work.columns) if work.itemsize == sizeof(float)
                    else has_nan(<const double *>at_row, work.columns)):
                work.found[row] = True


def rows_with_nan(list state not None):
    """The indices of the rows in which some array of a state has NaN."""
    cdef cnp.ndarray array, mask = None
    cdef cnp.npy_intp B
    cdef Work work
    for array in state:
        work = work_of(array)
        if mask is None:
            B = work.B
            mask = cnp.PyArray_ZEROS(1, &B, cnp.NPY_BOOL, False)
        if work.B != B:
            raise ValueError(f"state: expected {B} rows, got {work.B}")
        work.found = <cnp.npy_bool *>cnp.PyArray_DATA(mask)
        run(&work, work.B, look_share)
    return rows_of_mask(mask)
