"""Ragged batches in `lstm_fast.reference`: PyTorch, central differences, and what padding means."""

import numpy as np
import pytest
from helpers import assert_identical, central_difference, draw, rows, run
from networks import network
from ragged import LENGTHS, assert_close, configuration, padding_of

import lstm_fast
from lstm_fast import reference

CONFIGURATIONS, BLOCKS = 25, 4
TOLERANCE = 1e-13  # relative to the largest element of an array
FLOAT64 = np.dtype(float)


# Against other sources of truth


def run_torch(torch, lstm, lengths, padding, *given):
    """Return results and gradients by name. PyTorch refuses rows of length 0: they pass it by."""
    settings = {name: getattr(lstm, name) for name in ("num_layers", "bias", "bidirectional")}
    sizes = (lstm.input_size, lstm.hidden_size)
    module = torch.nn.LSTM(*sizes, proj_size=lstm.proj_size, **settings, dtype=torch.float64)
    module.load_state_dict({k: torch.from_numpy(v) for k, v in lstm.state_dict().items()})
    x, h0, c0, dy, dhn, dcn = map(torch.tensor, given)
    if lstm.batch_first:
        x, dy = x.swapaxes(0, 1), dy.swapaxes(0, 1)
    for tensor in (x, h0, c0):
        tensor.requires_grad_()
    T, B, _ = x.shape
    lengths = torch.tensor(lengths.tolist())
    b = lengths.nonzero()[:, 0]
    packed = torch.nn.utils.rnn.pack_padded_sequence(x[:, b], lengths[b], enforce_sorted=False)
    y, (hn, cn) = module(packed, (h0[:, b], c0[:, b]))
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=T)
    y = torch.zeros_like(dy).index_copy(1, b, y)
    hn, cn = h0.index_copy(1, b, hn), c0.index_copy(1, b, cn)
    if padding == "hold":
        last = torch.where(lengths[:, None] > 0, y[lengths - 1, torch.arange(B)], 0.0)
        y = torch.where(torch.arange(T)[:, None, None] < lengths[:, None], y, last)
    torch.autograd.backward((y, hn, cn), (dy, dhn, dcn))
    tensors = {"y": y, "hn": hn, "cn": cn, "dx": x.grad, "dh0": h0.grad, "dc0": c0.grad}
    tensors |= {f"d{name}": parameter.grad for name, parameter in module.named_parameters()}
    if lstm.batch_first:
        tensors |= {name: tensors[name].swapaxes(0, 1) for name in ("y", "dx")}
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("block", range(BLOCKS))
def test_layers_of_the_reference_are_pytorchs(block):
    torch = pytest.importorskip("torch", reason="compares with PyTorch")
    torch.set_num_threads(1)
    for n in range(CONFIGURATIONS):
        lstm, lengths, padding, given = configuration((block, n), FLOAT64, least=1)
        lengths[n % len(lengths)] += not lengths.any()
        expected = run_torch(torch, lstm, lengths, padding, *given)
        actual = network(lstm, *given, lengths=lengths, padding=padding)
        assert_close(actual, expected, TOLERANCE, f"{block=} {n=} {lstm} {lengths} {padding}")


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("P", [0, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_gradients_are_central_differences(rng, reverse, P, padding):
    args, d_results = draw(rng, 4, 5, 2, 3, P, dtype=FLOAT64)
    options = {"reverse": reverse, "lengths": [2, 0, 4, 1, 3], "padding": padding}
    gradients = run(reference, args, d_results, **options)

    def loss():
        y, state, _ = reference.lstm_forward(**args, **options)
        return sum((a * d).sum() for a, d in zip((y, *state), d_results, strict=True))

    for name, array in args.items():
        difference = central_difference(loss, array, 1e-5)
        np.testing.assert_allclose(gradients[f"d{name}"], difference, 0, 1e-8, err_msg=name)


# What lengths and padding mean


@pytest.mark.parametrize("P", [0, 2])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_alone(rng, dtype, reverse, P):
    lengths = [3, 0, 5, 1, 3]
    args, (dy, dhn, dcn) = draw(rng, 5, len(lengths), 4, 6, P, dtype=dtype)
    actual = run(reference, args, (dy, dhn, dcn), reverse=reverse, lengths=lengths)
    sums = {name: 0 for name in actual if name.startswith(("dw_", "db_"))}
    for b, length in enumerate(lengths):
        alone = args | rows(args, [b])
        alone["x"] = alone["x"][:length]
        d_alone = dy[:length, [b]], dhn[[b]], dcn[[b]]
        expected = run(reference, alone, d_alone, reverse=reverse)
        of_row = rows(actual, [b])
        for name in ("y", "dx"):
            assert not of_row[name][length:].any()
            of_row[name] = of_row[name][:length]
        assert_close(of_row, rows(expected, [0]), 30 * np.finfo(dtype).eps, f"row {b}")
        sums = {name: total + expected[name] for name, total in sums.items()}
    assert_close({name: actual[name] for name in sums}, sums, 30 * np.finfo(dtype).eps)


@pytest.mark.parametrize("reverse", [False, True])
def test_hold_repeats_the_last_output_and_sums_its_gradients(rng, dtype, reverse):
    T, lengths = 5, [3, 0, 5, 1]
    args, (dy, dhn, dcn) = draw(rng, T, len(lengths), 4, 6, dtype=dtype)
    options = {"reverse": reverse, "lengths": lengths}
    zero = run(reference, args, (dy, dhn, dcn), **options)
    held, summed = zero["y"].copy(), dy.copy()
    for b, n in enumerate(lengths):
        if n > 0:
            held[n:, b] = zero["y"][n - 1, b]
            for t in reversed(range(n, T)):
                summed[t - 1, b] += summed[t, b]
    expected = run(reference, args, (summed, dhn, dcn), **options) | {"y": held}
    actual = run(reference, args, (dy, dhn, dcn), **options, padding="hold")
    assert_identical(actual, expected)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_in_the_padding_is_not_read(rng, dtype, reverse, bad, padding):
    lengths = np.array([3, 0, 5, 1])
    args, d_results = draw(rng, 5, 4, 4, 6, 2, dtype=dtype)
    options = {"reverse": reverse, "lengths": lengths, "padding": padding}
    expected = run(reference, args, d_results, **options)
    after = padding_of(lengths, 5)
    args["x"][after] = bad
    if padding == "zero":
        d_results[0][after] = bad
    with np.errstate(all="raise"):
        actual = run(reference, args, d_results, **options)
    assert_identical(actual, expected)
    assert not actual["dx"][after].any()


@pytest.mark.parametrize("reverse", [False, True])
def test_the_state_of_a_row_without_steps_is_not_read(rng, dtype, reverse):
    args, d_results = draw(rng, 4, 3, 4, 6, 2, dtype=dtype)
    options = {"reverse": reverse, "lengths": [4, 0, 2]}
    expected = run(reference, args, d_results, **options)
    for array in (args["h0"], args["c0"], *d_results[1:]):
        array[1] = np.nan
    actual = run(reference, args, d_results, **options)
    for name in ("hn", "cn", "dh0", "dc0"):
        assert np.isnan(actual[name][1]).all()
        actual[name][1] = expected[name][1]
    assert_identical(actual, expected)


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("absent", [True, False])
def test_equal_lengths_are_no_lengths(rng, dtype, absent, reverse, padding):
    args, d_results = draw(rng, 4, 3, 5, 6, 2, dtype=dtype)
    lengths = None if absent else [4, 4, 4]
    actual = run(reference, args, d_results, reverse=reverse, lengths=lengths, padding=padding)
    assert_identical(actual, run(reference, args, d_results, reverse=reverse))


@pytest.mark.parametrize("padding", ["zero", "hold"])
@pytest.mark.parametrize("functions", [reference, lstm_fast], ids=["reference", "engine"])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("T", "B"), [(4, 3), (0, 3), (4, 0), (0, 0)])
def test_without_steps_the_state_and_its_gradient_pass_through(
    rng, dtype, T, B, reverse, functions, padding
):
    args, d_results = draw(rng, T, B, 4, 6, 2, dtype=dtype)
    expected = {f"d{name}": np.zeros_like(array) for name, array in args.items()}
    expected |= {"y": np.zeros_like(d_results[0]), "hn": args["h0"], "cn": args["c0"]}
    expected |= {"dh0": d_results[1], "dc0": d_results[2]}
    options = {"reverse": reverse, "lengths": np.zeros(B, int), "padding": padding}
    assert_identical(run(functions, args, d_results, **options), expected)


@pytest.mark.parametrize("kind", LENGTHS)
def test_later_writes_do_not_reach_backward(rng, kind):
    lengths = LENGTHS[kind](rng, 5, 4)
    args, d_results = draw(rng, 5, 4, 3, 6, dtype=FLOAT64)
    expected = run(reference, args, d_results, lengths=lengths, padding="hold")
    y, (hn, cn), cache = reference.lstm_forward(**args, lengths=lengths, padding="hold")
    lengths[:] = 1
    for array in (*args.values(), y, hn, cn):
        array.fill(np.nan)
    for _ in range(2):
        dx, (dh0, dc0), grads = reference.lstm_backward(*d_results, cache)
        actual = {"dx": dx, "dh0": dh0, "dc0": dc0} | {f"d{k}": v for k, v in grads.items()}
        assert_identical(actual, {name: expected[name] for name in actual})
        for array in actual.values():
            array.fill(np.nan)


# Errors


@pytest.mark.parametrize(
    ("lengths", "error"),
    [
        ([1.0, 2.0, 3.0], TypeError),
        (np.ones(3), TypeError),
        (np.ones(3, bool), TypeError),
        (np.ma.masked_array([1, 2, 3], [0, 1, 0]), TypeError),
        (["1", "2", "3"], TypeError),
        ([1, 2], ValueError),
        ([], ValueError),
        ([[1, 2, 3]], ValueError),
        ([-1, 2, 3], ValueError),
        ([1, 5, 3], ValueError),
        (np.array([1, 2**64 - 1, 3], np.uint64), ValueError),
    ],
)
def test_wrong_lengths_are_named(rng, lengths, error):
    args, _ = draw(rng, 4, 3, 5, 6, dtype=FLOAT64)
    with pytest.raises(error, match=r"^lengths must "):
        reference.lstm_forward(**args, lengths=lengths)


@pytest.mark.parametrize("lengths", [None, [4, 0, 2]])
@pytest.mark.parametrize("padding", ["", "Zero", "same", None, 0])
def test_an_unknown_padding_is_named(rng, padding, lengths):
    args, _ = draw(rng, 4, 3, 5, 6, dtype=FLOAT64)
    with pytest.raises(ValueError, match=r"^padding must "):
        reference.lstm_forward(**args, lengths=lengths, padding=padding)
