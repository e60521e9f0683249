"""Short calls on tensors: weights that are as they were packed, arguments that already have the engine's form.

Only what has to be is asked here: see tensors.pyx. `Direct` gives up, with None, where anything is unusual: then the
long way takes over.
"""

cimport cython
cimport numpy as cnp

import torch
from torch.autograd import forward_ad

from lstm_fast.engine.runtime.threads cimport at_most
from lstm_fast.torch.calls cimport Weights
from lstm_fast.torch.tensors cimport DLTensor, array_at, has_type, in_order, look, tensor_in, tensor_of

cnp.import_array()

cdef object Tensor = torch.Tensor
cdef object Parameter = torch.nn.Parameter
cdef object is_grad_enabled = torch.is_grad_enabled
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
        `autograd.run`, applied to plain tensors: `is_plain` refuses what `torch.func` has left.
    """

    cdef Weights weights
    cdef readonly object engine
    cdef object form, one_call, in_autograd
    cdef list names
    cdef int type_number
    cdef Py_ssize_t jobs, input_size, H, P

    def __init__(self, engine, form, names, in_autograd):
        settings = engine.settings
        self.weights, self.one_call = engine.weights, engine.network.one_call
        self.engine, self.form, self.in_autograd = engine, form, in_autograd
        self.names = list(names)
        self.type_number, self.jobs = settings.dtype.num, settings.num_layers * settings.directions
        self.input_size, self.H, self.P = settings.input_size, settings.sizes[0], settings.h_sizes[0]

    def __reduce__(self):
        """A copy of a module has none: `parametrize` copies all that a module has."""
        return type(None), ()

    def run(self, x, hx, dict parameters not None):
        """output, (hn, cn) of an `nn.LSTM` without `batch_first`, or None."""
        cdef list weights = self.usual_weights(parameters)
        cdef DLTensor of_x, of_h, of_c
        cdef tuple state = None
        h = c = None
        if weights is None or not self.is_plain(x, 3, &of_x) or of_x.shape[0] == 0:
            return None
        if hx is not None:
            if type(hx) is not tuple or len(<tuple>hx) != 2:
                return None
            h, c = <tuple>hx
            if not (self.is_plain(h, 3, &of_h) and self.is_plain(c, 3, &of_c)):
                return None
        if is_grad_enabled():
            if h is not None and not (of_h.shape[0] == of_c.shape[0] == self.jobs
                                      and self.are_states(&of_h, &of_c, of_x.shape[1])):
                return None
            return self.run_in_autograd(x, &of_x, () if h is None else (h, c), weights)
        if not self.weights.same(weights):
            return None
        if h is not None:
            state = array_at(&of_h, self.type_number), array_at(&of_c, self.type_number)
        found = self.one_call.infer(array_at(&of_x, self.type_number), state, None)
        if found is None:
            return None
        y, (h, c) = found
        return tensor_of(y), (tensor_of(h), tensor_of(c))

    cdef tuple run_in_autograd(self, x, const DLTensor *of_x, tuple states, list weights):
        """The same with gradients: the weights are read anew."""
        cdef DLTensor of_weight
        if of_x.shape[1] == 0 or of_x.shape[2] != self.input_size:
            return None
        for weight in weights:
            if not self.is_plain(weight, 0, &of_weight):
                return None
        y, h, c = self.in_autograd(self.engine, self.form, None, x, states, weights)
        return y, (h, c)

    def step(self, x, hx, dict parameters not None):
        """hn, cn of an `nn.LSTMCell` without gradients, or None."""
        cdef list weights = None if is_grad_enabled() else self.usual_weights(parameters)
        cdef DLTensor of_x, of_h, of_c
        cdef tuple state = None
        h = c = None
        if weights is None or not self.is_plain(x, 2, &of_x) or not self.weights.same(weights):
            return None
        if of_x.shape[0] == 0 or of_x.shape[1] != self.input_size:
            return None
        if hx is not None:
            if type(hx) is not tuple or len(<tuple>hx) != 2:
                return None
            h, c = <tuple>hx
            if not (self.is_plain(h, 2, &of_h) and self.is_plain(c, 2, &of_c)
                    and self.are_states(&of_h, &of_c, of_x.shape[0])):
                return None
            state = self.one_step(&of_h), self.one_step(&of_c)
        found = self.one_call.infer(self.one_step(&of_x), state, None)
        if found is None:
            return None
        _, (h, c) = found
        return tensor_in(h, 2, cnp.PyArray_DIMS(h) + 1), tensor_in(c, 2, cnp.PyArray_DIMS(c) + 1)

    cdef bint are_states(self, const DLTensor *h, const DLTensor *c, Py_ssize_t B) noexcept:
        """Whether h and c end in the axes of such a batch."""
        return (h.shape[h.ndim - 2] == c.shape[c.ndim - 2] == B and h.shape[h.ndim - 1] == self.P
                and c.shape[c.ndim - 1] == self.H)

    cdef cnp.ndarray one_step(self, const DLTensor *tensor):
        """The array of a matrix, with an axis before its own."""
        cdef cnp.npy_intp[3] shape = [1, tensor.shape[0], tensor.shape[1]]
        return cnp.PyArray_SimpleNewFromData(3, shape, self.type_number, tensor.data)

    cdef bint is_plain(self, tensor, int ndim, DLTensor *seen) except -1:
        """Whether a tensor is one that the engine takes as it is, of so many axes, or of any if that is 0."""
        return ((type(tensor) is Tensor or type(tensor) is Parameter) and look(tensor, seen)
                and has_type(seen, self.type_number) and (seen.ndim == ndim or ndim == 0) and in_order(seen)
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
