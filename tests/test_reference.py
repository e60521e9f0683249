"""`lstm_fast.reference` against central differences, golden numbers and the edges."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.comparing import assert_close, assert_identical, in_dtype
from support.differences import assert_gradient, weighted_sum
from support.layers import backward_layer, draw_layer, run_layer

from lstm_fast import reference

pytestmark = pytest.mark.no_isa

GOLDEN = Path(__file__).parent / "golden" / "lstm_torch.npz"
FLOAT64 = np.dtype(float)
D_RESULTS = ["dy", "dhn", "dcn"]
TOLERANCE = 1e-13  # relative to the largest element of an array, or to 1
TORCH_NAMES = {
    "w_ih": "weight_ih_l0",
    "w_hh": "weight_hh_l0",
    "b_ih": "bias_ih_l0",
    "b_hh": "bias_hh_l0",
    "w_hr": "weight_hr_l0",
}
VARIANTS = [
    pytest.param(bias, projected, reverse, id=f"{bias=}-{projected=}-{reverse=}")
    for bias in (True, False)
    for projected in (False, True)
    for reverse in (False, True)
]


@pytest.fixture(autouse=True)
def warnings_of_numpy_are_errors():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield


# Against other sources of truth


@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
def test_gradients_are_central_differences(rng, bias, projected, reverse):
    sizes = 3, 2, 4, 3, 2 if projected else 0
    args, d_results = draw_layer(rng, *sizes, dtype=FLOAT64, bias=bias)
    gradients = run_layer(reference, args, d_results, reverse=reverse)

    def loss():
        y, state, _ = reference.lstm_forward(**args, reverse=reverse)
        return weighted_sum((y, *state), d_results)

    for name, array in args.items():
        assert_gradient(gradients[f"d{name}"], loss, array, tolerance=3e-8, where=name)


def one_layer_golden_cases():
    """Return the golden cases that have one layer, by name."""
    cases = {}
    with np.load(GOLDEN) as archive:
        for key in archive.files:
            case, _, name = key.partition("/")
            cases.setdefault(case, {})[name] = archive[key]
    del cases["meta"]
    return {
        case: arrays
        for case, arrays in cases.items()
        if json.loads(arrays["config"].item()).get("num_layers", 1) == 1
    }


@pytest.mark.parametrize("case", ["plain", "no_bias", "projected", "one_step", "bidirectional"])
def test_results_and_gradients_are_the_golden_ones(case):
    golden = one_layer_golden_cases()[case]
    directions = len(golden["h0"])
    R = golden["h0"].shape[2]
    dx = np.zeros_like(golden["x"])
    for d in range(directions):
        suffix = "_reverse" if d else ""
        names = {
            name: torch_name + suffix
            for name, torch_name in TORCH_NAMES.items()
            if torch_name in golden
        }
        columns = slice(d * R, (d + 1) * R)
        args = {"x": golden["x"], "h0": golden["h0"][d], "c0": golden["c0"][d]}
        args |= {name: golden[key] for name, key in names.items()}
        d_results = golden["dy"][:, :, columns], golden["dhn"][d], golden["dcn"][d]
        expected = {"y": golden["y"][:, :, columns]}
        expected |= {name: golden[name][d] for name in ("hn", "cn", "dh0", "dc0")}
        expected |= {f"d{name}": golden[f"d{key}"] for name, key in names.items()}
        actual = run_layer(reference, args, d_results, reverse=bool(d))
        dx += actual.pop("dx")
        assert_close(actual, expected, TOLERANCE, floor=1)
    assert_close({"dx": dx}, {"dx": golden["dx"]}, TOLERANCE, floor=1)


@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
def test_float32_is_close_to_float64(rng, bias, projected, reverse):
    sizes, float32 = (7, 3, 5, 6, 4 if projected else 0), np.dtype(np.float32)
    args, d_results = draw_layer(rng, *sizes, bias=bias, dtype=float32)
    actual = run_layer(reference, args, d_results, reverse=reverse)
    wide = in_dtype(args, float), in_dtype(d_results, float)
    expected = run_layer(reference, *wide, reverse=reverse)
    assert_close(actual, expected, 3e-6, floor=1, dtype=float32)


# What the arguments mean


def test_absent_arguments_are_zero(rng):
    args, d_results = draw_layer(rng, 4, 3, 5, 6, dtype=FLOAT64)
    for absent in ("b_ih", "b_hh", "h0", "c0"):
        present = {name: array for name, array in args.items() if name != absent}
        zeroed = args | {absent: np.zeros_like(args[absent])}
        expected = run_layer(reference, zeroed, d_results)
        if absent.startswith("b_"):
            del expected[f"d{absent}"]
        assert_identical(run_layer(reference, present, d_results), expected)
    for n, d in enumerate(d_results):
        absent, zeroed = ([*d_results[:n], value, *d_results[n + 1 :]] for value in (None, 0 * d))
        expected = run_layer(reference, args, zeroed)
        assert_identical(run_layer(reference, args, absent), expected)


@pytest.mark.parametrize("P", [0, 2])
def test_reverse_is_the_sequence_read_backwards(rng, P):
    args, (dy, dhn, dcn) = draw_layer(rng, 5, 3, 4, 6, P, dtype=FLOAT64)
    flipped = run_layer(reference, args | {"x": args["x"][::-1]}, (dy[::-1], dhn, dcn))
    expected = flipped | {"y": flipped["y"][::-1], "dx": flipped["dx"][::-1]}
    actual = run_layer(reference, args, (dy, dhn, dcn), reverse=True)
    assert_close(actual, expected, TOLERANCE, floor=1)


@pytest.mark.parametrize("cut", range(6))
def test_a_sequence_may_be_cut_into_calls(rng, cut):
    args, (dy, dhn, dcn) = draw_layer(rng, 5, 3, 4, 6, dtype=FLOAT64)
    expected = run_layer(reference, args, (dy, dhn, dcn))
    x, h0, c0 = (args.pop(name) for name in ("x", "h0", "c0"))
    y1, (h1, c1), cache1 = reference.lstm_forward(x[:cut], h0=h0, c0=c0, **args)
    y2, (hn, cn), cache2 = reference.lstm_forward(x[cut:], h0=h1, c0=c1, **args)
    dx2, (dh1, dc1), grads2 = reference.lstm_backward(dy[cut:], dhn, dcn, cache2)
    dx1, (dh0, dc0), grads1 = reference.lstm_backward(dy[:cut], dh1, dc1, cache1)
    actual = {"y": np.concatenate((y1, y2)), "hn": hn, "cn": cn}
    actual |= {"dx": np.concatenate((dx1, dx2)), "dh0": dh0, "dc0": dc0}
    actual |= {f"d{name}": grads1[name] + grads2[name] for name in grads1}
    assert_close(actual, expected, TOLERANCE, floor=1)


# Edges


@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
@pytest.mark.parametrize(("T", "B", "I", "H"), [(0, 3, 4, 5), (4, 0, 3, 5), (0, 0, 3, 5)])
def test_an_empty_sequence_or_batch_keeps_the_state(
    rng, dtype, T, B, I, H, bias, projected, reverse
):
    args, d_results = draw_layer(rng, T, B, I, H, 2 if projected else 0, bias=bias, dtype=dtype)
    expected = {f"d{name}": np.zeros_like(array) for name, array in args.items()}
    expected |= {"y": np.zeros_like(d_results[0]), "hn": args["h0"], "cn": args["c0"]}
    expected |= {"dh0": d_results[1], "dc0": d_results[2]}
    assert_identical(run_layer(reference, args, d_results, reverse=reverse), expected)


def test_saturated_gates_are_exactly_open_or_shut(rng, dtype):
    T, B, H = 3, 2, 4
    args, d_results = draw_layer(rng, T, B, 1, H, dtype=dtype)
    args["x"] = np.full((T, B, 1), 1e4, dtype)
    args["w_hh"] = np.zeros_like(args["w_hh"])
    # Unit by unit: write +1, write -1, keep, keep without showing.
    signs = {"i": (1, 1, -1, -1), "f": (-1, -1, 1, 1), "g": (1, -1, 1, -1), "o": (1, 1, 1, -1)}
    args["w_ih"] = np.array(list(signs.values()), dtype).reshape(4 * H, 1)

    actual = run_layer(reference, args, d_results)

    c0 = args["c0"]
    cn = np.stack([np.ones(B, dtype), -np.ones(B, dtype), c0[:, 2], c0[:, 3]], axis=1)
    hn = np.tanh(cn) * np.array([1, 1, 1, 0], dtype)
    expected = {"y": np.stack([hn] * T), "hn": hn, "cn": cn}
    assert_identical({name: actual[name] for name in expected}, expected)
    assert all(np.isfinite(array).all() for array in actual.values())
    assert not actual["dx"].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_huge_inputs_stay_finite(rng, dtype, reverse):
    args, d_results = draw_layer(rng, 6, 4, 3, 5, 2, dtype=dtype)
    args["x"] = np.where(args["x"] > 0, 1e4, -1e4).astype(dtype)
    actual = run_layer(reference, args, d_results, reverse=reverse)
    assert all(np.isfinite(array).all() for array in actual.values())


@pytest.mark.parametrize("reverse", [False, True])
def test_nan_stays_in_its_row(rng, dtype, reverse):
    T, B, t, b = 5, 4, 2, 1
    args, d_results = draw_layer(rng, T, B, 3, 6, 2, dtype=dtype)
    expected = run_layer(reference, args, d_results, reverse=reverse)
    args["x"][t, b, 0] = np.nan
    actual = run_layer(reference, args, d_results, reverse=reverse)

    others = np.arange(B) != b
    for name in ("hn", "cn", "dh0", "dc0"):
        np.testing.assert_array_equal(actual[name][others], expected[name][others])
        assert np.isnan(actual[name][b]).all()
    for name in ("y", "dx"):
        np.testing.assert_array_equal(actual[name][:, others], expected[name][:, others])
    before = np.arange(T) > t if reverse else np.arange(T) < t
    np.testing.assert_array_equal(actual["y"][before, b], expected["y"][before, b])
    assert np.isnan(actual["y"][~before, b]).all()


# Memory


@pytest.mark.parametrize("reverse", [False, True])
def test_backward_ignores_later_writes_to_arguments_and_results(rng, reverse):
    args, d_results = draw_layer(rng, 4, 3, 5, 6, 2, dtype=FLOAT64)
    expected = run_layer(reference, args, d_results, reverse=reverse)
    y, (hn, cn), cache = reference.lstm_forward(**args, reverse=reverse)
    for array in (*args.values(), y, hn, cn):
        array.fill(np.nan)
    for _ in range(2):  # and the cache serves twice, whatever becomes of its first results
        actual = backward_layer(reference, d_results, cache)
        assert_identical(actual, {name: expected[name] for name in actual})
        for array in actual.values():
            array.fill(np.nan)


@pytest.mark.parametrize("T", [0, 1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_arguments_are_unchanged_and_no_two_arrays_share_memory(rng, reverse, T):
    args, d_results = draw_layer(rng, T, 3, 5, 6, 2, dtype=FLOAT64)
    given = args | dict(zip(D_RESULTS, d_results, strict=True))
    before = {name: array.copy() for name, array in given.items()}
    results = run_layer(reference, args, d_results, reverse=reverse)
    assert_identical(given, before)
    arrays = [*given.values(), *results.values()]
    for k, array in enumerate(arrays):
        assert not any(np.shares_memory(array, other) for other in arrays[:k])
    assert all(array.flags.c_contiguous and array.flags.owndata for array in results.values())


# Errors


@pytest.mark.parametrize(
    ("name", "shape", "named"),
    [
        ("x", (4, 5), "x"),
        ("x", (4, 1, 5), "h0"),  # B is that of x
        ("x", (4, 3, 1), "w_ih"),  # and so is I
        ("w_ih", (24, 1), "w_ih"),
        ("w_ih", (1, 5), "w_ih"),
        ("w_hh", (24, 6), "w_hh"),
        ("w_hh", (24, 1), "w_hh"),
        ("b_ih", (1,), "b_ih"),
        ("b_ih", (1, 24), "b_ih"),
        ("b_hh", (6,), "b_hh"),
        ("h0", (1, 2), "h0"),
        ("h0", (3, 6), "h0"),
        ("h0", (1, 3, 2), "h0"),
        ("c0", (1, 6), "c0"),
        ("c0", (3, 2), "c0"),
        ("w_hr", (2, 1), "w_hr"),
        ("w_hr", (6, 2), "w_hh"),  # P is that of w_hr
        ("dy", (1, 3, 2), "dy"),
        ("dy", (4, 3, 6), "dy"),
        ("dhn", (1, 2), "dhn"),
        ("dcn", (1, 6), "dcn"),
        ("dcn", (3, 2), "dcn"),
    ],
)
def test_a_wrong_shape_is_named_and_not_broadcast(rng, name, shape, named):
    args, d_results = draw_layer(rng, 4, 3, 5, 6, 2, dtype=FLOAT64)
    given = args | dict(zip(D_RESULTS, d_results, strict=True)) | {name: np.ones(shape)}
    with pytest.raises(ValueError, match=rf"^{named} must have shape .* got \("):
        run_layer(reference, given, [given.pop(d) for d in D_RESULTS])


@pytest.mark.parametrize(
    "name", ["x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0", "w_hr", "dy", "dhn", "dcn"]
)
def test_a_wrong_dtype_is_named_and_not_converted(rng, name):
    args, d_results = draw_layer(rng, 4, 3, 5, 6, 2, dtype=FLOAT64)
    given = args | dict(zip(D_RESULTS, d_results, strict=True))
    given[name] = given[name].astype(np.int64 if name == "x" else np.float32)
    with pytest.raises(TypeError, match=f"^{name} must be .*float64.* got"):
        run_layer(reference, given, [given.pop(d) for d in D_RESULTS])
