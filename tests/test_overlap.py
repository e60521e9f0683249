"""Arrays of `out` that share memory with one another: refused if an element is in two of them."""

import numpy as np
import pytest

from lstm_fast import LSTM

T, B, I, H = 5, 3, 4, 6
CALLS = {"call": LSTM.__call__, "forward": LSTM.forward}
# Settings, shapes of x, y, and of hn and cn, and further arguments.
FORMS = {
    "plain": ({}, (T, B, I), (T, B, H), (1, B, H), {}),
    "lengths": ({}, (T, B, I), (T, B, H), (1, B, H), {"lengths": [5, 0, 2]}),
    "batch first": ({"batch_first": True}, (B, T, I), (B, T, H), (1, B, H), {}),
    "unbatched": ({}, (T, I), (T, H), (1, H), {}),
    "two directions": ({"bidirectional": True}, (T, B, I), (T, B, 2 * H), (2, B, H), {}),
    "two layers": ({"num_layers": 2, "dropout": 0.5}, (T, B, I), (T, B, H), (2, B, H), {}),
}


def sevens(*shape: int) -> np.ndarray:
    return np.full(shape, 7, np.float32)


def memory(shape: tuple[int, ...], state: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return arrays for y, hn and cn, one after the other in one that is returned last."""
    sizes = [int(np.prod(s)) for s in (shape, state, state)]
    whole = sevens(sum(sizes))
    parts = np.split(whole, np.cumsum(sizes)[:2])
    return (*(p.reshape(s) for p, s in zip(parts, (shape, state, state), strict=True)), whole)


def of_y(y: np.ndarray, state: tuple[int, ...]) -> np.ndarray:
    """Return a part of y's memory in the shape of a state."""
    return y.reshape(-1)[-int(np.prod(state)) :].reshape(state)


def one_element(state: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays of which the last and the first element are the same."""
    n = int(np.prod(state))
    both = sevens(2 * n - 1)
    return both[:n].reshape(state), both[n - 1 :].reshape(state)


def interlocked(state: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return two arrays in every other element of one another's memory, but for one common row."""
    both = sevens(*state[:-1], 2 * state[-1])
    return both[..., ::2], both[..., -state[-1] :]


# Arrays y, (hn, cn) of these shapes that overlap.
OVERLAPS = {
    "hn in y": lambda y, s: (y, (of_y(y, s), sevens(*s))),
    "cn in y": lambda y, s: (y, (None, of_y(y, s))),
    "flipped hn in y": lambda y, s: (y, (np.flip(of_y(y, s)), None)),
    "hn is cn": lambda y, s: (y, (sevens(*s),) * 2),
    "hn is cn, and no y": lambda y, s: (None, (sevens(*s),) * 2),
    "views of one": lambda y, s: (y, (a := sevens(*s), a.view())),
    "one element": lambda y, s: (y, one_element(s)),
    "one element, the other way": lambda y, s: (y, one_element(s)[::-1]),
    "interlocked": lambda y, s: (y, interlocked(s)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("overlap", OVERLAPS)
@pytest.mark.parametrize("form", FORMS)
def test_overlapping_results_are_refused(form, overlap, call):
    """Nothing is written, and the generator of dropout stays where it was."""
    settings, x_shape, y_shape, state, options = FORMS[form]
    lstm, same = (LSTM(I, H, **settings, seed=0) for _ in range(2))
    out = OVERLAPS[overlap](sevens(*y_shape), state)
    with pytest.raises(ValueError, match=r"^out\b.*(overlap|share|memory)"):
        call(lstm, np.ones(x_shape, np.float32), **options, out=out)
    for array in (out[0], *out[1]):
        assert array is None or (array == 7).all()
    x = np.ones(x_shape, np.float32)
    np.testing.assert_array_equal(lstm.forward(x)[0], same.forward(x)[0])


def columns(y: tuple[int, ...], s: tuple[int, ...]):
    """Return arrays of which hn and cn are the halves of the columns of another."""
    both = sevens(*s[:-1], 2 * s[-1])
    return sevens(*y), both[..., : s[-1]], both[..., s[-1] :], both


def every_other(y: tuple[int, ...], s: tuple[int, ...]):
    """Return arrays of which hn and cn have every other element of another."""
    both = sevens(*s[:-1], 2 * s[-1])
    return sevens(*y), both[..., ::2], both[..., 1::2], both


def beside_y(y: tuple[int, ...], s: tuple[int, ...]):
    """Return arrays of which y is all but a column of another."""
    room = sevens(*y[:-1], y[-1] + 1)
    return room[..., :-1], sevens(*s), sevens(*s), room


# Arrays y, hn and cn that share memory but no element, and what they share.
APART = {
    "one after the other": memory,
    "columns": columns,
    "every other element": every_other,
    "columns of y": beside_y,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", APART)
@pytest.mark.parametrize("form", FORMS)
def test_results_that_interleave_are_taken(form, kind, call):
    """They are right, and nothing between them is written."""
    settings, x_shape, y_shape, state, options = FORMS[form]
    lstm, same = (LSTM(I, H, **settings, seed=0) for _ in range(2))
    x = np.random.default_rng(0).standard_normal(x_shape, np.float32)
    y, hn, cn, room = APART[kind](y_shape, state)
    found, (found_hn, found_cn), *_ = call(lstm, x, **options, out=(y, (hn, cn)))
    assert found is y and found_hn is hn and found_cn is cn
    expected, last, *_ = call(same, x, **options)
    for actual, wanted in zip((y, hn, cn), (expected, *last), strict=True):
        np.testing.assert_array_equal(actual, wanted)
        actual[...] = 7
    assert (room == 7).all()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_states_of_each_layer_are_checked_too(call):
    """Where layers have different sizes states cannot be given; y beside them still can."""
    lstm = LSTM(I, (H, H + 1), seed=0)
    x, y = np.ones((T, B, I), np.float32), sevens(T, B, H + 1)
    with pytest.raises(ValueError, match=r"^out\b"):
        call(lstm, x, out=(y, (y[:1, :, :H], None)))
    assert (y == 7).all()
    assert call(lstm, x, out=(y, None))[0] is y


def test_inputs_may_overlap_with_one_result_each():
    """What is allowed elsewhere stays so: a state in place, y in place of x."""
    lstm = LSTM(H, H, seed=0)
    x, h, c = (np.ones(s, np.float32) for s in ((T, B, H), (1, B, H), (1, B, H)))
    y, (hn, cn) = lstm(x, (h, c))
    found, last = lstm(x, (h, c), out=(x, (h, c)))
    assert found is x and last[0] is h and last[1] is c
    for actual, wanted in zip((x, h, c), (y, hn, cn), strict=True):
        np.testing.assert_array_equal(actual, wanted)
