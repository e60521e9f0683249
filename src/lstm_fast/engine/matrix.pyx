"""Packed matrices, products with them, and sums of rows.

The bits of an element depend on nothing but its row, its column and what is added to them: each sum runs in ascending
order, on whatever thread. Arguments of a wrong type or shape raise ValueError; the result is a new array, or `out`,
which overlaps no argument.
"""

cimport numpy as cnp

import numpy as np

from lstm_fast.engine.memory cimport at, check_vector, data_of, new_buffer, new_matrix, real_type, times
from lstm_fast.engine.plan cimport Place, plan_packing, plan_shares, share
from lstm_fast.engine.runtime.isa cimport kernels
from lstm_fast.engine.runtime.kernels cimport lf_product
from lstm_fast.engine.schedule cimport Schedule, begin, run_all

cnp.import_array()


# ---- packing

cdef struct Source:
    # A matrix, and where it is packed
    const lf_kernels *k
    const lf_products *products
    void *packed
    void *columns  # NULL, or where gates are packed in columns as well
    const void *matrix
    const void *scale
    int how
    Py_ssize_t row, depth, units, panels  # units of a gate, or columns


cdef Py_ssize_t panels_of(const lf_kernels *k, int how, Py_ssize_t units) noexcept nogil:
    """Panels of so many units of gates, or columns."""
    cdef Py_ssize_t width = k.lanes if how == GATES else 4 * k.lanes
    return (units + width - 1) // width


cdef void pack_twice(const Source *source, Py_ssize_t first, Py_ssize_t end) noexcept nogil:
    """Panels of gates, and the same rows in columns while they are in a cache."""
    cdef Py_ssize_t panel, gate, unit, row, lanes = source.k.lanes
    cdef Py_ssize_t panels = panels_of(source.k, COLUMNS, source.depth)
    for panel in range(first, end):
        unit = panel * lanes
        source.products.pack_gates(source.packed, source.matrix, NULL, source.units, source.depth, panel, panel + 1)
        for gate in range(4):
            row = gate * source.units + unit
            source.products.pack_columns(source.columns, source.matrix, source.depth, 4 * source.units, source.depth, 0,
                                         panels, row, row + min(lanes, source.units - unit))


cdef void pack_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """One thread's share of the panels."""
    cdef Source *source = <Source *>what
    share(source.panels, here.part, here.parts, &first, &end)
    if source.how == GATES and source.columns != NULL:
        pack_twice(source, first, end)
    elif source.how == GATES:
        source.products.pack_gates(source.packed, source.matrix, source.scale, source.units, source.depth, first, end)
    elif source.how == COLUMNS:
        source.products.pack_columns(source.packed, source.matrix, source.row, source.depth, source.units, first, end,
                                     0, source.depth)
    else:
        source.products.pack_transposed(source.packed, source.matrix, source.scale, source.row, source.depth,
                                        source.units, first, end)


cdef size_t column_size(const lf_products *products, Py_ssize_t depth) except? 0:
    """Bytes of a packed column."""
    cdef Py_ssize_t group = products.group
    return products.head_size + times((depth + group - 1) // group * group, products.weight_size)


cdef Buffer room_for(const lf_kernels *k, const lf_products *products, int how, Py_ssize_t depth, Py_ssize_t units):
    """Memory for what `pack_panels` packs."""
    return new_buffer(times(panels_of(k, how, units), 4 * k.lanes), column_size(products, depth))


cdef Buffer pack_panels(const lf_kernels *k, const lf_products *products, const char *matrix, const char *scale,
                        int how, Py_ssize_t row, Py_ssize_t depth, Py_ssize_t units, Buffer columns=None):
    """Pack a matrix whose rows are contiguous and `row` elements apart, for products of some precision.

    It has so many units of four gates, of `depth` columns; or so many columns and rows; or as its transpose. Columns
    have no `scale`, and are packed from numbers of the dtype. Gates of full precision may be packed in `columns`, too.
    """
    cdef Source source
    cdef Schedule schedule
    cdef Buffer packed = room_for(k, products, how, depth, units)
    cdef size_t size = packed.size
    source.k, source.products, source.how = k, products, how
    source.packed, source.columns = packed.data, NULL
    source.matrix, source.scale = matrix, scale
    source.row, source.depth, source.units, source.panels = row, depth, units, panels_of(k, how, units)
    if columns is not None:
        source.columns = columns.data
        size += columns.size
    begin(&schedule, plan_packing(source.panels, size), 1, 1, 0, &source, pack_share)
    run_all(&schedule, False)
    return packed


cdef tuple unpacked(Buffer packed, const lf_kernels *k, const lf_products *products, int how, Py_ssize_t depth,
                    Py_ssize_t units):
    """What was packed in gates, or transposed, as bytes: weights (rows, depth, weight_size), and heads (rows, size)."""
    cdef Py_ssize_t lanes = k.lanes, group = products.group, head = products.head_size, size = products.weight_size
    cdef Py_ssize_t groups = (depth + group - 1) // group, gates = 4 if how == GATES else 1, vectors
    cdef Py_ssize_t panel = 4 * lanes * <Py_ssize_t>column_size(products, depth), first = 0, start = 0
    cdef cnp.npy_intp bytes = packed.size
    cdef cnp.ndarray memory = cnp.PyArray_SimpleNewFromData(1, &bytes, cnp.NPY_UINT8, packed.data)
    cdef list weights = [], heads = []
    while first < units:
        vectors = 4
        if how == TRANSPOSED:  # the last panel is narrowed: see kernels.h
            vectors = 4 if units - first > 2 * lanes else 2 if units - first > lanes else 1
        columns = vectors * lanes
        parts = memory[start:start + columns * head].reshape(vectors, head // 4, lanes, 4)  # vectors of 4 bytes
        heads.append(parts.transpose(0, 2, 1, 3).reshape(gates, columns // gates, head))
        found = memory[start + columns * head:start + columns * (head + groups * group * size)]
        found = found.reshape(groups, gates, columns // gates, group * size).transpose(1, 2, 0, 3)
        weights.append(found.reshape(gates, columns // gates, groups * group, size)[:, :, :depth])
        first, start = first + columns // gates, start + panel
    return tuple(np.concatenate(parts, axis=1)[:, :units].reshape(gates * units, *parts[0].shape[2:])
                 for parts in (weights, heads))


cdef class Packed:
    def __init__(self):
        raise TypeError("a matrix is packed by `pack`")

    def __reduce__(self):
        raise TypeError("a packed matrix can be neither pickled nor copied")

    @property
    def dtype(self):
        """Of the matrix: float32 or float64."""
        return cnp.PyArray_DescrFromType(self.type_number)

    @property
    def nbytes(self):
        """Bytes of memory that it holds."""
        return self.buffer.size


cdef struct Steps:
    # In elements, from row to row and from column to column
    Py_ssize_t row, column


cdef Steps steps_of(cnp.ndarray a, str name) except *:
    """The strides of a matrix; one that leads to no second element plays no part, and is that of C order.

    Those of an aligned array are whole elements.
    """
    cdef Steps steps
    cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(a), row, column
    if cnp.PyArray_NDIM(a) != 2 or not cnp.PyArray_ISBEHAVED_RO(a):
        raise ValueError(f"{name}: expected a matrix, aligned and in native byte order")
    column, row = size, cnp.PyArray_DIM(a, 1) * size
    if cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_DIM(a, 1) > 1:
        column = cnp.PyArray_STRIDE(a, 1)
    if cnp.PyArray_SIZE(a) > 0 and cnp.PyArray_DIM(a, 0) > 1:
        row = cnp.PyArray_STRIDE(a, 0)
    steps.row, steps.column = row // size, column // size
    return steps


def pack(cnp.ndarray matrix not None):
    """Pack a matrix in columns for `multiply`, as it is now.

    Parameters
    ----------
    matrix : ndarray, shape (depth, columns)
        float32 or float64, with contiguous rows, or with contiguous columns, as the transpose of such a matrix.

    Returns
    -------
    Packed
    """
    cdef Packed packed = Packed.__new__(Packed)
    cdef Steps steps
    packed.type_number = real_type(matrix, "matrix")
    packed.k = kernels(packed.type_number)
    steps = steps_of(matrix, "matrix")
    packed.depth, packed.columns = cnp.PyArray_DIM(matrix, 0), cnp.PyArray_DIM(matrix, 1)
    if steps.column == 1:
        packed.buffer = pack_panels(packed.k, &packed.k.full, data_of(matrix), NULL, COLUMNS, steps.row, packed.depth,
                                    packed.columns)
    elif steps.row == 1 or packed.depth <= 1:
        packed.buffer = pack_panels(packed.k, &packed.k.full, data_of(matrix), NULL, TRANSPOSED, steps.column,
                                    packed.depth, packed.columns)
    else:
        raise ValueError("matrix: expected contiguous rows or columns")
    return packed


# ---- products

cdef struct Product:
    const lf_kernels *k
    lf_product p
    bint by_rows  # threads share rows, else panels
    Py_ssize_t panels


# Rows that fill a register tile well enough.
cdef Py_ssize_t TILE_ROWS = 3


cdef void multiply_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """One thread's share of the rows, or of the panels."""
    cdef const Product *product = <const Product *>what
    cdef lf_product p = product.p
    if product.by_rows:
        share(p.rows, here.part, here.parts, &first, &end)
        p.rows = end - first
        p.a = at(<const char *>p.a, first * p.a_row, product.k)
        p.out = at(<const char *>p.out, first * p.out_row, product.k)
    else:
        share(product.panels, here.part, here.parts, &p.first_panel, &p.end_panel)
    product.k.full.product(&p)


def multiply(cnp.ndarray a not None, Packed b not None, cnp.ndarray init=None, cnp.ndarray out=None,
             bint accumulate=False):
    """The product a b, plus `init` in each row, and with `accumulate` plus what is in `out`.

    Parameters
    ----------
    a : ndarray, shape (M, K)
        Of any strides: that of a transpose is as good as another.
    b : Packed
        Of depth K and N columns.
    init : ndarray, shape (N,), optional
    out : ndarray, shape (M, N), optional
        With contiguous rows; needed with `accumulate`.
    accumulate : bool

    Returns
    -------
    ndarray, shape (M, N)
        `out`, or a new array.
    """
    cdef Product product
    cdef lf_product *p = &product.p
    cdef Schedule schedule
    cdef Py_ssize_t rows, tiles
    cdef Steps steps = steps_of(a, "a"), of_out
    rows = cnp.PyArray_DIM(a, 0)
    if cnp.PyArray_TYPE(a) != b.type_number or cnp.PyArray_DIM(a, 1) != b.depth:
        raise ValueError(f"a: expected (M, {b.depth}) of {b.dtype}, got {(<object>a).shape} of {a.dtype}")
    if init is not None:
        check_vector(init, "init", b.type_number, b.columns)
    if out is None:
        if accumulate:
            raise ValueError("out: expected what is accumulated")
        out = new_matrix(rows, b.columns, b.type_number)
    of_out = steps_of(out, "out")
    if (cnp.PyArray_TYPE(out) != b.type_number or cnp.PyArray_DIM(out, 0) != rows
            or cnp.PyArray_DIM(out, 1) != b.columns or of_out.column != 1 or not cnp.PyArray_ISWRITEABLE(out)):
        raise ValueError(f"out: expected writable ({rows}, {b.columns}) of {b.dtype} with contiguous rows, "
                         f"got {(<object>out).shape} of {out.dtype}")
    product.k = b.k
    product.panels = panels_of(b.k, COLUMNS, b.columns)
    p.rows, p.depth, p.columns = rows, b.depth, b.columns
    p.a, p.a_row, p.a_step = data_of(a), steps.row, steps.column
    p.b = b.buffer.data
    p.init, p.init_row, p.init_panel = NULL if init is None else data_of(init), 0, 4 * b.k.lanes
    p.accumulate, p.stream = accumulate, False
    p.out, p.out_row, p.out_panel = data_of(out), of_out.row, 4 * b.k.lanes
    p.first_panel, p.end_panel = 0, product.panels
    tiles = (rows + TILE_ROWS - 1) // TILE_ROWS
    product.by_rows = tiles >= product.panels
    begin(&schedule, plan_shares(max(tiles, product.panels), <double>rows * b.depth * b.columns), 1, 1, 0, &product,
          multiply_share)
    run_all(&schedule, False)
    return out


# ---- sums

cdef struct Sum:
    const lf_kernels *k
    const char *a
    char *sums
    Py_ssize_t rows, columns, row


cdef void sum_share(void *what, Py_ssize_t first, Py_ssize_t end, const Place *here) noexcept nogil:
    """One thread's share of the columns."""
    cdef const Sum *total = <const Sum *>what
    share(total.columns, here.part, here.parts, &first, &end)
    total.k.add_rows(at(total.sums, first, total.k), at(total.a, first, total.k), total.row, total.rows, end - first)


def sum_rows(cnp.ndarray a not None):
    """The sum of the rows of a matrix (M, N), float32 or float64, with contiguous rows: (N,)."""
    cdef Sum total
    cdef Schedule schedule
    cdef int type_number = real_type(a, "a")
    cdef Steps steps = steps_of(a, "a")
    cdef cnp.npy_intp columns = cnp.PyArray_DIM(a, 1)
    cdef cnp.ndarray sums = cnp.PyArray_ZEROS(1, &columns, type_number, False)
    if steps.column != 1:
        raise ValueError("a: expected contiguous rows")
    total.k, total.a, total.sums = kernels(type_number), data_of(a), data_of(sums)
    total.rows, total.columns, total.row = cnp.PyArray_DIM(a, 0), columns, steps.row
    begin(&schedule, plan_shares(columns, <double>total.rows * columns), 1, 1, 0, &total, sum_share)
    run_all(&schedule, False)
    return sums
