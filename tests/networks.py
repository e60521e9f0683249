"""What tests of `LSTM` share: settings, random arguments, how it runs, the same layer by layer."""

from unittest import mock

import numpy as np

from lstm_fast import reference

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


def draw(rng, lstm, T, B):
    """Return x, h0, c0 and the gradients dy, dhn, dcn, all random, in the order `run` takes."""
    D = 2 if lstm.bidirectional else 1
    rows, R = lstm.num_layers * D, lstm.proj_size or lstm.hidden_size
    sequence = (B, T) if lstm.batch_first else (T, B)
    h, c = (rows, B, R), (rows, B, lstm.hidden_size)
    shapes = [(*sequence, lstm.input_size), h, c, (*sequence, D * R), h, c]
    return [rng.standard_normal(shape).astype(lstm.dtype) for shape in shapes]


def backward(lstm, dy, dhn, dcn, cache):
    """Return the gradients by name."""
    dx, (dh0, dc0), grads = lstm.backward(dy, (dhn, dcn), cache)
    return {"dx": dx, "dh0": dh0, "dc0": dc0, **{f"d{name}": grads[name] for name in grads}}


def run(lstm, x, h0, c0, dy, dhn, dcn, **options):
    """Return results and gradients by name; options are those of `forward`."""
    y, (hn, cn), cache = lstm.forward(x, (h0, c0), **options)
    return {"y": y, "hn": hn, "cn": cn, **backward(lstm, dy, dhn, dcn, cache)}


def network(lstm, x, h0, c0, dy, dhn, dcn, *, dtype=float, layers=reference, **options):
    """As `run`, by the network of the reference, of its own layers or those of another module."""
    offsets = None
    if isinstance(x, tuple):
        x, offsets = x
    x, h0, c0, dy, dhn, dcn = (in_dtype(a, dtype) for a in (x, h0, c0, dy, dhn, dcn))
    if lstm.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    parameters = {name: array.astype(dtype) for name, array in lstm.state_dict().items()}
    settings = {name: getattr(lstm, name) for name in ("reverse", "merge", "residual", *CELL)}
    of_cells = [of_each_cell(part) for part in (h0, c0, dhn, dcn)]
    with mock.patch.object(reference.network, "layer", layers):
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
        if lstm._differ:
            results |= {f"{name}_{n}": array for n, array in enumerate(arrays)}
        else:
            results[name] = np.stack(arrays)
    return results


def in_dtype(given, dtype):
    """Return an array, or a tuple of those of each layer, in another dtype."""
    if isinstance(given, tuple):
        return tuple(a.astype(dtype) for a in given)
    return given.astype(dtype)


def of_each_cell(state):
    """Return the arrays (B, columns) of each layer and direction in h or c."""
    return [a for layer in state for a in layer] if isinstance(state, tuple) else state


def assert_close(actual, expected, dtype):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert (actual[name].shape, actual[name].dtype) == (array.shape, dtype), name
        error = np.abs(actual[name] - array).max(initial=0)
        assert error <= TOLERANCE[dtype.name] * np.abs(array).max(initial=0), name
