"""Where the gradients of parameters are summed, over the rows of a batch at all times.

Each sum runs over the rows in order, so that its bits do not depend on the threads. Where threads have rows of the
batch of their own, every one then needs the gradients of pre-activations of all rows, of which the others have just
written theirs: at (100, 8, 64, 64) that took a fifth of the time of two threads. So a batch that is large enough has
two bands of rows, whatever the threads, with sums of their own, which are added in the end.
"""

cimport numpy as cnp
from libc.string cimport memcpy, memset

from lstm_fast.engine.batch cimport Ragged, Rows, rows_of_batch, share_rows
from lstm_fast.engine.cell cimport Cell
from lstm_fast.engine.memory cimport Arena, Buffer, arena_of, data_of, new_array, new_buffer, take, times
from lstm_fast.engine.runtime.kernels cimport lf_fpenv, lf_fpenv_enter, lf_fpenv_leave

cnp.import_array()

# Rows of a batch that has bands, at least: a band's fill a register tile. Multiply-adds for each cell, at least, that
# are worth setting a band up; and bytes of weights, at most, beyond which sums take long to read and write.
cdef Py_ssize_t LEAST_ROWS = 8
cdef double LEAST_WORK = 4e6
cdef size_t MOST_BYTES = 1 << 21


cpdef list bands_of(list cells, Py_ssize_t T, Py_ssize_t B, Ragged ragged, bint plain):
    """Where backward cuts a batch into bands: it depends on no more than one direction of what is computed.

    Parameters
    ----------
    cells : list of Cell
    T, B, ragged
        Of the batch; `ragged` may be None.
    plain : bool
        Whether there is no noise, and BLAS computes no products.

    Returns
    -------
    list of int
        The row with which each band begins, and B.
    """
    cdef Cell cell
    cdef Rows rows = rows_of_batch(T, B, ragged)
    cdef size_t weights
    cdef Py_ssize_t first, end
    if not plain or B < LEAST_ROWS:
        return [0, B]
    for cell in cells:
        weights = times(4 * cell.hidden_size, cell.input_size + cell.output_size)
        if (not (cell.plain and cell.full) or weights * cell.k.itemsize > MOST_BYTES
                or 2.0 * rows.total * weights < LEAST_WORK):
            return [0, B]
    share_rows(&rows, 0, rows.T, 0, 2, &first, &end)
    return [0, end, B] if 0 < end < B else [0, B]


cdef class Sums:
    """Sums of some cells.

    Parameters
    ----------
    cells : list of Cell
    bounds : list of int
        What `bands_of` returned.
    """

    def __init__(self, list cells, list bounds):
        cdef Cell cell
        cdef Arena counted
        self.cells, self.bounds, self.bands, self.arrays = cells, bounds, <int>len(bounds) - 1, []
        for cell in cells:
            add_arrays(self.arrays, cell)
        if self.bands > 1:
            self.others = []
            for cell in cells * (self.bands - 1):
                counted = arena_of(NULL, 0)
                carve(cell, &counted)
                self.others.append(new_buffer(counted.used, 1))

    cdef Py_ssize_t first(self, Py_ssize_t n) noexcept:
        """The first array of cell n."""
        cdef Cell cell
        cdef Py_ssize_t found = 0
        for cell in self.cells[:n]:
            found += len(cell.parameters)
        return found

    cdef Sum of(self, Py_ssize_t n, int band) except *:
        """Those of cell n; what is not `begun` is overwritten, but biases are added to."""
        cdef Sum found
        cdef Buffer other
        cdef Arena arena
        cdef Cell cell = self.cells[n]
        cdef Py_ssize_t first = self.first(n) if n > 0 else 0
        if band == 0:
            found.w_ih, found.w_hh = data_of(self.arrays[first]), data_of(self.arrays[first + 1])
            found.bias = data_of(self.arrays[first + 2]) if cell.biases else NULL
            found.w_hr = data_of(self.arrays[first + 2 + cell.biases]) if cell.proj_size else NULL
            return found
        other = self.others[(band - 1) * len(self.cells) + n]
        arena = arena_of(other.data, other.size)
        found = carve(cell, &arena)
        if cell.biases and not self.begun:
            memset(found.bias, 0, 4 * cell.hidden_size * cell.k.itemsize)
        return found

    cdef dict by_name(self, Py_ssize_t n):
        """The arrays of cell n, by the names of its parameters."""
        cdef Cell cell = self.cells[n]
        return dict(zip(cell.parameters, self.arrays[self.first(n):]))

    cdef void nothing(self) except *:
        """Begin with zeros."""
        if not self.begun:
            for array in self.arrays:
                array[...] = 0

    cpdef list total(self):
        """Arrays for all parameters of the first cell, in order, then of the others."""
        cdef Sum found, other
        cdef Cell cell
        cdef cnp.ndarray second
        cdef Py_ssize_t n, H, P
        cdef int band
        cdef lf_fpenv saved = lf_fpenv_enter()
        for n in range(len(self.cells)):
            cell, found = self.cells[n], self.of(n, 0)
            H, P = cell.hidden_size, cell.output_size
            for band in range(1, self.bands):
                other = self.of(n, band)
                cell.k.add_rows(found.w_ih, other.w_ih, 0, 1, 4 * H * cell.input_size)
                cell.k.add_rows(found.w_hh, other.w_hh, 0, 1, 4 * H * P)
                if found.w_hr != NULL:
                    cell.k.add_rows(found.w_hr, other.w_hr, 0, 1, P * H)
                if found.bias != NULL:
                    cell.k.add_rows(found.bias, other.bias, 0, 1, 4 * H)
            if cell.biases == 2:
                second = self.arrays[self.first(n) + 3]
                memcpy(data_of(second), found.bias, cnp.PyArray_NBYTES(second))
        lf_fpenv_leave(saved)
        return self.arrays


cdef Sum carve(Cell cell, Arena *arena) except *:
    """Pieces of an arena for the sums of a band; where that is too small, it has counted what is needed."""
    cdef Sum found
    cdef size_t H = cell.hidden_size, P = cell.output_size, size = cell.k.itemsize
    found.w_ih, found.w_hh = take(arena, 4 * H * cell.input_size * size), take(arena, 4 * H * P * size)
    found.bias = take(arena, 4 * H * size) if cell.biases else NULL
    found.w_hr = take(arena, P * H * size) if cell.proj_size else NULL
    return found


cdef void add_arrays(list arrays, Cell cell) except *:
    """Append arrays for the gradients of a cell's parameters, in their order; vectors of zeros."""
    cdef tuple shape
    cdef cnp.npy_intp[2] extents
    for shape in cell.shapes:
        extents[0] = shape[0]
        if len(shape) == 2:
            extents[1] = shape[1]
            arrays.append(new_array(2, extents, cell.type_number))
        else:
            arrays.append(cnp.PyArray_ZEROS(1, extents, cell.type_number, False))
