"""One layer and direction, as `lstm_forward` takes it: random arguments, results by name."""

from contextlib import nullcontext

import numpy as np
from threadpoolctl import ThreadpoolController

from lstm_fast import reference

# NumPy's. On more than one thread its small products take long where other threads are about.
BLAS = ThreadpoolController().select(user_api="blas")
VECTOR_BYTES = {"avx512": 64, "avx2": 32, "baseline": 16, "neon": 16}
STATES = ["y", "hn", "cn"]
# T, B, I, H and P, each large enough for several threads (test_threads.py makes sure of it). They
# share the units where there is one row, and the rows where there is one vector of units.
MANY_UNITS = [(16, 1, 30, 210, 0), (16, 1, 30, 210, 100)]
MANY_ROWS = [(50, 45, 70, 3, 0), (50, 45, 70, 3, 2)]
SEVERAL_THREADS = [*MANY_UNITS, *MANY_ROWS]
# Which axis of an array is that of the batch.
BATCH_AXIS = {"y": 1, "dx": 1, "hn": 0, "cn": 0, "dh0": 0, "dc0": 0, "x": 1, "h0": 0, "c0": 0}


def lanes(isa, dtype):
    """Return how many elements a vector has."""
    return VECTOR_BYTES[isa] // dtype.itemsize


def draw_layer(rng, T, B, I, H, P=0, *, dtype, bias=True):
    """Return random arguments of `lstm_forward` and the gradients dy, dhn, dcn, none of them zero.

    Weights are scaled by 1 / sqrt(columns): with larger ones an LSTM is chaotic, and rounding
    errors grow without bound.
    """
    R = P or H
    shapes = {"x": (T, B, I), "h0": (B, R), "c0": (B, H), "w_ih": (4 * H, I), "w_hh": (4 * H, R)}
    if bias:
        shapes |= {"b_ih": (4 * H,), "b_hh": (4 * H,)}
    if P:
        shapes |= {"w_hr": (P, H)}
    args = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    for name in args.keys() & {"w_ih", "w_hh", "w_hr"}:
        args[name] *= dtype.type(1 / np.sqrt(shapes[name][1]))
    d_shapes = [(T, B, R), (B, R), (B, H)]
    return args, [rng.standard_normal(shape).astype(dtype) for shape in d_shapes]


def run_layer(functions, args, d_results, **options):
    """Return results and gradients by name; `functions` is `lstm_fast` or its `reference`."""
    with BLAS.limit(limits=1) if functions is reference else nullcontext():
        y, (hn, cn), cache = functions.lstm_forward(**args, **options)
        return {"y": y, "hn": hn, "cn": cn, **backward_layer(functions, d_results, cache)}


def backward_layer(functions, d_results, cache):
    """Return the gradients by name."""
    dx, (dh0, dc0), grads = functions.lstm_backward(*d_results, cache)
    return {"dx": dx, "dh0": dh0, "dc0": dc0, **{f"d{name}": grads[name] for name in grads}}


def select_rows(arrays, chosen):
    """Return what belongs to some batch rows: not the weights, their gradients and the biases."""
    names = arrays.keys() & BATCH_AXIS.keys()
    return {name: arrays[name].take(chosen, BATCH_AXIS[name]) for name in names}
