"""What tests of `LSTM` share: settings, random arguments, how it runs, the same layer by layer."""

import numpy as np

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


def composed(functions, lstm, precision, *given, lengths=None, padding="zero"):
    """As `run`, from the functions of one layer and direction of a module."""
    x, h0, c0, dy, dhn, dcn = (array.astype(precision) for array in given)
    if lstm.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    parameters, directions = lstm.state_dict(), [0, 1] if lstm.bidirectional else [0]
    kinds = {"w_ih": "weight_ih", "w_hh": "weight_hh", "w_hr": "weight_hr"}
    kinds |= {"b_ih": "bias_ih", "b_hh": "bias_hh"}
    runs, h, c, dh, dc, grads = {}, {}, {}, {}, {}, {}
    for layer in range(lstm.num_layers):
        last = layer == lstm.num_layers - 1
        options = {"lengths": lengths, "padding": padding if last else "zero"}
        for d in directions:
            n, end = layer * len(directions) + d, f"_l{layer}" + "_reverse" * d
            weights = {k: parameters.get(kind + end) for k, kind in kinds.items()}
            weights = {k: w.astype(precision) for k, w in weights.items() if w is not None}
            weights |= {"h0": h0[n], "c0": c0[n]}
            runs[n] = functions.lstm_forward(x, **weights, **options, reverse=d == 1)
            h[n], c[n] = runs[n][1]
        x = np.concatenate([runs[layer * len(directions) + d][0] for d in directions], axis=2)
    for layer in reversed(range(lstm.num_layers)):
        parts = np.split(dy, len(directions), axis=2)
        dy = 0
        for d in directions:
            n, end = layer * len(directions) + d, f"_l{layer}" + "_reverse" * d
            dx, (dh[n], dc[n]), part = functions.lstm_backward(parts[d], dhn[n], dcn[n], runs[n][2])
            dy = dy + dx
            grads |= {f"d{kinds[k]}{end}": grad for k, grad in part.items()}
    if lstm.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    states = {"hn": h, "cn": c, "dh0": dh, "dc0": dc}
    stacked = {k: np.stack([v[n] for n in sorted(v)]) for k, v in states.items()}
    return {"y": x, "dx": dy, **stacked, **grads}


def assert_close(actual, expected, dtype):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert (actual[name].shape, actual[name].dtype) == (array.shape, dtype), name
        error = np.abs(actual[name] - array).max(initial=0)
        assert error <= TOLERANCE[dtype.name] * np.abs(array).max(initial=0), name
