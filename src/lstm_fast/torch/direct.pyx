"""Short calls on tensors: weights that are as they were packed, arguments that already have the engine's form.

What is asked of a tensor costs a tenth of a microsecond, a small LSTM takes one. So it is asked here, and only what has
to be. `Direct` gives up, with None, where anything is unusual: then the long way takes over.
"""

cimport cython
cimport numpy as cnp

import torch
from torch.autograd import forward_ad

from lstm_fast.engine.runtime.threads cimport at_most
from lstm_fast.torch.calls cimport Weights, array_of, array_over

cnp.import_array()

cdef object Tensor = torch.Tensor
cdef object Parameter = torch.nn.Parameter
cdef object is_grad_enabled = torch.is_grad_enabled
cdef object strided = torch.strided
cdef object from_numpy = torch.from_numpy
cdef object tracing_state = torch._C._get_tracing_state
cdef object functorch_level = torch._C._functorch.maybe_current_level
cdef object dispatch_modes = torch._C._len_torch_dispatch_stack
cdef object is_autocast_enabled = torch.is_autocast_enabled
cdef object get_num_threads = torch.get_num_threads

cpdef unusual_state():
    """What of PyTorch's state keeps the engine from serving, if anything does."""
    if is_autocast_enabled("cpu"):
        return "autocast"
    if tracing_state() is not None:
        return "torch.jit.trace"
    if functorch_level() is not None:
        return "torch.func"
    if forward_ad._current_level >= 0:
        return "forward-mode differentiation"
    return None


@cython.final
cdef class Direct:
    """The short calls of a module.

    Parameters
    ----------
    engine : Engine
        Whose network one call of the engine computes.
    form : Form
    names : sequence of str
        Of the parameters, as the module has them.
    in_autograd : callable
        `autograd.run`.
    """

    cdef Weights weights
    cdef readonly object engine
    cdef object form, one_call, dtype, in_autograd
    cdef list names
    cdef int type_number
    cdef Py_ssize_t jobs, input_size, H, P

    def __init__(self, engine, form, names, in_autograd):
        settings = engine.settings
        self.weights, self.one_call = engine.weights, engine.network.one_call
        self.engine, self.form, self.in_autograd = engine, form, in_autograd
        self.dtype, self.names = form.dtype, list(names)
        self.type_number, self.jobs = settings.dtype.num, settings.num_layers * settings.directions
        self.input_size, self.H, self.P = settings.input_size, settings.sizes[0], settings.h_sizes[0]

    def __reduce__(self):
        """A copy of a module has none: `parametrize` copies all that a module has."""
        return type(None), ()

    def run(self, x, hx, dict parameters not None):
        """output, (hn, cn) of an `nn.LSTM` without `batch_first`, or None."""
        cdef list weights = self.usual_weights(parameters)
        h = c = None
        if weights is None or not self.is_plain(x, 3):
            return None
        if hx is not None:
            if type(hx) is not tuple or len(<tuple>hx) != 2:
                return None
            h, c = <tuple>hx
            if not (self.is_plain(h, 3) and self.is_plain(c, 3)):
                return None
        if is_grad_enabled():
            return self.run_in_autograd(x, h, c, weights)
        if not self.weights.same(weights):
            return None
        if hx is not None:
            h, c = array_of(h, self.type_number), array_of(c, self.type_number)
        found = self.one_call.infer(array_of(x, self.type_number), None if hx is None else (h, c), None)
        if found is None:
            return None
        y, (h, c) = found
        return from_numpy(y), (from_numpy(h), from_numpy(c))

    cdef tuple run_in_autograd(self, x, h, c, list weights):
        """The same with gradients: the weights are read anew."""
        cdef Py_ssize_t T, B, columns
        T, B, columns = x.shape
        if T * B == 0 or columns != self.input_size:
            return None
        if h is not None and (h.shape != (self.jobs, B, self.P) or c.shape != (self.jobs, B, self.H)):
            return None
        for weight in weights:
            if not self.is_plain(weight, weight.dim()):
                return None
        y, h, c = self.in_autograd(self.engine, self.form, None, x, () if h is None else (h, c), weights)
        return y, (h, c)

    def step(self, x, hx, dict parameters not None):
        """hn, cn of an `nn.LSTMCell` without gradients, or None."""
        cdef cnp.npy_intp[3] shape = [1, 0, self.input_size]
        cdef list weights = None if is_grad_enabled() else self.usual_weights(parameters)
        if weights is None or not self.is_plain(x, 2) or not self.weights.same(weights):
            return None
        shape[1], columns = x.shape
        if columns != self.input_size or shape[1] == 0:
            return None
        state = None
        a = array_over(x, 3, shape, self.type_number)
        if hx is not None:
            if type(hx) is not tuple or len(<tuple>hx) != 2:
                return None
            h, c = <tuple>hx
            if not (self.is_plain(h, 2) and self.is_plain(c, 2)):
                return None
            shape[2] = self.H
            if h.shape != (shape[1], self.H) or c.shape != (shape[1], self.H):
                return None
            state = array_over(h, 3, shape, self.type_number), array_over(c, 3, shape, self.type_number)
        found = self.one_call.infer(a, state, None)
        if found is None:
            return None
        _, (h, c) = found
        return from_numpy(h[0]), from_numpy(c[0])

    cdef bint is_plain(self, tensor, int ndim) except -1:
        """Whether a tensor is one that the engine takes as it is."""
        return ((type(tensor) is Tensor or type(tensor) is Parameter) and tensor.dtype is self.dtype
                and tensor.is_cpu and tensor.layout is strided and tensor.dim() == ndim and tensor.is_contiguous()
                and not tensor.is_neg())

    cdef list usual_weights(self, dict parameters):
        """The weights, where a call may go this way."""
        cdef list weights = []
        for name in self.names:
            weight = parameters.get(name)
            if weight is None:
                return None
            weights.append(weight)
        if unusual_state() is not None or dispatch_modes() != 0:
            return None
        at_most(get_num_threads())
        return weights
