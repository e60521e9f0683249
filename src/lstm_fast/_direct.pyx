"""Short calls: arguments that need neither checks nor copies go straight to the engine.

A small LSTM takes a microsecond a step, the checks of `_checks` some more. Each function here looks at the
arguments of a user and gives up, with None or False, where they have another form or are wrong: then the long
way takes them, or says what is wrong.
"""

cimport numpy as cnp

from ._engine cimport Cell, new_array
from ._forward cimport compute

cnp.import_array()


def infer(tuple short not None, x, state, out):
    """Run layers of one direction, or one layer in two, as a call of `LSTM` does.

    Parameters
    ----------
    short : (cells, directions, noise, time_first)
        Lists of Cell and of Noise, or None, of all of them; `time_first`: x has the engine's form.
    x, state, out
        As of a call of `LSTM`.

    Returns
    -------
    y, (hn, cn), or None
    """
    cdef list cells = short[0], noise = short[2]
    cdef int directions = short[1]
    cdef tuple arrays = arguments(cells, x, state, out, directions) if short[3] else None
    if arrays is None:
        return None
    x, h0, c0, y, hn, cn = arrays
    compute(cells, x, h0, c0, y, hn, cn, directions, False, None, False, False, noise)
    return y, (hn, cn)


def train(tuple short not None, x, state, out):
    """The same in training, as `LSTM.forward` does without noise.

    Returns
    -------
    y, (hn, cn), x, tapes, or None
        `x` is a copy, which the tapes use.
    """
    cdef list cells = short[0]
    cdef int directions = short[1]
    cdef tuple arrays = arguments(cells, x, state, out, directions) if short[3] else None
    if arrays is None:
        return None
    x, h0, c0, y, hn, cn = arrays
    x = x.copy()  # the tapes outlive the call, and the caller may write to x before backward
    return y, (hn, cn), x, compute(cells, x, h0, c0, y, hn, cn, directions, False, None, True, False)


cdef tuple arguments(list cells, x, state, out, int directions):
    """x, h0, c0, y, hn, cn, as `_forward.forward` takes them, or None."""
    cdef Cell cell = cells[0]
    cdef int number = cell.type_number
    cdef Py_ssize_t L = len(cells), H = cell.hidden_size, P = cell.output_size, T, B
    if not is_plain(x, number, 3) or cnp.PyArray_DIM(x, 2) != cell.input_size:
        return None
    T, B = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
    if <double>T * B * H > 1e12:
        return None
    h0 = c0 = None
    if state is not None:
        if type(state) is not tuple or len(<tuple>state) != 2:
            return None
        h0, c0 = <tuple>state
        if not (h0 is None or has_shape(h0, number, L, B, P)) or not (c0 is None or has_shape(c0, number, L, B, H)):
            return None
    if out is None:
        return (x, h0, c0, empty(number, T, B, directions * P), empty(number, L, B, P), empty(number, L, B, H))
    if type(out) is not tuple or len(<tuple>out) != 2:
        return None
    y, last = <tuple>out
    if type(last) is not tuple or len(<tuple>last) != 2:
        return None
    hn, cn = <tuple>last
    if not (has_shape(y, number, T, B, directions * P) and has_shape(hn, number, L, B, P)
            and has_shape(cn, number, L, B, H)):
        return None
    for given in (y, hn, cn):
        if not cnp.PyArray_ISWRITEABLE(given) or overlap(given, x):
            return None
        for source in (h0, c0):  # hn may be h0, cn may be c0
            if overlap(given, source) and not (given is source and (given is hn) == (source is h0)):
                return None
    return (x, h0, c0, y, hn, cn)


def gradients(list cells not None, dy, dstate, Py_ssize_t T, Py_ssize_t B, int directions):
    """What `Cache.backward` takes.

    Parameters
    ----------
    cells : list of Cell
    dy, dstate
        As of `LSTM.backward`.
    T, B, directions : int

    Returns
    -------
    dy, dhn, dcn, or None
    """
    cdef Cell cell = cells[0]
    cdef int number = cell.type_number
    cdef Py_ssize_t L = len(cells), H = cell.hidden_size, P = cell.output_size
    if not has_shape(dy, number, T, B, directions * P):
        return None
    if dstate is None:
        return dy, None, None
    if type(dstate) is not tuple or len(<tuple>dstate) != 2:
        return None
    dhn, dcn = <tuple>dstate
    if not (dhn is None or has_shape(dhn, number, L, B, P)) or not (dcn is None or has_shape(dcn, number, L, B, H)):
        return None
    return dy, dhn, dcn


def step(tuple short not None, x, tuple now not None, y, tuple later not None):
    """Run one time step of a stream.

    Parameters
    ----------
    short
        As of `infer`.
    x, y
        As of `Stream.step`.
    now, later : tuple of two ndarray, (L, B, columns)
        The stream's own states, h and c, of which the second is written.

    Returns
    -------
    bool
    """
    cdef list cells = short[0], noise = short[2]
    cdef Cell first = cells[0], last = cells[len(cells) - 1]
    cdef int number = first.type_number
    h, c = now
    hn, cn = later
    cdef Py_ssize_t B = cnp.PyArray_DIM(h, 1)
    if not (is_plain(x, number, 2) and is_plain(y, number, 2) and cnp.PyArray_DIM(x, 0) == B
            and cnp.PyArray_DIM(x, 1) == first.input_size and cnp.PyArray_DIM(y, 0) == B
            and cnp.PyArray_DIM(y, 1) == last.output_size and cnp.PyArray_ISWRITEABLE(y) and not overlap(x, y)):
        return False
    compute(cells, x, h, c, y, hn, cn, 1, False, None, False, False, noise)
    return True


cdef bint is_plain(a, int type_number, int ndim) noexcept:
    """Whether an object is an array in C order, aligned, of this type in native byte order."""
    return (cnp.PyArray_CheckExact(a) and cnp.PyArray_TYPE(a) == type_number and cnp.PyArray_NDIM(a) == ndim
            and cnp.PyArray_ISCARRAY_RO(a))


cdef bint has_shape(a, int type_number, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t n2) noexcept:
    return (is_plain(a, type_number, 3) and cnp.PyArray_DIM(a, 0) == n0 and cnp.PyArray_DIM(a, 1) == n1
            and cnp.PyArray_DIM(a, 2) == n2)


cdef bint overlap(a, b) noexcept:
    """Whether two plain arrays share memory; None shares nothing."""
    if a is None or b is None:
        return False
    cdef char *start_a = <char *>cnp.PyArray_DATA(a)
    cdef char *start_b = <char *>cnp.PyArray_DATA(b)
    return start_a < start_b + cnp.PyArray_NBYTES(b) and start_b < start_a + cnp.PyArray_NBYTES(a)


cdef object empty(int type_number, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t n2):
    cdef cnp.npy_intp[3] shape = [n0, n1, n2]
    return new_array(3, shape, type_number)
