"""The engine, in Cython: it runs the C kernels over time and threads, forward and backward.

    direct                   short calls: arguments that already have the engine's form
    forward, backward        one call: plan, memory, results; chunks, sums: backward's cuts and sums
    forward_*, backward_*    one layer and direction of it: job, chunk, variant; beside one's steps
    plan, schedule           which thread does what, and how; following: who works beside the steps
    cell, tape, memory       packed weights; what forward keeps for backward; buffers and arrays
    matrix, rows, update     for blocks: products, what they compute row by row; for optimisers
    batch, packing, sessions the rows of a batch; ragged ones without padding; rows of a stream
    runtime/                 below all of it: instruction set, threads, BLAS

It imports NumPy and the headers in ``include/``, and nothing of the package above it.
"""

from .runtime import Array

__all__ = ["Array"]
