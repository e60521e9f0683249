"""Every block of `nn` against its twin in the reference, on every ISA."""

import copy
import pickle

import numpy as np
import pytest
from support.blocks import BLOCKS, draw_block, run_block
from support.comparing import assert_close, in_dtype
from support.ragged import padding_of

from lstm_fast import nn

T, B = 5, 4
RAGGED = [3, 0, 5, 1]
SIZES = [6, 8, 18, 66]  # around the widths of vectors and panels
TOLERANCE = {np.float32: 3e-6, np.float64: 1e-12}
each = [name for name in BLOCKS if name != "Dropout"]
every_block = pytest.mark.parametrize("name", each)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
of_one_input = [name for name in each if not name.startswith("Attention")]


def block_of(drawn, dtype, **options):
    block = getattr(nn, drawn.block)(**drawn.settings, dtype=dtype, **options)
    if drawn.parameters:
        block.load_state_dict(drawn.parameters)
    return block


def run(block, drawn, lengths=None):
    """Return results and gradients of a block of the package, by name as `run_block` does."""
    if drawn.block == "Attention":
        dcontext, _ = drawn.dy
        context, cache = block.forward(*drawn.inputs, lengths=lengths)
        assert np.array_equal(block(*drawn.inputs, lengths=lengths), context)
        dquery, dmemory = block.backward(dcontext, cache)
        weights = block.weights(*drawn.inputs, lengths=lengths)
        return {"context": context, "weights": weights, "dquery": dquery, "dmemory": dmemory}
    y, state, cache = block.forward(*drawn.inputs, lengths=lengths)
    assert state is None
    assert np.array_equal(block(*drawn.inputs, lengths=lengths)[0], y)
    assert cache.nbytes >= 0
    dx, dstate, grads = block.backward(drawn.dy, None, cache)
    assert dstate is None
    assert tuple(grads) == block.parameters
    return {"y": y, **{f"d{k}": g for k, g in grads.items()}} | ({} if dx is None else {"dx": dx})


def expected_of(drawn, lengths=None):
    """Return those of the reference, in float64; of Attention for the gradient of the context."""
    if drawn.block == "Attention":
        drawn = drawn._replace(dy=(drawn.dy[0], np.zeros_like(drawn.dy[1])))
    return run_block(drawn, lengths)


@every_block
@every_dtype
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["whole", "ragged"])
def test_against_the_reference(isa, name, dtype, lengths):
    rng = np.random.default_rng(0)
    for F in SIZES:
        drawn = draw_block(name, rng, T, B, F, dtype)
        found = run(block_of(drawn, dtype), drawn, lengths)
        wide = type(drawn)(**in_dtype(drawn._asdict(), np.float64))
        assert_close(found, expected_of(wide, lengths), TOLERANCE[dtype], floor=0.1, dtype=dtype)


@every_block
def test_padding_is_not_read(name):
    drawn = draw_block(name, np.random.default_rng(0), T, B, 6)
    block, x = block_of(drawn, np.float64), drawn.inputs[-1].copy()
    if x.dtype.kind == "f":
        x[padding_of(RAGGED, T)] = np.nan
    else:
        x[padding_of(RAGGED, T)] = 10**6
    spoilt = drawn._replace(inputs=(*drawn.inputs[:-1], x))
    whole, part = run(block, drawn, RAGGED), run(block, spoilt, RAGGED)
    for key, value in whole.items():
        assert np.array_equal(value, part[key]), key


@pytest.mark.parametrize("name", of_one_input)
@pytest.mark.parametrize("lengths", [None, RAGGED], ids=["whole", "ragged"])
def test_batch_first(name, lengths):
    drawn = draw_block(name, np.random.default_rng(0), T, B, 6)
    (x,) = drawn.inputs
    over_time = drawn.block in ("Last", "Pool", "Flatten")
    first = run(block_of(drawn, np.float64), drawn, lengths)
    swapped = drawn._replace(
        inputs=(x.swapaxes(0, 1),), dy=drawn.dy if over_time else drawn.dy.swapaxes(0, 1)
    )
    second = run(block_of(drawn, np.float64, batch_first=True), swapped, lengths)
    for key, value in first.items():
        if key == "dx" or (key == "y" and not over_time):
            assert_close({key: second[key].swapaxes(0, 1)}, {key: value}, 1e-14, floor=0.1)
        else:
            assert_close({key: second[key]}, {key: value}, 1e-14, floor=0.1)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", of_one_input)
def test_lengths_of_one_sequence(name, batch_first):
    drawn = draw_block(name, np.random.default_rng(0), T, 1, 6)
    expected = run(block_of(drawn, np.float64), drawn, [3])
    over_time = drawn.block in ("Last", "Pool", "Flatten")
    one = drawn._replace(
        inputs=(drawn.inputs[0][:, 0],), dy=drawn.dy[0] if over_time else drawn.dy[:, 0]
    )
    found = run(block_of(drawn, np.float64, batch_first=batch_first), one, [3])
    for key, value in expected.items():
        if key in ("dx", "y"):
            value = value[0] if key == "y" and over_time else value[:, 0]
        assert np.array_equal(found[key], value), key


@pytest.mark.parametrize("name", of_one_input)
def test_no_rows(name):
    for shape in ((0, B), (T, 0)):
        drawn = draw_block(name, np.random.default_rng(0), *shape, 6)
        found, expected = run(block_of(drawn, np.float64), drawn), run_block(drawn)
        for key, value in expected.items():
            assert found[key].shape == value.shape
            assert not found[key].any()


@every_block
@pytest.mark.parametrize(
    "again", [copy.deepcopy, *(lambda b, n=n: pickle.loads(pickle.dumps(b, n)) for n in range(6))]
)
def test_copies(name, again):
    drawn = draw_block(name, np.random.default_rng(0), T, B, 6)
    block = block_of(drawn, np.float64)
    expected = run(block, drawn)
    other = again(block)
    assert repr(other) == repr(block)
    found = run(other, drawn)
    assert all(np.array_equal(found[key], value) for key, value in expected.items())


class TestLinear:
    def test_gradients_are_those_of_the_parameters_that_forward_used(self):
        drawn = draw_block("Linear", np.random.default_rng(0), T, B, 6)
        block = block_of(drawn, np.float64)
        y, _, cache = block.forward(*drawn.inputs)
        expected = block.backward(drawn.dy, None, cache)
        with block.writable() as p:
            p["weight"] *= 3
        assert np.array_equal(block.backward(drawn.dy, None, cache)[0], expected[0])
        assert np.allclose(block(*drawn.inputs)[0] - block.bias, 3 * (y - block.bias))

    def test_the_input_may_be_written_to_before_backward(self):
        drawn = draw_block("Linear", np.random.default_rng(0), T, B, 6)
        block, x = block_of(drawn, np.float64), drawn.inputs[0].copy()
        _, _, cache = block.forward(x)
        x[...] = 0
        assert_close(
            {"dweight": block.backward(drawn.dy, None, cache)[2]["weight"]},
            {"dweight": run_block(drawn)["dweight"]},
            1e-12,
        )

    def test_axes(self):
        block = nn.Linear(3, 2, seed=0)
        x = np.ones((4, 5, 6, 3), np.float32)
        assert block(x)[0].shape == (4, 5, 6, 2)
        assert block(x[0, 0, 0])[0].shape == (2,)

    def test_initial_values_are_pytorchs(self):
        block = nn.Linear(16, 1000, seed=0)
        for value in block.state_dict().values():
            assert abs(value).max() <= 0.25 < 1.01 * abs(value).max()


class TestDropout:
    def test_rate_and_scale(self):
        block = nn.Dropout(0.25, seed=0)
        x = np.ones((100, 200), np.float32)
        y, _, cache = block.forward(x)
        assert {*np.unique(y)} == {np.float32(0), np.float32(4 / 3)}
        assert np.mean(y == 0) == pytest.approx(0.25, abs=0.01)
        dx, _, _ = block.backward(x, None, cache)
        assert np.array_equal(dx, y)
        assert np.array_equal(block(x)[0], x)

    def test_the_random_state_comes_back(self):
        block, x = nn.Dropout(0.5, seed=0), np.ones(50, np.float32)
        state = block.random_state()
        first = block.forward(x)[0]
        second = block.forward(x)[0]
        assert not np.array_equal(first, second)
        block.set_random_state(state)
        assert np.array_equal(block.forward(x)[0], first)
        with pytest.raises(ValueError, match="state: expected the generators"):
            block.set_random_state({"other": state[""]})

    @pytest.mark.parametrize("rate", [0.0, 1.0])
    def test_ends(self, rate):
        y, _, _ = nn.Dropout(rate, seed=0).forward(np.ones(9, np.float32))
        assert (y == 1 - rate).all()


WRONG = [
    (lambda: nn.Linear(0, 2), ValueError, "input_size: expected at least 1"),
    (lambda: nn.Linear(2, 2.5), TypeError, "output_size: expected an integer"),
    (lambda: nn.Linear(2, 3, dtype=np.int32), TypeError, "dtype: expected float32 or float64"),
    (lambda: nn.Embedding(4, 2, padding_index=4), ValueError, "padding_index: expected less"),
    (lambda: nn.Activation("Swish"), ValueError, "function: expected one of"),
    (lambda: nn.Dropout(1.5), ValueError, "rate: expected a number from 0 to 1"),
    (lambda: nn.LayerNorm(3, -1.0), ValueError, "eps: expected at least 0"),
    (lambda: nn.Last(3), ValueError, "directions: expected 1 or 2"),
    (lambda: nn.Last(2, reverse=True), ValueError, "reverse: goes with one direction"),
    (lambda: nn.Pool("sum"), ValueError, "kind: expected one of mean, max"),
    (lambda: nn.Linear(3, 2)(np.zeros((2, 4), np.float32)), ValueError, r"x: expected shape"),
    (lambda: nn.Linear(3, 2)(np.zeros((2, 3))), TypeError, "x: expected dtype float32"),
    (lambda: nn.Linear(3, 2)([[1, 2, 3]]), TypeError, "x: expected a NumPy array"),
    (
        lambda: nn.Linear(3, 2)(np.zeros((2, 2, 2, 3), np.float32), lengths=[1, 2]),
        ValueError,
        "lengths: go with",
    ),
    (
        lambda: nn.Linear(3, 2)(np.zeros((2, 3), np.float32), lengths=[1, 2]),
        ValueError,
        r"lengths: expected shape \(B,\) = \(1,\)",
    ),
    (
        lambda: nn.Softmax()(np.zeros((4, 2, 3), np.float32), lengths=[1, 5]),
        ValueError,
        "lengths: expected 0 to T = 4",
    ),
    (lambda: nn.Linear(3, 2)(np.zeros(3, np.float32), (1, 2)), ValueError, "state: this block"),
    (lambda: nn.Embedding(4, 2)([1.5]), TypeError, "x: expected integers"),
    (lambda: nn.Embedding(4, 2)([-1]), ValueError, "x: expected 0 to 3, got -1"),
    (lambda: nn.Last(2)(np.zeros((2, 2, 3), np.float32)), ValueError, "even number of columns"),
    (lambda: nn.Pool()(np.zeros(3, np.float32)), ValueError, "x: expected shape"),
    (
        lambda: nn.Attention()(np.zeros((2, 1, 3), np.float32), np.zeros((2, 2, 3), np.float32)),
        ValueError,
        "memory: expected the B and columns",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_wrong_gradients_and_caches():
    block, other = nn.Linear(3, 2, seed=0), nn.Linear(3, 2, seed=0)
    _, _, cache = block.forward(np.zeros((4, 3), np.float32))
    with pytest.raises(ValueError, match="cache: comes from another Linear"):
        other.backward(None, None, cache)
    with pytest.raises(TypeError, match="cache: expected what forward returned"):
        block.backward(None, None, 3)
    with pytest.raises(ValueError, match="dy: expected the shape of y"):
        block.backward(np.zeros((4, 3), np.float32), None, cache)
    dx, _, grads = block.backward(None, None, cache)
    assert not dx.any()
    assert not grads["weight"].any()
