# How backward cuts time into chunks. See chunks.pyx.

from lstm_fast.engine.backward_job cimport BackwardJob
from lstm_fast.engine.cell cimport Cell

cdef void cut_into_chunks(BackwardJob *job, Py_ssize_t chunk_rows) noexcept
cdef Py_ssize_t chunk_rows_of(Cell cell, Py_ssize_t B, int bands) except? -1
