"""`QuantizedLSTM` has the bits of its twin in NumPy, in any batch, on any threads, however cut."""

import math

import numpy as np
import pytest
from support.comparing import assert_identical
from support.layers import SEVERAL_THREADS, draw_layer, select_rows
from support.quantized import PRECISIONS, lstm_of, run_quantized, run_twin

import lstm_fast
from lstm_fast import LSTM
from lstm_fast.reference.quantised import bfloat16, fma, int8_rows

FLOAT32 = np.dtype(np.float32)
# Beside whole vectors and groups of terms, on every instruction set.
SIZES = [1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 65]
RESULTS = ["y", "hn", "cn"]
BATCH_AXES = {"y": 1, "hn": 1, "cn": 1}


@pytest.fixture
def isa(extended_isa):
    """Return it: extensions multiply lower precisions."""
    return extended_isa


@pytest.fixture(params=PRECISIONS, ids="-".join)
def precision(request):
    """Return weights and inputs."""
    return request.param


def draw(rng, T, B, I, H, P=0, **options):
    return draw_layer(rng, T, B, I, H, P, dtype=FLOAT32, **options)[0]


def assert_bits_of_twin(isa, args, precision, **options):
    actual = run_quantized(args, *precision, **options)
    sizes = [args[name].shape for name in ("x", "w_ih")]
    assert_identical(actual, run_twin(isa, args, *precision, **options), f"{sizes} {options}")


# ---- the twin itself


@pytest.mark.no_isa
def test_fma_rounds_once(rng):
    """Beside exact integers: of a b, c and the sum, scaled so that rounding twice would differ."""
    a, b = (rng.integers(-(2**24), 2**24, 20_000) for _ in range(2))
    shift = rng.integers(0, 60, a.size)
    c = rng.integers(-(2**24), 2**24, a.size)
    found = fma(*(v.astype(np.float32) for v in (a, b)), np.ldexp(c.astype(np.float32), -shift))
    for n in range(a.size):
        numerator = (int(a[n]) * int(b[n]) << int(shift[n])) + int(c[n])
        assert found[n] == rounded_once(numerator, int(shift[n]))


def rounded_once(numerator, shift):
    """Return the float32 that is nearest to numerator / 2^shift, ties to even."""
    cut = max(abs(numerator).bit_length() - 24, 0)
    kept, rest = divmod(abs(numerator), 1 << cut)
    kept += 2 * rest > 1 << cut or (2 * rest == 1 << cut and kept & 1)
    return np.float32(math.copysign(math.ldexp(kept, cut - shift), numerator))


@pytest.mark.no_isa
def test_rounding_to_bfloat16():
    given = [1.0, 1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8 + 2**-20), 3.4e38, -3.4e38, 1e-40, np.inf]
    expected = [1.0, 1.0, 1 + 2**-6, -(1 + 2**-7), np.inf, -np.inf, 2**-133, np.inf]
    np.testing.assert_array_equal(bfloat16(np.array(given, np.float32)), np.float32(expected))
    nan = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(bfloat16(nan)).all()


@pytest.mark.no_isa
def test_rounding_of_rows():
    rows = np.array([[1, -0.5, 0.25], [2**-100, 0, 0], [np.inf, 1, 0], [1, np.nan, 0], [0, 0, 0]])
    q, scale = int8_rows(rows.astype(np.float32))
    assert q.tolist() == [[127, -64, 32], [0, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(scale, np.float32([np.float32(1) / 127, 0, np.nan, np.nan, 0]))


# ---- sizes


def test_sizes(isa, precision, rng):
    for n, H in enumerate(SIZES):
        for I in (SIZES[n - 4], SIZES[n - 7]):
            assert_bits_of_twin(isa, draw(rng, 2, 3, I, H), precision)


@pytest.mark.parametrize("T", [0, 1, 3, 5])
@pytest.mark.parametrize("B", [0, 1, 2, 3, 7, 100])
def test_batches_and_times(isa, precision, rng, T, B):
    for P, reverse in ((0, False), (0, True), (5, True)):
        assert_bits_of_twin(isa, draw(rng, T, B, 9, 17, P), precision, reverse=reverse)
    assert_bits_of_twin(isa, draw(rng, T, B, 3, 8, bias=False), precision)


@pytest.mark.parametrize(
    "I, H, P", [(255, 3, 0), (257, 5, 0), (513, 2, 0), (3, 259, 0), (2, 270, 3)]
)
def test_sums_of_several_pieces(isa, precision, rng, I, H, P):
    for B in (1, 3):
        assert_bits_of_twin(isa, draw(rng, 2, B, I, H, P), precision)


def test_the_longest_sum_of_8_bits(isa):
    """131072 products of 127^2 fit into 32 bits; more are refused."""
    for I in (2**17, 2**17 + 1):
        args = {"x": np.ones((1, 1, I), np.float32), "w_ih": np.full((4, I), 1e-6, np.float32)}
        args |= {"w_hh": np.ones((4, 1), np.float32)}
        args |= {"h0": np.ones((1, 1), np.float32), "c0": np.ones((1, 1), np.float32)}
        args["w_ih"][1] *= -1
        if I == 2**17:
            assert_bits_of_twin(isa, args, ("int8", "int8"))
        else:
            with pytest.raises(ValueError, match="131072 products may not fit into 32 bits"):
                lstm_of(args).quantize("int8", "int8")


# ---- values


def test_saturation_and_extreme_ratios(isa, precision, rng):
    args = draw(rng, 3, 4, 9, 17)
    args["w_ih"] = np.sign(args["w_ih"]) * np.float32(0.3)  # each is 127 or -127
    args["w_hh"][:, 0] *= np.float32(1e4)  # and here nearly all others 0
    args["w_hh"][3] *= np.float32(1e-30)
    args["w_hh"][4] = 0
    args["x"][0] = np.sign(args["x"][0])
    args["x"][1, :, 0] = 1e6
    args["x"][2, 1] *= np.float32(1e-25)
    args["x"][2, 2] *= np.float32(1e-33)  # below 2^-100: zeros in 8 bits
    assert_bits_of_twin(isa, args, precision)


def test_ties(isa, precision, rng):
    """Numbers in the middle of two of 8 bits, and of two of bfloat16."""
    args = draw(rng, 1, 2, 65, 65)
    steps = np.arange(65, dtype=np.float32)
    for name in ("x", "h0"):
        rows = args[name].reshape(2, 65)
        rows[:] = steps + np.float32(0.5), 1 + steps / 256
        rows[0, 0] = 127
        rows *= np.float32(2**-8)  # small pre-activations: all bits count
    assert_bits_of_twin(isa, args, precision)


def test_states_beyond_1(isa, precision, rng):
    for P in (0, 5):
        args = draw(rng, 3, 4, 5, 9, P)
        args["h0"] *= np.float32([[0], [0.1], [3], [1e4]])
        args["c0"] *= np.float32(50)
        assert_bits_of_twin(isa, args, precision)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e-42, -1e-45, 3.4e38, -0.0])
def test_special_values(isa, precision, rng, value):
    """In one row of x and in one of h0; the other rows have the bits that they have without."""
    args = draw(rng, 3, 4, 5, 9)
    plain = run_quantized(args, *precision)
    args["x"][1, 1, 2] = args["h0"][2, 3] = value
    assert_bits_of_twin(isa, args, precision)
    for actual, expected in zip(run_quantized(args, *precision), plain, strict=True):
        np.testing.assert_array_equal(actual[..., [0, 3], :], expected[..., [0, 3], :])
    if not np.isfinite(value):
        y = run_quantized(args, *precision)[0]
        assert np.isfinite(y[0, 1]).all()
        assert not np.isfinite(y[1, 1]).all() or np.isinf(value)
        assert np.isnan(y[:, 2]).all() or np.isinf(value)
    args["x"][:] = args["h0"][:] = value
    assert_bits_of_twin(isa, args, precision)


def test_denormals(isa, precision, rng):
    """Also weights, whose scales then have few bits, or none."""
    args = draw(rng, 3, 2, 5, 9)
    for name in ("w_ih", "w_hh", "x"):
        rows = args[name].reshape(-1, args[name].shape[-1])
        rows[::2] *= np.float32(1e-38) * np.float32(1e-4)
        rows[1::4] *= np.float32(1e-38)
    assert_bits_of_twin(isa, args, precision)


@pytest.mark.parametrize("T, B", [(1, 1), (3, 2)])
@pytest.mark.parametrize("size", [1e-39, 1e-38])
def test_denormals_that_large_weights_show(isa, precision, rng, T, B, size):
    """Operands of 1e-39 are denormals, and so are some sums of those of 1e-38."""
    args = draw(rng, T, B, 37, 9)
    args["x"] *= np.float32(size)
    args["w_ih"] *= np.float32(0.01 / size)
    assert_bits_of_twin(isa, args, precision)


# ---- a row's bits depend on nothing else


def run(lstm, x, state, **options):
    y, (hn, cn) = lstm(x, state, **options)
    return {"y": y, "hn": hn, "cn": cn}


def chosen(results, rows):
    return {name: value.take(rows, BATCH_AXES[name]) for name, value in results.items()}


def states(args):
    return args["h0"][None], args["c0"][None]


@pytest.mark.parametrize("P", [0, 6])
def test_batch_and_position(isa, precision, rng, P):
    args = draw(rng, 3, 70, 19, 33, P)
    lstm = lstm_of(args).quantize(*precision)
    expected = run(lstm, args["x"], states(args))
    choices = [[n] for n in range(0, 70, 5)] + [np.arange(n) for n in (2, 5, 13, 37, 64)]
    for rows in (*choices, rng.permutation(70), np.roll(np.arange(70), 1)):
        some = select_rows(args, rows)
        assert_identical(run(lstm, some["x"], states(some)), chosen(expected, rows))


@pytest.mark.parametrize("sizes", SEVERAL_THREADS)
def test_threads(isa, precision, rng, threads, sizes):
    args = draw(rng, *sizes)
    for reverse in (False, True):
        lstm = lstm_of(args, reverse=reverse).quantize(*precision)
        lstm_fast.set_num_threads(1)
        expected = run(lstm, args["x"], states(args))
        lstm_fast.set_num_threads(2)
        assert_identical(run(lstm, args["x"], states(args)), expected)


@pytest.mark.parametrize("B", [1, 16])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "proj_size": 5}], ids=str)
def test_parts_and_steps_of_a_sequence(isa, precision, rng, B, options):
    """The state passed on. With 16 rows the whole sequence exceeds the engine's own chunks."""
    lstm = LSTM(9, 150, **options, seed=0).quantize(*precision)
    x = rng.standard_normal((40, B, 9)).astype(np.float32)
    y, (hn, cn) = lstm(x)
    state, found = None, []
    for cut in np.split(x, [1, 2, 9, 33]):
        part, state = lstm(cut, state)
        found.append(part)
    assert_identical([np.concatenate(found), *state], [y, hn, cn])
    stream = lstm.stream(B)
    assert_identical([np.array([stream.step(x_t) for x_t in x]), *stream.state], [y, hn, cn])
    stream.reset()
    assert_identical([np.concatenate([stream(x[:7]), stream(x[7:])]), *stream.state], [y, hn, cn])


@pytest.mark.parametrize("options", [{"bidirectional": True, "num_layers": 2}, {"proj_size": 4}])
def test_lengths_and_masks(isa, precision, rng, options):
    """Each sequence as if it were alone and had only the steps that run."""
    lstm = LSTM(5, 19, **options, seed=0).quantize(*precision)
    lengths = np.array([7, 0, 3, 1, 7])
    mask = rng.random((5, 7)) < 0.6
    mask[2] = True
    x = rng.standard_normal((7, 5, 5)).astype(np.float32)
    for runs, given in (
        (np.arange(7) < lengths[:, None], {"lengths": lengths}),
        (mask, {"mask": mask}),
        (mask & (np.arange(7) < lengths[:, None]), {"mask": mask, "lengths": lengths}),
    ):
        found = run(lstm, x, None, **given)
        for b, steps in enumerate(runs):
            alone = run(lstm, x[steps, b : b + 1], None)
            whole = np.zeros_like(found["y"][:, b : b + 1])
            whole[steps] = alone["y"]
            assert_identical(chosen(found, [b]), alone | {"y": whole}, f"{b} {[*given]}")
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    steps = np.concatenate([x[:n, b] for b, n in enumerate(lengths)])
    found = run(lstm, x, None, lengths=lengths)
    packed = np.concatenate([found["y"][:n, b] for b, n in enumerate(lengths)])
    assert_identical(lstm((steps, offsets))[0][None], packed[None])


def test_how_arrays_lie(isa, precision, rng):
    """Strides, the other byte order, `batch_first`, one sequence, and `out`."""
    lstm = LSTM(5, 9, seed=0)
    first = LSTM(5, 9, batch_first=True, seed=0).quantize(*precision)
    lstm = lstm.quantize(*precision)
    wide = rng.standard_normal((8, 9, 15)).astype(np.float32)
    x = wide[::-2, 1::3, ::3]
    plain = np.ascontiguousarray(x)
    expected = run(lstm, plain, None)
    assert_identical(run(lstm, x, None), expected)
    swapped = x.astype(x.dtype.newbyteorder())
    assert_identical(run(lstm, swapped, None), expected)
    assert_identical(run(lstm, x, None, lengths=[4, 4, 4]), expected)
    turned = run(first, x.swapaxes(0, 1), None)
    assert_identical(turned["y"].swapaxes(0, 1), expected["y"])
    one = run(lstm, x[:, 1], None)
    assert_identical(one["y"][:, None], expected["y"][:, 1:2])
    out = (np.empty((4, 3, 18), np.float32)[..., ::2], (np.empty((1, 3, 9), np.float32), None))
    y, (hn, _) = lstm(x, out=out)
    assert y is out[0]
    assert_identical([y, hn], [expected["y"], expected["hn"]])
