# Tensors as C sees them: the part of DLPack's interface that is used here. See tensors.pyx.

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

# ---- DLPack 1: layouts that never change within it

cdef struct DLDataType:
    uint8_t code
    uint8_t bits
    uint16_t lanes

cdef struct DLDevice:
    int32_t device_type
    int32_t device_id

cdef struct DLTensor:
    void *data
    DLDevice device
    int32_t ndim
    DLDataType dtype
    int64_t *shape
    int64_t *strides  # in elements
    uint64_t byte_offset

cdef struct DLPackVersion:
    uint32_t major
    uint32_t minor

cdef struct DLManagedTensorVersioned:
    DLPackVersion version
    void *manager_ctx
    void (*deleter)(DLManagedTensorVersioned *) noexcept nogil
    uint64_t flags
    DLTensor dl_tensor

cdef struct DLPackExchangeAPI:
    DLPackVersion version
    void *prev_api
    void *managed_tensor_allocator
    void *managed_tensor_from_py_object_no_sync
    int (*managed_tensor_to_py_object_no_sync)(DLManagedTensorVersioned *, void **) except -1
    int (*dltensor_from_py_object_no_sync)(void *, DLTensor *) noexcept
    void *current_work_stream


# ---- what is asked of them

cdef bint look(tensor, DLTensor *found) except -1
cdef bint in_order(const DLTensor *tensor) noexcept
cdef bint has_type(const DLTensor *tensor, int type_number) noexcept
cdef cnp.ndarray array_at(const DLTensor *tensor, int type_number)
cdef tensor_in(cnp.ndarray array, int ndim, const cnp.npy_intp *shape)
cdef tensor_of(cnp.ndarray array)
