"""Calls of the engine on tensors, and what autograd keeps of them."""

from gc import is_tracked

cimport cython
cimport numpy as cnp
from cpython.object cimport PyObject
from cpython.weakref cimport PyWeakref_GetObject, PyWeakref_NewRef

import torch

from lstm_fast.engine.direct import Version
from lstm_fast.engine.memory cimport new_array
from lstm_fast.engine.runtime.threads cimport at_most
from lstm_fast.engine.tape cimport Cache
from lstm_fast.network.parameters import lock
from lstm_fast.torch.tensors cimport DLTensor, array_at, in_order, look, tensor_of

cdef extern from "Python.h":
    object PyObject_GenericGetDict(object, void *)

cnp.import_array()

cdef object get_num_threads = torch.get_num_threads
cdef object is_legacy_batched = torch._C._functorch.is_legacy_batchedtensor
cdef object is_functorch_wrapped = torch._C._functorch.is_functorch_wrapped_tensor

cdef Py_ssize_t _writes = 0  # that no tensor's version tells of


def refresh(*_):
    """Let every LSTM read its weights anew: see `lstm_fast.torch.refresh`."""
    global _writes
    _writes += 1


cdef in_memory(tensor, DLTensor *seen):
    """A tensor that is in C order, or a copy that is, and what it is in C."""
    if not look(tensor, seen) or not in_order(seen):
        tensor = tensor.detach()
        tensor = tensor.clone() if tensor._is_zerotensor() else tensor.contiguous()
        if not look(tensor, seen):
            raise BufferError(f"a tensor of {tensor.layout} on {tensor.device} has no memory that the engine can read")
    return tensor


cdef cnp.ndarray array_of(tensor, int type_number):
    """An array in C order that keeps the tensor whose memory it has."""
    cdef DLTensor seen
    tensor = in_memory(tensor, &seen)
    cdef cnp.ndarray array = array_at(&seen, type_number)
    cnp.set_array_base(array, tensor)
    return array


cdef new_arrays(shape, int type_number):
    """An array, or a list of arrays, that has such a shape."""
    cdef cnp.npy_intp[3] extents
    cdef int n = 0
    if type(shape) is list:
        return [new_arrays(one, type_number) for one in shape]
    for extent in shape:
        extents[n] = extent
        n += 1
    return new_array(n, extents, type_number)


cpdef tuple tensors_of(arrays):
    """Tensors in the memory of arrays, and of lists of them."""
    cdef list found = []
    for one in arrays:
        if isinstance(one, (list, tuple)):
            found.extend([tensor_of(array) for array in one])
        else:
            found.append(tensor_of(one))
    return tuple(found)


def want_gradient(x, states, weights):
    """Whether autograd has to know of a call with these tensors."""
    if x.requires_grad:
        return True
    for tensors in (weights, states):
        for tensor in tensors:
            if tensor.requires_grad:
                return True
    return False


def any_given(grads):
    """Whether there is a gradient that is not None."""
    for grad in grads:
        if grad is not None:
            return True
    return False


def any_batched(grads):
    """Whether a gradient is several at once, which have no memory: `is_grads_batched`."""
    for grad in grads:
        if grad is not None and (is_legacy_batched(grad) or is_functorch_wrapped(grad)):
            return True
    return False


@cython.final
cdef class Weights:
    """The parameters of one network: arrays over the memory of tensors, which callers keep alive.

    Parameters
    ----------
    shapes : dict of str to tuple of int
        Of each parameter by name, in the order of the tensors.
    type_number : int
        NumPy's, of the dtype.

    Attributes
    ----------
    names : tuple of str
    version : Version
        Its number is another one whenever the values may be.
    settled : bool
        What is packed in a call holds until `hold` says otherwise.
    """

    def __init__(self, dict shapes not None, int type_number):
        self.names, self.shapes = tuple(shapes), tuple(shapes.values())
        self.type_number, self.version, self.settled, self.writes = type_number, Version(), True, -1

    def items(self):
        """Names and arrays."""
        return self.arrays.items()

    def hold(self, tensors, bint anew):
        """Take these tensors as the parameters, and return what has to live until they are packed.

        Parameters
        ----------
        tensors : sequence of Tensor
            On the CPU, of the dtype.
        anew : bool
            Whether the values may have changed in a way that nothing tells.
        """
        at_most(get_num_threads())
        if not anew and self.same(tensors):
            return tensors
        cdef list kept = []
        cdef dict arrays = {}
        cdef DLTensor seen
        cdef object array
        for name, shape, tensor in zip(self.names, self.shapes, tensors, strict=True):
            kept.append(in_memory(tensor, &seen))
            array = array_at(&seen, self.type_number)
            if array.shape != shape:
                raise RuntimeError(f"{name}: expected shape {shape}, got {array.shape}")
            arrays[name] = array
        self.arrays, self.attributes = arrays, None
        self.writes = -1
        if not anew:
            self.remember(tensors)
        self.version.number += 1
        return kept

    cdef void remember(self, tensors) except *:
        for tensor in tensors:
            if tensor.is_inference():  # it has no version: nothing tells
                return
            if any(map(is_tracked, tensor.__dict__.values())):  # they may lead to the tensor, and would keep it
                return
        self.attributes = [tensor.__dict__ for tensor in tensors]
        self.storages = [PyWeakref_NewRef(tensor.untyped_storage(), None) for tensor in tensors]
        self.addresses = [tensor.data_ptr() for tensor in tensors]
        self.versions = [tensor._version for tensor in tensors]
        self.writes = _writes

    cdef bint same(self, tensors) except -1:
        """Whether these have what was packed."""
        cdef Py_ssize_t n = 0
        if self.writes != _writes:
            return False
        for tensor in tensors:
            if (PyObject_GenericGetDict(tensor, NULL) is not self.attributes[n]
                    or PyWeakref_GetObject(self.storages[n]) == <PyObject *>None
                    or tensor.data_ptr() != self.addresses[n] or tensor._version != self.versions[n]):
                return False
            n += 1
        return n == len(self.addresses)


cdef class Calls:
    """What an `Engine` does. Tensors are on the CPU and have its dtype.

    The states are h0 and c0, (L D, B, columns), or none for zeros; where layers have different sizes h0 of each layer,
    then c0 of each. x is (T, B, I), or (N, I) of a `PackedSequence`, whose `Steps` are given.

    Parameters
    ----------
    settings : Settings
    weights : Weights
    network : Network
        Of these settings and weights.
    """

    def __init__(self, settings, Weights weights not None, network):
        self.settings, self.weights, self.network = settings, weights, network
        self.type_number = weights.type_number

    def infer(self, x, states, weights, steps):
        """y, hn, cn."""
        cells = self.packed(weights, False)
        arrays = self.arrays(x, states, steps)
        self.network.infer(arrays, None if steps is None else steps.packing.ragged, cells)
        return tensors_of(arrays[3:])

    def train(self, x, states, weights, steps, bint of_input=True):
        """y, hn, cn, and the cache that `differentiate` needs, for the gradient `of_input` if that is wanted."""
        cells = self.packed(weights, True, of_input)
        arrays = self.arrays(x, states, steps)
        T, B, packing = -1, -1, None  # rows have no T and B to be seen
        if steps is None:
            T, B, _ = x.shape
        else:
            packing = steps.packing
        cache = self.network.train(self, arrays, T, B, packing=packing, cells=cells, copy=False)
        return tensors_of(arrays[3:]), cache

    def differentiate(self, Cache cache, grads, bint of_input=True):
        """The gradients of x (None if it is not wanted), of the states, and of every weight."""
        dy, *rest = [None if grad is None else array_of(grad.resolve_neg(), self.type_number) for grad in grads]
        dh, dc = self.two(rest)
        dx, dh, dc, named = self.network.differentiate(cache, dy, dh, dc, of_input)
        return tensors_of((dx, dh, dc, *named.values()))

    def packed(self, weights, bint training, bint of_input=True):
        """The weights, packed for one call.

        Another thread may call with other weights, whose first is the same: so both at once.
        """
        with lock():
            held = self.weights.hold(weights, training)
            cells = self.network.cells(training, of_input)
        del held  # not before
        return cells

    cdef tuple arrays(self, x, states, steps):
        """The arrays of a call, the last three new."""
        settings = self.settings
        if steps is None:
            T, B, _ = x.shape
            y = T, B, settings.columns
        else:
            y, B = (x.shape[0], settings.columns), len(steps.packing.ragged.lengths)
        hn, cn = settings.state_shapes(B)
        h0, c0 = self.two([array_of(state, self.type_number) for state in states])
        return (array_of(x, self.type_number), h0, c0, new_arrays(y, self.type_number),
                new_arrays(hn, self.type_number), new_arrays(cn, self.type_number))

    cdef tuple two(self, list states):
        """h and c as the network takes them: arrays, or lists with those of each layer."""
        cdef Py_ssize_t half = len(states) // 2
        if not states:
            return None, None
        if self.settings.differ:
            return states[:half], states[half:]
        return tuple(states)


# ---- autograd


@cython.final
cdef class Token:
    """A byte that keeps a cache: autograd saves it, in a tensor, and drops it with the others."""

    cdef unsigned char byte
    cdef Cache cache

    def __dealloc__(self):
        if _tokens is not None:  # as it is when Python ends
            _tokens.pop(<size_t>&self.byte, None)


cdef dict _tokens = {}  # by the address of the byte: that of the token, which it does not keep


def token_of(Cache cache not None):
    """A tensor that keeps a cache."""
    cdef Token token = Token()
    cdef cnp.npy_intp one = 1
    token.cache = cache
    cdef cnp.ndarray array = cnp.PyArray_SimpleNewFromData(1, &one, cnp.NPY_UINT8, &token.byte)
    cnp.set_array_base(array, token)
    _tokens[<size_t>&token.byte] = <size_t><PyObject *>token
    return tensor_of(array)


def cache_of(tensor):
    """What a tensor of `token_of` keeps; None if it is another one, as hooks on saved tensors bring back."""
    cdef object found = _tokens.get(tensor.data_ptr())
    if found is None:
        return None
    return (<Token><PyObject *><size_t>found).cache
