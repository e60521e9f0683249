"""What blocks compute row by row: against NumPy and PyTorch in float64, special values, threads."""

from functools import partial

import numpy as np
import pytest
from support import comparisons
from support.autograd import FUNCTIONS
from support.comparing import assert_close, assert_identical
from support.internals import engine_rows
from support.layouts import byte_swapped, read_only
from support.onnx_nodes import CONSTANTS

import lstm_fast

COLUMNS = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 257, 1100]
ROWS = [0, 1, 2, 5]
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}  # relative to the largest element of an array
EPS = 1e-5


@pytest.fixture
def torch():
    comparisons.require("PyTorch", "torch")
    import torch

    return torch


def draw(rng, *shape, dtype=float):
    return rng.standard_normal(shape).astype(dtype)


def draw_targets(rng, rows, columns):
    return rng.integers(0, columns, rows)


# ---- in NumPy, in the dtype of the arguments: in float64 what is exact, in float32 what is naive


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def softmax_backward(dy, y):
    return y * (dy - (dy * y).sum(1, keepdims=True))


def cross_entropy(x, target, smoothing):
    d = x - x.max(1, keepdims=True)
    log_p = d - np.log(np.exp(d).sum(1, keepdims=True))
    q = np.full_like(x, smoothing / x.shape[1])
    q[np.arange(len(x)), target] += 1 - smoothing
    return -(q * log_p).sum(1), np.exp(log_p) - q


def layer_norm(x, weight, bias, eps):
    d = x - x.mean(1, keepdims=True)
    scale = 1 / np.sqrt((d * d).mean(1, keepdims=True) + x.dtype.type(eps))
    return d * scale * weight + (0 if bias is None else bias), d * scale, scale[:, 0]


def layer_norm_backward(dy, normal, scale, weight):
    d = dy * weight
    slope = (d * normal).mean(1, keepdims=True)
    dx = scale[:, None] * (d - d.mean(1, keepdims=True) - normal * slope)
    return dx, (dy * normal).sum(0), dy.sum(0)


def wide(arrays):
    return [np.asarray(a, float) for a in arrays]


# ---- sizes


@pytest.mark.parametrize("columns", COLUMNS)
def test_softmax(isa, dtype, rng, columns):
    for rows in ROWS:
        x, dy = draw(rng, 2, rows, columns, dtype=dtype)
        x *= 5
        y = engine_rows.softmax(x)
        np.testing.assert_allclose(y, softmax(x.astype(float)), 80 * np.finfo(dtype).eps)
        assert y.dtype == dtype
        dx = engine_rows.softmax_backward(dy, y)
        expected = softmax_backward(*wide([dy, y]))
        assert_close([dx], [expected], TOLERANCE[dtype.name], floor=1, dtype=dtype)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("smoothing", [0, 0.1, 1])
def test_cross_entropy(isa, dtype, rng, columns, smoothing):
    for rows in ROWS:
        x, target = 3 * draw(rng, rows, columns, dtype=dtype), draw_targets(rng, rows, columns)
        actual = engine_rows.cross_entropy(x, target, smoothing)
        expected = cross_entropy(x.astype(float), target, smoothing)
        assert_close(actual, expected, TOLERANCE[dtype.name], floor=1, dtype=dtype)


@pytest.mark.parametrize("columns", COLUMNS)
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.3])
def test_layer_norm(isa, dtype, rng, columns, biased, eps):
    for rows in [*ROWS, 100]:
        x, dy = draw(rng, 2, rows, columns, dtype=dtype)
        weight, bias = draw(rng, 2, columns, dtype=dtype)
        bias = bias if biased else None
        y, normal, scale = engine_rows.layer_norm(x, weight, bias, eps)
        expected = layer_norm(*wide([x, weight]), bias, eps)
        # Of two almost equal elements, the difference has few bits.
        tolerance = TOLERANCE[dtype.name] * (100 if columns == 2 else 1)
        assert_close([y, normal, scale], expected, tolerance, floor=1, dtype=dtype)
        actual = engine_rows.layer_norm_backward(dy, normal, scale, weight)
        expected = layer_norm_backward(*wide([dy, normal, scale, weight]))
        assert_close(actual, expected, 5 * TOLERANCE[dtype.name], floor=1, dtype=dtype)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_activation_functions(isa, dtype, rng, torch, function):
    given = (0.6, 0.3)[: len(CONSTANTS.get(function, ()))]
    constants = (*given, 0, 0)[:2]
    for rows, columns in [(0, 3), (1, 1), (3, 5), (5, 0), (7, 33), (20, 100)]:
        x, dy = 3 * draw(rng, 2, rows, columns, dtype=dtype)
        tensor = torch.tensor(x.astype(float), requires_grad=True)
        y = FUNCTIONS[function](torch, tensor, *given)
        (dx,) = torch.autograd.grad(y, tensor, torch.tensor(dy.astype(float)))
        actual = [
            engine_rows.activate(function, *constants, x),
            engine_rows.activate_backward(function, *constants, x, dy),
        ]
        expected = [y.detach().numpy(), dx.numpy()]
        assert_close(actual, expected, TOLERANCE[dtype.name], floor=1, dtype=dtype)


@pytest.mark.parametrize("columns", COLUMNS)
def test_rows_of_a_table(isa, dtype, rng, columns):
    table = draw(rng, 11, columns, dtype=dtype)
    for count in (0, 1, 5, 40):
        indices = rng.integers(0, 11, count)
        assert_identical([engine_rows.take_rows(table, indices)], [table[indices]])
        dy, actual = draw(rng, count, columns, dtype=dtype), table.copy()
        expected = table.copy()
        for n, index in enumerate(indices):  # in this order, to the bit
            expected[index] += dy[n]
        engine_rows.add_rows_at(actual, indices, dy)
        assert_identical([actual], [expected])


def test_nothing_of_nothing(dtype):
    empty, none = np.zeros((3, 0), dtype), np.zeros(0, dtype)
    zeros = np.zeros(3, np.intp)
    assert engine_rows.softmax(empty).shape == (3, 0)
    assert engine_rows.softmax_backward(empty, empty).shape == (3, 0)
    y, normal, scale = engine_rows.layer_norm(empty, none, none, EPS)
    assert y.shape == normal.shape == (3, 0)
    assert [a.size for a in engine_rows.layer_norm_backward(y, normal, scale, none)] == [0, 0, 0]
    assert engine_rows.take_rows(empty, zeros).shape == (3, 0)
    engine_rows.add_rows_at(empty, zeros, empty)
    with pytest.raises(IndexError, match="target"):
        engine_rows.cross_entropy(empty, zeros, 0)


# ---- errors


def test_float32_errs_no_more_than_naive_numpy(isa, rng):
    for columns in (10, 257, 2000):
        x, dy = 2 * draw(rng, 2, 200, columns, dtype=np.float32)
        weight, bias = draw(rng, 2, columns, dtype=np.float32)
        target = draw_targets(rng, 200, columns)
        y = engine_rows.softmax(x)
        normed = engine_rows.layer_norm(x, weight, bias, EPS)
        kept = (dy, *normed[1:], weight)
        cases = [
            ([y], softmax, [x]),
            ([engine_rows.softmax_backward(dy, y)], softmax_backward, [dy, y]),
            (normed, partial(layer_norm, eps=EPS), [x, weight, bias]),
            (engine_rows.layer_norm_backward(*kept), layer_norm_backward, kept),
        ]
        for smoothing in (0, 0.2):
            entropy = partial(cross_entropy, target=target, smoothing=smoothing)
            cases.append((engine_rows.cross_entropy(x, target, smoothing), entropy, [x]))
        for actual, function, args in cases:
            exact, naive = function(*wide(args)), function(*args)
            if not isinstance(exact, tuple):
                exact, naive = (exact,), (naive,)
            for ours, theirs, right in zip(actual, naive, exact, strict=True):
                assert np.square(ours - right).mean() <= 4 * np.square(theirs - right).mean()


# ---- values


INF, NAN = np.inf, np.nan
SPECIAL = [
    [0, 0, 0],
    [-1000, -1001, -1002],
    [80, 90, -90],
    [0, -100, -103],
    [1e30, 1e30, -1e30],
    [3e38, -3e38, 0],
    [-INF, 0, 1],
    [-INF, -INF, 2],
    [-INF, -INF, -INF],
    [INF, 0, 0],
    [INF, INF, 0],
    [NAN, 0, 5],
    [0, 5, NAN],
]


@pytest.mark.parametrize("columns", [3, 19, 40])
def test_special_values_are_those_of_pytorch(isa, dtype, torch, columns):
    x = np.full((len(SPECIAL), columns), -INF, dtype)
    x[:, columns - 3 :] = SPECIAL
    tensor = torch.tensor(x, requires_grad=True)
    tolerance = {"rtol": 20 * np.finfo(dtype).eps, "atol": 2 * np.finfo(dtype).smallest_subnormal}
    expected = torch.softmax(tensor, 1).detach().numpy()
    np.testing.assert_allclose(engine_rows.softmax(x), expected, **tolerance)
    for target in (columns - 3, columns - 1):
        for smoothing in (0, 0.25):
            targets = torch.full((len(x),), target)
            losses = torch.nn.functional.cross_entropy(
                tensor, targets, reduction="none", label_smoothing=smoothing
            )
            actual, dx = engine_rows.cross_entropy(x, targets.numpy(), smoothing)
            np.testing.assert_allclose(actual, losses.detach().numpy(), tolerance["rtol"])
            q = np.full(columns, smoothing / columns)
            q[target] += 1 - smoothing
            np.testing.assert_allclose(dx, expected - q, atol=4 * np.finfo(dtype).eps)


def test_subnormal_probabilities_are_kept(isa):
    y = engine_rows.softmax(np.array([[0, -100]], np.float32))
    assert abs(y[0, 1] / np.exp(-100.0) - 1) < 0.03


def test_ignored_rows_are_not_read(isa, dtype, rng):
    x, target = draw(rng, 5, 19, dtype=dtype), np.array([3, -1, 18, -1, 0])
    expected = engine_rows.cross_entropy(x, np.abs(target), 0.1)
    x[[1, 3]] = np.nan
    losses, dx = engine_rows.cross_entropy(x, target, 0.1)
    assert_identical([losses[::2], dx[::2]], [a[::2] for a in expected])
    assert not losses[1::2].any() and not dx[1::2].any()


def everything(x, dy, weight, bias, target, function="Softplus"):
    """Return what all functions make of these."""
    y = engine_rows.softmax(x)
    normed = engine_rows.layer_norm(x, weight, bias, EPS)
    table = dy.copy()
    engine_rows.add_rows_at(table, target % len(x), x)
    return {
        "softmax": y,
        "softmax_backward": engine_rows.softmax_backward(dy, y),
        **dict(zip(("losses", "dlogits"), engine_rows.cross_entropy(x, target, 0.1), strict=True)),
        **dict(zip(("y", "normal", "scale"), normed, strict=True)),
        "dx": engine_rows.layer_norm_backward(dy, *normed[1:], weight)[0],
        "dweight": engine_rows.layer_norm_backward(dy, *normed[1:], weight)[1],
        "dbias": engine_rows.layer_norm_backward(dy, *normed[1:], weight)[2],
        "activate": engine_rows.activate(function, 0, 0, x),
        "activate_backward": engine_rows.activate_backward(function, 0, 0, x, dy),
        "take_rows": engine_rows.take_rows(x, target % len(x)),
        "add_rows_at": table,
    }


def draw_arguments(rng, rows, columns, dtype):
    x, dy = draw(rng, 2, rows, columns, dtype=dtype)
    return x, dy, *draw(rng, 2, columns, dtype=dtype), draw_targets(rng, rows, columns)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_does_not_reach_another(isa, dtype, rng, value):
    x, dy, weight, bias, _ = draw_arguments(rng, 6, 37, dtype)
    target = np.array([0, 1, 2, 3, 4, 5])
    expected = everything(x, dy, weight, bias, target)
    x[3, 5] = value
    actual = everything(x, dy, weight, bias, target)
    for name in {*expected} - {"dweight", "dbias"}:
        rest = [0, 1, 2, 4, 5]
        assert_identical([actual[name][rest]], [expected[name][rest]], name)
    for name in ("softmax", "softmax_backward", "y", "normal", "dx", "dlogits"):
        if name in ("y", "normal", "dx") or value != -np.inf:
            assert np.isnan(actual[name][3]).any(), name


def test_bits_do_not_depend_on_the_threads(isa, dtype, rng, threads):
    for rows, columns in [(2, 40000), (700, 100), (3000, 17)]:
        arguments, expected = draw_arguments(rng, rows, columns, dtype), None
        for count in (1, 2, 3, 5):
            lstm_fast.set_num_threads(count)
            actual = everything(*arguments)
            expected = expected or actual
            assert_identical(actual, expected, f"{count} threads")


def test_rows_do_not_depend_on_the_batch(isa, dtype, rng):
    x, dy, weight, bias, _ = draw_arguments(rng, 9, 100, dtype)
    target = np.arange(9)
    all_rows = everything(x, dy, weight, bias, target)
    for n in range(9):
        one = everything(x[n : n + 1], dy[n : n + 1], weight, bias, target[n : n + 1])
        for name in {*one} - {"dweight", "dbias", "take_rows", "add_rows_at"}:
            assert_identical([one[name]], [all_rows[name][n : n + 1]], name)


# ---- what cannot be


@pytest.mark.parametrize("index", [-1, -2, 4, 2**40, -(2**62)])
def test_indices_that_are_not_there_raise(dtype, index):
    table, dy, grad = (np.ones(shape, dtype) for shape in [(4, 5), (3, 5), (4, 5)])
    indices = np.array([0, index, 1])
    with pytest.raises(IndexError, match=r"indices: expected 0 to 3, got"):
        engine_rows.take_rows(table, indices)
    with pytest.raises(IndexError, match=r"indices: expected 0 to 3, got"):
        engine_rows.add_rows_at(grad, indices, dy)
    assert (grad == 1).all()
    if index != -1:
        with pytest.raises(IndexError, match=r"target: expected -1 to 3, got"):
            engine_rows.cross_entropy(table[:3, :4].copy(), indices, 0)


def wrong_calls():
    f, x, row, short = engine_rows, np.zeros((3, 5), np.float32), np.zeros(5), np.zeros((3, 4))
    row, short, rows = row.astype(np.float32), short.astype(np.float32), np.zeros(3, np.float32)
    target = np.zeros(3, np.intp)
    return {
        "whole numbers": lambda: f.softmax(x.astype(int)),
        "halves": lambda: f.softmax(x.astype(np.float16)),
        "a vector": lambda: f.softmax(row),
        "three axes": lambda: f.softmax(x[None]),
        "gaps": lambda: f.softmax(x[:, ::2]),
        "byte-swapped": lambda: f.softmax(byte_swapped(x)),
        "dy of another shape": lambda: f.softmax_backward(short, x),
        "dy of another type": lambda: f.softmax_backward(x.astype(float), x),
        "targets too short": lambda: f.cross_entropy(x, target[:2], 0),
        "targets of another type": lambda: f.cross_entropy(x, target.astype(np.int32), 0),
        "targets with gaps": lambda: f.cross_entropy(x, np.zeros(6, np.intp)[::2], 0),
        "weight too short": lambda: f.layer_norm(x, row[:4], row, EPS),
        "bias too short": lambda: f.layer_norm(x, row, row[:4], EPS),
        "bias of another type": lambda: f.layer_norm(x, row, row.astype(float), EPS),
        "dy too narrow": lambda: f.layer_norm_backward(short, x, rows, row),
        "scale too short": lambda: f.layer_norm_backward(x, x, rows[:2], row),
        "weight of backward": lambda: f.layer_norm_backward(x, x, rows, row[:4]),
        "no such function": lambda: f.activate("relu", 0, 0, x),
        "no such derivative": lambda: f.activate_backward("relu", 0, 0, x, x),
        "dy too small": lambda: f.activate_backward("Relu", 0, 0, x, x[:2]),
        "table of whole numbers": lambda: f.take_rows(x.astype(int), target),
        "indices of another type": lambda: f.take_rows(x, target.astype(np.int32)),
        "indices of two axes": lambda: f.take_rows(x, target[None]),
        "dy of too few rows": lambda: f.add_rows_at(x, target, x[:2]),
        "dy of too few columns": lambda: f.add_rows_at(x, target, short),
        "grad read-only": lambda: f.add_rows_at(read_only(x), target, x),
    }


@pytest.mark.parametrize("wrong", wrong_calls())
def test_wrong_arguments_raise(wrong):
    with pytest.raises(ValueError, match=r"^\w+: expected"):
        wrong_calls()[wrong]()
