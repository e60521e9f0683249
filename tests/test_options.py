"""Options of `LSTM`: layers, directions, noise, initial values; gradients by differences."""

import copy
import pickle

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import generator_of, set_generator

import lstm_fast
from lstm_fast import LSTM

OPTIONS = {
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "clip": {"clip": 0.9, "cell_clip": 0.8},
    "activations": {"activations": ("HardSigmoid", ("ScaledTanh", 0.9, 1.1), "Softsign")},
    "layer_norm": {"layer_norm": True},
    "norm_of_gates": {"layer_norm": "gates", "peephole": True},
    "variational_dropout": {"variational_dropout": 0.3},
    "recurrent_dropout": {"recurrent_dropout": 0.3},
    "zoneout": {"zoneout": (0.2, 0.3)},
    "dropout": {"dropout": 0.4},
    "reverse": {"reverse": True},
    "residual": {"residual": True},
    "sum": {"bidirectional": True, "merge": "sum"},
    "mul": {"bidirectional": True, "merge": "mul", "residual": True},
    "ave": {"bidirectional": True, "merge": "ave", "dropout": 0.2},
    "concat": {"bidirectional": True, "peephole": True, "recurrent_dropout": 0.2},
}
NOISY = ["variational_dropout", "recurrent_dropout", "zoneout", "dropout"]
T, B, I = 5, 3, 6
CALLS = {
    "whole": {},
    "lengths": {"lengths": [5, 0, 3]},
    "mask": {
        "mask": np.array([[1, 0, 1, 1, 0], [0, 0, 1, 1, 1], [0] * 5], bool),
        "padding": "hold",
    },
    "checkpoint": {"checkpoint": 1},
    "checkpoint-lengths": {"checkpoint": 2, "lengths": [2, 5, 4]},
}


def parts(state):
    """Return the arrays of h and c, one each or one for each layer."""
    return [a for part in state for a in (part if isinstance(part, tuple) else (part,))]


def gradient_error(lstm, x, rng, **call):
    """Return the worst relative error of a directional derivative, in x and every parameter."""
    noise = generator_of(lstm)

    def forward(x):
        set_generator(lstm, noise)  # the same masks at every call
        return lstm.forward(x, **call)

    y, state, cache = forward(x)
    weights = [rng.standard_normal(a.shape) for a in (y, *parts(state))]
    L = len(weights) // 2
    dstate = (tuple(weights[1 : L + 1]), tuple(weights[L + 1 :])) if L > 1 else weights[1:]
    dx, _, grads = lstm.backward(weights[0], dstate, cache)

    def loss(x):
        y, state, _ = forward(x)
        return sum((a * w).sum() for a, w in zip((y, *parts(state)), weights, strict=True))

    step = 1e-6
    direction = rng.standard_normal(x.shape)
    slopes = [(loss(x + step * direction) - loss(x - step * direction), (dx * direction).sum())]
    for name, grad in grads.items():
        direction, sides = rng.standard_normal(grad.shape), []
        for sign in (1, -1):
            with lstm.writable() as parameters:
                parameters[name] += sign * step * direction
            sides.append(loss(x))
            with lstm.writable() as parameters:
                parameters[name] -= sign * step * direction
        slopes.append((sides[0] - sides[1], (grad * direction).sum()))
    return max(abs(rise / (2 * step) - slope) / (1 + abs(slope)) for rise, slope in slopes)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("option", OPTIONS)
def test_gradients(rng, option, call):
    lstm = LSTM(I, 4, 3, **OPTIONS[option], dtype=np.float64, seed=1)
    x = rng.standard_normal((T, B, I))
    assert gradient_error(lstm, x, rng, **CALLS[call]) < 1e-6


@pytest.mark.parametrize(
    "option", ["peephole", "layer_norm", "norm_of_gates", "dropout", "zoneout", "mul", "concat"]
)
def test_gradients_of_layers_of_different_sizes(rng, option):
    settings = {k: v for k, v in OPTIONS[option].items() if k != "residual"}
    lstm = LSTM(I, (4, 6, 3), **settings, dtype=np.float64, seed=1)
    x = rng.standard_normal((T, B, I))
    for call in CALLS.values():
        assert gradient_error(lstm, x, rng, **call) < 1e-6


def test_layers_of_different_sizes_are_layers_one_after_the_other(dtype, rng):
    lstm = LSTM(I, [4, 7], bidirectional=True, dtype=dtype, seed=0)
    assert (lstm.hidden_size, lstm.num_layers) == ((4, 7), 2)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    state = tuple(
        tuple(rng.standard_normal((2, B, n)).astype(dtype) for n in (4, 7)) for _ in range(2)
    )
    y, (hn, cn) = lstm(x, state)
    expected = x
    for layer, H in enumerate((4, 7)):
        one = LSTM(expected.shape[2], H, bidirectional=True, dtype=dtype)
        values = {k: v for k, v in lstm.state_dict().items() if f"_l{layer}" in k}
        one.load_state_dict({k.replace(f"_l{layer}", "_l0"): v for k, v in values.items()})
        expected, (h, c) = one(expected, (state[0][layer], state[1][layer]))
        np.testing.assert_array_equal(hn[layer], h)
        np.testing.assert_array_equal(cn[layer], c)
    np.testing.assert_array_equal(y, expected)
    with pytest.raises(ValueError, match=r"out.*different sizes"):
        lstm(x, out=(None, (np.zeros((2, B, 4), dtype), None)))
    with pytest.raises(ValueError, match=r"h0\[1\]"):
        lstm(x, ((state[0][0], state[0][0]), None))


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
def test_merge(dtype, rng, merge):
    lstm = LSTM(I, 4, bidirectional=True, merge=merge, dtype=dtype, seed=0)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    both = LSTM(I, 4, bidirectional=True, dtype=dtype)
    both.load_state_dict({name: getattr(lstm, name) for name in lstm.parameters})
    f, r = np.split(both(x)[0], 2, axis=2)
    expected = {"concat": np.concatenate((f, r), 2), "sum": f + r, "mul": f * r, "ave": (f + r) / 2}
    np.testing.assert_array_equal(lstm(x)[0], expected[merge])


def test_reverse_is_the_second_direction(dtype, rng):
    lstm = LSTM(I, 4, 2, reverse=True, dtype=dtype, seed=0)
    assert not any("reverse" in name for name in lstm.state_dict())
    x = rng.standard_normal((T, B, I)).astype(dtype)
    forward = LSTM(I, 4, 2, dtype=dtype)
    forward.load_state_dict({name: getattr(lstm, name) for name in lstm.parameters})
    y, (hn, cn) = lstm(x)
    turned, (h, c) = forward(x[::-1])
    assert_identical({"y": y, "h": hn, "c": cn}, {"y": turned[::-1].copy(), "h": h, "c": c})


@pytest.mark.parametrize("option", OPTIONS)
def test_sequences_one_after_the_other(dtype, rng, option):
    settings = {k: v for k, v in OPTIONS[option].items() if "dropout" not in k and k != "zoneout"}
    lstm = LSTM(I, 4, 2, **settings, dtype=dtype, seed=0)
    steps, offsets = [3, 0, 5], np.array([0, 3, 3, 8])
    x = rng.standard_normal((8, I)).astype(dtype)
    padded = np.full((5, 3, I), np.nan, dtype)
    for b in range(3):
        padded[: steps[b], b] = x[offsets[b] : offsets[b + 1]]
    y, (hn, cn), cache = lstm.forward((x, offsets))
    y_padded, (h, c), other = lstm.forward(padded, lengths=steps)
    dx, dstate, grads = lstm.backward(y, None, cache)
    dx_padded, dstate_padded, expected = lstm.backward(y_padded, None, other)
    valid = np.arange(5)[:, None] < steps
    assert_identical({"h": hn, "c": cn}, {"h": h, "c": c})
    for one, both in ((y, y_padded), (dx, dx_padded)):
        np.testing.assert_array_equal(one, both.swapaxes(0, 1)[valid.T], strict=True)
    assert_identical(grads, expected)
    assert_identical(dict(enumerate(dstate)), dict(enumerate(dstate_padded)))
    np.testing.assert_array_equal(lstm((x, offsets))[0], y)


@pytest.mark.parametrize("option", NOISY)
def test_noise_is_that_of_the_seed_for_any_number_of_threads(dtype, rng, threads, option):
    x = rng.standard_normal((20, 30, 40)).astype(dtype)
    results = []
    for n in (1, 2, 1):
        lstm_fast.set_num_threads(n)
        lstm = LSTM(40, 64, 2, **OPTIONS[option], dtype=dtype, seed=7)
        y, _, cache = lstm.forward(x)
        dx, _, grads = lstm.backward(y, None, cache)
        results.append({"y": y, "dx": dx, **grads})
        assert np.abs(lstm.forward(x)[0] - y).max() > 0.01  # other masks at the next call
    assert_identical(results[1], results[0])
    assert_identical(results[2], results[0])


def test_dropout_is_off_in_inference(dtype, rng):
    x = rng.standard_normal((T, B, I)).astype(dtype)
    plain = LSTM(I, 4, 2, dtype=dtype, seed=0)
    for option in ("variational_dropout", "recurrent_dropout", "dropout"):
        lstm = LSTM(I, 4, 2, **OPTIONS[option], dtype=dtype, seed=0)
        np.testing.assert_array_equal(lstm(x)[0], plain(x)[0])


def test_masks_shared_over_time(rng):
    lstm = LSTM(I, 4, variational_dropout=0.5, dtype=np.float64, seed=3)
    x = np.ones((T, 40, I))
    _, _, cache = lstm.forward(x, lengths=[5] * 20 + [2] * 20)
    dx = lstm.backward(np.ones((T, 40, 4)), None, cache)[0]
    dropped = dx == 0
    assert 0.4 < dropped[:2].mean() < 0.6
    assert (dropped[:2] == dropped[0]).all()
    assert (dropped[:, :20] == dropped[0, :20]).all()


def test_zoneout_in_training_keeps_values(rng):
    lstm = LSTM(I, 40, zoneout=(0.3, 0.0), dtype=np.float64, seed=3)
    y, _, _ = lstm.forward(rng.standard_normal((50, 4, I)))
    kept = np.mean(y[1:] == y[:-1])
    assert 0.27 < kept < 0.33
    mean = lstm(rng.standard_normal((50, 4, I)))[0]
    assert not (mean[1:] == mean[:-1]).any()


def test_names_and_shapes_of_parameters():
    lstm = LSTM(3, (5, 4), bidirectional=True, peephole=True, layer_norm=True, merge="sum")
    shapes = {name: getattr(lstm, name).shape for name in lstm.parameters}
    assert len(shapes) == 4 * 9
    assert shapes["weight_ch_l0"] == shapes["weight_ch_l0_reverse"] == (15,)
    assert shapes["weight_ln_ih_l1"] == shapes["weight_ln_hh_l1_reverse"] == (16,)
    assert shapes["weight_ln_c_l1"] == shapes["bias_ln_c_l1_reverse"] == (4,)
    assert shapes["weight_ih_l1"] == (16, 5)
    assert (lstm.weight_ln_c_l0 == 1).all() and (lstm.bias_ln_c_l0 == 0).all()
    assert "bias_ln_c_l0" not in LSTM(3, 5, bias=False, layer_norm=True).state_dict()
    lstm = LSTM(3, 5, bias=False, layer_norm="gates")
    assert lstm.parameters == ("weight_ih_l0", "weight_hh_l0", "weight_ln_l0")
    assert lstm.weight_ln_l0.shape == (20,) and (lstm.weight_ln_l0 == 1).all()
    for wrong, error in (("gate", ValueError), (1, TypeError), (None, TypeError)):
        with pytest.raises(error, match=r"^layer_norm: expected"):
            LSTM(3, 5, layer_norm=wrong)


def test_initial_values(dtype):
    keras = LSTM(6, 40, init="keras", proj_size=5, dtype=dtype, seed=0)
    w_ih, w_hh = keras.weight_ih_l0, keras.weight_hh_l0
    bound = np.sqrt(6 / (6 + 160))
    assert 0.95 * bound < np.abs(w_ih).max() <= bound
    np.testing.assert_allclose(w_hh.T @ w_hh, np.eye(5), atol=1e-5)
    forget = keras.bias_ih_l0 + keras.bias_hh_l0
    np.testing.assert_array_equal(forget, np.repeat([0, 1, 0, 0], 40))
    uniform = LSTM(6, 40, forget_bias=2.5, dtype=dtype, seed=0)
    forget = uniform.bias_ih_l0 + uniform.bias_hh_l0
    np.testing.assert_array_equal(forget[40:80], 2.5)
    assert forget[:40].std() > 0.05
    square = LSTM(3, 40, init="keras", dtype=dtype, seed=0).weight_hh_l0
    np.testing.assert_allclose(square.T @ square, np.eye(40), atol=1e-5)


@pytest.mark.parametrize("option", OPTIONS)
def test_copies_and_pickles_compute_the_same(dtype, rng, option):
    lstm = LSTM(I, 4, 3, **OPTIONS[option], dtype=dtype, seed=0)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    for again in (copy.copy(lstm), pickle.loads(pickle.dumps(lstm))):
        np.testing.assert_array_equal(again(x)[0], lstm(x)[0])
        np.testing.assert_array_equal(again.forward(x)[0], copy.copy(lstm).forward(x)[0])


@pytest.mark.parametrize("size", [4, (4, 6)])
@pytest.mark.parametrize("option", [o for o in OPTIONS if "bidirectional" not in OPTIONS[o]])
def test_streams(isa, dtype, rng, option, size):
    settings = OPTIONS[option]
    if settings.get("reverse"):
        with pytest.raises(ValueError, match="reverse"):
            LSTM(I, size, **settings).stream()
        return
    if settings.get("residual") and size != 4:
        return
    lstm = LSTM(I, size, 2, **settings, dtype=dtype, seed=0)
    x = rng.standard_normal((9, 2, I)).astype(dtype)
    y, state = lstm(x)
    stream = lstm.stream(2)
    out = np.empty_like(y)
    for t in range(3):
        assert stream.step(x[t], out=out[t]) is not None
    stream(x[3:5], out=out[3:5])
    snapshot = stream.snapshot()
    out[5:] = stream(x[5:])
    np.testing.assert_array_equal(out, y)
    for part, expected in zip(parts(stream.state), parts(state), strict=True):
        np.testing.assert_array_equal(part, expected)
    stream.reset(rows=[1])
    assert all((part[:, 1] == 0).all() and part[:, 0].any() for part in parts(stream.state))
    stream.restore(snapshot)
    np.testing.assert_array_equal(stream(x[5:]), y[5:])
    other = lstm.stream(2)
    other.restore(snapshot)
    np.testing.assert_array_equal(other.copy()(x[5:]), y[5:])
    with pytest.raises(TypeError, match="snapshot"):
        stream.restore(stream.state)
    with pytest.raises(ValueError, match="x: expected"):
        stream(x[:, :1])
    assert stream(x[:0]).shape == (0, 2, y.shape[2])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reverse": True, "bidirectional": True}, "reverse and bidirectional"),
        ({"merge": "sum"}, "merge='sum' needs two directions"),
        ({"merge": "max", "bidirectional": True}, "merge: expected one of concat"),
        ({"zoneout": (0.1, 0.1), "proj_size": 2}, "zoneout and proj_size"),
        ({"residual": True, "num_layers": 1}, "residual and num_layers=1"),
        ({"residual": True, "hidden_size": (4, 5)}, "residual and hidden_size"),
        ({"forget_bias": 1.0, "bias": False}, "forget_bias and bias=False"),
        ({"hidden_size": (4, 5), "num_layers": 3}, "hidden_size: expected num_layers=3"),
        ({"hidden_size": ()}, "hidden_size: expected at least one"),
        ({"hidden_size": (4, 0)}, r"hidden_size\[1\]"),
        ({"hidden_size": (4, 5), "proj_size": 4}, "proj_size"),
        ({"init": "he"}, "init: expected one of uniform, keras"),
        ({"variational_dropout": 1.5}, "variational_dropout"),
        ({"recurrent_dropout": -1}, "recurrent_dropout"),
    ],
)
def test_what_does_not_go_together_says_so(settings, words):
    with pytest.raises(ValueError, match=words):
        LSTM(**{"input_size": 3, "hidden_size": 6, "num_layers": 2} | settings)


def test_wrong_concatenated_input_is_named(rng):
    lstm = LSTM(3, 4, seed=0)
    x = np.zeros((5, 3), np.float32)
    for offsets, error, words in [
        ([0, 2], ValueError, "ascend from 0 to 5"),
        ([1, 5], ValueError, "ascend"),
        ([0, 4, 3, 5], ValueError, "ascend"),
        ([0.0, 5.0], TypeError, r"x\[1\]"),
        ([], (TypeError, ValueError), r"x\[1\]"),
    ]:
        with pytest.raises(error, match=words):
            lstm((x, offsets))
    with pytest.raises(ValueError, match=r"x\[0\]: expected shape"):
        lstm((x[:, :2], [0, 5]))
    with pytest.raises(ValueError, match="neither lengths nor mask"):
        lstm((x, [0, 5]), lengths=[5])
    with pytest.raises(ValueError, match="two"):
        lstm((x, [0, 5], 1))
