"""`lstm_fast.reference.losses` against PyTorch, central differences, and what counts."""

from importlib.util import find_spec

import numpy as np
import pytest
from support import comparisons
from support.comparing import assert_close, in_dtype
from support.differences import slopes
from support.ragged import padding_of

from lstm_fast.reference import losses

pytestmark = pytest.mark.no_isa

LINE = comparisons.pip_line(["torch"])
against_pytorch = pytest.mark.skipif(
    find_spec("torch") is None, reason=f"{comparisons.MARK}PyTorch: {LINE}"
)
T, B, F, C = 4, 5, 3, 6
RAGGED = [2, 0, 4, 1, 3]
QUANTILES = [0.1, 0.5, 0.8]
# By name: a loss and its options.
LOSSES = {
    "mean squared": (losses.mean_squared, {}),
    "absolute": (losses.absolute, {}),
    "Huber": (losses.huber, {}),
    "Huber, 0.3": (losses.huber, {"delta": 0.3}),
    "quantile": (losses.quantile, {"quantiles": 0.8}),
    "quantiles": (losses.quantile, {"quantiles": QUANTILES}),
    "binary cross entropy": (losses.binary_cross_entropy, {}),
    "cross entropy": (losses.cross_entropy, {}),
    "cross entropy, ignored": (losses.cross_entropy, {"ignore_index": 2}),
    "cross entropy, smooth": (losses.cross_entropy, {"label_smoothing": 0.2, "ignore_index": 2}),
}
every_loss = pytest.mark.parametrize("name", LOSSES)
# Weights of (T, B, F).
WEIGHTS = {
    "none": lambda rng: None,
    "of elements": lambda rng: rng.random((T, B, F)),
    "of steps": lambda rng: rng.random((T, 1, 1)),
    "of features": lambda rng: rng.integers(0, 4, F),
    "some 0": lambda rng: rng.random((T, B, F)) * rng.integers(0, 2, (T, B, 1)),
    "booleans": lambda rng: rng.random((B, F)) < 0.6,
    "one": lambda rng: 0.3,
}
every_weight = pytest.mark.parametrize("weight", WEIGHTS)


@pytest.fixture(autouse=True)
def warnings_of_numpy_are_errors():
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        yield


def draw_loss(name, rng, shape=(T, B, F), dtype=np.float64):
    """Return y and target (T, B, F): y has one axis more for several quantiles and for classes."""
    more, target = (), rng.standard_normal(shape)
    if name == "quantiles":
        more = (len(QUANTILES),)
    elif name == "binary cross entropy":
        target = rng.random(shape)
    elif LOSSES[name][0] is losses.cross_entropy:
        more, target = (C,), rng.integers(0, C, shape)
    y = 2 * rng.standard_normal((*shape, *more))
    if target.dtype.kind == "f":  # errors are odd multiples of 1 / 16, at no kink
        target, y = np.round(8 * target) / 8, np.round(8 * y) / 8 + 1 / 16
    return in_dtype(in_dtype((y, target), np.float32), dtype)


def weights_of(name, target, weight, lengths):
    """Return the weight of each element of target."""
    w = np.broadcast_to(1.0 if weight is None else weight, target.shape).astype(float)
    if lengths is not None:
        w[padding_of(np.array(lengths), len(target))] = 0
    if "ignore_index" in LOSSES[name][1]:
        w[target == LOSSES[name][1]["ignore_index"]] = 0
    return w


# Against other sources of truth


def run_pytorch(name, y, target, w):
    """Return the loss and its gradient, of weights for each element."""
    import torch

    f, options = torch.nn.functional, LOSSES[name][1]
    y, target = torch.tensor(y, requires_grad=True), torch.tensor(target)
    match name.split(",")[0]:
        case "mean squared":
            l = f.mse_loss(y, target, reduction="none")
        case "absolute":
            l = f.l1_loss(y, target, reduction="none")
        case "Huber":
            l = f.huber_loss(y, target, reduction="none", delta=options.get("delta", 1.0))
        case "quantile":
            l = torch.where(target > y, 0.8 * (target - y), 0.2 * (y - target))
        case "quantiles":
            l = 0
            for n, q in enumerate(QUANTILES):
                e = target - y[..., n]
                l = l + torch.where(e > 0, q * e, (q - 1) * e) / len(QUANTILES)
        case "binary cross entropy":
            l = f.binary_cross_entropy_with_logits(y, target, reduction="none")
        case "cross entropy":
            l = f.cross_entropy(y.movedim(-1, 1), target, reduction="none", **options)
    w = torch.tensor(w)
    loss = (w * l).sum() / w.sum()
    loss.backward()
    return loss.item(), y.grad.numpy()


@against_pytorch
@every_weight
@every_loss
def test_losses_and_gradients_are_those_of_pytorch(rng, name, weight):
    function, options = LOSSES[name]
    for lengths in (None, RAGGED):
        y, target = draw_loss(name, rng)
        given = WEIGHTS[weight](rng)
        actual = function(y, target, given, lengths, **options)
        expected = run_pytorch(name, y, target, weights_of(name, target, given, lengths))
        assert actual[0] == pytest.approx(expected[0], rel=1e-13)
        assert_close([actual[1]], [expected[1]], 1e-13)


@against_pytorch
@pytest.mark.parametrize("ignored", [-100, 1])
def test_weights_of_classes_are_those_of_pytorch(rng, ignored):
    import torch

    y, target = rng.standard_normal((20, C)), rng.integers(0, C, 20)
    target[[3, 8]] = ignored
    of_class = rng.random(C)
    loss, dy = losses.cross_entropy(y, target, of_class[target % C], ignore_index=ignored)
    tensor = torch.tensor(y, requires_grad=True)
    expected = torch.nn.functional.cross_entropy(
        tensor, torch.tensor(target), torch.tensor(of_class), ignore_index=ignored
    )
    expected.backward()
    assert loss == pytest.approx(expected.item(), rel=1e-13)
    assert_close([dy], [tensor.grad.numpy()], 1e-13)


@pytest.mark.parametrize("lengths", [None, RAGGED])
@every_weight
@every_loss
def test_gradients_are_central_differences(rng, name, weight, lengths):
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng)
    rest = target, WEIGHTS[weight](rng), lengths
    _, dy = function(y, *rest, **options)
    expected = slopes(lambda: function(y, *rest, **options)[0], y)
    assert_close([dy], [expected], 1e-8)
    assert np.abs(expected).max() > 1e-3


@every_loss
def test_float32_is_near(rng, name):
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng, dtype=np.float32)
    loss, dy = function(y, target, lengths=RAGGED, **options)
    expected = function(*in_dtype((y, target), np.float64), lengths=RAGGED, **options)
    assert loss == pytest.approx(expected[0], rel=2e-6)
    assert_close([dy], [expected[1]], 2e-6, dtype=np.float32)


# What counts


@every_loss
def test_what_does_not_count_is_not_read(rng, name):
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng)
    weight = rng.random((T, B, F)) * rng.integers(0, 2, (T, B, F))
    w = weights_of(name, target, weight, RAGGED)
    expected = function(y, target, weight, RAGGED, **options)
    y[w == 0] = np.nan
    beyond = padding_of(np.array(RAGGED), T)
    weight[beyond] = np.nan
    target[beyond | (weight.max(axis=2) == 0)] = np.nan if target.dtype.kind == "f" else 99
    actual = function(y, target, weight, RAGGED, **options)
    assert actual[0] == expected[0]
    np.testing.assert_array_equal(actual[1], expected[1], strict=True)
    assert not actual[1][w == 0].any()


@every_loss
def test_a_whole_number_of_weight_counts_that_often(rng, name):
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng, (7,))
    times = rng.integers(0, 4, 7)
    loss, dy = function(y, target, times, **options)
    again = np.repeat(np.arange(7), times)
    expected, d_again = function(y[again], target[again], **options)
    summed = np.zeros_like(dy)
    np.add.at(summed, again, d_again)
    assert loss == pytest.approx(expected, rel=1e-14)
    assert_close([dy], [summed], 1e-14)


@every_loss
def test_a_step_of_every_row_is_as_no_time(rng, name):
    """Lengths cut what a shorter batch has not."""
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng)
    loss, dy = function(y, target, lengths=[1] * B, **options)
    expected, d_first = function(y[0], target[0], **options)
    assert loss == pytest.approx(expected, rel=1e-14)
    assert_close([dy[0]], [d_first], 1e-14)
    assert not dy[1:].any()


@every_loss
def test_where_nothing_counts_both_are_0(rng, name):
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng)
    y[...] = np.nan
    for given in ({"lengths": [0] * B}, {"weight": 0}, {"weight": np.zeros((B, F))}):
        loss, dy = function(y, target, **given, **options)
        assert loss == 0 and dy.shape == y.shape and not dy.any()
    for shape in ((0, B, F), (T, 0, F), (0,)):
        y, target = draw_loss(name, rng, shape)
        lengths = [0] * shape[1] if len(shape) > 1 else None
        loss, dy = function(y, target, lengths=lengths, **options)
        assert loss == 0 and dy.shape == y.shape


def test_where_all_is_ignored_both_are_0():
    loss, dy = losses.cross_entropy(np.full((3, C), np.nan), np.full(3, -100))
    assert loss == 0 and not dy.any()


@every_loss
def test_arguments_stay_as_they_are(rng, name):
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng)
    weight = rng.random((T, B, F))
    before = y.copy(), target.copy(), weight.copy()
    _, dy = function(y, target, weight, RAGGED, **options)
    for array, copy in zip((y, target, weight), before, strict=True):
        np.testing.assert_array_equal(array, copy)
        assert not np.shares_memory(array, dy)


@every_loss
def test_one_number(rng, name):
    function, options = LOSSES[name]
    y, target = draw_loss(name, rng, ())
    loss, dy = function(y, target, **options)
    expected, d_one = function(y[None], target[None], **options)
    assert loss == expected and isinstance(loss, float)
    np.testing.assert_array_equal(dy, d_one[0])


# Single losses


@pytest.mark.parametrize("name", ["absolute", "Huber", "quantile", "quantiles", "mean squared"])
def test_where_equal_the_gradient_is_0(rng, name):
    function, options = LOSSES[name]
    target = rng.standard_normal(4)
    y = np.repeat(target[:, None], 3, axis=1) if name == "quantiles" else target.copy()
    loss, dy = function(y, target, **options)
    assert loss == 0 and not dy.any()


def test_losses_by_hand():
    y, target = np.array([3.0, 0, 0]), np.array([1.0, 1, 0.5])
    assert losses.mean_squared(y, target)[0] == (4 + 1 + 0.25) / 3
    assert losses.absolute(y, target)[0] == 3.5 / 3
    assert losses.huber(y, target)[0] == (1.5 + 0.5 + 0.125) / 3
    assert losses.quantile(y, target, quantiles=0.75)[0] == (0.5 + 0.75 + 0.375) / 3
    logits = np.log([[0.5, 0.25, 0.25]])
    loss, dy = losses.cross_entropy(logits, np.array([1]), label_smoothing=0.75)
    assert loss == pytest.approx(np.log(4) * 0.75 + np.log(2) * 0.25, rel=1e-15)
    np.testing.assert_allclose(dy, [[0.25, -0.25, 0]], atol=1e-16)
    loss, dy = losses.binary_cross_entropy(np.log([3.0]), np.array([0.5]))
    assert loss == pytest.approx(0.5 * np.log(4 / 3) + 0.5 * np.log(4), rel=1e-15)
    assert dy[0] == pytest.approx(0.25)


def test_the_best_quantile_is_that_of_the_targets(rng):
    target = rng.standard_normal(101)
    for q in (0.1, 0.5, 0.8):
        best = [losses.quantile(np.full(101, y), target, quantiles=q)[0] for y in target]
        assert target[np.argmin(best)] == pytest.approx(np.quantile(target, q), abs=1e-12)


@pytest.mark.parametrize("size", [50.0, 1e3, 1e300])
def test_extreme_logits(size):
    y = np.array([size, size, -size, -size])
    loss, dy = losses.binary_cross_entropy(y, np.array([1.0, 0, 0, 1]))
    assert loss == pytest.approx(size / 2)
    np.testing.assert_allclose(dy, [0, 0.25, 0, -0.25], atol=1e-20)
    logits = np.array([[size, -size, 0], [size, -size, 0]])
    loss, dy = losses.cross_entropy(logits, np.array([0, 2]))
    assert loss == pytest.approx(size / 2)
    np.testing.assert_allclose(dy, [[0, 0, 0], [0.5, 0, -0.5]], atol=1e-20)


def test_a_class_that_cannot_be():
    y = np.array([[0, -np.inf, 0]])
    loss, dy = losses.cross_entropy(y, np.array([0]))
    assert loss == pytest.approx(np.log(2))
    np.testing.assert_array_equal(dy, [[-0.5, 0, 0.5]])


def test_huber_of_large_errors():
    loss, dy = losses.huber(np.array([1e200, -1e200]), np.zeros(2))
    assert loss == 1e200
    np.testing.assert_array_equal(dy, [0.5, -0.5])


# Errors

Y = np.zeros((T, B))
LOGITS = np.zeros((T, B, C))
CLASSES = np.zeros((T, B), int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: losses.mean_squared(CLASSES, Y), TypeError, "y must be float32 or float64"),
        (lambda: losses.mean_squared(Y, CLASSES), TypeError, "target must be float64 like y"),
        (lambda: losses.absolute(Y, Y[0]), ValueError, "y must have shape"),
        (lambda: losses.absolute(Y, Y, "1"), TypeError, "weight must hold real numbers"),
        (lambda: losses.absolute(Y, Y, np.ones(4)), ValueError, "weight must broadcast"),
        (lambda: losses.absolute(Y, Y, np.ones((2, T, B))), ValueError, "weight must broadcast"),
        (lambda: losses.absolute(Y, Y, -1), ValueError, "weight must be finite and not"),
        (lambda: losses.absolute(Y, Y, np.nan), ValueError, "weight must be finite and not"),
        (lambda: losses.absolute(Y, Y, np.inf), ValueError, "weight must be finite and not"),
        (lambda: losses.huber(Y, Y, lengths=[1]), ValueError, "lengths must have shape"),
        (lambda: losses.huber(Y[0], Y[0], lengths=[1]), ValueError, "lengths must come"),
        (lambda: losses.huber(Y, Y, delta=0), ValueError, "delta must be positive"),
        (lambda: losses.huber(Y, Y, delta="1"), TypeError, "delta must be a number"),
        (lambda: losses.quantile(Y, Y, quantiles=1.0), ValueError, "quantiles must be between"),
        (lambda: losses.quantile(Y, Y, quantiles=[]), ValueError, "quantiles must be between"),
        (lambda: losses.quantile(Y, Y, quantiles=[0.1, 0.2]), ValueError, "y must have shape"),
        (lambda: losses.binary_cross_entropy(Y, Y + 2), ValueError, "target must be from 0 to 1"),
        (lambda: losses.cross_entropy(LOGITS, Y), TypeError, "target must hold integers"),
        (lambda: losses.cross_entropy(LOGITS, CLASSES - 1), ValueError, "target must be from 0 to"),
        (lambda: losses.cross_entropy(LOGITS, CLASSES + C), ValueError, "target must be from 0 to"),
        (lambda: losses.cross_entropy(LOGITS, CLASSES[0]), ValueError, "y must have shape"),
        (lambda: losses.cross_entropy(Y[0, 0], CLASSES[0, 0]), ValueError, "y must have shape"),
        (
            lambda: losses.cross_entropy(LOGITS, CLASSES, label_smoothing=1.1),
            ValueError,
            "label_smoothing must be from 0 to 1",
        ),
    ],
)
def test_wrong_arguments_are_named(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()
