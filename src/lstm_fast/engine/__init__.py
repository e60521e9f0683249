"""The engine, in Cython: it runs the C kernels over time and threads, forward and backward.

    direct                   short calls: arguments that already have the engine's form
    forward, backward        one call: plan, memory, results; chunks, sums: backward's cuts and sums
    forward_*, backward_*    one layer and direction of it: job, chunk of time, variant; who follows
    plan, schedule, memory   which thread does what, and how; buffers and arrays
    cell, tape               packed weights; what forward keeps for backward
    matrix, rows, update     for blocks: products, what they compute row by row; for optimisers
    batch, packing, sessions the rows of a batch; ragged ones without padding; rows of a stream
    runtime/                 below all of it: instruction set, threads, BLAS

It imports NumPy and the headers in ``include/``, and nothing of the package above it.
"""

from .runtime import Array

__all__ = ["Array"]
