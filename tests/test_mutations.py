"""The comparison with the reference sees every classic mistake of an LSTM.

The engine is given arguments that amount to the mistake, the reference the right ones. Inputs are
hard: h0 != c0 != 0, I != H, T >= 3, B >= 2, two different biases, none of them zero.
"""

from itertools import permutations

import numpy as np
import pytest
from support.comparing import in_dtype
from support.layers import draw_layer, run_layer

import lstm_fast
from lstm_fast import LSTM, reference

T, B, I, H = 4, 3, 5, 7
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}  # relative to the largest element of an array
SEEN = 1e-3  # what a mistake changes every result by, at least: 500 tolerances of float32
RESULTS = ["y", "hn", "cn"]
GRADIENTS = ["dx", "dh0", "dc0", "dw_ih", "dw_hh", "db_ih", "db_hh"]
WRONG_ORDERS = list(permutations(range(4)))[1:]


def error(actual, expected):
    """Return the largest difference, relative to the largest element."""
    return np.abs(actual - expected).max() / np.abs(expected).max()


@pytest.fixture
def errors(dtype, isa, rng):
    """Return a function: mistaken arguments to the errors of results and gradients, by name."""
    args, d_results = draw_layer(rng, T, B, I, H, dtype=dtype)
    expected = run_layer(reference, in_dtype(args, float), in_dtype(d_results, float))

    def compare(reverse=False, **mistaken):
        actual = run_layer(lstm_fast, args | mistaken, d_results, reverse=reverse)
        return {name: error(actual[name], expected[name]) for name in actual}

    compare.args = args
    return compare


def test_without_a_mistake_nothing_is_seen(errors, dtype):
    found = errors()
    assert found.keys() == {*RESULTS, *GRADIENTS}
    assert max(found.values()) <= TOLERANCE[dtype.name]


@pytest.mark.parametrize("where", [["w_ih"], ["w_hh"], ["b_ih"], ["b_hh"], "all"])
@pytest.mark.parametrize("order", WRONG_ORDERS, ids=lambda order: "".join("ifgo"[n] for n in order))
def test_a_wrong_gate_order_is_seen(errors, order, where):
    names = ["w_ih", "w_hh", "b_ih", "b_hh"] if where == "all" else where
    blocks = {name: np.split(errors.args[name], 4) for name in names}
    found = errors(**{name: np.concatenate([b[n] for n in order]) for name, b in blocks.items()})
    assert min(found[name] for name in RESULTS) > SEEN


MISTAKES = {
    "w_hh transposed in each gate": lambda a: {"w_hh": a["w_hh"].reshape(4, H, H).swapaxes(1, 2)},
    "w_hh reversed in its columns": lambda a: {"w_hh": a["w_hh"][:, ::-1]},
    "gates interleaved, not in blocks": lambda a: {
        name: a[name].reshape(4, H, -1).swapaxes(0, 1).reshape(a[name].shape)
        for name in ("w_ih", "w_hh", "b_ih", "b_hh")
    },
    "b_ih dropped": lambda a: {"b_ih": np.zeros_like(a["b_ih"])},
    "b_hh dropped": lambda a: {"b_hh": np.zeros_like(a["b_hh"])},
    "b_ih added twice": lambda a: {"b_hh": a["b_ih"]},
    "states exchanged": lambda a: {"h0": a["c0"], "c0": a["h0"]},
    "h0 ignored": lambda a: {"h0": None},
    "c0 ignored": lambda a: {"c0": None},
    "states of the batch in another order": lambda a: {"h0": a["h0"][::-1], "c0": a["c0"][::-1]},
    "direction": lambda a: {"reverse": True},
    "last column of x dropped": lambda a: {
        "x": np.pad(a["x"][:, :, :-1], ((0, 0), (0, 0), (0, 1)))
    },
    "first step sees the second's input": lambda a: {"x": np.roll(a["x"], -1, axis=0)},
    "forget bias of 1 added": lambda a: {"b_ih": a["b_ih"] + np.repeat([0, 1, 0, 0], H)},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_seen(errors, mistake):
    mistaken = MISTAKES[mistake](errors.args)
    for name in mistaken.keys() - {"reverse"}:
        if mistaken[name] is not None:
            given = errors.args[name]
            mistaken[name] = mistaken[name].reshape(given.shape).astype(given.dtype)
    found = errors(**mistaken)
    assert min(found[name] for name in RESULTS) > SEEN


@pytest.mark.parametrize("mistake", ["dy", "dhn", "dcn", "dhn and dcn exchanged", "dy in reverse"])
def test_a_mistake_of_backward_is_seen(mistake, dtype, isa, rng):
    args, (dy, dhn, dcn) = draw_layer(rng, T, B, I, H, dtype=dtype)
    mistaken = {
        "dy": (None, dhn, dcn),
        "dhn": (dy, None, dcn),
        "dcn": (dy, dhn, None),
        "dhn and dcn exchanged": (dy, dcn, dhn),
        "dy in reverse": (dy[::-1], dhn, dcn),
    }
    right, wrong = (run_layer(lstm_fast, args, d) for d in ((dy, dhn, dcn), mistaken[mistake]))
    assert min(error(wrong[name], right[name]) for name in GRADIENTS) > SEEN


def test_exchanged_directions_are_seen(dtype, isa, rng):
    args, _ = draw_layer(rng, T, B, I, H, dtype=dtype)
    lstm = LSTM(I, H, bidirectional=True, dtype=dtype, seed=0)
    right = lstm.state_dict()
    state = (np.stack([args["h0"]] * 2), np.stack([args["c0"]] * 2))
    y, (hn, cn) = lstm(args["x"], state)
    for d, end in enumerate(("_l0", "_l0_reverse")):
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
        exact = {k: args[k].astype(float) for k in ("x", "h0", "c0")}
        exact |= {k: right[v + end].astype(float) for k, v in names.items()}
        expected, (h, c), _ = reference.lstm_forward(**exact, reverse=d == 1)
        pairs = (y[:, :, d * H : (d + 1) * H], expected), (hn[d], h), (cn[d], c)
        assert max(error(*pair) for pair in pairs) <= TOLERANCE[dtype.name]
    other = {k: k.removesuffix("_reverse") if "reverse" in k else f"{k}_reverse" for k in right}
    lstm.load_state_dict({other[name]: array for name, array in right.items()})
    wrong, (h, c) = lstm(args["x"], state)
    assert min(error(wrong, y), error(h, hn), error(c, cn)) > SEEN
