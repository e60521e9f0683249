"""Short calls: arguments that already have the engine's form, and networks that one call of it computes.

A small LSTM takes a microsecond a step, and each call of a Python function a twentieth of that. `Form` looks at what a
user passes and gives up, with None or False, where it has another form or is wrong: then the long way, through
`network.arguments`, brings it into form, or says what is wrong. `OneCall` runs both, forward and backward.
"""

cimport cython
cimport numpy as cnp

from lstm_fast.engine.backward cimport backward
from lstm_fast.engine.batch cimport Ragged
from lstm_fast.engine.forward cimport forward
from lstm_fast.engine.memory cimport new_array
from lstm_fast.engine.packing cimport Packing, plain_packing
from lstm_fast.engine.tape cimport Cache, Stage, Tape, cache_of_one

cnp.import_array()


@cython.final
cdef class Form:
    """What the arguments of an LSTM look like that one call of the engine takes as they are.

    Parameters
    ----------
    type_number : int
        NumPy's, of the dtype.
    layers, directions : int
        Layers of one direction, or one layer in two.
    input_size, hidden_size, output_size : int
        I, H, and P, the columns of h in one direction.
    """

    cdef int type_number
    cdef Py_ssize_t jobs, input_size, H, P, columns

    def __init__(self, int type_number, Py_ssize_t layers, Py_ssize_t directions, Py_ssize_t input_size,
                 Py_ssize_t hidden_size, Py_ssize_t output_size):
        self.type_number, self.jobs, self.input_size = type_number, layers * directions, input_size
        self.H, self.P, self.columns = hidden_size, output_size, directions * output_size

    cpdef tuple arguments(self, x, state, out):
        """x, h0, c0, y, hn, cn as `forward` takes them, or None; `x`, `state`, `out` as of a call of `LSTM`."""
        cdef Py_ssize_t T, B
        if not is_plain(x, self.type_number, 3) or cnp.PyArray_DIM(x, 2) != self.input_size:
            return None
        T, B = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        if <double>T * B * self.H > 1e12:
            return None
        h0 = c0 = None
        if state is not None:
            if type(state) is not tuple or len(<tuple>state) != 2:
                return None
            h0, c0 = <tuple>state
            if not (h0 is None or self.is_h(h0, B)) or not (c0 is None or self.is_c(c0, B)):
                return None
        if out is None:
            return (x, h0, c0, self.empty(T, B, self.columns), self.empty(self.jobs, B, self.P),
                    self.empty(self.jobs, B, self.H))
        if type(out) is not tuple or len(<tuple>out) != 2:
            return None
        y, end = <tuple>out
        if type(end) is not tuple or len(<tuple>end) != 2:
            return None
        hn, cn = <tuple>end
        if not (has_shape(y, self.type_number, T, B, self.columns) and self.is_h(hn, B) and self.is_c(cn, B)):
            return None
        if overlap(y, hn) or overlap(y, cn) or overlap(hn, cn):
            return None
        for given in (y, hn, cn):
            if not cnp.PyArray_ISWRITEABLE(given) or overlap(given, x):
                return None
            for source in (h0, c0):  # hn may be h0, cn may be c0
                if overlap(given, source) and not (given is source and (given is hn) == (source is h0)):
                    return None
        return (x, h0, c0, y, hn, cn)

    cpdef tuple gradients(self, dy, dstate, Py_ssize_t T, Py_ssize_t B):
        """dy, dhn, dcn as `backward` takes them, or None; `dy`, `dstate` as of `LSTM.backward`."""
        if not has_shape(dy, self.type_number, T, B, self.columns):
            return None
        if dstate is None:
            return dy, None, None
        if type(dstate) is not tuple or len(<tuple>dstate) != 2:
            return None
        dhn, dcn = <tuple>dstate
        if not (dhn is None or self.is_h(dhn, B)) or not (dcn is None or self.is_c(dcn, B)):
            return None
        return dy, dhn, dcn

    cpdef bint step(self, x, y, Py_ssize_t B):
        """Whether `forward` takes x (B, I) and y (B, P) of one time step as they are."""
        return (is_plain(x, self.type_number, 2) and is_plain(y, self.type_number, 2) and cnp.PyArray_DIM(x, 0) == B
                and cnp.PyArray_DIM(x, 1) == self.input_size and cnp.PyArray_DIM(y, 0) == B
                and cnp.PyArray_DIM(y, 1) == self.columns and cnp.PyArray_ISWRITEABLE(y) and not overlap(x, y))

    cdef bint is_h(self, a, Py_ssize_t B) noexcept:
        return has_shape(a, self.type_number, self.jobs, B, self.P)

    cdef bint is_c(self, a, Py_ssize_t B) noexcept:
        return has_shape(a, self.type_number, self.jobs, B, self.H)

    cdef object empty(self, Py_ssize_t n0, Py_ssize_t n1, Py_ssize_t n2):
        cdef cnp.npy_intp[3] shape = [n0, n1, n2]
        return new_array(3, shape, self.type_number)


@cython.final
cdef class Version:
    """Of parameters: `number` is another one after each time that they were, or could be, written."""

    cdef public Py_ssize_t number


@cython.final
cdef class OneCall:
    """A network that one call of the engine computes, with the parameters and the noise of now.

    Parameters
    ----------
    form : Form or None
        What the engine takes as it is; None: users' arrays have another form in any case.
    version : Version
        Of the parameters.
    names : tuple of str
        Of the parameters, cell by cell, as each `Cell` has them.
    cells : object
        Has `kept`, (version, cells, for_training, for_blas), and `current(training, blas, of_input)`, which renews it.
    directions : int
    reverse : bool

    Attributes
    ----------
    blas : bool
        As of `forward`. May be set.
    noise : list of Noise, optional
        In inference. May be set.
    quiet : bool
        Whether nothing is noisy in training. May be set.
    """

    cdef Form form
    cdef Version version
    cdef tuple names
    cdef object cells
    cdef list kept                       # `cells.kept`: the cells, and whether they have what training and BLAS need
    cdef Py_ssize_t kept_version
    cdef bint for_training, for_blas
    cdef int directions
    cdef bint reverse
    cdef public bint blas, quiet
    cdef public list noise

    def __init__(self, Form form, Version version not None, tuple names not None, cells, int directions,
                 bint reverse):
        self.form, self.version, self.names, self.cells = form, version, names, cells
        self.kept_version, self.directions, self.reverse = -1, directions, reverse

    def infer(self, x, state, out, lengths=None):
        """What a call of `LSTM` returns; None if the arguments have another form."""
        return self.call(None, x, state, out, lengths, False, False)

    def train(self, owner, x, state, out, bint copy=True, lengths=None):
        """What `LSTM.forward` returns where nothing is noisy; None if it is, or the arguments have another form."""
        return self.call(owner, x, state, out, lengths, True, copy) if self.quiet else None

    cdef tuple call(self, owner, x, state, out, lengths, bint training, bint copy):
        """y, (hn, cn) and in training the cache; None if the arguments have another form."""
        cdef tuple arrays = None if self.form is None else self.form.arguments(x, state, out)
        cdef tuple inner = arrays
        cdef Packing packing = None
        cdef Cache cache = None
        cdef Py_ssize_t T, B
        if arrays is None:
            return None
        T, B = cnp.PyArray_DIM(x, 0), cnp.PyArray_DIM(x, 1)
        if lengths is not None:
            packing = plain_packing(lengths, T, B)
            if packing is None:
                return None
            inner = packing.arguments(arrays)
        if training:
            cache = self.keep(owner, inner, T, B, True, packing, None, copy)
        else:
            self.run(inner, None if packing is None else packing.ragged)
        if packing is not None:
            packing.results(inner, arrays)
        end = arrays[4], arrays[5]
        return (arrays[3], end, cache) if training else (arrays[3], end)

    def step(self, x, tuple now not None, y, tuple later not None):
        """Run a time step of a stream, whose states are `now` and `later`; False if x or y have another form."""
        h, c = now
        hn, cn = later
        if self.form is None or not self.form.step(x, y, cnp.PyArray_DIM(h, 1)):
            return False
        self.run((x, h, c, y, hn, cn))
        return True

    def differentiate(self, owner, of_forward, dy, dstate):
        """What `LSTM.backward` returns; None if the arguments have another form, or the cache more than one call."""
        cdef Cache cache
        cdef Packing packing
        if self.form is None or type(of_forward) is not Cache:
            return None
        cache = of_forward
        packing = cache._packing
        if cache._owner is not owner or not cache._batched or (packing is not None and packing.concatenated):
            return None
        cdef tuple arrays = self.form.gradients(dy, dstate, cache._T, cache._B)
        if arrays is None:
            return None
        if packing is not None:
            arrays = packing.gradients(arrays)
        cdef tuple found = self.gradients(cache, arrays[0], arrays[1], arrays[2])
        if found is None:
            return None
        dx, dh0, dc0, grads = found
        if packing is not None:
            dx, dh0, dc0 = packing.unpack_gradient(dx), packing.unsort(dh0), packing.unsort(dc0)
        return dx, (dh0, dc0), grads

    cpdef tuple gradients(self, Cache cache, dy, dhn, dcn, bint of_input=True):
        """The gradients of x, h0, c0 and the parameters, by name; None if the cache has more than one call."""
        cdef Stage stage = cache._stages[0]
        cdef list kept = stage.kept
        if len(cache._stages) > 1 or stage.mask is not None or type(kept[0]) is not Tape:
            return None
        dx, dh0, dc0, grads = backward(kept, dy, dhn, dcn, None, cache._blas, of_input)
        return dx, dh0, dc0, by_name(self.names, grads)

    cpdef void run(self, tuple arrays, Ragged ragged=None, list cells=None) except *:
        """Call `forward` in inference, with these cells or the present ones."""
        cells = self.present(False) if cells is None else cells
        forward(cells, arrays, self.directions, self.reverse, ragged, False, self.blas, self.noise)

    cpdef Cache keep(self, owner, tuple arrays, Py_ssize_t T, Py_ssize_t B, bint batched=True, packing=None,
                     list cells=None, bint copy=True):
        """Call `forward` in training without noise: what `Network.train` does then."""
        cdef bint blas = self.blas
        cells = self.present(True) if cells is None else cells
        tapes = forward(cells, arrays, self.directions, self.reverse, None if packing is None else packing.ragged, True,
                        blas, None, copy and packing is None)
        return cache_of_one(owner, tapes, (<Tape>tapes[0]).x_owner, T, B, blas, batched, packing)

    cpdef list present(self, bint training, bint of_input=True):
        """The cells of the present parameters."""
        if (self.kept_version == self.version.number and (self.for_training or not training)
                and (self.for_blas or not self.blas)):
            return self.kept
        cells = self.cells.current(training, self.blas, of_input)
        version, kept, for_training, for_blas = self.cells.kept
        self.kept_version, self.kept, self.for_training, self.for_blas = version, kept, for_training, for_blas
        return cells


cdef dict by_name(tuple names, list grads):
    """The gradients by the names that the parameters have in the network."""
    cdef dict found = {}
    cdef Py_ssize_t n
    for n in range(len(names)):
        found[names[n]] = grads[n]
    return found


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
