"""What forward and backward share: memory, the rows of a batch, the packed weights of a layer, the tape."""

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdlib cimport free
from libc.string cimport memcpy, memmove, memset

import numpy as np

from ._blas cimport gemm_function
from ._dispatch cimport kernels
from ._kernels cimport LF_SIGMOID, LF_TANH, lf_activation, lf_fpenv, lf_fpenv_enter, lf_fpenv_leave
from ._threads cimport share

cnp.import_array()

cdef extern from *:
    """
    #include <stdlib.h>
    #include <sys/mman.h>
    static inline int lf_overflows(size_t a, size_t b, size_t *c) { return __builtin_mul_overflow(a, b, c); }
    static inline void lf_advise_huge_pages(void *p, size_t size)
    {
    #ifdef MADV_HUGEPAGE
        madvise(p, size, MADV_HUGEPAGE); /* advice: it may fail */
    #else
        (void)p, (void)size;
    #endif
    }
    """
    void lf_advise_huge_pages(void *p, size_t size)
    bint lf_overflows(size_t a, size_t b, size_t *c)
    int posix_memalign(void **p, size_t alignment, size_t size)

cdef size_t times(size_t a, size_t b) except? 0:
    cdef size_t c
    if lf_overflows(a, b, &c):
        raise MemoryError(f"{a} times {b} elements do not fit into memory")
    return c


# Past the end of a buffer a vector may be read, never used: gates of a BLAS product are not padded.
cdef size_t SLACK = 64
cdef size_t HUGE_PAGE = 2 << 20

# Arrays of less than this are NumPy's own, which takes less time.
cdef size_t POOLED_BYTES = 1 << 16

# Memory of buffers that are gone, the newest last, so that a program that repeats itself gets memory that is
# mapped already. The GIL guards it.
cdef enum: MOST_IDLE = 32
cdef size_t MOST_IDLE_BYTES = 64 << 20
cdef Block[MOST_IDLE] _idle
cdef int _idle_count = 0
cdef size_t _idle_bytes = 0


cdef Block take_idle(int n) noexcept:
    global _idle_count, _idle_bytes
    cdef Block block = _idle[n]
    _idle_count -= 1
    _idle_bytes -= block.size
    memmove(&_idle[n], &_idle[n + 1], (_idle_count - n) * sizeof(Block))
    return block


cdef Block allocate(size_t size) noexcept:
    """At least `size` bytes: the smallest idle block that is not much too large, or a new one; NULL if none."""
    cdef Block block
    cdef int n, best = -1
    for n in range(_idle_count):
        if size <= _idle[n].size <= 2 * size + 4096 and (best < 0 or _idle[n].size < _idle[best].size):
            best = n
    if best >= 0:
        return take_idle(best)
    block.data, block.size = NULL, size
    if size <= <size_t>-1 // 2 and posix_memalign(<void **>&block.data, HUGE_PAGE if size >= HUGE_PAGE else 64,
                                                  size + SLACK) == 0:
        if size >= HUGE_PAGE:
            lf_advise_huge_pages(block.data, size)
    else:
        block.data = NULL
    return block


cdef void recycle(Block block) noexcept:
    """Keep a block for `allocate`, and free what has been idle longest instead."""
    global _idle_count, _idle_bytes
    if block.size > MOST_IDLE_BYTES:
        free(block.data)
        return
    while _idle_count == MOST_IDLE or _idle_bytes + block.size > MOST_IDLE_BYTES:
        free(take_idle(0).data)
    _idle[_idle_count] = block
    _idle_count += 1
    _idle_bytes += block.size


cdef class Buffer:
    def __dealloc__(self):
        if self.data != NULL:
            recycle(self.block)

    def __reduce__(self):
        raise TypeError("a cache can be neither pickled nor copied")


cdef Buffer new_buffer(size_t elements, size_t itemsize):
    """Uninitialised memory for `elements` elements."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    cdef size_t size = times(elements, itemsize)
    buffer.block = allocate(size)
    if buffer.block.data == NULL:
        raise MemoryError(f"cannot allocate {size} bytes")
    buffer.data, buffer.size = buffer.block.data, size
    return buffer


cdef cnp.ndarray new_array(int ndim, const cnp.npy_intp *shape, int type_number):
    """An uninitialised array in C order, a large one in memory of a buffer."""
    cdef cnp.ndarray array
    cdef Buffer buffer
    cdef size_t elements = 1, itemsize = 4 if type_number == cnp.NPY_FLOAT else 8
    cdef int n
    for n in range(ndim):
        elements = times(elements, shape[n])
    if elements * itemsize < POOLED_BYTES:
        return cnp.PyArray_EMPTY(ndim, <cnp.npy_intp *>shape, type_number, False)
    buffer = new_buffer(elements, itemsize)
    array = cnp.PyArray_SimpleNewFromData(ndim, <cnp.npy_intp *>shape, type_number, buffer.data)
    cnp.set_array_base(array, buffer)
    return array


def empty(tuple shape not None, dtype):
    """The same of at most three axes, for float32 or float64.

    A program that repeats itself then gets memory that is mapped, whatever the C library does with its own.
    """
    cdef cnp.npy_intp[3] extents
    cdef int n
    for n in range(len(shape)):
        extents[n] = shape[n]
    return new_array(<int>len(shape), extents, np.dtype(dtype).num)


cdef void copy_rows(char *to, Py_ssize_t to_row, const char *source, Py_ssize_t row, Py_ssize_t rows,
                    Py_ssize_t columns) noexcept nogil:
    """Rows of bytes from one row stride to another; what a wider row of `to` has more becomes 0."""
    cdef Py_ssize_t n
    for n in range(rows):
        memcpy(to + n * to_row, source + n * row, columns)
        if to_row > columns:
            memset(to + n * to_row + columns, 0, to_row - columns)


cpdef void add(a, b) except *:
    """a += b, in the default floating-point environment, as the kernels."""
    cdef lf_fpenv saved = lf_fpenv_enter()
    try:
        np.add(a, b, out=a)
    finally:
        lf_fpenv_leave(saved)


cdef gemm_function load_gemm(size_t itemsize) except NULL:
    """BLAS's matrix multiply. Imports SciPy the first time."""
    from lstm_fast import _blas

    return <gemm_function>PyCapsule_GetPointer(_blas.gemm[itemsize], NULL)


def held_to_one_thread():
    """A context in which BLAS runs on the thread that calls it: see ``_blas.single_threaded``."""
    from lstm_fast import _blas

    return _blas.single_threaded()


cdef lf_activation activation(given):
    """(number of the function in `lf_function`, alpha, beta)"""
    cdef lf_activation found
    found.function, found.alpha, found.beta = given
    return found


cdef class Cell:
    """The weights of one layer and direction, packed for the active kernels. Immutable.

    Parameters
    ----------
    w_ih : ndarray, shape (4 H, I)
    w_hh : ndarray, shape (4 H, H) or (4 H, P)
    b_ih, b_hh : ndarray, shape (4 H,), optional
    w_hr : ndarray, shape (P, H), optional
    w_ch : ndarray, shape (3 H,), optional
        Peephole weights i, f, o.
    w_ln_ih, w_ln_hh, w_ln_c, b_ln_c : ndarray, shapes (4 H,), (4 H,), (H,), (H,), optional
        Gains and bias of layer norm; the bias may be absent.
    options : CellOptions, optional

    C-contiguous, all of one dtype, float32 or float64, in native byte order. The caller has checked the
    shapes, and does not write to the arrays before the last forward call with this cell.
    """

    def __init__(self, w_ih, w_hh, b_ih=None, b_hh=None, w_hr=None, w_ch=None, w_ln_ih=None, w_ln_hh=None,
                 w_ln_c=None, b_ln_c=None, options=None):
        self.w_ih, self.w_hh, self.w_hr = w_ih, w_hh, w_hr
        given = {"w_ih": w_ih, "w_hh": w_hh, "b_ih": b_ih, "b_hh": b_hh, "w_hr": w_hr, "w_ch": w_ch,
                 "w_ln_ih": w_ln_ih, "w_ln_hh": w_ln_hh, "w_ln_c": w_ln_c, "b_ln_c": b_ln_c}
        self.parameters = tuple(name for name, value in given.items() if value is not None)
        self.type_number = cnp.PyArray_TYPE(self.w_ih)
        self.k = kernels(self.type_number)
        self.hidden_size = self.w_ih.shape[0] // 4
        self.input_size = self.w_ih.shape[1]
        self.output_size = self.w_hh.shape[1]
        self.proj_size = 0 if w_hr is None else self.output_size
        self.panels = (self.hidden_size + self.k.lanes - 1) // self.k.lanes
        self.padded = self.panels * self.k.lanes
        self.set_variant(w_ch, w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, options)
        self.bias_sum = np.zeros(4 * self.hidden_size, self.w_ih.dtype)
        for b in (b_ih, b_hh):
            if b is not None:
                add(self.bias_sum, b)
        if self.layer_norm:  # it is added after that
            self.norm_bias, self.bias_sum = self.bias_sum, np.zeros_like(self.bias_sum)
        self.bias = self.pack_gates(self.bias_sum, 1)
        self.gates_ih = self.pack_forward(self.w_ih)
        self.gates_hh = self.pack_forward(self.w_hh)
        if w_hr is not None:
            self.project_hr = self.pack_columns(np.ascontiguousarray(self.w_hr.T))

    def set_variant(self, w_ch, w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, options):
        """How the cell differs from a plain one."""
        cdef Py_ssize_t H = self.hidden_size
        cdef char *data
        self.layer_norm = w_ln_ih is not None
        self.plain = w_ch is None and not self.layer_norm and (options is None or options.plain)
        self.variant.clip = self.variant.cell_clip = float("inf")
        self.variant.gate.function = LF_SIGMOID
        self.variant.candidate.function = self.variant.output.function = LF_TANH
        if options is not None:
            self.variant.coupled = options.coupled
            self.variant.clip, self.variant.cell_clip = options.clip, options.cell_clip
            self.variant.gate = activation(options.activations[0])
            self.variant.candidate = activation(options.activations[1])
            self.variant.output = activation(options.activations[2])
        self.variant.keeps_gates = self.variant.clip == float("inf") and not self.layer_norm
        if w_ch is not None:
            self.peephole = new_buffer(times(3, self.padded), self.k.itemsize)
            self.variant.peephole = data = self.peephole.data
            copy_rows(data, self.padded * self.k.itemsize, <const char *>cnp.PyArray_DATA(w_ch),
                      H * self.k.itemsize, 3, H * self.k.itemsize)
        if self.layer_norm:
            self.w_ln_ih, self.w_ln_hh, self.w_ln_c = w_ln_ih.copy(), w_ln_hh.copy(), w_ln_c.copy()
            self.b_ln_c = np.zeros(H, self.w_ih.dtype) if b_ln_c is None else b_ln_c.copy()

    @property
    def isa(self):
        """Name of the ISA whose kernels run this cell."""
        return self.k.isa.decode()

    cdef Buffer pack_forward(self, w):
        """Weights (4 H, depth) for forward: in gates or, with layer norm of whole rows, in columns."""
        if self.layer_norm:
            return self.pack_columns(np.ascontiguousarray(w.T))
        return self.pack_gates(w, w.shape[1])

    cdef Buffer pack_gates(self, w, Py_ssize_t depth):
        cdef Buffer packed = new_buffer(times(times(4, self.padded), depth), self.k.itemsize)
        self.k.pack_gates(packed.data, cnp.PyArray_DATA(w), self.hidden_size, depth)
        return packed

    cdef Buffer pack_columns(self, m):
        """A C-contiguous matrix (depth, columns), packed in columns."""
        cdef Py_ssize_t depth = m.shape[0], columns = m.shape[1], panel = 4 * self.k.lanes
        cdef Py_ssize_t panels = (columns + panel - 1) // panel
        cdef Buffer packed = new_buffer(times(times(panels, panel), depth), self.k.itemsize)
        self.k.pack_columns(packed.data, cnp.PyArray_DATA(m), columns, depth, columns, 0, panels)
        return packed

    cpdef void prepare_backward(self, bint blas) except *:
        """Pack what backward needs, so that its gradients belong to the weights forward used."""
        if blas and self.kept_ih is None:
            self.kept_ih = self.w_ih.copy()
        if self.prepared:
            return
        self.columns_ih = self.pack_columns(self.w_ih)
        self.columns_hh = self.pack_columns(self.w_hh)
        if self.w_hr is not None:
            self.columns_hr = self.pack_columns(self.w_hr)
        self.prepared = True


cdef class Ragged:
    """The rows of a batch whose sequences have different lengths, longest first.

    Arrays of such a batch have no padding: the rows of time 0 come first, then those of time 1 that still
    run, and so on, (N, columns) in all. Times end with the longest sequence.

    Parameters
    ----------
    lengths : ndarray of intp, shape (B,)
        Not increasing, not negative.

    Attributes
    ----------
    lengths : ndarray of intp, shape (B,)
    counts : ndarray of intp, shape (T + 1,)
        Rows that run at each time; 0 at T.
    offsets : ndarray of intp, shape (T + 1,)
        Rows of all earlier times.
    """

    def __init__(self, lengths):
        self.lengths = np.array(lengths, np.intp)
        cdef const Py_ssize_t *length = <Py_ssize_t *>cnp.PyArray_DATA(self.lengths)
        cdef Py_ssize_t B = len(self.lengths), T = length[0] if B else 0, t, running = B
        self.counts, self.offsets = np.empty(T + 1, np.intp), np.empty(T + 1, np.intp)
        cdef Py_ssize_t *counts = <Py_ssize_t *>cnp.PyArray_DATA(self.counts)
        cdef Py_ssize_t *offsets = <Py_ssize_t *>cnp.PyArray_DATA(self.offsets)
        offsets[0] = 0
        for t in range(T + 1):
            while running > 0 and length[running - 1] <= t:
                running -= 1
            counts[t] = running
            if t < T:
                offsets[t + 1] = offsets[t] + running
        self.rows.T, self.rows.B, self.rows.total = T, B, offsets[T]
        self.rows.counts, self.rows.offsets, self.rows.lengths = counts, offsets, length


cdef Rows rows_of(cnp.ndarray x, Ragged ragged):
    """The rows of an input, (T, B, I), (B, I) for one step, or (N, I) of a ragged batch."""
    cdef Rows rows
    if ragged is not None:
        return ragged.rows
    rows.T, rows.B = 1, cnp.PyArray_DIM(x, 0)
    if cnp.PyArray_NDIM(x) == 3:
        rows.T, rows.B = rows.B, cnp.PyArray_DIM(x, 1)
    rows.total = rows.T * rows.B
    rows.counts = rows.offsets = rows.lengths = NULL
    return rows


cdef void share_rows(const Rows *rows, int part, int parts, Py_ssize_t *first, Py_ssize_t *last) noexcept nogil:
    """Part `part` of `parts` of the rows of a batch, about as many steps in each."""
    cdef Py_ssize_t row, steps = 0
    share(rows.B, part, parts, first, last)
    if rows.lengths == NULL:
        return
    first[0] = last[0] = rows.B
    for row in range(rows.B):
        if first[0] == rows.B and steps >= rows.total * part // parts:
            first[0] = row
        if part < parts - 1 and steps >= rows.total * (part + 1) // parts:
            last[0] = row
            return
        steps += rows.lengths[row]


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
    norm.ih = new_buffer(times(rows, 4 * cell.hidden_size), size)
    norm.hh = new_buffer(times(rows, 4 * cell.hidden_size), size)
    norm.c = new_buffer(times(rows, cell.hidden_size), size)
    norm.scale_ih, norm.scale_hh, norm.scale_c = (new_buffer(rows, size) for _ in range(3))
    return norm


cdef class Tape:
    @property
    def nbytes(self):
        """Bytes of memory that it holds: of its own buffers, not of the input."""
        cdef size_t size = self.gates.size + self.c.size + self.h.size
        if self.noise is not None:
            size += self.noise.nbytes
        if self.norm is not None:
            size += self.norm.ih.size + self.norm.hh.size + self.norm.c.size + 3 * self.norm.scale_c.size
        return size
