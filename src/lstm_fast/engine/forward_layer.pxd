# One layer and direction, forward through a chunk of time. See forward_layer.pyx.

from lstm_fast.engine.forward_job cimport ForwardJob

cdef void project_chunk(ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, char *projected, Py_ssize_t first_row,
                        Py_ssize_t end_row, int part, int parts, char *operands) noexcept nogil
cdef void step_chunk(ForwardJob *job, Py_ssize_t first_step, Py_ssize_t end_step, char *projected,
                     Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts, char *operands) noexcept nogil
cdef void run_chunk(ForwardJob *job, Py_ssize_t first_step, Py_ssize_t end_step, char *projected,
                    Py_ssize_t first_row, Py_ssize_t end_row, int part, int parts) noexcept nogil
cdef void run_step(ForwardJob *job, Py_ssize_t s, const Py_ssize_t *chunks, char *projected, int part,
                   int parts) noexcept nogil
cdef void copy_x(const ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, int part, int parts) noexcept nogil
cdef void copy_y(const ForwardJob *job, Py_ssize_t first_t, Py_ssize_t end_t, Py_ssize_t first_row,
                 Py_ssize_t end_row) noexcept nogil
cdef Py_ssize_t chunk_end(const ForwardJob *job, Py_ssize_t first_step, Py_ssize_t end_step, Py_ssize_t first_row,
                          Py_ssize_t end_row) noexcept nogil
cdef void mark_chunks(const ForwardJob *job, Py_ssize_t *chunks) noexcept nogil
