"""Batches of sequences of different lengths: a row is what it would be alone, without padding."""

import numpy as np
import pytest
from helpers import assert_identical, draw, lanes, run

import lstm_fast
from lstm_fast import reference

T = 9
LENGTHS = [
    [9, 9, 9],
    [1, 2, 3],
    [4, 9, 0, 7, 0],
    [0, 0],
    [5],
    [1, 9, 3, 3, 8, 2, 9, 1, 6, 4, 0, 7, 5],
]


def alone(functions, args, gradients, lengths, **options):
    """Return what `run` gives for each row on its own, put together with zeros for padding."""
    dy, dhn, dcn = gradients
    parts = []
    for b, length in enumerate(lengths):
        row = {k: v[:length, b : b + 1] if k == "x" else v for k, v in args.items()}
        row |= {k: args[k][b : b + 1] for k in ("h0", "c0")}
        parts.append(
            run(functions, row, (dy[:length, b : b + 1], dhn[b : b + 1], dcn[b : b + 1]), **options)
        )
    together = {}
    for name, first in parts[0].items():
        if name in ("y", "dx"):
            together[name] = np.zeros((T, len(lengths), first.shape[2]), first.dtype)
            for b, length in enumerate(lengths):
                together[name][:length, b] = parts[b][name][:, 0]
        elif name in ("hn", "cn", "dh0", "dc0"):
            together[name] = np.concatenate([part[name] for part in parts])
        else:
            together[name] = sum(part[name].astype(np.float64) for part in parts).astype(
                first.dtype
            )
    return together


def padded_with(value, args, gradients, lengths):
    """Return the arguments with a value in the padding of x and dy."""
    after = np.arange(T)[:, None] >= np.array(lengths)
    args, dy = dict(args, x=args["x"].copy()), gradients[0].copy()
    args["x"][after] = dy[after] = value
    return args, [dy, *gradients[1:]]


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_rows_are_what_they_are_alone(isa, dtype, rng, lengths, reverse):
    """To the bit, but for sums over rows; NaN and infinity in the padding change nothing."""
    n = lanes(isa, dtype)
    for H, P in [(n - 1, 0), (2 * n + 1, 0), (n + 3, n - 1)]:
        args, gradients = draw(rng, T, len(lengths), 5, H, P, dtype=dtype)
        expected = alone(lstm_fast, args, gradients, lengths, reverse=reverse)
        exact = alone(reference, args, gradients, lengths, reverse=reverse)
        for value in (np.nan, np.inf):
            bad = padded_with(value, args, gradients, lengths)
            actual = run(lstm_fast, *bad, lengths=lengths, reverse=reverse)
            weights = [name for name in actual if name.startswith(("dw", "db"))]
            for name in weights:
                size = np.abs(exact[name]).max()
                tolerance = 40 * np.finfo(dtype).eps
                np.testing.assert_allclose(
                    actual.pop(name), exact[name], rtol=0, atol=tolerance * size, err_msg=name
                )
            assert_identical(actual, {name: expected[name] for name in actual})


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
def test_layers_and_directions_against_pytorch(rng, layers, bidirectional):
    torch = pytest.importorskip("torch")
    for trial in range(20):
        B, I, H = (int(n) for n in rng.integers(1, 20, 3))
        P = int(rng.integers(0, H))
        options = {"bidirectional": bidirectional, "proj_size": P, "num_layers": layers}
        lstm = lstm_fast.LSTM(I, H, **options, dtype=np.float64, seed=trial)
        other = torch.nn.LSTM(I, H, **options, dtype=torch.float64)
        other.load_state_dict({k: torch.tensor(v) for k, v in lstm.state_dict().items()})
        directions = 1 + bidirectional
        x, dy = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, directions * (P or H)))
        h0 = rng.standard_normal((layers * directions, B, P or H))
        c0 = rng.standard_normal((layers * directions, B, H))
        lengths = rng.integers(1, T + 1, B)
        tensors = [torch.tensor(a, requires_grad=True) for a in (x, h0, c0)]
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            tensors[0], torch.tensor(lengths), enforce_sorted=False
        )
        y_packed, states = other(packed, tuple(tensors[1:]))
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y_packed, total_length=T)
        results = [y, *states]
        d_results = [dy, rng.standard_normal(h0.shape), rng.standard_normal(c0.shape)]
        expected = results + list(
            torch.autograd.grad(
                results,
                [*tensors, *(dict(other.named_parameters())[name] for name in lstm.state_dict())],
                [torch.tensor(d) for d in d_results],
            )
        )
        y, states, cache = lstm.forward(x, (h0, c0), lengths=lengths)
        dx, dstates, grads = lstm.backward(d_results[0], tuple(d_results[1:]), cache)
        actual = [y, *states, dx, *dstates, *grads.values()]
        for a, e in zip(actual, expected, strict=True):
            e = e.detach().numpy()
            np.testing.assert_allclose(a, e, rtol=0, atol=1e-12 * max(1, np.abs(e).max()))


def test_against_onnx_runtime_with_zeros_among_the_lengths(rng):
    runtime, peers = pytest.importorskip("onnxruntime"), pytest.importorskip("lstm_fast.peers")
    pytest.importorskip("onnx")
    lengths = np.array([4, 0, 9, 1, 0, 7], np.int32)
    for bidirectional in (False, True):
        lstm = lstm_fast.LSTM(3, 18, bidirectional=bidirectional, seed=1)
        x = rng.standard_normal((T, 6, 3), np.float32)
        h0, c0 = rng.standard_normal((2, 1 + bidirectional, 6, 18), np.float32)
        model = peers.onnx_model(lstm.state_dict(), ragged=True)
        session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
        y_onnx = session.run(["y"], {"x": x, "h0": h0, "c0": c0, "lengths": lengths})[0]
        y, _ = lstm(x, (h0, c0), lengths=lengths)
        expected = y_onnx.swapaxes(1, 2).reshape(y.shape)
        np.testing.assert_allclose(y, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_hold_repeats_the_last_output_and_its_gradient(rng, bidirectional):
    lengths = np.array([3, 9, 0, 1])
    lstm = lstm_fast.LSTM(2, 4, 2, bidirectional=bidirectional, dtype=np.float64, seed=0)
    x, dy = rng.standard_normal((T, 4, 2)), rng.standard_normal((T, 4, 4 * (1 + bidirectional)))
    zero, states, cache = lstm.forward(x, lengths=lengths)
    held, held_states, held_cache = lstm.forward(x, lengths=lengths, padding="hold")
    assert_identical({"hn": held_states[0]}, {"hn": states[0]})
    gathered = dy.copy()
    for b, length in enumerate(lengths):
        assert (zero[length:, b] == 0).all()
        assert (held[:length, b] == zero[:length, b]).all()
        if length:
            assert (held[length:, b] == held[length - 1, b]).all()
            gathered[length - 1, b] += dy[length:, b].sum(0)
        else:
            assert (held[:, b] == 0).all()
    expected = lstm.backward(gathered, None, cache)
    actual = lstm.backward(dy, None, held_cache)
    np.testing.assert_allclose(actual[0], expected[0], rtol=0, atol=1e-14)
    for name, grad in expected[2].items():
        np.testing.assert_allclose(actual[2][name], grad, rtol=0, atol=1e-13)


def test_batch_first_and_lists_and_other_integers(rng):
    lstm = lstm_fast.LSTM(3, 5, batch_first=True, seed=0)
    x = rng.standard_normal((4, T, 3), np.float32)
    y, _ = lstm(x, lengths=[3, 9, 0, 4])
    assert (y[0, 3:] == 0).all()
    assert (y[0, 2] != 0).all()
    for other in ((3, 9, 0, 4), np.array([3, 9, 0, 4], np.uint8)):
        assert (lstm(x, lengths=other)[0] == y).all()


def test_full_lengths_are_no_lengths(rng):
    lstm = lstm_fast.LSTM(3, 5, 2, bidirectional=True, seed=0)
    x = rng.standard_normal((T, 4, 3), np.float32)
    assert (lstm(x, lengths=[T] * 4)[0] == lstm(x)[0]).all()


@pytest.mark.parametrize("shape", [(0, 3), (T, 0), (0, 0)])
def test_nothing_to_do(shape):
    lstm = lstm_fast.LSTM(3, 5, seed=0)
    x, state = np.zeros((*shape, 3), np.float32), np.ones((2, 1, shape[1], 5), np.float32)
    y, (hn, cn), cache = lstm.forward(x, tuple(state), lengths=np.zeros(shape[1], int))
    assert y.shape == (*shape, 5)
    assert (hn == 1).all() and (cn == 1).all()
    dx, (dh0, _), grads = lstm.backward(y, (hn, cn), cache)
    assert dx.shape == x.shape and (dh0 == 1).all()
    assert not any(grad.any() for grad in grads.values())


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        ([1, 2], ValueError),
        ([1, 2, 3, 4], ValueError),
        ([[1, 2, 3]], ValueError),
        ([1, 2, 10], ValueError),
        ([1, -1, 3], ValueError),
        ([[1], [2, 3], 1], ValueError),
        ([1.0, 2.0, 3.0], TypeError),
        ([True, False, True], TypeError),
        (["1", "2", "3"], TypeError),
        (3, TypeError),
        (np.ma.array([1, 2, 3]), TypeError),
    ],
)
def test_wrong_lengths(lengths, error):
    lstm, x = lstm_fast.LSTM(2, 3, seed=0), np.zeros((T, 3, 2), np.float32)
    out = np.full((T, 3, 3), 7, np.float32)
    for call in (lstm, lstm.forward):
        with pytest.raises(error, match="lengths"):
            call(x, lengths=lengths, out=(out, None))
    assert (out == 7).all()


@pytest.mark.parametrize("padding", ["last", None, 0])
def test_wrong_padding(padding):
    lstm, x = lstm_fast.LSTM(2, 3, seed=0), np.zeros((T, 3, 2), np.float32)
    for lengths in ([1, 2, 3], None):
        with pytest.raises(ValueError, match="padding"):
            lstm(x, lengths=lengths, padding=padding)
