"""What forward keeps for backward, and what a call does to the states besides the equations.

    Tape    of one layer and direction
    Stage   of one call of the engine, with what a network did around it
    Cache   of a network: what users hold
"""

cimport cython

from lstm_fast.engine.batch cimport Ragged, Rows
from lstm_fast.engine.cell cimport Cell
from lstm_fast.engine.memory cimport Arena, Buffer, arena_of, new_buffer, take, times


cdef class Noise:
    """What a call does to the states of one layer and direction besides its equations.

    Parameters
    ----------
    recurrent : ndarray, shape (B, P), optional
        Multiplies h(t-1) in the recurrent product.
    zone_h, zone_c : ndarray, both of shape (N, H) with the rows of a batch of any kind, or (H,), optional
        With zoneout, weights of the previous values.

    C-contiguous, of the dtype of the cells.
    """

    def __init__(self, recurrent=None, zone_h=None, zone_c=None):
        self.recurrent, self.zone_h, self.zone_c = recurrent, zone_h, zone_c
        zone = zone_c if zone_h is None else zone_h
        self.zone_row = zone.shape[1] if zone is not None and zone.ndim == 2 else 0

    def rows(self, first, last):
        """The same of some times, whose rows are first .. last - 1."""
        return Noise(self.recurrent, *(z if z is None or z.ndim == 1 else z[first:last]
                                       for z in (self.zone_h, self.zone_c)))

    @property
    def nbytes(self):
        """Bytes of memory that it holds."""
        return sum(a.nbytes for a in (self.recurrent, self.zone_h, self.zone_c) if a is not None)


cdef Norm new_norm(Cell cell, size_t rows):
    cdef Norm norm = Norm.__new__(Norm)
    cdef size_t size = cell.k.itemsize
    norm.hh = new_buffer(times(rows, 4 * cell.hidden_size), size)
    norm.c = new_buffer(times(rows, cell.hidden_size), size)
    if cell.norm_of_gates:
        norm.scale_hh = new_buffer(times(4, rows), size)
    else:
        norm.ih = new_buffer(times(rows, 4 * cell.hidden_size), size)
        norm.scale_ih, norm.scale_hh, norm.scale_c = (new_buffer(rows, size) for _ in range(3))
    return norm


cdef Tape new_tape(Cell cell, Ragged ragged, list bounds, const Rows *rows, bint reverse, Py_ssize_t border):
    """A tape whose buffers have room for all rows."""
    cdef Tape tape = Tape.__new__(Tape)
    cdef size_t total = <size_t>rows.total, all_rows = total + <size_t>rows.B, size = cell.k.itemsize
    cdef size_t gates = times(times(total, 4), cell.padded) * size
    cdef size_t c = times(all_rows, cell.padded) * size, h = times(all_rows, cell.output_size) * size
    tape.cell, tape.ragged, tape.rows, tape.reverse = cell, ragged, rows[0], reverse
    tape.bounds, tape.border, tape.size = bounds, border, gates + c + h
    tape.memory = new_buffer(tape.size + 3 * 64, 1)
    cdef Arena arena = arena_of(tape.memory.data, tape.memory.size)
    tape.gates, tape.c, tape.h = take(&arena, gates), take(&arena, c), take(&arena, h)
    return tape


cdef class Tape:
    @property
    def nbytes(self):
        """Bytes of memory that it holds: of its own buffers, not of the input."""
        cdef size_t size = self.size
        cdef Buffer buffer
        if self.noise is not None:
            size += self.noise.nbytes
        if self.norm is not None:
            for buffer in (self.norm.ih, self.norm.hh, self.norm.c, self.norm.scale_ih, self.norm.scale_hh,
                           self.norm.scale_c):
                size += 0 if buffer is None else buffer.size
        return size


cdef class Stage:
    """What a network keeps of one call of the engine, with what happened around it.

    Parameters
    ----------
    cells : slice
        Which cells of the network it computes.
    kept : list of Tape, or of what stands for them
    x : ndarray
        Its input, which `kept` reads.
    mask : ndarray, optional
        By which that was multiplied.
    z : ndarray, optional
        The outputs of two directions, of which the layer gave the product.
    """

    def __init__(self, cells, kept, x, mask=None, z=None):
        self.cells, self.kept, self.x, self.mask, self.z = cells, kept, x, mask, z

    @property
    def nbytes(self):
        """Bytes of memory that it asked for."""
        arrays = sum(a.nbytes for a in (self.x, self.mask, self.z) if a is not None)
        return arrays + sum(part.nbytes for part in self.kept)


@cython.final
cdef class Cache:
    """What `LSTM.forward` keeps. Opaque, but for its size; networks fill and read it.

    Parameters
    ----------
    owner : object
        The LSTM that may use it.
    stages : list of Stage
    T, B, batched : int, int, bool
        As users see them: extents, and whether they see B in states.
    blas : bool
        As of `backward`.
    packing : Packing, optional
        Where the valid rows are, in a ragged batch.
    """

    def __init__(self, owner, list stages not None, Py_ssize_t T, Py_ssize_t B, bint blas, bint batched=True,
                 packing=None):
        self._owner, self._stages, self._blas = owner, stages, blas
        self._T, self._B, self._batched, self._packing = T, B, batched, packing

    @property
    def nbytes(self):
        """Bytes of memory that it asked for.

        Buffers of earlier calls are used again, so that it may hold up to twice as much.
        """
        return sum(stage.nbytes for stage in self._stages)

    def __reduce__(self):
        raise TypeError("a cache can be neither pickled nor copied")


cdef Cache cache_of_one(owner, list tapes, x, Py_ssize_t T, Py_ssize_t B, bint blas, bint batched, packing):
    """The cache of a network that one call of the engine computes without noise."""
    cdef Stage stage = Stage.__new__(Stage)
    cdef Cache cache = Cache.__new__(Cache)
    stage.cells, stage.kept, stage.x = slice(0, len(tapes)), tapes, x
    cache._owner, cache._stages, cache._packing = owner, [stage], packing
    cache._T, cache._B, cache._blas, cache._batched = T, B, blas, batched
    return cache
