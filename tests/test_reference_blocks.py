"""`lstm_fast.reference.blocks` against PyTorch, central differences, and what lengths mean."""

from importlib.util import find_spec

import numpy as np
import pytest
from support import comparisons
from support.autograd import FUNCTIONS
from support.blocks import (
    BLOCKS,
    Drawn,
    backward_block,
    draw_block,
    forward_block,
    is_pair,
    normal,
    results_of,
    run_block,
)
from support.comparing import assert_close, assert_identical, in_dtype
from support.differences import slopes, weighted_sum
from support.onnx_nodes import CONSTANTS
from support.ragged import LENGTHS, padding_of

from lstm_fast.reference import blocks

pytestmark = pytest.mark.no_isa

LINE = comparisons.pip_line(["torch"])
against_pytorch = pytest.mark.skipif(
    find_spec("torch") is None, reason=f"{comparisons.MARK}PyTorch: {LINE}"
)
every_block = pytest.mark.parametrize("name", BLOCKS)
T, B, F = 4, 5, 6
RAGGED = [2, 0, 4, 1, 3]
CUT = [None, RAGGED]
TAKES_TIME = ("Last", "Pool", "Flatten", "Attention")  # names of blocks that read all steps
OVER_TIME = {"Last", "Pool", "Flatten"}  # the result has no time


@pytest.fixture(autouse=True)
def warnings_of_numpy_are_errors():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield


# Against other sources of truth


def of_pytorch(torch, drawn, inputs, p, options):
    """Return the results for one batch row, (n, F) of n > 0 steps or (n,)."""
    f = torch.nn.functional
    (x, *more), o = inputs, options
    match drawn.block:
        case "Linear":
            return [f.linear(x, p["weight"], p.get("bias"))]
        case "Embedding":
            return [f.embedding(x, p["weight"], o["padding_index"])]
        case "Dropout":
            return [x * torch.tensor(o["mask"])]
        case "LayerNorm":
            return [f.layer_norm(x, x.shape[-1:], p["weight"], p.get("bias"), o["eps"])]
        case "Activation":
            function = o["function"]
            name, *constants = [function] if isinstance(function, str) else function
            return [FUNCTIONS[name](torch, x, *(constants or CONSTANTS.get(name, ())))]
        case "Softmax":
            return [f.softmax(x, dim=-1)]
        case "Last" if o.get("directions") == 2:
            return [torch.cat((x[-1, : F // 2], x[0, F // 2 :]))]
        case "Last":
            return [x[0] if o.get("reverse") else x[-1]]
        case "Pool":
            return [x.mean(dim=0) if o["kind"] == "mean" else x.amax(dim=0)]
        case "Flatten":
            return [f.pad(x, (0, 0, 0, T - len(x))).flatten()]
    scale = o.get("scale", 1.0)
    context = f.scaled_dot_product_attention(x[None], more[0][None], more[0][None], scale=scale)[0]
    return [context, f.softmax(scale * x @ more[0].T, dim=-1)]


def run_pytorch(drawn, lengths):
    """Return results and gradients by name, as `run_block`: each batch row by itself."""
    import torch

    y, _ = forward_block(drawn)
    results = [torch.zeros(a.shape, dtype=torch.float64) for a in (y if is_pair(drawn) else [y])]
    inputs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in drawn.inputs]
    parameters = {k: torch.tensor(a, requires_grad=True) for k, a in drawn.parameters.items()}
    for b, n in enumerate([T] * B if lengths is None else lengths):
        if n == 0:
            continue
        options = drawn.options | {"mask": drawn.options.get("mask", drawn.inputs[0])[:n, b]}
        if is_pair(drawn):
            of_row = of_pytorch(
                torch, drawn, [inputs[0][:, b], inputs[1][:n, b]], parameters, options
            )
            results[0][:, b], results[1][b, :, :n] = of_row
        elif drawn.block in OVER_TIME:
            (results[0][b],) = of_pytorch(torch, drawn, [inputs[0][:n, b]], parameters, options)
        else:
            (results[0][:n, b],) = of_pytorch(torch, drawn, [inputs[0][:n, b]], parameters, options)
    dy = drawn.dy if is_pair(drawn) else [drawn.dy]
    sum((r * torch.tensor(d)).sum() for r, d in zip(results, dy, strict=True)).backward()
    names = ["dquery", "dmemory"] if is_pair(drawn) else ["dx"]
    found = dict(zip(names, inputs, strict=True)) | {f"d{k}": t for k, t in parameters.items()}
    arrays = [r.detach().numpy() for r in results]
    return results_of(drawn, arrays if is_pair(drawn) else arrays[0]) | {
        name: tensor.grad.numpy() for name, tensor in found.items() if tensor.requires_grad
    }


@against_pytorch
@pytest.mark.parametrize("lengths", CUT)
@every_block
def test_results_and_gradients_are_those_of_pytorch(rng, name, lengths):
    for _ in range(5):
        drawn = draw_block(name, rng, T, B, F)
        assert_close(run_block(drawn, lengths), run_pytorch(drawn, lengths), 1e-14, floor=1)


@pytest.mark.parametrize("lengths", CUT)
@every_block
def test_gradients_are_central_differences(rng, name, lengths):
    drawn = draw_block(name, rng, T, B, F)
    gradients = run_block(drawn, lengths)
    dy = drawn.dy if is_pair(drawn) else [drawn.dy]

    def loss():
        y, _ = forward_block(drawn, lengths)
        return weighted_sum(y if is_pair(drawn) else [y], dy)

    names = ["query", "memory"] if is_pair(drawn) else ["x"]
    arrays = dict(zip(names, drawn.inputs, strict=True)) | drawn.parameters
    checked = {f"d{k}": a for k, a in arrays.items() if a.dtype.kind == "f"}
    expected = {k: slopes(loss, a) for k, a in checked.items()}
    if "padding_index" in drawn.options and drawn.options["padding_index"] is not None:
        expected["dweight"][drawn.options["padding_index"]] = 0
    actual = {k: gradients[k] for k in expected}
    assert_close(actual, expected, 1e-8, floor=1)
    assert all(np.abs(a).max() > 1e-3 for a in expected.values())


@every_block
def test_float32_is_near(rng, name):
    for lengths in CUT:
        drawn = draw_block(name, rng, T, B, F, np.float32)
        double = Drawn(**in_dtype(drawn._asdict(), np.float64))
        actual, expected = run_block(drawn, lengths), run_block(double, lengths)
        assert_close(actual, expected, 1e-6, floor=1, dtype=np.float32)


# What lengths and padding mean


@every_block
def test_what_is_in_the_padding_is_not_read(rng, name):
    drawn = draw_block(name, rng, T, B, F)
    expected = run_block(drawn, RAGGED)
    after = padding_of(np.array(RAGGED), T)
    drawn.inputs[-1][after] = np.nan if drawn.inputs[-1].dtype.kind == "f" else 99
    if is_pair(drawn):
        drawn.dy[1].swapaxes(1, 2)[after.T] = np.nan
    elif drawn.block in OVER_TIME:
        drawn.dy[1] = np.nan  # of the row without steps
    else:
        drawn.dy[after] = np.nan
    if "mask" in drawn.options:
        drawn.options["mask"][after] = np.nan
    actual = run_block(drawn, RAGGED)
    assert_identical(actual, expected)
    for result in {"dx", "dmemory"} & actual.keys():
        assert not actual[result][after].any()
    if drawn.block in OVER_TIME:
        assert not actual["y"][1].any()
    elif is_pair(drawn):
        assert not actual["context"][:, 1].any() and not actual["dquery"][:, 1].any()
        assert not actual["weights"].swapaxes(1, 2)[after.T].any()
    else:
        assert not actual["y"][after].any()


@every_block
def test_equal_lengths_are_no_lengths(rng, name):
    drawn = draw_block(name, rng, T, B, F)
    assert_identical(run_block(drawn, [T] * B), run_block(drawn))


@pytest.mark.parametrize("kind", LENGTHS)
@every_block
def test_lengths_of_all_kinds(rng, name, kind):
    """What is beyond the lengths has no effect, and what is within has that of a shorter batch."""
    drawn = draw_block(name, rng, T, B, F)
    lengths = LENGTHS[kind](rng, T, B)
    actual = run_block(drawn, lengths)
    n = max(lengths)
    options = {k: v[:n] if k == "mask" else v for k, v in drawn.options.items()}
    *query, last = drawn.inputs
    dy = drawn.dy
    if is_pair(drawn):
        dy = (dy[0], dy[1][:, :, :n])
    elif drawn.block == "Flatten":
        dy = dy[:, : n * F]
    elif drawn.block not in OVER_TIME:
        dy = dy[:n]
    short = drawn._replace(inputs=(*query, last[:n]), options=options, dy=dy)
    for key, expected in run_block(short, lengths).items():
        shape = actual[key].shape
        padded = np.pad(expected, [(0, m - k) for m, k in zip(shape, expected.shape, strict=True)])
        np.testing.assert_array_equal(actual[key], padded, key)


@pytest.mark.parametrize("extents", [(0, B), (T, 0), (0, 0)])
@every_block
def test_empty_batches(rng, name, extents):
    drawn = draw_block(name, rng, *extents, F)
    for lengths in (None, np.zeros(extents[1], int)):
        for key, array in run_block(drawn, lengths).items():
            assert not array.any(), key


@pytest.mark.parametrize("axes", [(), (3,), (2, 3, 2, 2)])
@pytest.mark.parametrize("name", [n for n in BLOCKS if not n.startswith(TAKES_TIME)])
def test_any_axes_before_the_features(rng, name, axes):
    drawn = draw_block(name, rng, 1, int(np.prod(axes)), F)
    expected = run_block(drawn)
    inputs = (drawn.inputs[0].reshape((*axes, *drawn.inputs[0].shape[2:])),)
    options = {k: v.reshape(*axes, F) if k == "mask" else v for k, v in drawn.options.items()}
    dy = drawn.dy.reshape(*axes, -1)
    actual = run_block(drawn._replace(inputs=inputs, options=options, dy=dy))
    assert actual["y"].shape == dy.shape
    assert_identical({k: a.reshape(expected[k].shape) for k, a in actual.items()}, expected)


@every_block
def test_later_writes_do_not_reach_backward(rng, name):
    drawn = draw_block(name, rng, T, B, F)
    lengths = np.array(RAGGED)
    expected = run_block(drawn, lengths)
    y, cache = forward_block(drawn, lengths)
    lengths[:] = 1
    masks = [a for a in drawn.options.values() if isinstance(a, np.ndarray)]
    for array in (
        *drawn.inputs,
        *drawn.parameters.values(),
        *masks,
        *(y if is_pair(drawn) else [y]),
    ):
        array.fill(0)
    for _ in range(2):
        actual = backward_block(drawn, cache)
        assert_identical(actual, {k: expected[k] for k in actual})
        for array in actual.values():
            array.fill(-1)


# Single blocks


def test_blocks_by_hand():
    x = np.array([[-1.0, 1], [2, 4], [9, 9]])[:, None]
    w, b = np.array([[1.0, 2]]), np.array([5.0])
    np.testing.assert_array_equal(blocks.linear_forward(x, w, b)[0].ravel(), [6, 15, 32])
    np.testing.assert_array_equal(blocks.linear_forward(x, w)[0].ravel(), [1, 10, 27])
    y, _ = blocks.layer_norm_forward(x[:2], np.array([2.0, 4]), w[0], eps=3)
    np.testing.assert_array_equal(y[:, 0], [[0, 4], [0, 4]])
    y, _ = blocks.activation_forward(x, "Relu", lengths=[2])
    np.testing.assert_array_equal(y[:, 0], [[0, 1], [2, 4], [0, 0]])
    y, _ = blocks.softmax_forward(np.log([1.0, 3]))
    np.testing.assert_allclose(y, [0.25, 0.75], rtol=1e-15)
    y, _ = blocks.dropout_forward(x[0], np.array([[0.0, 2]]))
    np.testing.assert_array_equal(y, [[0, 2]])
    np.testing.assert_array_equal(blocks.last_forward(x, lengths=[2])[0], [[2, 4]])
    np.testing.assert_array_equal(blocks.last_forward(x, 2, lengths=[2])[0], [[2, 1]])
    np.testing.assert_array_equal(blocks.last_forward(x, reverse=True, lengths=[2])[0], [[-1, 1]])
    np.testing.assert_array_equal(blocks.pool_forward(x, lengths=[2])[0], [[0.5, 2.5]])
    np.testing.assert_array_equal(blocks.pool_forward(x, "max", lengths=[2])[0], [[2, 4]])
    memory = np.log([[[1.0, 9]], [[9, 1]], [[81, 81]]])
    (context, weights), _ = blocks.attention_forward(
        np.array([[[1.0, 0]]]), memory, 0.5, lengths=[2]
    )
    np.testing.assert_allclose(weights, [[[0.25, 0.75, 0]]], rtol=1e-15)
    np.testing.assert_allclose(context, np.log([[[9**0.75, 9**0.25]]]), rtol=1e-15)


def test_softmax_of_extreme_numbers():
    x = np.array([[1e300, -1e300, 1e300], [-1e300, -1e300, -1e300], [0, 800, -800]])
    y, _ = blocks.softmax_forward(x)
    third = 1 / 3
    np.testing.assert_array_equal(y, [[0.5, 0, 0.5], [third, third, third], [0, 1, 0]])


def test_the_first_of_equal_numbers_is_the_largest():
    x = np.array([1.0, 3, 3, 2, 9])[:, None, None]
    y, cache = blocks.pool_forward(x, "max", lengths=[4])
    dx, _ = blocks.pool_backward(np.full((1, 1), 5.0), cache)
    assert y.item() == 3
    np.testing.assert_array_equal(dx.ravel(), [0, 5, 0, 0, 0])


def test_numbers_that_occur_often_add_their_gradients():
    x, weight = np.array([2, 0, 2, 2, 1]), np.arange(8.0).reshape(4, 2)
    y, cache = blocks.embedding_forward(x, weight, 1)
    dx, grads = blocks.embedding_backward(np.ones((5, 2)), cache)
    np.testing.assert_array_equal(y[:, 0], [4, 0, 4, 4, 2])
    assert dx is None
    np.testing.assert_array_equal(grads["weight"][:, 0], [1, 0, 3, 0])


def test_a_constant_row_is_its_bias():
    weight, bias = np.array([1.0, 2, 3]), np.array([4.0, 5, 6])
    y, _ = blocks.layer_norm_forward(np.full((2, 3), 7.0), weight, bias)
    np.testing.assert_array_equal(y, [bias, bias])


def test_attention_to_one_step_is_that_step(rng):
    query, memory = normal(rng, 3, 2, F), normal(rng, T, 2, F)
    (context, weights), _ = blocks.attention_forward(query, memory, lengths=[1, 0])
    np.testing.assert_array_equal(context[:, 0], np.tile(memory[0, 0], (3, 1)))
    np.testing.assert_array_equal(weights[0], np.eye(1, T).repeat(3, axis=0))
    assert not context[:, 1].any() and not weights[1].any()


def test_gradients_of_attention_weights_may_be_absent(rng):
    drawn = draw_block("Attention", rng, T, B, F)
    dcontext, dweights = drawn.dy
    zero = run_block(drawn._replace(dy=(dcontext, np.zeros_like(dweights))), RAGGED)
    assert_identical(run_block(drawn._replace(dy=(dcontext, None)), RAGGED), zero)


# Errors

X = np.zeros((T, B, F))
W = np.zeros((3, F))
NUMBERS = np.zeros((T, B), int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: blocks.linear_forward(X.astype(int), W),
            TypeError,
            "x must be float32 or float64",
        ),
        (lambda: blocks.linear_forward(X, W.astype("f4")), TypeError, "weight must be float64"),
        (lambda: blocks.linear_forward(X, W[0]), ValueError, "weight must have shape"),
        (lambda: blocks.linear_forward(X[..., 1:], W), ValueError, "x must have shape"),
        (lambda: blocks.linear_forward(X, W, np.zeros(4)), ValueError, "bias must have shape"),
        (lambda: blocks.linear_forward(X[0, 0], W, lengths=[1]), ValueError, "lengths must come"),
        (lambda: blocks.linear_forward(X, W, lengths=[1]), ValueError, "lengths must have shape"),
        (
            lambda: blocks.linear_forward(X, W, lengths=[5] * B),
            ValueError,
            "lengths must be from 0",
        ),
        (lambda: blocks.embedding_forward(X, W), TypeError, "x must hold integers"),
        (lambda: blocks.embedding_forward(NUMBERS + 3, W), ValueError, "x must be from 0 to 2"),
        (lambda: blocks.embedding_forward(NUMBERS - 1, W), ValueError, "x must be from 0 to 2"),
        (lambda: blocks.embedding_forward(NUMBERS, W, 3), ValueError, "padding_index must be from"),
        (lambda: blocks.embedding_forward(NUMBERS, NUMBERS), TypeError, "weight must be float32"),
        (lambda: blocks.embedding_forward(NUMBERS, W[0]), ValueError, "weight must have shape"),
        (lambda: blocks.dropout_forward(X, X[0]), ValueError, "mask must have shape"),
        (lambda: blocks.softmax_forward(np.array(1.0)), ValueError, "x must have shape"),
        (lambda: blocks.layer_norm_forward(X, W[0, 1:]), ValueError, "weight must have shape"),
        (lambda: blocks.activation_forward(X, "tanh"), ValueError, "function must be one of"),
        (lambda: blocks.activation_forward(X, ("Tanh", 1)), ValueError, "function must have 0"),
        (lambda: blocks.activation_forward(X, 1), TypeError, "function must be a name"),
        (lambda: blocks.last_forward(X[0]), ValueError, "x must have shape"),
        (lambda: blocks.last_forward(X, 3), ValueError, "directions must be"),
        (lambda: blocks.last_forward(X, 2, reverse=True), ValueError, "directions must be"),
        (lambda: blocks.last_forward(X[..., 1:], 2), ValueError, "x must have columns"),
        (lambda: blocks.pool_forward(X, "sum"), ValueError, "kind must be"),
        (lambda: blocks.attention_forward(X, X[:, 1:]), ValueError, "memory must have shape"),
        (lambda: blocks.attention_forward(X, X.astype("f4")), TypeError, "memory must be float64"),
        (lambda: blocks.attention_forward(X, X, "1"), TypeError, "scale must be a number"),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@every_block
def test_a_wrong_gradient_is_named(rng, name):
    drawn = draw_block(name, rng, T, B, F)
    _, cache = forward_block(drawn)
    first = "dcontext" if is_pair(drawn) else "dy"
    for change, error in ((lambda d: d[1:], ValueError), (lambda d: d.astype("f4"), TypeError)):
        dy = (change(drawn.dy[0]), None) if is_pair(drawn) else change(drawn.dy)
        with pytest.raises(error, match=f"^{first} must "):
            backward_block(drawn._replace(dy=dy), cache)
