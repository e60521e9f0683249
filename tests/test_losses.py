"""The losses of `nn` against the reference."""

import tracemalloc

import numpy as np
import pytest
from support.comparing import assert_close
from support.ragged import padding_of
from test_reference_losses import LOSSES, QUANTILES, RAGGED, WEIGHTS, B, T, draw_loss

from lstm_fast import nn
from lstm_fast.reference import losses

OURS = {
    "mean squared": nn.MeanSquared(),
    "absolute": nn.Absolute(),
    "Huber": nn.Huber(),
    "Huber, 0.3": nn.Huber(0.3),
    "quantile": nn.Quantile(0.8),
    "quantiles": nn.Quantile(QUANTILES),
    "binary cross entropy": nn.BinaryCrossEntropy(),
    "cross entropy": nn.CrossEntropy(),
    "cross entropy, ignored": nn.CrossEntropy(ignore_index=2),
    "cross entropy, smooth": nn.CrossEntropy(ignore_index=2, label_smoothing=0.2),
}
every_loss = pytest.mark.parametrize("name", OURS)


@every_loss
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["whole", "ragged"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_against_the_reference(name, weight, lengths, dtype):
    rng = np.random.default_rng(0)
    y, target = draw_loss(name, rng)
    weights = WEIGHTS[weight](rng)
    y = y.astype(dtype)
    target = target if target.dtype.kind in "iu" else target.astype(dtype)
    loss, dy = OURS[name](y, target, weights, lengths)
    reference, options = LOSSES[name]
    wide = [a if a.dtype.kind in "iu" else a.astype(np.float64) for a in (y, target)]
    expected, slope = reference(*wide, weights, lengths, **options)
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    assert loss == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert dy.dtype == dtype
    assert dy.shape == y.shape
    assert_close({"dy": dy}, {"dy": slope}, tolerance)


@every_loss
def test_what_does_not_count_is_not_read(name):
    y, target = draw_loss(name, np.random.default_rng(0))
    expected = OURS[name](y, target, None, RAGGED)
    beyond = padding_of(RAGGED, T)
    y[beyond] = np.nan
    target[beyond] = 10**6
    loss, dy = OURS[name](y, target, None, RAGGED)
    assert loss == expected[0]
    assert np.array_equal(dy, expected[1])
    weight = np.where(beyond, 0, 1).reshape(beyond.shape + (1,) * (target.ndim - 2))
    loss, dy = OURS[name](y, target, weight)
    assert loss == pytest.approx(expected[0], rel=1e-14)
    assert_close({"dy": dy}, {"dy": expected[1]}, 1e-14)


@every_loss
def test_batch_first(name):
    y, target = draw_loss(name, np.random.default_rng(0))
    loss, dy = OURS[name](y, target, None, RAGGED)
    swapped = type(OURS[name])(
        **{k: v for k, v in vars(OURS[name]).items() if k != "batch_first"}, batch_first=True
    )
    other, dother = swapped(y.swapaxes(0, 1), target.swapaxes(0, 1), None, RAGGED)
    assert other == pytest.approx(loss, rel=1e-14)
    assert np.array_equal(dother.swapaxes(0, 1), dy)


@every_loss
def test_count_weighs_batches(name):
    """The loss of a batch is the mean of the losses of its parts, weighted by their counts."""
    rng = np.random.default_rng(0)
    y, target = draw_loss(name, rng)
    weight = rng.random((T, B) + (1,) * (target.ndim - 2))
    loss, _ = OURS[name](y, target, weight, RAGGED)
    total = count = 0.0
    for b in range(B):
        part = slice(b, b + 1)
        given = target[:, part], weight[:, part], RAGGED[part]
        counts = OURS[name].count(*given)
        total += counts * OURS[name](y[:, part], *given)[0]
        count += counts
    assert count == pytest.approx(OURS[name].count(target, weight, RAGGED))
    assert total / count == pytest.approx(loss, rel=1e-12)


@every_loss
def test_nothing_counts(name):
    y, target = draw_loss(name, np.random.default_rng(0))
    for arguments in ((target, 0.0, None), (target, None, [0] * B)):
        loss, dy = OURS[name](y, *arguments)
        assert loss == 0
        assert not dy.any()
    loss, dy = OURS[name](y[:0], target[:0])
    assert loss == 0
    assert dy.shape == y[:0].shape


def test_wide_outputs_are_not_copied():
    rng, C = np.random.default_rng(0), 5000
    y, target = rng.standard_normal((T, B, C)), rng.integers(0, C, (T, B))
    loss = nn.CrossEntropy(ignore_index=7)
    loss(y, target, 0.5, RAGGED)  # imports
    tracemalloc.start()
    _, dy = loss(y, target, 0.5, RAGGED)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < dy.nbytes / 10  # dy is memory of the engine, which is not traced


def test_one_number():
    loss, dy = nn.MeanSquared()(np.array(0.5), 0.25)
    assert loss == 0.0625
    assert isinstance(dy, np.ndarray) and dy == 0.5


def test_a_sequence_alone():
    y, target = np.random.default_rng(0).standard_normal((2, T, 1))
    for loss, given in ((nn.MeanSquared(), target), (nn.CrossEntropy(), np.zeros(T, int))):
        found, dy = loss(y, given, None, [2])
        expected, dexpected = loss(y[:, None], given[:, None], None, [2])
        assert found == expected
        assert np.array_equal(dy, dexpected[:, 0])


@pytest.mark.parametrize("K", [1, 4])
def test_quantiles_side_by_side(K):
    """Those of each of K targets are columns of y, as a `Linear` makes them."""
    rng, Q = np.random.default_rng(0), len(QUANTILES)
    y, target = rng.standard_normal((T, B, K * Q)), rng.standard_normal((T, B, K))
    weight, loss = rng.random((T, B, 1)), nn.Quantile(QUANTILES)
    found, dy = loss(y, target, weight, RAGGED)
    for expected, dexpected in (
        losses.quantile(y, target, weight, RAGGED, quantiles=QUANTILES),
        loss(y.reshape(T, B, K, Q), target, weight, RAGGED),
    ):
        assert found == pytest.approx(expected, rel=1e-14)
        assert_close({"dy": dy}, {"dy": dexpected.reshape(y.shape)}, 1e-14)
    if K == 1:  # also without the axis of columns
        without, d_without = loss(y, target[..., 0], weight[..., 0], RAGGED)
        assert without == found
        assert np.array_equal(d_without, dy)
    assert loss.count(target, weight, RAGGED) == pytest.approx(
        K * sum(weight[:n, b].sum() for b, n in enumerate(RAGGED))
    )


WRONG = [
    (lambda: nn.MeanSquared()([1.0], [1.0]), TypeError, "y: expected a NumPy array"),
    (lambda: nn.MeanSquared()(np.zeros(3, int), np.zeros(3)), TypeError, "y: expected float32"),
    (lambda: nn.MeanSquared()(np.zeros(3), np.zeros((3, 1))), ValueError, "target: expected shape"),
    (lambda: nn.MeanSquared()(np.zeros(1), ["a"]), TypeError, "target: expected real numbers"),
    (lambda: nn.MeanSquared()(np.zeros(3), np.zeros(3), [1, 2]), ValueError, "weight: expected"),
    (lambda: nn.MeanSquared()(np.zeros(2), np.zeros(2), [1, -2]), ValueError, "weight: .*negative"),
    (lambda: nn.MeanSquared()(np.zeros(()), 0.0, None, [3]), ValueError, "lengths: go with"),
    (
        lambda: nn.MeanSquared()(np.zeros(3), np.zeros(3), None, [4]),
        ValueError,
        "lengths: .* T = 3",
    ),
    (lambda: nn.Huber(0.0), ValueError, "delta: expected a positive"),
    (lambda: nn.Quantile(1.0), ValueError, "quantiles: expected numbers between"),
    (lambda: nn.Quantile([]), ValueError, "quantiles: expected numbers between"),
    (lambda: nn.Quantile([0.5])(np.zeros((3, 2)), np.zeros(3)), ValueError, "y: expected a last"),
    (lambda: nn.Quantile([0.1, 0.9])(np.zeros(3), [1.0]), ValueError, "y: expected 2 columns"),
    (
        lambda: nn.Quantile([0.1, 0.9])(np.zeros((2, 4)), np.zeros((2, 1))),
        ValueError,
        r"target: expected shape \(2, 2\)",
    ),
    (lambda: nn.BinaryCrossEntropy()(np.zeros(1), [1.5]), ValueError, "target: .* from 0 to 1"),
    (lambda: nn.CrossEntropy()(np.zeros((2, 3)), [0, 3]), ValueError, "target: expected 0 to 2"),
    (lambda: nn.CrossEntropy()(np.zeros((1, 3)), [-1]), ValueError, "target: expected 0 to 2"),
    (lambda: nn.CrossEntropy()(np.zeros((1, 3)), [1.0]), TypeError, "target: expected integers"),
    (lambda: nn.CrossEntropy(label_smoothing=2.0), ValueError, "label_smoothing: expected"),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_repr():
    assert repr(nn.Huber(0.5)) == "Huber(batch_first=False, delta=0.5)"


def test_large_logits():
    y = np.array([[1e4, -1e4, 0.0], [-np.inf, 0.0, 1.0]])
    loss, dy = nn.CrossEntropy()(y, [0, 2])
    assert loss == pytest.approx(np.log1p(np.exp(-1)) / 2)
    assert np.isfinite(dy).all()
