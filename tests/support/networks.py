"""An `LSTM`: settings, random arguments, results by name, the same network in the reference."""

from unittest import mock

import numpy as np

from lstm_fast import reference
from support.comparing import assert_close, in_dtype
from support.layers import BLAS

CELL = ["coupled", "clip", "cell_clip", "activations"]
SETTINGS = [
    {},
    {"num_layers": 3, "batch_first": True},
    {"bidirectional": True, "bias": False},
    {"proj_size": 2, "batch_first": True, "bias": False},
    {"num_layers": 2, "bidirectional": True, "proj_size": 3},
]
# Relative to the largest element of an array: at least three times the errors seen.
TOLERANCE = {"float32": 4e-6, "float64": 1e-14}


def draw_network(rng, lstm, T, B):
    """Return x, h0, c0 and the gradients dy, dhn, dcn, all random, as `run_network` takes them.

    States of layers of different sizes are tuples of arrays.
    """
    D = 2 if lstm.bidirectional else 1
    sizes = hidden_sizes(lstm)
    widths = [lstm.proj_size or H for H in sizes]
    columns = widths[-1] * (D if lstm.merge == "concat" else 1)
    sequence = (B, T) if lstm.batch_first else (T, B)

    def normal(*shape):
        return rng.standard_normal(shape).astype(lstm.dtype)

    def state(widths):
        if isinstance(lstm.hidden_size, tuple):
            return tuple(normal(D, B, n) for n in widths)
        return normal(len(widths) * D, B, widths[0])

    return [
        *(normal(*sequence, lstm.input_size), state(widths), state(sizes)),
        *(normal(*sequence, columns), state(widths), state(sizes)),
    ]


def hidden_sizes(lstm):
    """Return H of every layer."""
    H = lstm.hidden_size
    return H if isinstance(H, tuple) else (H,) * lstm.num_layers


def run_network(lstm, x, h0, c0, dy, dhn, dcn, **options):
    """Return results and gradients by name; options are those of `forward`."""
    y, (hn, cn), cache = lstm.forward(x, (h0, c0), **options)
    return {"y": y, "hn": hn, "cn": cn, **backward_network(lstm, dy, dhn, dcn, cache)}


def backward_network(lstm, dy, dhn, dcn, cache):
    """Return the gradients by name."""
    dx, (dh0, dc0), grads = lstm.backward(dy, (dhn, dcn), cache)
    return {"dx": dx, "dh0": dh0, "dc0": dc0, **{f"d{name}": grads[name] for name in grads}}


def reference_network(lstm, x, h0, c0, dy, dhn, dcn, *, dtype=float, layers=reference, **options):
    """As `run_network`, by the network of the reference, of its layers or those of another module.

    States of layers of different sizes have names of their own: see `by_cell`.
    """
    offsets = None
    if isinstance(x, tuple):
        x, offsets = x
    x, h0, c0, dy, dhn, dcn = (in_dtype(a, dtype) for a in (x, h0, c0, dy, dhn, dcn))
    if lstm.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    parameters = {name: array.astype(dtype) for name, array in lstm.state_dict().items()}
    settings = {name: getattr(lstm, name) for name in ("reverse", "merge", "residual", *CELL)}
    of_cells = [of_each_cell(part) for part in (h0, c0, dhn, dcn)]
    with mock.patch.object(reference.network, "layer", layers), BLAS.limit(limits=1):
        y, state, cache = reference.network_forward(
            *(x if offsets is None else (x, offsets), parameters, *of_cells[:2]),
            **settings,
            **options,
        )
        dx, dstate, grads = reference.network_backward(dy, *of_cells[2:], cache)
    if lstm.batch_first:
        y, dx = y.swapaxes(0, 1), dx.swapaxes(0, 1)
    parts = dict(zip(("hn", "cn", "dh0", "dc0"), (*state, *dstate), strict=True))
    results = {"y": y, "dx": dx, **{f"d{name}": grad for name, grad in grads.items()}}
    for name, arrays in parts.items():
        if isinstance(lstm.hidden_size, tuple):
            results |= {f"{name}_{n}": array for n, array in enumerate(arrays)}
        else:
            results[name] = np.stack(arrays)
    return results


def of_each_cell(state):
    """Return the arrays (B, columns) of each layer and direction in h or c."""
    return [a for layer in state for a in layer] if isinstance(state, tuple) else state


def by_cell(results):
    """Return results by name, those of states that are tuples one by one for each cell."""
    found = {}
    for name, part in results.items():
        if isinstance(part, tuple):
            found |= {f"{name}_{n}": a for n, a in enumerate(of_each_cell(part))}
        else:
            found[name] = part
    return found


def assert_network_close(actual, expected, dtype):
    """Compare results and gradients of plain networks of a few units and steps."""
    assert_close(actual, expected, TOLERANCE[dtype.name], dtype=dtype)
