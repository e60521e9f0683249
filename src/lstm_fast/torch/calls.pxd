# Calls of the engine on tensors. See calls.pyx.

cdef class Weights:
    cdef readonly tuple names
    cdef readonly object version
    cdef readonly bint settled
    cdef tuple shapes
    cdef int type_number
    cdef dict arrays
    cdef list attributes    # of the tensors, by which each is known: PyTorch swaps no tensor that has weak references
    cdef list storages      # weak references: while one lives, nothing new comes to its address
    cdef list addresses, versions
    cdef Py_ssize_t writes  # of the process, or -1 where nothing is known
    cdef void remember(self, tensors) except *
    cdef bint same(self, tensors) except -1


cdef class Calls:
    cdef readonly object settings, network
    cdef readonly Weights weights
    cdef int type_number
    cdef tuple arrays(self, x, states, steps)
    cdef tuple two(self, list states)
