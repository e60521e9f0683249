"""Ragged batches in the engine: the reference, each row alone, NaN in the padding, threads."""

import copy
from itertools import product

import numpy as np
import pytest
from support.comparing import assert_close, assert_identical, in_dtype
from support.comparisons import every_implementation
from support.differences import assert_gradient, weighted_sum
from support.layers import SEVERAL_THREADS, draw_layer, lanes, run_layer, select_rows
from support.layouts import COPIES
from support.networks import (
    SETTINGS,
    backward_network,
    draw_network,
    reference_network,
    run_network,
)
from support.processes import run_python
from support.ragged import LENGTHS, draw_ragged, padding_of

import lstm_fast
from lstm_fast import LSTM, lstm_forward, reference

BLOCKS, CONFIGURATIONS = 5, 20
# Relative to the largest element of an array, as in test_against_pytorch.py.
TOLERANCE = {"float32": 1e-5, "float64": 2e-14}
MATMULS = ["auto", "packed", "blas"]
PADDINGS = ["zero", "hold"]
# Of T, B, I, H, P, split by rows, too, in chunks whose rows are not those of the chunk before.
SEVERAL_CHUNKS = [(61, 33, 5, 50, 0), (61, 33, 5, 50, 21), *SEVERAL_THREADS]


def of_row(arrays, b, length, batch_first):
    """Return what belongs to one row of an `LSTM`'s batch, cut to its steps, by name."""
    found = {}
    for name, array in arrays.items():
        if name in ("x", "y", "dx", "dy"):
            found[name] = array[[b], :length] if batch_first else array[:length, [b]]
        elif name in ("h0", "c0", "hn", "cn", "dh0", "dc0", "dhn", "dcn"):
            found[name] = array[:, [b]]
    return found


def check_layer(args, d_results, matmuls, where, **options):
    """Compare the functions of one layer with the reference in float64."""
    wide = in_dtype(args, float), in_dtype(d_results, float)
    expected = run_layer(reference, *wide, **options)
    for matmul in matmuls:
        actual = run_layer(lstm_fast, args, d_results, matmul=matmul, **options)
        tolerance = TOLERANCE[args["x"].dtype.name]
        assert_close(actual, expected, tolerance, where=f"{where} {matmul} {options}")


# The reference


@pytest.mark.parametrize("block", range(BLOCKS))
def test_layers_are_those_of_the_reference(isa, dtype, block):
    for n in range(CONFIGURATIONS):
        seed = block * CONFIGURATIONS + n
        lstm, lengths, padding, given = draw_ragged(seed, dtype)
        lstm.matmul = MATMULS[n % 3]
        expected = reference_network(lstm, *given, lengths=lengths, padding=padding)
        actual = run_network(lstm, *given, lengths=lengths, padding=padding)
        where = f"{seed=} {lstm} {lengths} {padding}"
        assert_close(actual, expected, TOLERANCE[dtype.name], where=where)
        assert all(array.dtype == dtype for array in actual.values()), where
        y, (hn, cn) = lstm(given[0], given[1:3], lengths=lengths, padding=padding)
        assert_identical({"y": y, "hn": hn, "cn": cn}, {k: actual[k] for k in ("y", "hn", "cn")})


@pytest.mark.parametrize("P", [0, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_sizes_around_the_vector_width(isa, dtype, rng, reverse, P):
    n = lanes(isa, dtype)
    sizes = [(1, 5), (n + 1, n - 1 or 1), (n, n + 1), (4 * n + 1, 2 * n + 3)]
    for m, (kind, make) in enumerate(LENGTHS.items()):
        for (I, H), B in zip(sizes, (1, 7, 6, 13), strict=True):
            args, d_results = draw_layer(rng, 6, B, I, H, P, dtype=dtype)
            options = {"reverse": reverse, "lengths": make(rng, 6, B), "padding": PADDINGS[m % 2]}
            check_layer(args, d_results, MATMULS[:1], f"{kind} {B=} {I=} {H=}", **options)


@pytest.mark.parametrize("sizes", SEVERAL_CHUNKS)
def test_several_chunks_and_threads(isa, dtype, rng, threads, sizes):
    lstm_fast.set_num_threads(3)
    args, d_results = draw_layer(rng, *sizes, dtype=dtype)
    for reverse, kind in [(False, "any"), (True, "any"), (False, "falling")]:
        options = {"reverse": reverse, "lengths": LENGTHS[kind](rng, *sizes[:2])}
        check_layer(args, d_results, MATMULS, kind, padding="hold", **options)


@pytest.mark.parametrize("padding", PADDINGS)
@every_implementation
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("T", "B"), [(4, 3), (0, 3), (4, 0), (0, 0)])
def test_without_steps_the_state_and_its_gradient_pass_through(
    rng, dtype, T, B, reverse, implementation, padding
):
    args, d_results = draw_layer(rng, T, B, 4, 6, 2, dtype=dtype)
    expected = {f"d{name}": np.zeros_like(array) for name, array in args.items()}
    expected |= {"y": np.zeros_like(d_results[0]), "hn": args["h0"], "cn": args["c0"]}
    expected |= {"dh0": d_results[1], "dc0": d_results[2]}
    options = {"reverse": reverse, "lengths": np.zeros(B, int), "padding": padding}
    assert_identical(run_layer(implementation, args, d_results, **options), expected)


# Bits of a row: its own numbers and the weights


@pytest.mark.parametrize("kind", ["any", "zeros in the middle", "rising"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_row_alone(isa, dtype, rng, settings, kind):
    H = 2 * lanes(isa, dtype) + 3
    lstm = LSTM(5, H, **settings, dtype=dtype, seed=0, matmul="packed")
    T, B = 6, 11
    given = draw_network(rng, lstm, T, B)
    named = dict(zip(["x", "h0", "c0", "dy", "dhn", "dcn"], given, strict=True))
    lengths = LENGTHS[kind](rng, T, B)
    actual = run_network(lstm, *given, lengths=lengths)
    sums = {f"d{name}": 0 for name in lstm.state_dict()}
    for b, length in enumerate(lengths):
        alone = run_network(lstm, *of_row(named, b, length, lstm.batch_first).values())
        expected = of_row(alone, 0, length, lstm.batch_first)
        assert_identical(of_row(actual, b, length, lstm.batch_first), expected)
        sums = {name: total + alone[name] for name, total in sums.items()}
    assert_close({k: actual[k] for k in sums}, sums, TOLERANCE[dtype.name])
    after = padding_of(lengths, T)
    for name in ("y", "dx"):
        assert not actual[name][after.T if lstm.batch_first else after].any()


@pytest.mark.parametrize("kind", ["any", "zeros in the middle", "rising"])
@pytest.mark.parametrize("P", [0, 3])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_row_of_lstm_forward_alone(isa, dtype, rng, reverse, P, kind):
    T, B, options = 6, 11, {"reverse": reverse, "matmul": "packed"}
    args, (dy, dhn, dcn) = draw_layer(rng, T, B, 5, 2 * lanes(isa, dtype) + 3, P, dtype=dtype)
    lengths = LENGTHS[kind](rng, T, B)
    actual = select_rows(
        run_layer(lstm_fast, args, (dy, dhn, dcn), lengths=lengths, **options), range(B)
    )
    for b, length in enumerate(lengths):
        row = select_rows(args, [b])
        row["x"] = row["x"][:length]
        alone = run_layer(lstm_fast, args | row, (dy[:length, [b]], dhn[[b]], dcn[[b]]), **options)
        of_b = select_rows(actual, [b])
        for name in ("y", "dx"):
            assert not of_b[name][length:].any()
            of_b[name] = of_b[name][:length]
        assert_identical(of_b, select_rows(alone, [0]))


@pytest.mark.parametrize("H", [1, 2, 19])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_row_alone_with_its_last_output_held(isa, dtype, rng, settings, H):
    if settings.get("proj_size", 0) >= H:
        settings = settings | {"proj_size": 0}
    lstm = LSTM(3, H, **settings, dtype=dtype, seed=0, matmul="packed")
    T, B = 40, 7
    given = draw_network(rng, lstm, T, B)
    named = dict(zip(["x", "h0", "c0", "dy", "dhn", "dcn"], given, strict=True))
    lengths = np.array([17, 0, 40, 1, 3, 39, 17])
    actual = run_network(lstm, *given, lengths=lengths, padding="hold")
    for b, length in enumerate(lengths):
        row = of_row(named, b, T, lstm.batch_first).values()
        alone = run_network(lstm, *row, lengths=[length], padding="hold")
        expected = of_row(alone, 0, T, lstm.batch_first)
        assert_identical(of_row(actual, b, T, lstm.batch_first), expected)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("settings", SETTINGS)
def test_equal_lengths_are_no_lengths(isa, dtype, rng, settings, padding):
    """Gradients of the weights included, and those of dropout's masks."""
    lstm = LSTM(5, 17, **settings, dtype=dtype, seed=0, matmul="packed")
    lstm.dropout = 0.4
    given = draw_network(rng, lstm, 6, 5)
    expected = run_network(copy.deepcopy(lstm), *given)
    actual = run_network(copy.deepcopy(lstm), *given, lengths=[6] * 5, padding=padding)
    assert_identical(actual, expected)
    assert_identical(run_network(lstm, *given, padding=padding), expected)


@pytest.mark.parametrize("matmul", ["packed", "blas"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_position_in_the_batch(isa, dtype, rng, settings, matmul):
    lstm = LSTM(5, 17, **settings, dtype=dtype, seed=0, matmul=matmul)
    T, B = 6, 11
    given, order = draw_network(rng, lstm, T, B), rng.permutation(B)
    lengths = LENGTHS["any"](rng, T, B)
    actual = run_network(lstm, *given, lengths=lengths)
    axes = [0 if lstm.batch_first and n in (0, 3) else 1 for n in range(6)]
    moved = [array.take(order, axis) for array, axis in zip(given, axes, strict=True)]
    expected = run_network(lstm, *moved, lengths=lengths[order])
    for name in ("y", "dx", "hn", "cn", "dh0", "dc0"):
        axis = axes[0] if name in ("y", "dx") else 1
        actual[name] = actual[name].take(order, axis)
    if matmul == "packed":
        for name in ("y", "dx", "hn", "cn", "dh0", "dc0"):
            np.testing.assert_array_equal(actual[name], expected[name], name, strict=True)
    assert_close(actual, expected, TOLERANCE[dtype.name])


@pytest.mark.parametrize("sizes", SEVERAL_CHUNKS)
def test_threads(isa, dtype, rng, threads, sizes):
    """Gradients of the weights included."""
    args, d_results = draw_layer(rng, *sizes, dtype=dtype)
    for reverse, kind in product([False, True], ["any", "one long row", "zeros in the middle"]):
        options = {"reverse": reverse, "lengths": LENGTHS[kind](rng, *sizes[:2])}
        options |= {"matmul": "packed", "padding": "hold"}
        lstm_fast.set_num_threads(1)
        expected = run_layer(lstm_fast, args, d_results, **options)
        for n in (2, 3):
            lstm_fast.set_num_threads(n)
            assert_identical(run_layer(lstm_fast, args, d_results, **options), expected)


# The padding


@pytest.mark.parametrize("matmul", ["packed", "blas"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_what_is_in_the_padding_is_not_read(isa, dtype, rng, settings, matmul):
    lstm = LSTM(5, 17, **settings, dtype=dtype, seed=0, matmul=matmul)
    lstm.dropout = 0.4
    T, B = 6, 7
    lengths = np.array([3, 0, 6, 1, 0, 5, 3])
    given = draw_network(rng, lstm, T, B)
    after = padding_of(lengths, T)
    after = after.T if lstm.batch_first else after
    for padding, bad in product(PADDINGS, [np.nan, np.inf, -np.inf]):
        options = {"lengths": lengths, "padding": padding}
        now = copy.deepcopy(given)
        expected = run_network(copy.deepcopy(lstm), *now, **options)
        now[0][after] = bad
        if padding == "zero":
            now[3][after] = bad
        actual = run_network(copy.deepcopy(lstm), *now, **options)
        assert_identical(actual, expected)
        assert not actual["dx"][after].any()
        x, h0, c0, *_ = now
        assert np.isfinite(lstm(x, (h0, c0), **options)[0]).all()


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_bad_number_stays_in_its_row(isa, dtype, rng, settings):
    lstm = LSTM(5, 17, **settings, dtype=dtype, seed=0)
    T, B, bad = 6, 7, 2
    lengths = np.array([3, 0, 5, 1, 6, 5, 3])
    given = draw_network(rng, lstm, T, B)
    expected = run_network(lstm, *given, lengths=lengths)
    for n, array in enumerate(given):
        spoilt = [a.copy() for a in given]
        spoilt[n][(bad, 2) if lstm.batch_first and n in (0, 3) else (2 % len(array), bad)] = np.nan
        actual = run_network(lstm, *spoilt, lengths=lengths)
        for b in {*range(B)} - {bad}:
            assert_identical(*(of_row(a, b, T, lstm.batch_first) for a in (actual, expected)))
        its_own = of_row(actual, bad, T, lstm.batch_first)
        assert any(np.isnan(array).any() for array in its_own.values())


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_row_without_steps_is_not_read(isa, dtype, rng, settings):
    """Its state passes through; no gradient of a weight sees it."""
    lstm = LSTM(5, 17, **settings, dtype=dtype, seed=0)
    given = draw_network(rng, lstm, 4, 3)
    expected = run_network(lstm, *given, lengths=[4, 0, 2])
    for n in (1, 2, 4, 5):
        given[n][:, 1] = np.nan
    actual = run_network(lstm, *given, lengths=[4, 0, 2])
    for name in ("hn", "cn", "dh0", "dc0"):
        assert np.isnan(actual[name][:, 1]).all()
        actual[name][:, 1] = expected[name][:, 1]
    assert_identical(actual, expected)


@pytest.mark.parametrize(
    "layout",
    ["Fortran order", "every other element", "negative strides", "unaligned", "odd steps"],
)
@pytest.mark.parametrize("size", [(5, 3, 4, 6), (300, 64, 32, 8)], ids=str)
def test_layouts_of_memory(dtype, rng, layout, size):
    """The large one is copied to memory of its own, which the system takes back at once."""
    T, B, I, H = size
    lstm = LSTM(I, H, seed=0, dtype=dtype)
    x, dy = (rng.standard_normal((T, B, n)).astype(dtype) for n in (I, H))
    lengths = rng.integers(0, T, B, endpoint=True)
    weights = [value for name, value in lstm.state_dict().items()]

    def everything(x, dy):
        y, states, cache = lstm.forward(x, lengths=lengths, padding="hold")
        dx, dstates, grads = lstm.backward(dy, None, cache)
        inference, _ = lstm(x, lengths=lengths)
        alone, last, _ = lstm_forward(x, *weights, lengths=lengths)
        return [y, *states, dx, *dstates, *grads.values(), inference, alone, *last]

    expected = everything(x, dy)
    for actual in (everything(COPIES[layout](x), dy), everything(x, COPIES[layout](dy))):
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_array_equal(a, e)


@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_memory_used_before_does_not_matter(isa, dtype, rng, matmul):
    lstm = LSTM(5, 17, 2, proj_size=3, dtype=dtype, seed=0, matmul=matmul)
    given, lengths = draw_network(rng, lstm, 6, 7), [3, 0, 6, 1, 0, 5, 3]
    expected = run_network(lstm, *given, lengths=lengths, padding="hold")
    run_network(lstm, *(np.full_like(array, np.nan) for array in given))
    actual = run_network(lstm, *given, lengths=lengths, padding="hold")
    assert_identical(actual, expected)


# Layers


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("matmul", ["packed", "blas"])
def test_gradients_with_dropout_are_central_differences(isa, rng, matmul, padding):
    lstm = LSTM(2, 3, 2, True, False, 0.4, True, 2, dtype=float, seed=0, matmul=matmul)
    x, h0, c0, *d_results = draw_network(rng, lstm, 3, 4)
    options = {"lengths": [2, 0, 3, 1], "padding": padding}

    def loss():
        # A copy draws the same dropout masks as the next one.
        y, state, _ = copy.deepcopy(lstm).forward(x, (h0, c0), **options)
        return weighted_sum((y, *state), d_results)

    gradients = run_network(copy.deepcopy(lstm), x, h0, c0, *d_results, **options)
    with lstm.writable() as p:
        for name, array in {"x": x, "h0": h0, "c0": c0, **p}.items():
            assert_gradient(gradients[f"d{name}"], loss, array, tolerance=1e-8, where=name)


def test_dropout_leaves_the_padding_alone(isa, dtype, rng):
    lstm = LSTM(3, 5, 2, dropout=0.5, dtype=dtype, seed=0)
    x, *_ = draw_network(rng, lstm, 6, 4)
    lengths = np.array([2, 0, 6, 4])
    y, (hn, _), _ = lstm.forward(x, lengths=lengths, padding="hold")
    assert not np.array_equal(y, lstm(x, lengths=lengths, padding="hold")[0])
    for b, n in enumerate(lengths):
        np.testing.assert_array_equal(y[n:, b], np.broadcast_to(hn[-1, b], y[n:, b].shape))


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_sequence_needs_no_batch_axis(isa, dtype, rng, settings):
    lstm = LSTM(3, 5, **settings, dtype=dtype, seed=0)
    given, axis = draw_network(rng, lstm, 6, 1), 0 if lstm.batch_first else 1
    options = {"lengths": [4], "padding": "hold"}
    batched = run_network(lstm, *given, **options)
    flat = [array.squeeze(axis if n in (0, 3) else 1) for n, array in enumerate(given)]
    axes = dict.fromkeys(("y", "dx"), axis) | dict.fromkeys(("hn", "cn", "dh0", "dc0"), 1)
    expected = {k: v.squeeze(axes[k]) if k in axes else v for k, v in batched.items()}
    assert_identical(run_network(lstm, *flat, **options), expected)


def test_gradients_belong_to_what_forward_saw(isa, dtype, rng):
    lstm = LSTM(3, 5, 2, dtype=dtype, seed=0)
    x, h0, c0, *d_results = draw_network(rng, lstm, 4, 3)
    lengths = np.array([2, 4, 0])
    expected = run_network(lstm, x, h0, c0, *d_results, lengths=lengths, padding="hold")
    y, state, cache = lstm.forward(x, (h0, c0), lengths=lengths, padding="hold")
    lengths[:] = 1
    for array in (x, h0, c0, y, *state):
        array.fill(np.nan)
    for _ in range(2):
        actual = backward_network(lstm, *d_results, cache)
        assert_identical(actual, {name: expected[name] for name in actual})
        for array in actual.values():
            array.fill(np.nan)


# Arguments

X = np.ones((4, 3, 5), np.float32)
CALLS = [
    LSTM(5, 6, seed=0),
    LSTM(5, 6, seed=0).forward,
    lambda x, **options: LSTM(5, 6, seed=0, batch_first=True)(x.swapaxes(0, 1), **options),
    lambda x, **options: lstm_forward(
        x, *np.ones((2, 24, 5), "f"), w_hr=np.ones((5, 6), "f"), **options
    ),
]
NO_INTEGERS = [
    *([1.0, 2.0, 3.0], np.ones(3), np.ones(3, bool), [True, False, True], "123", ["1", "2", "3"]),
    *(3, 3.0, {1: 2}, np.ones(3, complex), np.ones(3, object), np.ones(3, "m8[s]")),
    *(np.ma.masked_array([1, 2, 3], [0, 1, 0]), [None, 1, 2]),
]
WRONG = [
    *([1, 2], [], [1, 2, 3, 4], [[1, 2, 3]], [[1], [2], [3]], [[1], [2, 3], [1]], np.array(3)),
    *([-1, 2, 3], [1, 5, 3], [1, 2**62, 3], np.array([1, 2**64 - 1, 3], np.uint64)),
    *(np.array([1, -1, 3], np.int8), np.array([1, -1, 3]), np.array([1, 5, 3]), np.array([1, 2])),
    *(np.array([[1, 2, 3]]), np.array([1, 2**62, 3])),
]


@pytest.mark.parametrize(
    ("lengths", "error"),
    [(n, TypeError) for n in NO_INTEGERS] + [(n, ValueError) for n in WRONG],
    ids=lambda value: repr(value)[:30],
)
def test_wrong_lengths_are_named(lengths, error):
    for call in CALLS:
        with pytest.raises(error, match=r"^lengths: expected "):
            call(X, lengths=lengths)


@pytest.mark.parametrize("padding", ["", "Zero", "same", None, 0, ["hold"], np.array(["hold"])])
def test_an_unknown_padding_is_named(padding):
    for call, lengths in product(CALLS, (None, [4, 0, 2])):
        with pytest.raises(ValueError, match=r"^padding: expected "):
            call(X, lengths=lengths, padding=padding)


KINDS = {
    "list": list,
    "tuple": tuple,
    "Python integers": lambda a: a.tolist(),
    "unsigned bytes": lambda a: a.astype(np.uint8),
    "uint64": lambda a: a.astype(np.uint64),
    "byte-swapped": lambda a: a.astype(">i2"),
    "every other element": lambda a: np.repeat(a, 2)[::2],
    "negative strides": lambda a: a[::-1].copy()[::-1],
}


@pytest.mark.parametrize("kind", KINDS)
def test_integers_of_all_kinds_are_taken(kind):
    lengths = np.array([4, 0, 2])
    for call in CALLS:
        actual, expected = call(X, lengths=KINDS[kind](lengths)), call(X, lengths=lengths)
        np.testing.assert_array_equal(actual[0], expected[0], strict=True)
        assert not np.array_equal(actual[0], call(X)[0])


@pytest.mark.parametrize("kind", LENGTHS)
@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"num_layers": 3}], ids=str)
def test_lengths_that_need_no_conversion(dtype, rng, settings, kind):
    """They have a shorter way, forward and back, which leaves what is given alone, too."""
    T, B, I, H = 30, 8, 12, 20
    lstm = LSTM(I, H, dtype=dtype, seed=0, **settings)
    lengths = LENGTHS[kind](rng, T, B).astype(np.intp)
    x, h0, c0, dy, dhn, dcn = draw_network(rng, lstm, T, B)
    y, (hn, cn), cache = lstm.forward(x, (h0, c0), lengths=lengths.tolist())
    dx, dstate, grads = lstm.backward(dy, (dhn, dcn), cache)
    given = [a.copy() for a in (x, h0, c0, dy, dhn, dcn, lengths)]
    found = lstm.forward(x, (h0, c0), lengths=lengths)
    x[:] = np.nan  # the cache has its own copy
    back = lstm.backward(dy, (dhn, dcn), found[2])
    x[:] = given[0]
    assert_identical(
        {**dict(zip("yhc", (found[0], *found[1]), strict=True)), "dx": back[0], **back[2]},
        {**dict(zip("yhc", (y, hn, cn), strict=True)), "dx": dx, **grads},
    )
    assert_identical(dict(zip("hc", back[1], strict=True)), dict(zip("hc", dstate, strict=True)))
    for a, b in zip((x, h0, c0, dy, dhn, dcn, lengths), given, strict=True):
        np.testing.assert_array_equal(a, b)
    out = np.full_like(y, 7), (h0, c0)
    actual = lstm(x, (h0, c0), lengths=lengths, out=out)
    assert actual[0] is out[0]
    assert actual[1][0] is h0
    for a, b in zip((out[0], h0, c0), (y, hn, cn), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("T", [0, 4])
def test_no_rows_have_no_lengths(T, dtype):
    lstm = LSTM(3, 5, 2, dtype=dtype)
    for lengths in ([], (), np.zeros(0, int)):
        y, (hn, _), cache = lstm.forward(np.ones((T, 0, 3), dtype), lengths=lengths)
        assert (y.shape, hn.shape) == ((T, 0, 5), (2, 0, 5))
        assert lstm.backward(y, None, cache)[0].shape == (T, 0, 3)


FAULTS = """
import resource, numpy as np, lstm_fast
rng = np.random.default_rng(0)
lstm, x = lstm_fast.LSTM(64, 128, seed=0), rng.standard_normal((50, 32, 64)).astype("f")
lengths = rng.integers(10, 51, 32)
def faults(count, **options):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        lstm(x, **options)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults(40)
faults(40, lengths=lengths)
print(faults(40, lengths=lengths))
"""


def test_calls_that_repeat_need_no_new_memory():
    """Pages of 4 KiB are touched for the first time at each call where memory went back before."""
    (count,) = map(int, run_python(FAULTS).split())
    assert count < 40 * 10
