"""`lstm_fast.reference` against PyTorch, central differences, golden numbers and the edges."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import central_difference

from lstm_fast import reference

Arrays = dict[str, Any]  # by name; None for an absent gradient

GOLDEN = Path(__file__).parent / "golden" / "lstm_torch.npz"
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


def draw(
    rng: np.random.Generator,
    T: int,
    B: int,
    I: int,
    H: int,
    P: int = 0,
    *,
    bias: bool = True,
    dtype: type = np.float64,
) -> tuple[Arrays, Arrays]:
    """Return random arguments of `lstm_forward` and gradients of its results, none of them zero."""
    R = P or H
    shapes = {"x": (T, B, I), "w_ih": (4 * H, I), "w_hh": (4 * H, R), "h0": (B, R), "c0": (B, H)}
    if bias:
        shapes |= {"b_ih": (4 * H,), "b_hh": (4 * H,)}
    if P:
        shapes |= {"w_hr": (P, H)}
    d_shapes = {"dy": (T, B, R), "dhn": (B, R), "dcn": (B, H)}
    args: Arrays = {name: rng.standard_normal(shape) for name, shape in shapes.items()}
    d_results: Arrays = {name: rng.standard_normal(shape) for name, shape in d_shapes.items()}
    for name in args.keys() & {"w_ih", "w_hh", "w_hr"}:
        args[name] /= 2  # larger ones make the recurrence chaotic, and rounding grows with T
    return (
        {name: array.astype(dtype) for name, array in args.items()},
        {name: array.astype(dtype) for name, array in d_results.items()},
    )


def run(args: Arrays, d_results: Arrays, *, reverse: bool = False) -> Arrays:
    """Return results and gradients of the reference by name; warnings are errors."""
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        y, (hn, cn), cache = reference.lstm_forward(**args, reverse=reverse)
        dx, (dh0, dc0), grads = reference.lstm_backward(**d_results, cache=cache)
    results = {"y": y, "hn": hn, "cn": cn, "dx": dx, "dh0": dh0, "dc0": dc0}
    return results | {f"d{name}": grad for name, grad in grads.items()}


def run_torch(args: Arrays, d_results: Arrays, *, reverse: bool) -> Arrays:
    """As `run`, in PyTorch.

    PyTorch runs backwards in time only as the second direction of a bidirectional layer. Both
    directions get the same parameters, and the gradients of the one not wanted are zero.
    """
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    D, d = 2, int(reverse)
    (_, _, I), H, R = args["x"].shape, args["c0"].shape[1], args["h0"].shape[1]
    lstm = torch.nn.LSTM(
        I,
        H,
        bias="b_ih" in args,
        bidirectional=True,
        proj_size=R if "w_hr" in args else 0,
        dtype=torch.float64,
    )
    names = {name: TORCH_NAMES[name] for name in TORCH_NAMES if name in args}
    lstm.load_state_dict(
        {
            torch_name + suffix: torch.from_numpy(args[name])
            for name, torch_name in names.items()
            for suffix in ("", "_reverse")
        }
    )
    x, h0, c0 = (torch.tensor(args[name], requires_grad=True) for name in ("x", "h0", "c0"))
    y, (hn, cn) = lstm(x, (h0.expand(D, -1, -1), c0.expand(D, -1, -1)))
    results = {"y": y[:, :, d * R : (d + 1) * R], "hn": hn[d], "cn": cn[d]}
    torch.autograd.backward(
        tuple(results.values()), tuple(torch.from_numpy(d_results[f"d{name}"]) for name in results)
    )
    parameters = dict(lstm.named_parameters())
    suffix = "_reverse" if reverse else ""
    tensors = results | {"dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    tensors |= {f"d{name}": parameters[names[name] + suffix].grad for name in names}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


def assert_close(actual: Arrays, expected: Arrays, tolerance: float = 1e-12) -> None:
    """Compare arrays by name: |actual - expected| <= tolerance * (1 + |expected|)."""
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(
            actual[name], expected[name], rtol=tolerance, atol=tolerance, err_msg=name
        )


def assert_identical(actual: Arrays, expected: Arrays) -> None:
    """Compare arrays by name: same dtype, same values."""
    assert actual.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name, strict=True)


# Against other sources of truth


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
def test_results_and_gradients_are_pytorchs(
    bias: bool, projected: bool, reverse: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    T, B, H = (int(n) for n in rng.integers((3, 2, 3), (9, 6, 12)))
    I = H + int(rng.choice((-2, -1, 1, 2, 5)))
    P = int(rng.integers(1, H)) if projected else 0  # PyTorch wants P < H
    args, d_results = draw(rng, T, B, I, H, P, bias=bias)
    expected = run_torch(args, d_results, reverse=reverse)
    assert_close(run(args, d_results, reverse=reverse), expected)


@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
def test_gradients_are_central_differences(bias: bool, projected: bool, reverse: bool) -> None:
    rng = np.random.default_rng(0)
    args, d_results = draw(rng, 3, 2, 4, 3, 2 if projected else 0, bias=bias)
    gradients = run(args, d_results, reverse=reverse)

    def loss() -> float:
        y, (hn, cn), _ = reference.lstm_forward(**args, reverse=reverse)
        products = y * d_results["dy"], hn * d_results["dhn"], cn * d_results["dcn"]
        return float(sum(product.sum() for product in products))

    for name, arg in args.items():
        difference = central_difference(loss, arg, 1e-5)
        error = np.abs(gradients[f"d{name}"] - difference).max() / np.abs(difference).max()
        assert error <= 1e-6, name


def one_layer_golden_cases() -> dict[str, Arrays]:
    """Return the golden cases that have one layer, by name."""
    cases: dict[str, Arrays] = {}
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
def test_results_and_gradients_are_the_golden_ones(case: str) -> None:
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
        d_results = {"dy": golden["dy"][:, :, columns]}
        d_results |= {name: golden[name][d] for name in ("dhn", "dcn")}
        expected = {"y": golden["y"][:, :, columns]}
        expected |= {name: golden[name][d] for name in ("hn", "cn", "dh0", "dc0")}
        expected |= {f"d{name}": golden[f"d{key}"] for name, key in names.items()}
        actual = run(args, d_results, reverse=bool(d))
        dx += actual.pop("dx")
        assert_close(actual, expected)
    assert_close({"dx": dx}, {"dx": golden["dx"]})


@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
def test_float32_is_close_to_float64(bias: bool, projected: bool, reverse: bool) -> None:
    rng = np.random.default_rng(0)
    args, d_results = draw(rng, 7, 3, 5, 6, 4 if projected else 0, bias=bias, dtype=np.float32)
    actual = run(args, d_results, reverse=reverse)
    assert {array.dtype for array in actual.values()} == {np.dtype(np.float32)}
    args64 = {name: array.astype(np.float64) for name, array in args.items()}
    d_results64 = {name: array.astype(np.float64) for name, array in d_results.items()}
    assert_close(actual, run(args64, d_results64, reverse=reverse), tolerance=1e-5)


# What the arguments mean


def test_absent_arguments_are_zero() -> None:
    args, d_results = draw(np.random.default_rng(0), 4, 3, 5, 6)
    optional = ("b_ih", "b_hh", "h0", "c0")
    zeroed = args | {name: np.zeros_like(args[name]) for name in optional}
    zeroed_d_results = {name: np.zeros_like(array) for name, array in d_results.items()}
    for absent in optional:
        present = {name: array for name, array in args.items() if name != absent}
        expected = run(args | {absent: zeroed[absent]}, d_results)
        if absent.startswith("b_"):
            del expected[f"d{absent}"]
        assert_identical(run(present, d_results), expected)
    for absent in d_results:
        expected = run(args, d_results | {absent: zeroed_d_results[absent]})
        assert_identical(run(args, d_results | {absent: None}), expected)


@pytest.mark.parametrize("projected", [False, True])
def test_reverse_is_the_sequence_read_backwards(projected: bool) -> None:
    args, d_results = draw(np.random.default_rng(0), 5, 3, 4, 6, 2 if projected else 0)
    flipped = run(args | {"x": args["x"][::-1]}, d_results | {"dy": d_results["dy"][::-1]})
    expected = flipped | {"y": flipped["y"][::-1], "dx": flipped["dx"][::-1]}
    assert_close(run(args, d_results, reverse=True), expected)


@pytest.mark.parametrize("cut", range(6))
def test_a_sequence_may_be_cut_into_calls(cut: int) -> None:
    args, d_results = draw(np.random.default_rng(0), 5, 3, 4, 6)
    x, dy = args.pop("x"), d_results.pop("dy")
    h0, c0 = args.pop("h0"), args.pop("c0")
    y1, (h1, c1), cache1 = reference.lstm_forward(x[:cut], h0=h0, c0=c0, **args)
    y2, (hn, cn), cache2 = reference.lstm_forward(x[cut:], h0=h1, c0=c1, **args)
    dx2, (dh1, dc1), grads2 = reference.lstm_backward(dy[cut:], **d_results, cache=cache2)
    dx1, (dh0, dc0), grads1 = reference.lstm_backward(dy[:cut], dh1, dc1, cache1)
    actual = {"y": np.concatenate((y1, y2)), "hn": hn, "cn": cn}
    actual |= {"dx": np.concatenate((dx1, dx2)), "dh0": dh0, "dc0": dc0}
    actual |= {f"d{name}": grads1[name] + grads2[name] for name in grads1}
    assert_close(actual, run(args | {"x": x, "h0": h0, "c0": c0}, d_results | {"dy": dy}))


# Edges


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("bias", "projected", "reverse"), VARIANTS)
@pytest.mark.parametrize(("T", "B", "I", "H"), [(0, 3, 4, 5), (4, 0, 3, 5), (0, 0, 3, 5)])
def test_an_empty_sequence_or_batch_keeps_the_state(
    T: int, B: int, I: int, H: int, bias: bool, projected: bool, reverse: bool, dtype: type
) -> None:
    args, d_results = draw(
        np.random.default_rng(0), T, B, I, H, 2 if projected else 0, bias=bias, dtype=dtype
    )
    expected = {f"d{name}": np.zeros_like(array) for name, array in args.items()}
    expected |= {"y": np.zeros_like(d_results["dy"]), "hn": args["h0"], "cn": args["c0"]}
    expected |= {"dh0": d_results["dhn"], "dc0": d_results["dcn"]}
    assert_identical(run(args, d_results, reverse=reverse), expected)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("T", "B", "I"), [(1, 1, 1), (1, 3, 2), (4, 1, 3)])
def test_one_unit(T: int, B: int, I: int, reverse: bool) -> None:
    args, d_results = draw(np.random.default_rng(0), T, B, I, 1)
    assert_close(run(args, d_results, reverse=reverse), run_torch(args, d_results, reverse=reverse))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_saturated_gates_are_exactly_open_or_shut(dtype: type) -> None:
    T, B, H = 3, 2, 4
    args, d_results = draw(np.random.default_rng(0), T, B, 1, H, dtype=dtype)
    args["x"] = np.full((T, B, 1), 1e4, dtype)
    args["w_hh"] = np.zeros_like(args["w_hh"])
    # Unit by unit: write +1, write -1, keep, keep without showing.
    signs = {"i": (1, 1, -1, -1), "f": (-1, -1, 1, 1), "g": (1, -1, 1, -1), "o": (1, 1, 1, -1)}
    args["w_ih"] = np.array(list(signs.values()), dtype).reshape(4 * H, 1)

    actual = run(args, d_results)

    c0 = args["c0"]
    cn = np.stack([np.ones(B, dtype), -np.ones(B, dtype), c0[:, 2], c0[:, 3]], axis=1)
    hn = np.tanh(cn) * np.array([1, 1, 1, 0], dtype)
    expected = {"y": np.stack([hn] * T), "hn": hn, "cn": cn}
    assert_identical({name: actual[name] for name in expected}, expected)
    assert all(np.isfinite(array).all() for array in actual.values())
    assert not actual["dx"].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reverse", [False, True])
def test_huge_inputs_stay_finite(reverse: bool, dtype: type) -> None:
    args, d_results = draw(np.random.default_rng(0), 6, 4, 3, 5, 2, dtype=dtype)
    args["x"] = np.where(args["x"] > 0, 1e4, -1e4).astype(dtype)
    actual = run(args, d_results, reverse=reverse)
    assert all(np.isfinite(array).all() for array in actual.values())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("reverse", [False, True])
def test_nan_stays_in_its_row(reverse: bool, dtype: type) -> None:
    T, B, t, b = 5, 4, 2, 1
    args, d_results = draw(np.random.default_rng(0), T, B, 3, 6, 2, dtype=dtype)
    expected = run(args, d_results, reverse=reverse)
    args["x"][t, b, 0] = np.nan
    actual = run(args, d_results, reverse=reverse)

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
def test_backward_ignores_later_writes_to_arguments_and_results(reverse: bool) -> None:
    args, d_results = draw(np.random.default_rng(0), 4, 3, 5, 6, 2)
    expected = run(args, d_results, reverse=reverse)
    y, (hn, cn), cache = reference.lstm_forward(**args, reverse=reverse)
    for array in (*args.values(), y, hn, cn):
        array.fill(np.nan)
    for _ in range(2):  # and the cache serves twice, whatever becomes of its first results
        dx, (dh0, dc0), grads = reference.lstm_backward(**d_results, cache=cache)
        actual = {"dx": dx, "dh0": dh0, "dc0": dc0}
        actual |= {f"d{name}": grad for name, grad in grads.items()}
        assert_identical(actual, {name: expected[name] for name in actual})
        for array in actual.values():
            array.fill(np.nan)


@pytest.mark.parametrize("T", [0, 1, 4])
@pytest.mark.parametrize("reverse", [False, True])
def test_arguments_are_unchanged_and_no_two_arrays_share_memory(reverse: bool, T: int) -> None:
    args, d_results = draw(np.random.default_rng(0), T, 3, 5, 6, 2)
    given = args | d_results
    before = {name: array.copy() for name, array in given.items()}
    results = run(args, d_results, reverse=reverse)
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
def test_a_wrong_shape_is_named_and_not_broadcast(
    name: str, shape: tuple[int, ...], named: str
) -> None:
    args, d_results = draw(np.random.default_rng(0), 4, 3, 5, 6, 2)
    (d_results if name in d_results else args)[name] = np.ones(shape)
    with pytest.raises(ValueError, match=rf"^{named} must have shape .* got \("):
        run(args, d_results)


@pytest.mark.parametrize(
    "name",
    ["x", "w_ih", "w_hh", "b_ih", "b_hh", "h0", "c0", "w_hr", "dy", "dhn", "dcn"],
)
def test_a_wrong_dtype_is_named_and_not_converted(name: str) -> None:
    args, d_results = draw(np.random.default_rng(0), 4, 3, 5, 6, 2)
    target = d_results if name in d_results else args
    target[name] = target[name].astype(np.int64 if name == "x" else np.float32)
    with pytest.raises(TypeError, match=f"^{name} must be .*float64.* got"):
        run(args, d_results)
