"""The weights of one layer and direction, packed for the kernels."""

cimport numpy as cnp

import numpy as np

from lstm_fast.engine.matrix cimport COLUMNS, GATES, TRANSPOSED, pack_panels, room_for, unpacked
from lstm_fast.engine.memory cimport Buffer, copy_rows, data_of, data_or_null, new_buffer, times
from lstm_fast.engine.runtime.isa cimport kernels, lower
from lstm_fast.engine.runtime.kernels cimport (LF_INT8_DEPTH, LF_SIGMOID, LF_TANH, lf_activation, lf_fpenv,
                                               lf_fpenv_enter, lf_fpenv_leave)

cnp.import_array()


cdef lf_activation activation(given):
    """(number of the function in `lf_function`, alpha, beta)"""
    cdef lf_activation found
    found.function, found.alpha, found.beta = given
    return found


def bfloat16_bits(cnp.ndarray a not None):
    """The bits of the bfloat16 numbers nearest to those of a float32 array, ties to even: uint16."""
    cdef cnp.ndarray x = np.ascontiguousarray(a, np.float32)
    cdef cnp.ndarray bits = cnp.PyArray_EMPTY(cnp.PyArray_NDIM(a), cnp.PyArray_DIMS(a), cnp.NPY_UINT16, False)
    kernels(cnp.NPY_FLOAT).bfloat16(<cnp.uint16_t *>data_of(bits), data_of(x), cnp.PyArray_SIZE(x))
    return bits


cdef tuple PARAMETERS = ("w_ih", "w_hh", "b_ih", "b_hh", "w_hr", "w_ch", "w_ln_ih", "w_ln_hh", "w_ln_c", "b_ln_c",
                         "w_ln")


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
    w_ln : ndarray, shape (4 H,), optional
        Gains of layer norm of each gate, without those above.
    options : CellOptions, optional
        None: those of a plain cell.
    scales : tuple of ndarray, optional
        Of the rows of w_ih, w_hh and w_hr (or None), float32: these hold 8-bit integers then.
    inputs : {"bfloat16", "float32", "int8"}
        How 8-bit weights multiply the input.
    bfloat16 : bool
        Round weights of float32, and what they are multiplied with, to bfloat16.
    training, of_input : bool
        Pack some of what `prepare` with these would, while the weights are read anyway.

    C-contiguous, aligned, all of one dtype, float32 or float64, in native byte order; or w_ih, w_hh and w_hr of int8,
    with scales, or of uint16, which hold bfloat16, and the others of float32. The caller has checked the shapes, and
    does not write to the arrays before the last `prepare`.
    """

    def __init__(self, cnp.ndarray w_ih not None, cnp.ndarray w_hh not None, b_ih=None, b_hh=None, w_hr=None, w_ch=None,
                 w_ln_ih=None, w_ln_hh=None, w_ln_c=None, b_ln_c=None, w_ln=None, options=None,
                 tuple scales=(None, None, None), str inputs="bfloat16", bint bfloat16=False, bint training=False,
                 bint of_input=True):
        cdef list parameters = [], shapes = []
        cdef Py_ssize_t n = 0
        for value in (w_ih, w_hh, b_ih, b_hh, w_hr, w_ch, w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, w_ln):
            if value is not None:
                parameters.append(PARAMETERS[n])
                shapes.append(value.shape)
            n += 1
        self.parameters, self.shapes = tuple(parameters), tuple(shapes)
        self.biases = (b_ih is not None) + (b_hh is not None)
        self.set_precision(w_ih, inputs, bfloat16)
        if self.full or bfloat16:  # else only packed weights are kept
            self.w_ih, self.w_hh, self.w_hr = w_ih, w_hh, w_hr
        if bfloat16:
            w_ih, w_hh = bfloat16_bits(w_ih), bfloat16_bits(w_hh)
            w_hr = None if w_hr is None else bfloat16_bits(w_hr)
        self.hidden_size = cnp.PyArray_DIM(w_ih, 0) // 4
        self.input_size, self.output_size = cnp.PyArray_DIM(w_ih, 1), cnp.PyArray_DIM(w_hh, 1)
        self.proj_size = 0 if w_hr is None else self.output_size
        self.panels = (self.hidden_size + self.k.lanes - 1) // self.k.lanes
        self.padded = self.panels * self.k.lanes
        self.set_variant(w_ch, w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, w_ln, options)
        self.bias_sum = self.sum_of(b_ih, b_hh)
        if self.layer_norm:  # it is added after that
            self.norm_bias, self.bias_sum = self.bias_sum, np.zeros_like(self.bias_sum)
        self.bias = self.pack_gates(&self.k.full, self.bias_sum, None, 1, None)
        if training and self.full and not self.layer_norm:
            self.columns_hh = self.room_for_columns(w_hh)
            self.columns_ih = self.room_for_columns(w_ih) if of_input else None
        self.gates_ih = self.pack_forward(self.of_x, w_ih, scales[0], self.columns_ih)
        self.gates_hh = self.pack_forward(self.of_h, w_hh, scales[1], self.columns_hh)
        if w_hr is not None:
            self.project_hr = self.pack_transposed(self.of_h, w_hr, scales[2])

    cdef void set_precision(self, cnp.ndarray w_ih, str inputs, bint bfloat16) except *:
        """Which kernels and products serve the cell."""
        cdef int type_number = cnp.PyArray_TYPE(w_ih)
        self.full = not bfloat16 and type_number != cnp.NPY_INT8 and type_number != cnp.NPY_UINT16
        self.type_number = type_number if self.full else cnp.NPY_FLOAT
        self.k = kernels(self.type_number)
        self.of_x = self.of_h = &self.k.full
        self.rounds_x = not self.full and inputs != "float32"
        if bfloat16 or type_number == cnp.NPY_UINT16:
            self.of_x = self.of_h = lower("bfloat16")
        elif type_number == cnp.NPY_INT8:
            self.of_x = lower({"int8": "int8", "bfloat16": "mixed"}.get(inputs, "widened"))
            self.of_h = lower("int8")

    cdef object sum_of(self, b_ih, b_hh):
        """Both biases together."""
        cdef cnp.npy_intp columns = 4 * self.hidden_size
        cdef cnp.ndarray total = cnp.PyArray_ZEROS(1, &columns, self.type_number, False)
        cdef lf_fpenv saved = lf_fpenv_enter()
        for b in (b_ih, b_hh):
            if b is not None:
                self.k.add_rows(cnp.PyArray_DATA(total), cnp.PyArray_DATA(b), columns, 1, columns)
        lf_fpenv_leave(saved)
        return total

    cdef void set_variant(self, w_ch, w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, w_ln, options) except *:
        """How the cell differs from a plain one."""
        cdef Py_ssize_t H = self.hidden_size
        cdef char *data
        self.norm_of_gates = w_ln is not None
        self.layer_norm = w_ln_ih is not None or self.norm_of_gates
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
            data = self.peephole.data
            if not self.norm_of_gates:  # else the norm comes after peepholes, and kernels after the norm
                self.variant.peephole = data
            copy_rows(data, self.padded * self.k.itemsize, <const char *>cnp.PyArray_DATA(w_ch),
                      H * self.k.itemsize, 3, H * self.k.itemsize)
        if self.norm_of_gates:
            self.w_ln = w_ln.copy()
        elif self.layer_norm:
            self.w_ln_ih, self.w_ln_hh, self.w_ln_c = w_ln_ih.copy(), w_ln_hh.copy(), w_ln_c.copy()
            self.b_ln_c = np.zeros(H, w_ln_c.dtype) if b_ln_c is None else b_ln_c.copy()

    @property
    def isa(self):
        """Name of the ISA whose kernels run this cell."""
        return self.k.isa.decode()

    @property
    def nbytes(self):
        """Bytes of memory that a cell of lower precision holds."""
        cdef Buffer buffer
        return (sum([buffer.size for buffer in (self.gates_ih, self.gates_hh, self.project_hr, self.bias, self.peephole)
                     if buffer is not None])
                + sum([a.nbytes for a in (self.bias_sum, self.w_ln_ih, self.w_ln_hh, self.w_ln_c, self.b_ln_c,
                                          self.w_ln, self.norm_bias) if a is not None]))

    def weights(self):
        """What a cell of lower precision was made from: w_ih, w_hh, w_hr or None, and `scales`, or None."""
        cdef int how = TRANSPOSED if self.layer_norm else GATES
        cdef Py_ssize_t units = 4 * self.hidden_size if self.layer_norm else self.hidden_size
        dtype = np.dtype(np.int8 if self.of_h.head_size else np.uint16)
        found = [unpacked(self.gates_ih, self.k, self.of_x, how, self.input_size, units),
                 unpacked(self.gates_hh, self.k, self.of_h, how, self.output_size, units)]
        if self.proj_size:
            found.append(unpacked(self.project_hr, self.k, self.of_h, TRANSPOSED, self.hidden_size, self.proj_size))
        weights = [np.ascontiguousarray(w).view(dtype)[..., 0] for w, _ in found]
        nothing = [None] * (3 - len(found))
        if not self.of_h.head_size:
            return (*weights, *nothing), None
        scales = [np.ascontiguousarray(heads[..., :4]).view(np.float32)[..., 0] for _, heads in found]
        return (*weights, *nothing), (*scales, *nothing)

    cdef Buffer pack_forward(self, const lf_products *products, cnp.ndarray w, scale, Buffer columns):
        """Weights (4 H, depth) for forward: in gates, and in `columns` if given; for layer norm of rows, transposed."""
        if products.operand_head and cnp.PyArray_DIM(w, 1) > LF_INT8_DEPTH:
            raise ValueError(f"a sum of more than {LF_INT8_DEPTH} products may not fit into 32 bits")
        if self.layer_norm:
            return self.pack_transposed(products, w, scale)
        return self.pack_gates(products, w, scale, cnp.PyArray_DIM(w, 1), columns)

    cdef Buffer pack_gates(self, const lf_products *products, cnp.ndarray w, scale, Py_ssize_t depth, Buffer columns):
        return pack_panels(self.k, products, data_of(w), data_or_null(scale), GATES, depth, depth, self.hidden_size,
                           columns)

    cdef Buffer room_for_columns(self, cnp.ndarray m):
        return room_for(self.k, self.of_h, COLUMNS, cnp.PyArray_DIM(m, 0), cnp.PyArray_DIM(m, 1))

    cdef Buffer pack_columns(self, cnp.ndarray m):
        """A C-contiguous matrix (depth, columns), packed in columns, and rounded as products take it."""
        cdef Py_ssize_t columns = cnp.PyArray_DIM(m, 1)
        return pack_panels(self.k, self.of_h, data_of(m), NULL, COLUMNS, columns, cnp.PyArray_DIM(m, 0), columns)

    cdef Buffer pack_transposed(self, const lf_products *products, cnp.ndarray m, scale):
        """The transpose of a C-contiguous matrix (columns, depth), packed in columns."""
        cdef Py_ssize_t depth = cnp.PyArray_DIM(m, 1)
        return pack_panels(self.k, products, data_of(m), data_or_null(scale), TRANSPOSED, depth, depth,
                           cnp.PyArray_DIM(m, 0))

    cpdef void prepare(self, bint training, bint blas, bint of_input=True) except *:
        """Keep what backward needs, also for the gradient `of_input`, and what BLAS reads, as the weights are now.

        Another thread may do the same and read the outcome, so that what is there is never replaced.
        """
        cdef Buffer columns_ih, columns_hh, columns_hr = None
        if blas and self.kept_ih is None:
            w_ih = self.w_ih.copy()
            if self.kept_ih is None:
                self.kept_ih = w_ih
        if training and not self.prepared:
            columns_hh = self.pack_columns(self.w_hh) if self.columns_hh is None else self.columns_hh
            if self.w_hr is not None:
                columns_hr = self.pack_columns(self.w_hr)
            if not self.prepared:
                self.columns_hh, self.columns_hr = columns_hh, columns_hr
                self.prepared = True
        if training and of_input and self.columns_ih is None:
            columns_ih = self.pack_columns(self.w_ih)
            if self.columns_ih is None:
                self.columns_ih = columns_ih
