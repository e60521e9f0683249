"""The class `LSTM`: golden numbers, shapes, gradients, dropout, construction."""

import copy
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
from support.comparing import assert_identical
from support.differences import assert_gradient, weighted_sum
from support.layers import backward_layer, draw_layer, run_layer
from support.networks import (
    SETTINGS,
    assert_network_close,
    backward_network,
    draw_network,
    reference_network,
    run_network,
)

import lstm_fast
from lstm_fast import LSTM

GOLDEN = Path(__file__).parent / "golden" / "lstm_torch.npz"
CASES = ["plain", "no_bias", "projected", "one_step", "bidirectional"]
CASES += ["two_layers", "three_layers"]


# Values


@pytest.mark.parametrize("matmul", ["packed", "blas"])
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_the_golden_ones(case, matmul, dtype, isa):
    with np.load(GOLDEN) as archive:
        golden = {k.split("/")[1]: archive[k] for k in archive.files if k.startswith(f"{case}/")}
    lstm = LSTM(**json.loads(golden.pop("config").item()), dtype=dtype, matmul=matmul)
    lstm.load_state_dict({name: golden[name] for name in lstm.state_dict()})
    given = [golden.pop(name).astype(dtype) for name in ("x", "h0", "c0", "dy", "dhn", "dcn")]
    expected = {name: array for name, array in golden.items() if name not in lstm.state_dict()}
    actual = run_network(lstm, *given)
    assert_network_close(actual, expected, dtype)
    y, (hn, cn) = lstm(given[0], (given[1], given[2]))
    outputs = {"y": y, "hn": hn, "cn": cn}
    assert_identical(outputs, {name: actual[name] for name in outputs})


@pytest.mark.parametrize("settings", SETTINGS)
def test_layers_are_those_of_lstm_forward(settings, dtype, isa, rng):
    lstm = LSTM(5, 7, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, 4, 3)
    assert_identical(
        run_network(lstm, *given), reference_network(lstm, *given, dtype=dtype, layers=lstm_fast)
    )


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (3, 2, 1, 5), (4, 1, 5, 4), (3, 9, 2, 17)])
def test_layers_are_those_of_the_reference(size, settings, dtype, isa, rng):
    T, B, I, H = size
    if settings.get("proj_size", 0) >= H:
        settings = settings | {"proj_size": 0}
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, T, B)
    expected = reference_network(lstm, *given)
    assert_network_close(run_network(lstm, *given), expected, dtype)


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("T", "B"), [(0, 3), (4, 0), (0, 0)])
def test_without_steps_the_state_and_its_gradient_pass_through(T, B, settings, dtype, isa, rng):
    lstm = LSTM(3, 5, **settings, dtype=dtype, seed=0)
    x, h0, c0, dy, dhn, dcn = draw_network(rng, lstm, T, B)
    expected = {"y": np.zeros_like(dy), "hn": h0, "cn": c0, "dx": np.zeros_like(x)}
    expected |= {"dh0": dhn, "dc0": dcn}
    expected |= {f"d{k}": np.zeros_like(v) for k, v in lstm.state_dict().items()}
    assert_identical(run_network(lstm, x, h0, c0, dy, dhn, dcn), expected)
    assert_identical({"y": lstm(x, (h0, c0))[0]}, {"y": expected["y"]})


# States and shapes


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_sequence_needs_no_batch_axis(settings, dtype, rng):
    lstm = LSTM(3, 5, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, 4, 1)
    batched = run_network(lstm, *given)
    axis = 0 if lstm.batch_first else 1
    axes = dict.fromkeys(("y", "dx"), axis) | dict.fromkeys(("hn", "cn", "dh0", "dc0"), 1)
    expected = {k: v.squeeze(axes[k]) if k in axes else v for k, v in batched.items()}
    x, h0, c0, dy, dhn, dcn = given
    flat = [x.squeeze(axis), h0[:, 0], c0[:, 0], dy.squeeze(axis), dhn[:, 0], dcn[:, 0]]
    assert_identical(run_network(lstm, *flat), expected)
    assert_identical({"y": lstm(flat[0], (flat[1], flat[2]))[0]}, {"y": expected["y"]})
    for array, other in [(x, flat[3]), (flat[0], dy)]:
        with pytest.raises(ValueError, match=r"^dy: expected the shape of y"):
            lstm.backward(other, None, lstm.forward(array)[2])


@pytest.mark.parametrize("settings", SETTINGS)
def test_absent_is_zero(settings, dtype, isa, rng):
    lstm = LSTM(3, 5, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, 4, 2)
    for absent in [(1,), (2,), (1, 2), (3,), (4,), (5,), (3, 4, 5)]:
        none = [None if n in absent else array for n, array in enumerate(given)]
        zero = [np.zeros_like(array) if n in absent else array for n, array in enumerate(given)]
        assert_identical(run_network(lstm, *none), run_network(lstm, *zero))
    x, h0, c0, *_ = given
    zeros = np.zeros_like(h0), np.zeros_like(c0)
    for state, same in [(None, zeros), ((h0, None), (h0, zeros[1])), ((None, c0), (zeros[0], c0))]:
        np.testing.assert_array_equal(lstm(x, state)[0], lstm(x, same)[0])
    _, _, cache = lstm.forward(x)
    np.testing.assert_array_equal(lstm.backward(None, None, cache)[0], np.zeros_like(x))


# Backward


@pytest.mark.parametrize("matmul", ["auto", "packed", "blas"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_gradients_belong_to_what_forward_saw(settings, matmul, dtype, isa, rng):
    lstm = LSTM(3, 5, **settings, dtype=dtype, seed=0, matmul=matmul)
    x, h0, c0, *d_results = draw_network(rng, lstm, 4, 2)
    y, (hn, cn), cache = lstm.forward(x, (h0, c0))
    expected = backward_network(lstm, *d_results, cache)
    for array in (x, h0, c0, y, hn, cn):
        array.fill(np.nan)
    with lstm.writable() as p:
        for array in p.values():
            array.fill(np.nan)
    lstm.matmul = "packed" if matmul == "blas" else "blas"
    for _ in range(2):  # and the cache serves again, whatever becomes of its first results
        actual = backward_network(lstm, *d_results, cache)
        assert_identical(actual, expected)
        for array in actual.values():
            array.fill(np.nan)


@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_gradients_belong_to_what_lstm_forward_saw(matmul, dtype, isa, rng):
    args, d_results = draw_layer(rng, 4, 2, 3, 5, 2, dtype=dtype)
    expected = run_layer(lstm_fast, args, d_results, matmul=matmul)
    y, (hn, cn), cache = lstm_fast.lstm_forward(**args, matmul=matmul)
    for array in (*args.values(), y, hn, cn):
        array.fill(np.nan)
    for _ in range(2):
        actual = backward_layer(lstm_fast, d_results, cache)
        assert_identical(actual, {name: expected[name] for name in actual})
        for array in actual.values():
            array.fill(np.nan)


@pytest.mark.parametrize("settings", SETTINGS)
def test_arguments_are_unchanged_and_no_results_share_memory(settings, dtype, rng):
    lstm = LSTM(3, 5, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, 4, 2)
    before = copy.deepcopy(given)
    arrays = [*given, *run_network(lstm, *given).values(), *lstm.state_dict().values()]
    assert all(np.array_equal(a, b) for a, b in zip(given, before, strict=True))
    for k, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:k])


@pytest.mark.parametrize("settings", SETTINGS)
def test_matmul_modes_agree(settings, dtype, isa, rng):
    lstm = LSTM(9, 12, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, 6, 4)
    lstm.matmul = "packed"
    expected = run_network(lstm, *given)
    for matmul in ("auto", "blas"):
        lstm.matmul = matmul
        assert_network_close(run_network(lstm, *given), expected, dtype)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_gradients_are_central_differences(matmul, dropout, isa, rng):
    lstm = LSTM(2, 3, 2, True, False, dropout, True, 2, dtype=float, seed=0, matmul=matmul)
    x, h0, c0, *d_results = draw_network(rng, lstm, 3, 2)

    def loss():
        # A copy draws the same dropout masks as the next one.
        y, (hn, cn), _ = copy.deepcopy(lstm).forward(x, (h0, c0))
        return weighted_sum((y, hn, cn), d_results)

    gradients = run_network(copy.deepcopy(lstm), x, h0, c0, *d_results)
    with lstm.writable() as p:
        for name, array in {"x": x, "h0": h0, "c0": c0, **p}.items():
            assert_gradient(gradients[f"d{name}"], loss, array, tolerance=1e-8, where=name)


# Dropout


def test_dropout_is_for_training_only(dtype, rng):
    lstm = LSTM(3, 5, 2, dropout=0.5, dtype=dtype, seed=0)
    x, *_ = draw_network(rng, lstm, 4, 2)
    plain = LSTM(3, 5, 2, dtype=dtype)
    plain.load_state_dict(lstm.state_dict())
    np.testing.assert_array_equal(lstm(x)[0], plain(x)[0])
    assert not np.array_equal(lstm.forward(x)[0], plain(x)[0])
    lstm.dropout = 0
    np.testing.assert_array_equal(lstm.forward(x)[0], plain(x)[0])


def test_a_seed_reproduces_parameters_and_masks(dtype, rng):
    first = LSTM(3, 5, 2, dropout=0.5, dtype=dtype, seed=7)
    second = LSTM(3, 5, 2, dropout=0.5, dtype=dtype, seed=np.random.default_rng(7))
    assert_identical(first.state_dict(), second.state_dict())
    x, *_ = draw_network(rng, first, 4, 2)
    one, two = first.forward(x)[0], first.forward(x)[0]
    assert not np.array_equal(one, two)
    np.testing.assert_array_equal(second.forward(x)[0], one)
    np.testing.assert_array_equal(second.forward(x)[0], two)
    other = LSTM(3, 5, 2, dtype=dtype, seed=8).state_dict()
    assert not any(np.array_equal(other[k], v) for k, v in first.state_dict().items())


@pytest.mark.parametrize("dropout", [0.2, 0.5, 0.9])
def test_dropout_zeroes_a_fraction_and_scales_the_rest(dropout, rng):
    # The second layer shows its input: with f shut, i and o open, y = tanh(tanh(0.1 x)).
    H = 8
    lstm = LSTM(3, H, 2, dropout=dropout, dtype=float, seed=0)
    with lstm.writable() as p:
        for name in ("weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
            p[name].fill(0)
        p["weight_ih_l1"][2 * H : 3 * H] = np.eye(H) / 10
        p["bias_ih_l1"][:] = np.repeat([100, -1000, 0, 100], H)
    x, *_ = draw_network(rng, lstm, 50, 40)
    mask = np.arctanh(np.arctanh(lstm.forward(x)[0])) / np.arctanh(np.arctanh(lstm(x)[0]))
    kept = mask != 0
    np.testing.assert_allclose(mask[kept], 1 / (1 - dropout), rtol=1e-9)
    deviation = np.sqrt(dropout * (1 - dropout) / mask.size)
    assert abs(kept.mean() - (1 - dropout)) < 4 * deviation


def test_dropout_of_everything(dtype, isa, rng):
    lstm = LSTM(3, 5, 2, dropout=1, dtype=dtype, seed=0)
    x, h0, c0, dy, *_ = draw_network(rng, lstm, 4, 2)
    actual = run_network(lstm, x, h0, c0, dy, None, None)
    above = LSTM(5, 5, dtype=dtype)
    above.load_state_dict({k[:-1] + "0": v for k, v in lstm.state_dict().items() if k[-1] == "1"})
    y, _ = above(np.zeros((4, 2, 5), dtype), (h0[1:], c0[1:]))
    np.testing.assert_array_equal(actual["y"], y)
    assert not actual["dweight_ih_l1"].any()
    assert actual["dbias_ih_l1"].all()
    below = ("dx", *(k for k in actual if k.endswith("_l0")))
    assert not any(actual[k].any() for k in below)


# Construction


def test_constructor_is_pytorchs():
    parameters = inspect.signature(LSTM).parameters.values()
    assert {p.name: p.default for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD} == {
        "input_size": inspect.Parameter.empty,
        "hidden_size": inspect.Parameter.empty,
        "num_layers": 1,
        "bias": True,
        "batch_first": False,
        "dropout": 0.0,
        "bidirectional": False,
        "proj_size": 0,
    }
    assert LSTM(2, 3).dtype == np.float32
    assert LSTM(2, 3).matmul == "auto"


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_are_attributes_and_repr_states_them(settings, dtype):
    lstm = LSTM(3, 5, **settings, dtype=dtype, matmul="blas")
    assert all(getattr(lstm, name) == value for name, value in settings.items())
    again = eval(repr(lstm), {"LSTM": LSTM, "float32": np.float32, "float64": np.float64})
    names = [*inspect.signature(LSTM).parameters]
    names.remove("seed")
    assert [getattr(again, name) for name in names] == [getattr(lstm, name) for name in names]
    assert repr(again) == repr(lstm)


@pytest.mark.parametrize("settings", SETTINGS)
def test_initial_parameters_are_uniform(settings, dtype):
    for name, array in LSTM(40, 50, **settings, dtype=dtype, seed=0).state_dict().items():
        fraction = np.sort(array, axis=None) * np.sqrt(50) / 2 + 0.5
        assert 0 <= fraction[0] < fraction[-1] <= 1, name
        quantiles = (np.arange(array.size) + 0.5) / array.size
        # Kolmogorov and Smirnov: a right sampler exceeds this once in 1000 times.
        assert np.abs(fraction - quantiles).max() < 1.95 / np.sqrt(array.size), name
