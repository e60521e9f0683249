"""Tensors as C sees them: by the table of functions that DLPack defines, and PyTorch has on the class of its tensors.

A tensor is asked for its type, device, shape, strides and address at each call. In Python each question costs a tenth
of a microsecond, and a small LSTM takes one. Here one call of C tells them all.
"""

cimport numpy as cnp
from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport free, malloc

import torch

cdef extern from "Python.h":
    bint Py_IsInitialized() nogil

cnp.import_array()

cdef enum:
    CPU = 1
    UNSIGNED = 1  # codes of types
    FLOAT = 2
    MOST_AXES = 3

cdef object from_numpy = torch.from_numpy

cdef DLPackExchangeAPI *table = <DLPackExchangeAPI *>PyCapsule_GetPointer(
    torch.Tensor.__dlpack_c_exchange_api__, "dlpack_exchange_api")
if table.version.major != 1 or table.dltensor_from_py_object_no_sync == NULL:
    raise ImportError(f"lstm_fast.torch needs the functions of DLPack 1, which PyTorch {torch.__version__} has not")


cdef bint look(tensor, DLTensor *found) except -1:
    """What a tensor is, while it lives and is not resized; False of one that has no memory with strides."""
    if table.dltensor_from_py_object_no_sync(<PyObject *>tensor, found) != 0:
        PyErr_Clear()
        return False
    if found.data == NULL:  # as of elements that are known to be zeros, or were freed
        return has_none(found)
    found.data = <char *>found.data + found.byte_offset
    return True


cdef bint has_none(const DLTensor *tensor) noexcept:
    """Whether it has no elements."""
    cdef int n
    for n in range(tensor.ndim):
        if tensor.shape[n] == 0:
            return True
    return False


cdef bint in_order(const DLTensor *tensor) noexcept:
    """Whether it is in C order."""
    cdef int64_t step = 1
    cdef bint ordered = True
    cdef int n
    if has_none(tensor):
        return True
    for n in range(tensor.ndim - 1, -1, -1):
        if tensor.shape[n] != 1 and tensor.strides[n] != step:
            ordered = False
        step *= tensor.shape[n]
    return ordered


cdef bint has_type(const DLTensor *tensor, int type_number) noexcept:
    """Whether it is on the CPU, of NumPy's type with this number, float32 or float64."""
    return (tensor.device.device_type == CPU and tensor.dtype.code == FLOAT and tensor.dtype.lanes == 1
            and tensor.dtype.bits == (32 if type_number == cnp.NPY_FLOAT else 64))


cdef cnp.ndarray array_at(const DLTensor *tensor, int type_number):
    """An array of the memory of a tensor in C order, which has to live longer."""
    return cnp.PyArray_SimpleNewFromData(tensor.ndim, <cnp.npy_intp *>tensor.shape, type_number, tensor.data)


cdef struct Lent:
    DLManagedTensorVersioned managed
    int64_t[MOST_AXES] strides


cdef void give_back(DLManagedTensorVersioned *managed) noexcept nogil:
    """A tensor is gone: so may be the array whose memory it had."""
    if Py_IsInitialized():
        with gil:
            Py_DECREF(<object>managed.manager_ctx)
    free(managed)


cdef tensor_in(cnp.ndarray array, int ndim, const cnp.npy_intp *shape):
    """A tensor of such a shape, of at most three axes, in the memory of an array in C order, which it keeps.

    Where PyTorch fails, what was lent may have been given back, or not: then it is lost.
    """
    cdef Lent *lent = <Lent *>malloc(sizeof(Lent))
    cdef DLTensor *tensor = &lent.managed.dl_tensor
    cdef int64_t step = 1
    cdef void *found
    cdef int n
    if lent == NULL:
        raise MemoryError
    for n in range(ndim - 1, -1, -1):
        lent.strides[n] = step
        step *= shape[n]
    lent.managed.version, lent.managed.flags, lent.managed.deleter = table.version, 0, give_back
    lent.managed.manager_ctx = <PyObject *>array
    tensor.data, tensor.byte_offset, tensor.ndim = cnp.PyArray_DATA(array), 0, ndim
    tensor.device.device_type, tensor.device.device_id = CPU, 0
    tensor.dtype.code = UNSIGNED if cnp.PyArray_TYPE(array) == cnp.NPY_UINT8 else FLOAT
    tensor.dtype.bits, tensor.dtype.lanes = <uint8_t>(8 * cnp.PyArray_ITEMSIZE(array)), 1
    tensor.shape, tensor.strides = <int64_t *>shape, lent.strides
    Py_INCREF(array)
    table.managed_tensor_to_py_object_no_sync(&lent.managed, &found)
    taken = <object>found
    Py_DECREF(taken)  # it came with a reference of its own
    return taken


cdef tensor_of(cnp.ndarray array):
    """A tensor in the memory of an array, which it keeps; None of None."""
    if array is None:
        return None
    if not (cnp.PyArray_ISCARRAY(array) and cnp.PyArray_NDIM(array) <= MOST_AXES
            and cnp.PyArray_TYPE(array) in (cnp.NPY_FLOAT, cnp.NPY_DOUBLE, cnp.NPY_UINT8)):
        return from_numpy(array)
    return tensor_in(array, cnp.PyArray_NDIM(array), cnp.PyArray_DIMS(array))
