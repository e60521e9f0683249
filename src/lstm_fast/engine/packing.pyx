"""Batches of sequences of different lengths or with masked steps, which the engine has without padding."""

cimport cython
cimport numpy as cnp
from libc.string cimport memcpy, memset

import numpy as np

from lstm_fast.engine.batch cimport Ragged, integers, new_integers, rows_at
from lstm_fast.engine.memory cimport Buffer, new_array, new_buffer, new_matrix
from lstm_fast.engine.runtime.isa cimport kernels
from lstm_fast.engine.runtime.kernels cimport lf_fpenv, lf_fpenv_enter, lf_fpenv_leave, lf_kernels

cnp.import_array()


@cython.final
cdef class Packing:
    """The way between a batch as users have it, (T, B, columns), and its valid rows, (N, columns).

    Valid rows come in order of time and, within a time, longest sequence first: see `batch.Ragged`. Steps that
    a mask hides do not exist there. Arrays have native byte order and any strides; what is returned is
    C-contiguous.

    Parameters
    ----------
    lengths : ndarray of intp, shape (B,)
        Steps of each sequence; checked by the caller.
    T : int
    hold : bool
        Where a sequence has no step, results have its last output, else zeros.
    mask : ndarray of bool, shape (B, T), optional
        Which steps there are, as many as `lengths` says; without it the first ones.
    concatenated : bool
        The sequences come one after the other, without padding: arrays of users are (T, 1, columns), T being all
        steps.

    Attributes
    ----------
    ragged : Ragged
    """

    def __init__(self, cnp.ndarray lengths not None, Py_ssize_t T, bint hold, mask=None, bint concatenated=False):
        cdef Py_ssize_t B = cnp.PyArray_DIM(lengths, 0), b, first = 0
        cdef const Py_ssize_t *length = integers(lengths)
        cdef Py_ssize_t *bounds
        self.order = longest_first(lengths)
        self.row_of = integers(self.order)
        self.ragged = Ragged(cnp.PyArray_Take(lengths, self.order, 0))
        self.T, self.hold, self.concatenated = T, hold, concatenated
        self.bounds = new_integers(2 * B)
        bounds = integers(self.bounds)
        self.start, self.end = bounds, bounds + B
        if mask is not None:
            self.times = np.nonzero(mask)[1].astype(np.intp)
            self.time = integers(self.times)
        for b in range(B):
            bounds[b] = first if concatenated or mask is not None else 0
            first += length[b]
            bounds[B + b] = first if concatenated else T

    cpdef tuple arguments(self, tuple arrays):
        """x, h0, c0, y, hn, cn as `forward` takes them, the last three new, in place of a user's."""
        x, h0, c0, y, hn, cn = arrays
        return (self.pack(x), self.sort(h0), self.sort(c0), self.empty(cnp.PyArray_DIM(y, 2), cnp.PyArray_TYPE(y)),
                empty_like(hn), empty_like(cn))

    cpdef void results(self, tuple found, tuple arrays) except *:
        """Write y, hn and cn of the engine to the user's: see `arguments`."""
        self.unpack(found[3], arrays[3])
        self.unsort(found[4], arrays[4])
        self.unsort(found[5], arrays[5])

    cpdef tuple gradients(self, tuple arrays):
        """dy, dhn, dcn as `backward` takes them, in place of a user's; any of them None."""
        dy, dhn, dcn = arrays
        return None if dy is None else self.pack_gradient(dy), self.sort(dhn), self.sort(dcn)

    cdef cnp.ndarray empty(self, Py_ssize_t columns, int type_number):
        """An array of the engine, (N, columns)."""
        return new_matrix(self.ragged.rows.total, columns, type_number)

    cdef inline Py_ssize_t time_of(self, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
        """The user's time of a step of row n of the engine."""
        cdef Py_ssize_t index = self.start[self.row_of[n]] + step
        return index if self.time == NULL else self.time[index]

    cdef inline Py_ssize_t next_time(self, Py_ssize_t n, Py_ssize_t step) noexcept nogil:
        """That of the step after it, or the end."""
        if step + 1 < self.ragged.rows.lengths[n]:
            return self.time_of(n, step + 1)
        return self.end[self.row_of[n]]

    cdef inline Py_ssize_t row_at(self, const Padded *p, Py_ssize_t n, Py_ssize_t t) noexcept nogil:
        """Where row n of the engine has time t in the user's array, in bytes."""
        return t * p.t + (0 if self.concatenated else self.row_of[n] * p.b)

    cpdef cnp.ndarray pack(self, padded):
        """The valid rows of (T, B, columns)."""
        padded = with_whole_rows(padded)  # a copy lives as long as `p` points to it
        cdef Padded p = padded_of(padded)
        cdef cnp.ndarray packed = self.empty(cnp.PyArray_DIM(padded, 2), cnp.PyArray_TYPE(padded))
        cdef char *at = <char *>cnp.PyArray_DATA(packed)
        cdef Py_ssize_t step, n
        with nogil:
            for step in range(self.ragged.rows.T):
                for n in range(rows_at(&self.ragged.rows, step)):
                    memcpy(at, p.data + self.row_at(&p, n, self.time_of(n, step)), p.size)
                    at += p.size
        return packed

    cpdef void unpack(self, cnp.ndarray packed, out) except *:
        """Write (N, columns) to an array of the user's shape, whose last axis is contiguous, and what is between."""
        self.spread(packed, out, self.hold)

    cpdef cnp.ndarray unpack_gradient(self, cnp.ndarray packed):
        """The gradient of what `pack` took: zero where it did not look."""
        cdef Py_ssize_t B = 1 if self.concatenated else self.ragged.rows.B
        cdef cnp.npy_intp[3] shape = [self.T, B, cnp.PyArray_DIM(packed, 1)]
        cdef cnp.ndarray out = new_array(3, shape, cnp.PyArray_TYPE(packed))
        self.spread(packed, out, False)
        return out

    cdef void spread(self, cnp.ndarray packed, out, bint hold) except *:
        cdef Padded p = padded_of(out)
        cdef const char *source = <const char *>cnp.PyArray_DATA(packed)
        cdef Py_ssize_t step, n, first = 0
        with nogil:
            for step in range(self.ragged.rows.T):
                for n in range(rows_at(&self.ragged.rows, step)):
                    memcpy(p.data + self.row_at(&p, n, self.time_of(n, step)), source, p.size)
                    source += p.size
            if self.concatenated:
                return
            for n in range(self.ragged.rows.B):
                self.fill(&p, n, 0, self.next_time(n, -1), NULL)
                if self.time == NULL:  # only the last step has some after it
                    first = max(0, self.ragged.rows.lengths[n] - 1)
                for step in range(first, self.ragged.rows.lengths[n]):
                    self.fill(&p, n, self.time_of(n, step) + 1, self.next_time(n, step),
                              p.data + self.row_at(&p, n, self.time_of(n, step)) if hold else NULL)

    cdef void fill(self, const Padded *p, Py_ssize_t n, Py_ssize_t t, Py_ssize_t until,
                   const char *source) noexcept nogil:
        """Fill times of row n where it has no step, with zeros where there is no source."""
        for t in range(t, until):
            if source == NULL:
                memset(p.data + self.row_at(p, n, t), 0, p.size)
            else:
                memcpy(p.data + self.row_at(p, n, t), source, p.size)

    cpdef cnp.ndarray pack_gradient(self, dy):
        """The gradient of what `unpack` took, from that of what it gave."""
        dy = with_whole_rows(dy)
        cdef cnp.ndarray packed = self.pack(dy)
        cdef Padded p = padded_of(dy)
        cdef const lf_kernels *k = kernels(cnp.PyArray_TYPE(packed))
        cdef char *sums
        cdef Py_ssize_t n, step, t, size = k.itemsize
        cdef lf_fpenv saved
        if not self.hold:
            return packed
        saved = lf_fpenv_enter()
        for n in range(self.ragged.rows.B):
            for step in range(self.ragged.rows.lengths[n]):  # whose output was copied until the next one
                t = self.time_of(n, step) + 1
                if t < self.next_time(n, step):
                    sums = <char *>cnp.PyArray_DATA(packed) + (self.ragged.rows.offsets[step] + n) * p.size
                    k.add_rows(sums, p.data + self.row_at(&p, n, t), p.t // size, self.next_time(n, step) - t,
                               p.size // size)
        lf_fpenv_leave(saved)
        return packed

    def over_time(self, cnp.ndarray rows not None):
        """Rows (B, columns) in the order of the engine, repeated at each time: (N, columns)."""
        counts, offsets = (a[:len(a) - 1] for a in (self.ragged.counts, self.ragged.offsets))
        return rows[np.arange(self.ragged.rows.total) - np.repeat(offsets, counts)]

    cpdef sort(self, state):
        """A state (L D, B, columns), in C order, with the rows in the order of the engine; None stays None.

        A list has the state of each layer; so has the result.
        """
        if state is None:
            return None
        if isinstance(state, list):
            return list(map(self.sort, state))
        out = empty_like(state)
        self.permute(padded_of(out), padded_of(state), cnp.PyArray_DIM(state, 0), True)
        return out

    cpdef unsort(self, state, out=None):
        """Write a state back in the order of the batch, to an array in C order, or a new one; or lists of them."""
        if isinstance(state, list):
            return list(map(self.unsort, state, [None] * len(state) if out is None else out))
        if out is None:
            out = empty_like(state)
        self.permute(padded_of(out), padded_of(state), cnp.PyArray_DIM(state, 0), False)
        return out

    cdef void permute(self, Padded out, Padded state, Py_ssize_t jobs, bint sort) noexcept:
        cdef Py_ssize_t j, n, row
        for j in range(jobs):
            for n in range(self.ragged.rows.B):
                row = self.row_of[n]
                memcpy(out.data + j * out.t + (n if sort else row) * out.b,
                       state.data + j * state.t + (row if sort else n) * state.b, out.size)


def packing_of(lengths, mask, Py_ssize_t T, bint hold):
    """The packing of a padded batch with lengths (B,), a mask (B, T), or both; None where it has neither."""
    if mask is None:
        return None if lengths is None else Packing(lengths, T, hold)
    if lengths is not None:
        mask = mask & (np.arange(T) < lengths[:, None])
    return Packing(mask.sum(axis=1, dtype=np.intp), T, hold, mask)


cdef Packing plain_packing(lengths, Py_ssize_t T, Py_ssize_t B):
    """The packing of a batch by lengths that need no conversion; None where they do, or are wrong."""
    cdef const Py_ssize_t *length
    cdef Py_ssize_t b
    if not (cnp.PyArray_CheckExact(lengths) and cnp.PyArray_TYPE(lengths) == cnp.NPY_INTP
            and cnp.PyArray_NDIM(lengths) == 1 and cnp.PyArray_DIM(lengths, 0) == B
            and cnp.PyArray_ISCARRAY_RO(lengths)):
        return None
    length = integers(lengths)
    for b in range(B):
        if not 0 <= length[b] <= T:
            return None
    return Packing(lengths, T, False)


cdef cnp.ndarray longest_first(cnp.ndarray lengths):
    """The rows of a batch by falling length, of equal ones the first first."""
    cdef Py_ssize_t B = cnp.PyArray_DIM(lengths, 0), b, n, most = 0
    cdef cnp.ndarray order = new_integers(B)
    cdef Py_ssize_t *row_of = integers(order)
    cdef const Py_ssize_t *length = integers(lengths)
    cdef Py_ssize_t *place   # of the next row, by how much shorter than the longest it is
    cdef Buffer memory
    for b in range(B):
        most = max(most, length[b])
    memory = new_buffer(most + 2, sizeof(Py_ssize_t))
    place = <Py_ssize_t *>memory.data
    memset(place, 0, (most + 2) * sizeof(Py_ssize_t))
    for b in range(B):
        place[most - length[b] + 1] += 1
    for n in range(most):
        place[n + 1] += place[n]
    for b in range(B):
        n = most - length[b]
        row_of[place[n]] = b
        place[n] += 1
    return order


cdef object empty_like(state):
    """Uninitialised arrays like a state in C order, or a list of those of each layer."""
    if isinstance(state, list):
        return list(map(empty_like, state))
    return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(state), cnp.PyArray_DIMS(state), cnp.PyArray_TYPE(state), False)


cdef Padded padded_of(cnp.ndarray a):
    """Where an array is, which the caller keeps."""
    cdef Padded p
    p.data = <char *>cnp.PyArray_DATA(a)
    p.t, p.b = cnp.PyArray_STRIDE(a, 0), cnp.PyArray_STRIDE(a, 1)
    p.size = cnp.PyArray_DIM(a, 2) * cnp.PyArray_ITEMSIZE(a)
    return p


cdef object with_whole_rows(cnp.ndarray a):
    """An array (T, B, columns) whose rows are contiguous and whose strides are whole elements."""
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a)
    if (cnp.PyArray_STRIDE(a, 2) == size and cnp.PyArray_STRIDE(a, 0) % size == 0 and cnp.PyArray_ISALIGNED(a)):
        return a
    return np.require(a, requirements=["C", "ALIGNED"])
