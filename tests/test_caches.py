"""What `forward` returns for `backward`: opaque, so that nothing in it reads unchecked arrays."""

import numpy as np
import pytest

from lstm_fast import LSTM, lstm_forward

T, B, I, H = 4, 3, 5, 6
X = np.ones((T, B, I), np.float32)


def of_a_layer(**options):
    w_ih, w_hh = (np.full((4 * H, n), 0.1, np.float32) for n in (I, H))
    return lstm_forward(X, w_ih, w_hh, **options)[2]


CACHES = {
    "plain": lambda: LSTM(I, H).forward(X)[2],
    "one directed": lambda: LSTM(I, H, reverse=True).forward(X)[2],
    "two directions": lambda: LSTM(I, H, bidirectional=True, merge="mul").forward(X)[2],
    "lengths": lambda: LSTM(I, H, 2).forward(X, lengths=[1, 4, 2])[2],
    "concatenated": lambda: LSTM(I, H).forward((X[:, 0], [0, 1, 4]))[2],
    "checkpoints": lambda: LSTM(I, H).forward(X, checkpoint=1)[2],
    "dropout": lambda: LSTM(I, H, 2, dropout=0.5, recurrent_dropout=0.5).forward(X)[2],
    "of a layer": of_a_layer,
    "of a layer with lengths": lambda: of_a_layer(lengths=[1, 4, 2]),
}


def functions(part: object, path: str = "cache") -> list[str]:
    """Return the public functions of something and of its public parts, but for an LSTM's."""
    if isinstance(part, LSTM):
        return []
    if isinstance(part, (tuple, list)) and not hasattr(part, "_fields"):
        return [name for n, item in enumerate(part) for name in functions(item, f"{path}[{n}]")]
    if not type(part).__module__.startswith("lstm_fast"):
        return []
    found = []
    for name in dir(part):
        if name.startswith("_"):
            continue
        value = getattr(part, name)
        if callable(value):
            found.append(f"{path}.{name}")
        else:
            found += functions(value, f"{path}.{name}")
    return found


@pytest.mark.parametrize("kind", CACHES)
def test_a_cache_has_no_public_functions(kind):
    """Nor has anything in it that can be reached without an underscore."""
    cache = CACHES[kind]()
    assert not hasattr(cache, "backward")
    assert functions(cache) == []


@pytest.mark.parametrize("checkpoint", [None, 1])
@pytest.mark.parametrize("lengths", [None, [1, 1, 1]])
def test_the_size_of_a_cache(lengths, checkpoint):
    """A number of bytes: the input at least, and more for a longer sequence and more units."""
    sizes = []
    for steps, units in [(T, H), (200 * T, H), (200 * T, 20 * H)]:
        x = np.ones((steps, B, I), np.float32)
        options = {"lengths": None if lengths is None else [steps * n for n in lengths]}
        cache = LSTM(I, units).forward(x, **options, checkpoint=checkpoint)[2]
        assert type(cache.nbytes) is int
        assert cache.nbytes >= x.nbytes
        sizes.append(cache.nbytes)
    assert sizes == sorted({*sizes})


@pytest.mark.parametrize(
    "wrong",
    [
        np.ones((), np.float32),
        np.ones(1, np.float32),
        np.ones((1, 1, 1), np.float32),
        np.ones((T, B, 1), np.float32),
        np.ones((T, 1, H), np.float32),
        np.ones((1, B, H), np.float32),
        np.ones((T + 1, B, H), np.float32),
        np.ones((B, T, H), np.float32),
        np.ones((T, B, H)),
        np.ones((T, B, H), np.int32),
        np.ones((T, B, H), np.float32).tolist(),
    ],
    ids=lambda wrong: f"{getattr(wrong, 'dtype', 'list')}{getattr(wrong, 'shape', '')}",
)
@pytest.mark.parametrize("kind", ["plain", "lengths", "checkpoints"])
def test_a_gradient_of_another_shape_is_refused(kind, wrong):
    """However the cache was made; it can be used afterwards."""
    layers = 2 if kind == "lengths" else 1
    lstm = LSTM(I, H, layers, seed=0)
    options = {"lengths": {"lengths": [1, 4, 2]}, "checkpoints": {"checkpoint": 1}}.get(kind, {})
    y, _, cache = lstm.forward(X, **options)
    expected = lstm.backward(y, None, cache)
    with pytest.raises((TypeError, ValueError), match=r"^dy\b"):
        lstm.backward(wrong, None, cache)
    actual = lstm.backward(y, None, cache)
    np.testing.assert_array_equal(actual[0], expected[0])
