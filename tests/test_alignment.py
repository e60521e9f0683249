"""Arrays that begin at an odd address: results are those of others, and no kernel reads them."""

import numpy as np
import pytest
from support.internals import ENGINE_CALLS

from lstm_fast import LSTM, lstm_backward, lstm_forward

T, B, I, H = 5, 3, 4, 6
LENGTHS = [3, 5, 0]
# Settings of an LSTM, and arguments of its calls.
NETWORKS = {
    "plain": ({}, {}),
    "lengths": ({}, {"lengths": LENGTHS}),
    "two layers, batch first": ({"num_layers": 2, "batch_first": True}, {}),
    "two directions": ({"bidirectional": True, "merge": "mul"}, {}),
    "projection": ({"proj_size": 2}, {}),
    "layer norm and peepholes": ({"layer_norm": True, "peephole": True}, {}),
    "layer norm of gates": ({"layer_norm": "gates", "peephole": True}, {}),
    "BLAS": ({"matmul": "blas"}, {}),
}
LAYERS = {
    "plain": [],
    "projection": ["w_hr"],
    "peepholes": ["w_ch"],
    "layer norm": ["w_ln_ih", "w_ln_hh", "w_ln_c", "b_ln_c"],
    "layer norm of gates": ["w_ln", "w_ch"],
    "noise": ["recurrent_mask", "zoneout"],
}


def odd(array: np.ndarray) -> np.ndarray:
    """Return a copy that is contiguous, but for one byte not aligned."""
    copy = np.frombuffer(bytearray(array.nbytes + 1), array.dtype, offset=1).reshape(array.shape)
    copy[...] = array
    assert copy.flags.c_contiguous and not copy.flags.aligned and copy.flags.writeable
    return copy


def flat(given) -> list[np.ndarray]:
    """Return the arrays among some values, and in tuples, lists and dictionaries of them."""
    if isinstance(given, np.ndarray):
        return [given]
    parts = [*given.values()] if isinstance(given, dict) else given
    return [a for part in parts for a in flat(part)] if isinstance(parts, (tuple, list)) else []


@pytest.fixture
def in_kernels(monkeypatch) -> list[np.ndarray]:
    """Arrays that the engine is given: by the network of an LSTM, and by `functional`."""
    found: list[np.ndarray] = []

    def watched(function):
        def watch(*args, **options):
            found.extend(flat([*args, *options.values()]))
            return function(*args, **options)

        return watch

    for owner, functions in ENGINE_CALLS.items():
        for function in functions:
            monkeypatch.setattr(owner, function, watched(getattr(owner, function)))
    return found


def assert_same(actual, expected) -> None:
    for a, e in zip(flat(actual), flat(expected), strict=True):
        np.testing.assert_array_equal(a, e)


def assert_aligned(arrays: list[np.ndarray]) -> None:
    assert arrays, "no function was seen"
    assert all([array.flags.aligned for array in arrays]), "a kernel would read at odd addresses"


def draw(dtype, *shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


@pytest.mark.parametrize("name", NETWORKS)
def test_calls_and_gradients(name, dtype, in_kernels):
    """x, h0, c0, dy, dhn and dcn, each alone and all of them; results in `out` too."""
    settings, options = NETWORKS[name]
    lstm = LSTM(I, H, **settings, dtype=dtype, seed=0)
    x_shape = (B, T, I) if lstm.batch_first else (T, B, I)
    x, h0, c0 = draw(dtype, x_shape, *(a.shape for a in lstm(np.zeros(x_shape, dtype))[1]))
    y, state, cache = lstm.forward(x, (h0, c0), **options)
    dy, dhn, dcn = draw(dtype, y.shape, state[0].shape, state[1].shape)
    expected = lstm.backward(dy, (dhn, dcn), cache)
    in_kernels.clear()
    for n in range(4):
        x1, h1, c1 = (odd(a) if n in (k, 3) else a for k, a in enumerate((x, h0, c0)))
        assert_same(lstm(x1, (h1, c1), **options), (y, state))
        found, last, now = lstm.forward(x1, (h1, c1), **options)
        assert_same((found, last), (y, state))
        dy1, dh1, dc1 = (odd(a) if n in (k, 3) else a for k, a in enumerate((dy, dhn, dcn)))
        assert_same(lstm.backward(dy1, (dh1, dc1), now), expected)
        out = odd(y), (odd(state[0]), odd(state[1]))
        assert lstm(x1, (h1, c1), **options, out=out)[0] is out[0]
        assert_same(out, (y, state))
    assert_aligned(in_kernels)


@pytest.mark.parametrize("name", NETWORKS)
def test_parameters(name, dtype, in_kernels):
    """Loaded and assigned."""
    settings, options = NETWORKS[name]
    lstm, other = (LSTM(I, H, **settings, dtype=dtype, seed=seed) for seed in (0, 1))
    (x,) = draw(dtype, (B, T, I) if lstm.batch_first else (T, B, I))
    values = lstm.state_dict()
    values |= {name: odd(values[name]) for name in lstm.parameters}
    in_kernels.clear()
    other.load_state_dict(values)
    assert_same(other(x, **options), lstm(x, **options))
    with other.writable() as p:
        for key in lstm.parameters:
            p[key] = np.zeros_like(values[key])
            p[key] = values[key]
    assert_same(other(x, **options), lstm(x, **options))
    assert_aligned(in_kernels)


def test_concatenated_sequences(dtype, in_kernels):
    lstm = LSTM(I, H, 2, dtype=dtype, seed=0)
    (x,) = draw(dtype, (8, I))
    offsets = [0, 3, 3, 8]
    y, state, cache = lstm.forward((x, offsets))
    expected = lstm.backward(y, state, cache)
    in_kernels.clear()
    assert_same(lstm((odd(x), odd(np.array(offsets)))), (y, state))
    found, last, cache = lstm.forward((odd(x), odd(np.array(offsets))))
    assert_same((found, last), (y, state))
    assert_same(lstm.backward(odd(y), (odd(state[0]), odd(state[1])), cache), expected)
    assert_aligned(in_kernels)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint16])
def test_lengths(dtype, kind):
    lstm = LSTM(I, H, dtype=dtype, seed=0)
    (x,) = draw(dtype, (T, B, I))
    lengths = odd(np.array(LENGTHS, kind))
    assert_same(lstm(x, lengths=lengths), lstm(x, lengths=LENGTHS))


@pytest.mark.parametrize("name", ["plain", "projection", "layer norm and peepholes", "BLAS"])
def test_streams(name, dtype, in_kernels):
    """Steps, chunks and the state that is set."""
    lstm = LSTM(I, H, **NETWORKS[name][0], dtype=dtype, seed=0)
    (x,) = draw(dtype, (T, B, I))
    y, (hn, cn) = lstm(x)
    stream = lstm.stream(B)
    in_kernels.clear()
    for x_t, y_t in zip(x, y, strict=True):
        out = odd(np.zeros_like(y_t))
        before = stream.snapshot()
        np.testing.assert_array_equal(stream.step(odd(x_t)), y_t)
        stream.restore(before)
        assert stream.step(odd(x_t), out=out) is out
        np.testing.assert_array_equal(out, y_t)
    assert_same(stream.state, (hn, cn))
    stream.reset()
    out = odd(np.zeros_like(y))
    np.testing.assert_array_equal(stream(odd(x)), y)
    stream.reset()
    assert stream(odd(x), out=out) is out
    np.testing.assert_array_equal(out, y)
    stream.state = odd(hn), odd(cn)
    assert_same(stream.state, (hn, cn))
    assert_aligned(in_kernels)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["", "lengths"])
@pytest.mark.parametrize("layer", LAYERS)
def test_one_layer_on_arrays(layer, lengths, dtype, in_kernels):
    """Every array of `lstm_forward` and `lstm_backward`, each alone and all of them."""
    P = 2 if layer == "projection" else H
    shapes = {"x": (T, B, I), "w_ih": (4 * H, I), "w_hh": (4 * H, P), "b_ih": (4 * H,)}
    shapes |= {"b_hh": (4 * H,), "h0": (B, P), "c0": (B, H)}
    more = {"w_hr": (P, H), "w_ch": (3 * H,), "w_ln_ih": (4 * H,), "w_ln_hh": (4 * H,)}
    more |= {"w_ln": (4 * H,), "w_ln_c": (H,), "b_ln_c": (H,)}
    more |= {"recurrent_mask": (B, P), "zoneout": (2, T, B, H)}
    shapes |= {name: more[name] for name in LAYERS[layer]}
    args = dict(zip(shapes, draw(dtype, *shapes.values()), strict=True))
    if "zoneout" in args:
        args["zoneout"] = tuple(np.clip(abs(args["zoneout"]), 0, 1))
    dy, dhn, dcn = draw(dtype, (T, B, P), (B, P), (B, H))
    y, state, cache = lstm_forward(**args, lengths=lengths)
    expected = lstm_backward(dy, dhn, dcn, cache)
    in_kernels.clear()
    for name in (*args, None):
        changed = {
            key: (tuple(map(odd, value)) if key == "zoneout" else odd(value))
            if name in (key, None)
            else value
            for key, value in args.items()
        }
        found, last, cache = lstm_forward(**changed, lengths=lengths)
        assert_same((found, last), (y, state))
        assert_same(lstm_backward(odd(dy), odd(dhn), odd(dcn), cache), expected)
    assert_aligned(in_kernels)
