"""Variants of the cell in `lstm_fast.reference`: loops by hand, central differences."""

import math
from itertools import combinations

import numpy as np
import pytest
from support.comparing import assert_close, assert_identical, in_dtype
from support.differences import assert_gradient, weighted_sum
from support.layers import backward_layer, draw_layer, run_layer, select_rows

from lstm_fast import reference

pytestmark = pytest.mark.no_isa

FLOAT64 = np.dtype(float)
T, B, I, H, P = 4, 2, 3, 3, 2
PLACES = {"gates": "Sigmoid", "candidate": "Tanh", "output": "Tanh"}  # and what is there by default
# In the order of gradients.
PARAMETERS = ["w_hr", "w_ch", "w_ln_ih", "w_ln_hh", "w_ln_c", "b_ln_c", "w_ln"]

# Constants with which random inputs fall on both sides of each kink.
ACTIVATIONS = {
    "Sigmoid": "Sigmoid",
    "Tanh": "Tanh",
    "Relu": "Relu",
    "HardSigmoid": ("HardSigmoid", 0.3, 0.6),
    "Softsign": "Softsign",
    "Softplus": "Softplus",
    "Elu": ("Elu", 0.7),
    "LeakyRelu": ("LeakyRelu", 0.2),
    "ThresholdedRelu": ("ThresholdedRelu", -0.4),
    "ScaledTanh": ("ScaledTanh", 1.3, 0.7),
    "Affine": ("Affine", 0.6, 0.3),
}


def gains(rng):
    sizes = {"w_ln_ih": 4 * H, "w_ln_hh": 4 * H, "w_ln_c": H}
    return {name: 1 + rng.standard_normal(size) / 2 for name, size in sizes.items()}


# What an option adds to the arguments. Two of them go together if they add different things.
OPTIONS = {
    "no biases": lambda rng, R: {"bias": False},
    "reverse": lambda rng, R: {"reverse": True},
    "projection": lambda rng, R: {"w_hr": rng.standard_normal((P, H))},
    "peepholes": lambda rng, R: {"w_ch": rng.standard_normal(3 * H)},
    "layer norm": lambda rng, R: gains(rng) | {"b_ln_c": rng.standard_normal(H)},
    "layer norm without bias": lambda rng, R: gains(rng),
    "norm of gates": lambda rng, R: {"w_ln": 1 + rng.standard_normal(4 * H) / 2},
    "lengths": lambda rng, R: {"lengths": np.array([T, T - 1])},
    "mask": lambda rng, R: {"mask": np.array([[1, 0, 0, 1], [0, 1, 0, 1]], bool)},
    "mask, lengths": lambda rng, R: {"mask": np.arange(8).reshape(B, T) != 4, "lengths": [4, 3]},
    "hold": lambda rng, R: {
        "mask": np.array([[1, 0, 1, 0], [0, 0, 1, 1]], bool),
        "padding": "hold",
    },
    "coupled": lambda rng, R: {"coupled": True},
    "clip": lambda rng, R: {"clip": 0.8},
    "cell clip": lambda rng, R: {"cell_clip": 0.5},
    "zoneout": lambda rng, R: {"zoneout": (0.3, 0.1)},
    "zoneout of h": lambda rng, R: {"zoneout": (rng.integers(0, 2, (T, B, H)) * 1.0, 0.0)},
    "zoneout of c": lambda rng, R: {"zoneout": (0, rng.integers(0, 2, (T, B, H)) * 1.0)},
    "zoneout blends": lambda rng, R: {"zoneout": tuple(rng.random((2, T, B, H)))},
    "recurrent mask": lambda rng, R: {"recurrent_mask": rng.integers(0, 2, (B, R)) / 0.5},
} | {
    f"{name} of {place}": lambda rng, R, place=place, function=function: {place: function}
    for place in PLACES
    for name, function in ACTIVATIONS.items()
}


def arguments(names, seed=2):
    """Return arguments of `lstm_forward`, its settings, gradients of its results, at random."""
    rng = np.random.default_rng(seed)
    R = P if "projection" in names else H
    settings = {}
    for name in names:
        settings |= OPTIONS[name](rng, R)
    bias = settings.pop("bias", True)
    places = tuple(settings.pop(place, default) for place, default in PLACES.items())
    if places != tuple(PLACES.values()):
        settings["activations"] = places
    args, d_results = draw_layer(rng, T, B, I, H, R % H, dtype=FLOAT64, bias=bias)
    args |= {name: settings.pop(name) for name in PARAMETERS if name in settings}
    return args, settings, d_results


def may_meet(one, other):
    """Whether two options go together."""
    rng = np.random.default_rng(0)
    keys = OPTIONS[one](rng, H).keys(), OPTIONS[other](rng, H).keys()
    both = keys[0] | keys[1]
    excluded = [{"zoneout", "w_hr"}, {"w_ln_ih", "w_ln"}]
    return not keys[0] & keys[1] and not any(pair <= both for pair in excluded)


# Pairs in which the order of the two matters, and others at random.
MEETING = [
    *(("peepholes", "clip"), ("peepholes", "cell clip"), ("peepholes", "coupled")),
    *(("peepholes", "zoneout blends"), ("layer norm", "coupled"), ("layer norm", "cell clip")),
    *(("layer norm", "zoneout blends"), ("layer norm", "recurrent mask"), ("coupled", "clip")),
    *(("cell clip", "zoneout"), ("recurrent mask", "zoneout"), ("reverse", "hold")),
    *(("projection", "recurrent mask"), ("projection", "layer norm")),
    *(("norm of gates", other) for other in ("peepholes", "coupled", "clip", "cell clip")),
    *(("norm of gates", other) for other in ("no biases", "projection", "recurrent mask")),
]
ALLOWED = [pair for pair in combinations(OPTIONS, 2) if may_meet(*pair)]
CHOSEN = np.random.default_rng(4).choice(len(ALLOWED), 40, replace=False)
PAIRS = list(dict.fromkeys([*MEETING, *(ALLOWED[n] for n in CHOSEN)]))
CASES = [pytest.param(names, id=", ".join(names)) for names in [(n,) for n in OPTIONS] + PAIRS]


# Against other sources of truth

SCALAR = {
    "Sigmoid": lambda v: 1 / (1 + math.exp(-v)),
    "Tanh": math.tanh,
    "Relu": lambda v: max(v, 0.0),
    "HardSigmoid": lambda v, alpha=0.2, beta=0.5: max(0.0, min(1.0, alpha * v + beta)),
    "Softsign": lambda v: v / (1 + abs(v)),
    "Softplus": lambda v: math.log(1 + math.exp(v)),
    "Elu": lambda v, alpha=1.0: v if v >= 0 else alpha * (math.exp(v) - 1),
    "LeakyRelu": lambda v, alpha=0.01: v if v >= 0 else alpha * v,
    "ThresholdedRelu": lambda v, alpha=1.0: v if v >= alpha else 0.0,
    "ScaledTanh": lambda v, alpha=1.0, beta=1.0: alpha * math.tanh(beta * v),
    "Affine": lambda v, alpha=1.0, beta=0.0: alpha * v + beta,
}


def elementwise(function, vector):
    name, *constants = (function,) if isinstance(function, str) else function
    return np.array([SCALAR[name](float(v), *constants) for v in vector])


def clamp(vector, limit):
    return vector if limit is None else np.array([max(-limit, min(limit, v)) for v in vector])


def normalize(vector, eps=1e-5):
    mean = sum(vector) / len(vector)
    variance = sum((v - mean) ** 2 for v in vector) / len(vector)
    return np.array([(v - mean) / math.sqrt(variance + eps) for v in vector])


def row_by_hand(x, h, c, args, settings, ran, zones, kept):
    """Return y, hn, cn of one row, whose input, states, mask, zoneout, recurrent mask these are."""
    y = [np.zeros(len(h)) for _ in ran]
    gate_function, candidate, output = settings.get("activations", PLACES.values())
    p_i, p_f, p_o = args.get("w_ch", np.zeros(3 * H)).reshape(3, H)
    clip = settings.get("clip")
    steps = range(len(ran))
    for t in reversed(steps) if settings.get("reverse") else steps:
        if not ran[t]:
            continue
        ax, ah = args["w_ih"].dot(x[t]), args["w_hh"].dot(kept * h)
        if "w_ln_ih" in args:
            ax, ah = normalize(ax) * args["w_ln_ih"], normalize(ah) * args["w_ln_hh"]
        bias = args.get("b_ih", np.zeros(4 * H)) + args.get("b_hh", 0)
        if "w_ln" in args:
            finish = [
                lambda s, w=w, b=b: normalize(s, 1e-8) * w + b
                for w, b in zip(args["w_ln"].reshape(4, H), bias.reshape(4, H), strict=True)
            ]
        else:
            finish = [lambda s, b=b: s + b for b in bias.reshape(4, H)]
        s_i, s_f, s_g, s_o = (ax + ah).reshape(4, H)
        i = elementwise(gate_function, clamp(finish[0](s_i + p_i * c), clip))
        f = elementwise(gate_function, clamp(finish[1](s_f + p_f * c), clip))
        g = elementwise(candidate, clamp(finish[2](s_g), clip))
        if settings.get("coupled"):
            f = 1 - i
        new = clamp(f * c + i * g, settings.get("cell_clip"))
        o = elementwise(gate_function, clamp(finish[3](s_o + p_o * new), clip))
        seen = new
        if "w_ln_c" in args:
            seen = normalize(new) * args["w_ln_c"] + args.get("b_ln_c", 0)
        m = o * elementwise(output, seen)
        h = args["w_hr"].dot(m) if "w_hr" in args else zones[0][t] * h + (1 - zones[0][t]) * m
        c = zones[1][t] * c + (1 - zones[1][t]) * new
        y[t] = h
    if settings.get("padding") == "hold":
        for t in range(1, len(ran)):
            if not ran[t]:
                y[t] = y[t - 1]
    return {"y": np.array(y), "hn": h, "cn": c}


def by_hand(args, settings):
    """Return the results of `lstm_forward`, row after row."""
    ran = np.array(settings.get("mask", np.ones((B, T), bool)))
    for b, length in enumerate(settings.get("lengths", [])):
        ran[b, length:] = False
    zones = [np.broadcast_to(z, (T, B, H)) for z in settings.get("zoneout", (0.0, 0.0))]
    kept = settings.get("recurrent_mask", np.ones_like(args["h0"]))
    found = [
        row_by_hand(
            *(args["x"][:, b], args["h0"][b], args["c0"][b], args, settings),
            *(ran[b], [z[:, b] for z in zones], kept[b]),
        )
        for b in range(B)
    ]
    axis = {"y": 1, "hn": 0, "cn": 0}
    return {name: np.stack([row[name] for row in found], axis[name]) for name in axis}


@pytest.mark.parametrize("names", CASES)
def test_results_are_those_of_a_loop_by_hand(names):
    for seed in range(3):
        args, settings, d_results = arguments(names, seed)
        actual = run_layer(reference, args, d_results, **settings)
        expected = by_hand(args, settings)
        assert_close({name: actual[name] for name in expected}, expected, 1e-13, where=f"{seed=}")


@pytest.mark.parametrize("names", CASES)
def test_gradients_are_central_differences(names):
    args, settings, d_results = arguments(names)
    gradients = run_layer(reference, args, d_results, **settings)
    assert list(gradients)[6:] == [f"d{n}" for n in grads_of(args)]

    def loss():
        y, state, _ = reference.lstm_forward(**args, **settings)
        return weighted_sum((y, *state), d_results)

    for name, array in args.items():
        # Layer norm makes third derivatives large where a variance is small: a small step.
        gradient, step = gradients[f"d{name}"], 5e-7 if "w_ln" in args else 3e-6
        assert_gradient(gradient, loss, array, step=step, tolerance=1e-6, where=name)


def grads_of(args):
    """Return the names in `grads`, in their order."""
    return [name for name in ["w_ih", "w_hh", "b_ih", "b_hh", *PARAMETERS] if name in args]


def test_inputs_reach_both_sides_of_every_limit():
    for name, limit, blocks in [("clip", "clip", 4), ("cell clip", "cell_clip", 1)]:
        args, settings, _ = arguments([name])
        steps = reference.lstm_forward(**args, **settings)[2].steps
        values = np.concatenate([step.a if name == "clip" else step.r for step in steps])
        for block in np.split(values, blocks, axis=1):
            assert (block > settings[limit]).any()
            assert (block < -settings[limit]).any()
            assert (np.abs(block) < settings[limit]).any()


@pytest.mark.parametrize("names", CASES)
def test_float32_is_close_to_float64(names):
    args, settings, d_results = arguments(names)
    expected = run_layer(reference, args, d_results, **settings)
    narrow = in_dtype([args, d_results, settings], np.float32)
    actual = run_layer(reference, *narrow[:2], **narrow[2])
    assert {array.dtype for array in actual.values()} == {np.dtype(np.float32)}
    assert_close(actual, expected, 1e-4)


# Activations


def through(place, function, x, dtype=FLOAT64):
    """Return function(x) and its derivative: T = B = 1, and a unit for each element of x.

    x is in the bias of the gate i or of the candidate; all other functions are 1 or the identity.
    """
    n = len(x)
    one, identity = ("Affine", 0.0, 1.0), ("Affine", 1.0, 0.0)
    activations = [one, one if place == "gates" else identity, identity]
    activations[list(PLACES).index(place)] = function
    block = 0 if place == "gates" else 2
    bias = np.zeros((4, n), dtype)
    bias[block] = x
    weights = np.zeros((4 * n, 1), dtype), np.zeros((4 * n, n), dtype)
    y, (_, cn), cache = reference.lstm_forward(
        np.zeros((1, 1, 1), dtype), *weights, bias.ravel(), activations=activations
    )
    # With the function in the gates, y has a factor o(0), and c has not.
    value, ones = (cn, np.ones_like(cn)) if place == "gates" else (y[0], np.ones_like(y))
    d_results = (None, None, ones) if place == "gates" else (ones, None, None)
    _, _, grads = reference.lstm_backward(*d_results, cache)
    return value[0], grads["b_ih"].reshape(4, n)[block]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("constants", ["default", "given"])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_their_formulas(name, constants, place):
    function = ACTIVATIONS[name] if constants == "given" else name
    x = np.linspace(-4, 4, 62)  # no kink within a step of it
    value, derivative = through(place, function, x)
    np.testing.assert_allclose(value, elementwise(function, x), 1e-14, 1e-14)
    above, below = elementwise(function, x + 1e-5), elementwise(function, x - 1e-5)
    np.testing.assert_allclose(derivative, (above - below) / 2e-5, 1e-8, 1e-8)


@pytest.mark.parametrize(
    ("function", "x", "value", "derivative"),
    [
        ("Relu", 0.0, 0.0, 0.0),
        (("HardSigmoid", 0.5, 0.5), -1.0, 0.0, 0.0),
        (("HardSigmoid", 0.5, 0.5), 1.0, 1.0, 0.0),
        (("Elu", 0.5), 0.0, 0.0, 1.0),
        (("LeakyRelu", 0.5), 0.0, 0.0, 1.0),
        (("ThresholdedRelu", 0.5), 0.5, 0.5, 1.0),
        (("ThresholdedRelu", 0.5), np.nextafter(0.5, 0), 0.0, 0.0),
        ("Softsign", 0.0, 0.0, 1.0),
        ("Softplus", 0.0, math.log(2), 0.5),
    ],
)
def test_activations_at_their_kinks(function, x, value, derivative):
    assert through("candidate", function, [x]) == (value, derivative)


@pytest.mark.parametrize(
    ("name", "low", "high"),  # value and derivative at -1e4 and 1e4
    [
        ("Sigmoid", (0, 0), (1, 0)),
        ("Tanh", (-1, 0), (1, 0)),
        ("Relu", (0, 0), (1e4, 1)),
        ("HardSigmoid", (0, 0), (1, 0)),
        ("Softsign", (-1e4 / 10001, 1 / 10001**2), (1e4 / 10001, 1 / 10001**2)),
        ("Softplus", (0, 0), (1e4, 1)),
        ("Elu", (-1, 0), (1e4, 1)),
        ("LeakyRelu", (-100, 0.01), (1e4, 1)),
        ("ThresholdedRelu", (0, 0), (1e4, 1)),
        ("ScaledTanh", (-1, 0), (1, 0)),
        ("Affine", (-1e4, 1), (1e4, 1)),
    ],
)
def test_activations_far_out(name, low, high, dtype):
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        value, derivative = through("candidate", name, [-1e4, 1e4], dtype)
    tolerance = 2 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, [low[0], high[0]], tolerance)
    np.testing.assert_allclose(derivative, [low[1], high[1]], tolerance)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_nan_are_nan(name, place):
    value, _ = through(place, name, [0.5, np.nan])
    np.testing.assert_array_equal(np.isnan(value), [False, True])


# Limits


def test_gradients_pass_up_to_the_limit_and_not_beyond(dtype):
    limit = dtype.type(0.75)
    x = np.array([-limit, limit, np.nextafter(limit, dtype.type(1)), -1, 0.5], dtype)
    clamped = np.clip(x, -limit, limit)
    inside = np.array([1, 1, 0, 0, 1], dtype)
    zeros = np.zeros((4, 1), dtype)
    ones_and_identity = [("Affine", 0, 1), "Affine", "Affine"]
    args = {"w_ih": zeros, "w_hh": zeros, "activations": ones_and_identity}

    w_ih = np.array([[0], [0], [1], [0]], dtype)
    y, _, cache = reference.lstm_forward(x[None, :, None], **args | {"w_ih": w_ih}, clip=0.75)
    dx, _, _ = reference.lstm_backward(np.ones_like(y), None, None, cache)
    np.testing.assert_array_equal(y[0, :, 0], clamped)
    np.testing.assert_array_equal(dx[0, :, 0], inside)

    x = x[:, None]
    y, (_, cn), cache = reference.lstm_forward(x[None], **args, c0=x, cell_clip=0.75)
    _, (_, dc0), _ = reference.lstm_backward(np.ones_like(y), None, np.ones_like(cn), cache)
    np.testing.assert_array_equal(cn[:, 0], clamped)
    np.testing.assert_array_equal(dc0[:, 0], 2 * inside)


@pytest.mark.parametrize("limits", [{"clip": 0.5}, {"cell_clip": 0.5}, {"clip": 2, "cell_clip": 1}])
def test_nan_comes_through_limits_in_its_row(limits):
    args, _, d_results = arguments([])
    expected = run_layer(reference, args, d_results, **limits)
    args["x"][1, 1, 0] = np.nan
    actual = run_layer(reference, args, d_results, **limits)
    assert np.isnan(actual["y"][1:, 1]).all()
    assert np.isnan(actual["cn"][1]).all()
    assert_identical(select_rows(actual, [0]), select_rows(expected, [0]))


@pytest.mark.parametrize("name", ["clip", "cell_clip"])
def test_a_limit_may_be_larger_than_the_dtype(dtype, name):
    args, d_results = draw_layer(np.random.default_rng(0), T, B, I, H, dtype=dtype)
    expected = run_layer(reference, args, d_results)
    for limit in (1e300, np.inf, np.float32(3e38), 10**9, None):
        assert_identical(run_layer(reference, args, d_results, **{name: limit}), expected)


# What the options mean


def whole(value):
    return np.full((T, B, H), value)


NEUTRAL = {
    "peepholes of 0": {"w_ch": np.zeros(3 * H)},
    "clip beyond everything": {"clip": 1e6},
    "cell_clip beyond everything": {"cell_clip": 1e6},
    "default activations": {"activations": ["Sigmoid", ("Tanh",), "Tanh"]},
    "ScaledTanh by 1": {"activations": ("Sigmoid", "ScaledTanh", ("ScaledTanh", 1, 1.0))},
    "zoneout of 0": {"zoneout": (0, 0.0)},
    "zoneout of zeros": {"zoneout": (whole(0.0), whole(0.0))},
    "nothing masked": {"mask": np.ones((B, T), bool)},
    "nothing masked, hold": {"mask": [[True] * T] * B, "padding": "hold"},
    "nothing dropped": {"recurrent_mask": np.ones((B, H))},
    "not coupled": {"coupled": False},
    "absent": dict.fromkeys(
        ["clip", "cell_clip", "mask", "zoneout", "recurrent_mask", *PARAMETERS]
    ),
}


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("name", NEUTRAL)
def test_neutral_values_change_nothing(name, reverse):
    args, _, d_results = arguments([])
    expected = run_layer(reference, args, d_results, reverse=reverse)
    actual = run_layer(reference, args, d_results, reverse=reverse, **NEUTRAL[name])
    if "w_ch" in NEUTRAL[name] and name != "absent":
        assert actual.pop("dw_ch").any()
    assert_close(actual, expected, 1e-15)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("reverse", [False, True])
def test_lengths_are_a_mask_that_begins_true(rng, dtype, reverse, padding):
    lengths = np.array([3, 0, 5, 1, 4])
    args, d_results = draw_layer(rng, 5, 5, I, H, P, dtype=dtype)
    options = {"reverse": reverse, "padding": padding}
    expected = run_layer(reference, args, d_results, lengths=lengths, **options)
    mask = np.arange(5) < lengths[:, None]
    assert_identical(run_layer(reference, args, d_results, mask=mask, **options), expected)
    holes = rng.random((5, 5)) < 0.6
    expected = run_layer(reference, args, d_results, mask=mask & holes, **options)
    actual = run_layer(reference, args, d_results, mask=holes, lengths=lengths, **options)
    assert_identical(actual, expected)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_with_holes_is_the_sequence_without_them(rng, reverse, padding):
    steps, batch = 6, 5
    mask = rng.random((batch, steps)) < 0.5
    mask[:3] = [[False] * 6, [False, False, True, False, True, False], [True] + [False] * 5]
    args, (dy, dhn, dcn) = draw_layer(rng, steps, batch, I, H, dtype=FLOAT64)
    z = rng.random((2, steps, batch, H))
    args["w_ch"] = rng.standard_normal(3 * H)
    options = {"reverse": reverse, "coupled": True, "clip": 2.0}
    actual = run_layer(
        *(reference, args, (dy, dhn, dcn)), **options, mask=mask, padding=padding, zoneout=tuple(z)
    )
    sums = dict.fromkeys([f"d{name}" for name in grads_of(args)], 0)
    for b in range(batch):
        there = np.flatnonzero(mask[b])
        alone = args | select_rows(args, [b])
        alone["x"] = alone["x"][there]
        dy_alone = dy[there][:, [b]]
        if padding == "hold":  # a time belongs to the last one before it that is there
            owner = np.searchsorted(there, np.arange(steps), side="right") - 1
            dy_alone = np.array([dy[owner == n][:, [b]].sum(axis=0) for n in range(len(there))])
            dy_alone = dy_alone.reshape(-1, 1, H)
        d_alone = dy_alone, dhn[[b]], dcn[[b]]
        zones = tuple(z[:, there][:, :, [b]])
        expected = run_layer(reference, alone, d_alone, **options, zoneout=zones)
        y, dx = np.zeros((steps, H)), np.zeros((steps, I))
        for t in range(steps):
            if mask[b, t]:
                n = list(there).index(t)
                y[t], dx[t] = expected["y"][n, 0], expected["dx"][n, 0]
            elif padding == "hold" and t > 0:
                y[t] = y[t - 1]
        expected |= {"y": y[:, None], "dx": dx[:, None]}
        assert_close(select_rows(actual, [b]), select_rows(expected, [0]), 1e-14, where=f"row {b}")
        sums = {name: total + expected[name] for name, total in sums.items()}
    assert_close({name: actual[name] for name in sums}, sums, 1e-14)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_at_a_masked_step_is_not_read(rng, reverse, padding):
    args, settings, d_results = arguments(["mask", "peepholes", "layer norm", "zoneout blends"])
    settings |= {"reverse": reverse, "padding": padding}
    expected = run_layer(reference, args, d_results, **settings)
    idle = ~settings["mask"].T
    for array in (args["x"], *settings["zoneout"], *(d_results[:1] if padding == "zero" else [])):
        array[idle] = np.nan
    actual = run_layer(reference, args, d_results, **settings)
    assert_identical(actual, expected)
    assert not actual["dx"][idle].any()


@pytest.mark.parametrize(
    "names", [(), ("peepholes",), ("clip",), ("Softsign of gates",), ("norm of gates", "peepholes")]
)
def test_coupled_gates_do_without_the_forget_block(names):
    args, settings, d_results = arguments([*names, "coupled"])
    expected = run_layer(reference, args, d_results, **settings)
    blocks = {name: slice(H, 2 * H) for name in grads_of(args)}
    for name, block in blocks.items():
        assert not expected[f"d{name}"][block].any()
        assert expected[f"d{name}"].any()
        args[name][block] = 1000.0
    actual = run_layer(reference, args, d_results, **settings)
    assert_close(actual, expected, 1e-15)


def test_coupled_gates_and_layer_norm_share_the_statistics_of_all_blocks():
    args, settings, d_results = arguments(["layer norm", "coupled"])
    expected = run_layer(reference, args, d_results, **settings)
    for name in ("w_ln_ih", "w_ln_hh", "b_ih", "b_hh"):
        assert not expected[f"d{name}"][H : 2 * H].any()
        args[name][H : 2 * H] += 1
    assert_identical(run_layer(reference, args, d_results, **settings), expected)
    for name in ("w_ih", "w_hh"):
        assert expected[f"d{name}"][H : 2 * H].all()


def test_zoneout_of_a_number_is_that_of_an_array_full_of_it(dtype):
    args, d_results = draw_layer(np.random.default_rng(0), T, B, I, H, dtype=dtype)
    arrays = tuple(whole(z).astype(dtype) for z in (0.3, 0.6))
    expected = run_layer(reference, args, d_results, zoneout=arrays)
    for zoneout in [(0.3, 0.6), [0.3, arrays[1]], (arrays[0], np.float64(0.6))]:
        assert_identical(run_layer(reference, args, d_results, zoneout=zoneout), expected)


@pytest.mark.parametrize("reverse", [False, True])
def test_zoneout_keeps_units_where_it_is_one(reverse):
    args, settings, d_results = arguments(["zoneout of h"])
    z_h, _ = settings["zoneout"]
    z_c = 1 - z_h
    y, (_, cn), cache = reference.lstm_forward(**args, zoneout=(z_h, z_c), reverse=reverse)
    order = range(T)[:: -1 if reverse else 1]
    h, c = args["h0"], args["c0"]
    for k, t in enumerate(order):
        np.testing.assert_array_equal((y[t] == h), z_h[t] == 1)
        np.testing.assert_array_equal(cache.c[k + 1] == c, z_c[t] == 1)
        h, c = y[t], cache.c[k + 1]
    np.testing.assert_array_equal(cn, c)
    assert (
        run_layer(reference, args, d_results, zoneout=(1, 1))["y"].tolist()
        == [args["h0"].tolist()] * T
    )


def test_reverse_is_the_sequence_read_backwards():
    names = ["mask", "peepholes", "layer norm", "zoneout blends", "recurrent mask", "Elu of gates"]
    args, settings, (dy, dhn, dcn) = arguments(names)
    actual = run_layer(reference, args, (dy, dhn, dcn), **settings, reverse=True)
    args["x"] = args["x"][::-1]
    settings["mask"] = settings["mask"][:, ::-1]
    settings["zoneout"] = tuple(z[::-1] for z in settings["zoneout"])
    expected = run_layer(reference, args, (dy[::-1], dhn, dcn), **settings)
    assert_identical(actual, expected | {"y": expected["y"][::-1], "dx": expected["dx"][::-1]})


# Edges and memory

EVERYTHING = ["peepholes", "layer norm", "mask", "coupled", "clip", "cell clip", "recurrent mask"]
EVERYTHING += ["Softsign of gates", "Elu of candidate", "Softplus of output", "reverse"]


@pytest.mark.parametrize("steps", [0, T])
@pytest.mark.parametrize("last", ["zoneout blends", "projection"])
def test_without_steps_the_state_and_its_gradient_pass_through(last, steps):
    args, settings, (dy, dhn, dcn) = arguments([*EVERYTHING, last])
    args["x"], dy = args["x"][:steps], dy[:steps]
    settings["mask"] = np.zeros((B, steps), bool)
    if "zoneout" in settings:
        settings["zoneout"] = tuple(z[:steps] for z in settings["zoneout"])
    expected = {f"d{name}": np.zeros_like(array) for name, array in args.items()}
    expected |= {"y": np.zeros_like(dy), "hn": args["h0"], "cn": args["c0"]}
    expected |= {"dh0": dhn, "dc0": dcn}
    assert_identical(run_layer(reference, args, (dy, dhn, dcn), **settings), expected)


@pytest.mark.parametrize("last", ["zoneout blends", "projection"])
def test_later_writes_do_not_reach_backward(last):
    args, settings, d_results = arguments([*EVERYTHING, last])
    expected = run_layer(reference, args, d_results, **settings)
    y, (hn, cn), cache = reference.lstm_forward(**args, **settings)
    given = [*args.values(), settings["recurrent_mask"], *settings.get("zoneout", ())]
    for array in (*given, y, hn, cn):
        array.fill(np.nan)
    settings["mask"].fill(True)
    for _ in range(2):  # the cache serves twice, whatever becomes of its first results
        actual = backward_layer(reference, d_results, cache)
        assert_identical(actual, {name: expected[name] for name in actual})
        for array in actual.values():
            array.fill(np.nan)


@pytest.mark.parametrize("last", ["zoneout blends", "projection"])
def test_arguments_are_unchanged_and_no_two_arrays_share_memory(last):
    args, settings, d_results = arguments([*EVERYTHING, last])
    given = args | {"mask": settings["mask"], "recurrent_mask": settings["recurrent_mask"]}
    given |= {f"d{n}": d for n, d in enumerate(d_results)}
    given |= {f"z{n}": z for n, z in enumerate(settings.get("zoneout", ()))}
    before = {name: array.copy() for name, array in given.items()}
    results = run_layer(reference, args, d_results, **settings)
    assert_identical(given, before)
    arrays = [*given.values(), *results.values()]
    for k, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:k])
    assert all(array.flags.c_contiguous and array.flags.owndata for array in results.values())


# Errors

WRONG = [
    ({"w_ch": np.ones(4 * H)}, ValueError, "w_ch must have shape"),
    ({"w_ch": np.ones((3, H))}, ValueError, "w_ch must have shape"),
    ({"w_ch": np.ones(3 * H, np.float32)}, TypeError, "w_ch must be float64"),
    ({"recurrent_mask": np.ones((1, H))}, ValueError, "recurrent_mask must have shape"),
    ({"recurrent_mask": np.ones(H)}, ValueError, "recurrent_mask must have shape"),
    ({"recurrent_mask": np.ones((B, H), bool)}, TypeError, "recurrent_mask must be float64"),
    ({"mask": np.ones((T, B), bool)}, ValueError, "mask must have shape"),
    ({"mask": np.ones(T, bool)}, ValueError, "mask must have shape"),
    ({"mask": np.ones((1, T), bool)}, ValueError, "mask must have shape"),
    ({"mask": []}, ValueError, "mask must have shape"),
    ({"mask": np.ones((B, T))}, TypeError, "mask must hold booleans"),
    ({"mask": np.ones((B, T), int)}, TypeError, "mask must hold booleans"),
    ({"mask": np.ma.masked_array(np.ones((B, T), bool))}, TypeError, "mask must hold booleans"),
    *[({"coupled": value}, TypeError, "coupled must be") for value in (0, 1, None, "no", 1.0)],
    *[
        ({name: value}, error, f"{name} must be")
        for name in ("clip", "cell_clip")
        for value, error in [
            *((0, ValueError), (-1.0, ValueError), (-np.inf, ValueError), (np.nan, ValueError)),
            *(("1", TypeError), (True, TypeError), (1j, TypeError), ([1.0], TypeError)),
            (np.ones(1), TypeError),
        ]
    ],
    ({"activations": "Tanh"}, TypeError, "activations must be"),
    ({"activations": None}, TypeError, "activations must be"),
    ({"activations": ("Sigmoid", "Tanh")}, ValueError, "activations must be"),
    ({"activations": ("Sigmoid", "Tanh", "Tanh", "Tanh")}, ValueError, "activations must be"),
    *[
        ({"activations": ["Sigmoid", given, "Tanh"]}, error, r"activations\[1\] must ")
        for given, error in [
            *(("tanh", ValueError), ("", ValueError), (("HardTanh", 1), ValueError)),
            *((None, TypeError), ((), TypeError), ((1.0, 2.0), TypeError), (np.tanh, TypeError)),
            *((("Sigmoid", 1.0), ValueError), (("Elu", 1.0, 0.0), ValueError)),
            *((("LeakyRelu", 0.1, 0.2), ValueError), (("Affine", 1, 0, 0), ValueError)),
            *((("Affine", "1"), TypeError), (("Affine", 1, None), TypeError)),
            *((("Elu", True), TypeError), (("Elu", np.nan), ValueError)),
        ]
    ],
    *[({"zoneout": z}, TypeError, "zoneout must be a pair") for z in (0.1, "ab", whole(0.0))],
    *[({"zoneout": z}, ValueError, "zoneout must be a pair") for z in ((), (0.1,), (0, 0, 0))],
    *[
        ({"zoneout": (z, 0) if n == 0 else (0, z)}, error, rf"zoneout\[{n}\] must ")
        for n in range(2)
        for z, error in [
            *((-0.1, ValueError), (1.1, ValueError), (np.nan, ValueError)),
            *((None, TypeError), ("0", TypeError), (True, TypeError), ([0.0], TypeError)),
            *((whole(0), TypeError), (whole(False), TypeError), (whole(0.0)[0], ValueError)),
            *((np.zeros((1, 1, 1)), ValueError), (np.array(0.5), ValueError)),
            (whole(0.0).astype(np.float32), TypeError),
        ]
    ],
]


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG)
def test_a_wrong_argument_is_named(wrong, error, message):
    args, _, _ = arguments([])
    with pytest.raises(error, match=f"^{message}.* got "):
        reference.lstm_forward(**args, **wrong)


@pytest.mark.parametrize("name", PARAMETERS[2:])
def test_wrong_parameters_of_layer_norm_are_named(name):
    args, _, _ = arguments(["norm of gates" if name == "w_ln" else "layer norm"])
    for wrong, error in [(np.ones(5 * H), ValueError), (args[name][None], ValueError)]:
        with pytest.raises(error, match=f"^{name} must have shape .* got "):
            reference.lstm_forward(**args | {name: wrong})
    with pytest.raises(TypeError, match=f"^{name} must be float64 .* got float32"):
        reference.lstm_forward(**args | {name: args[name].astype(np.float32)})


@pytest.mark.parametrize("absent", ["w_ln_ih", "w_ln_hh", "w_ln_c", "all"])
@pytest.mark.parametrize("bias", [True, False])
def test_gains_come_together(absent, bias):
    args, _, _ = arguments(["layer norm" if bias else "layer norm without bias"])
    for name in PARAMETERS[2:5] if absent == "all" else [absent]:
        del args[name]
    if absent == "all" and not bias:
        reference.lstm_forward(**args)
        return
    with pytest.raises(ValueError, match=r"^w_ln_ih, w_ln_hh, w_ln_c must come together.* b_ln_c"):
        reference.lstm_forward(**args)


def test_layer_norm_and_that_of_gates_exclude_each_other():
    args, _, _ = arguments(["layer norm"])
    with pytest.raises(ValueError, match=r"^w_ln and w_ln_ih exclude each other"):
        reference.lstm_forward(**args, w_ln=np.ones(4 * H))


@pytest.mark.parametrize("zoneout", [(0, 0), (0.1, 0.2), (whole(0.0), 0)])
def test_zoneout_does_not_go_with_a_projection(zoneout):
    args, _, _ = arguments(["projection"])
    with pytest.raises(ValueError, match=r"^zoneout and w_hr .* P = 2 .* H = 3"):
        reference.lstm_forward(**args, zoneout=zoneout)


def test_a_wrong_recurrent_mask_with_a_projection_is_named():
    args, _, _ = arguments(["projection"])
    with pytest.raises(ValueError, match=r"^recurrent_mask must have shape \(2, 2\), got \(2, 3\)"):
        reference.lstm_forward(**args, recurrent_mask=np.ones((B, H)))
