"""Sessions of a `Stream`: steps of some rows, rows that come, go and move, and NaN."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.internals import engine_sessions
from support.options import MANY

import lstm_fast as lf
from lstm_fast import LSTM
from lstm_fast.nn import Embedding, Last, LayerNorm, Linear, Sequential

T, B, I, H = 6, 5, 3, 9
OPTIONS = {
    "plain": {},
    "no bias": {"bias": False},
    "batch_first": {"batch_first": True},
    "projection": {"proj_size": 4},
    "residual": {"residual": True},
    "peephole": {"peephole": True},
    "coupled": {"coupled": True},
    "clip": {"clip": 0.9, "cell_clip": 0.8},
    "activations": {"activations": ("HardSigmoid", "Tanh", "Softsign")},
    "layer_norm": {"layer_norm": True},
    "norm_of_gates": {"layer_norm": "gates", "peephole": True},
    "zoneout": {"zoneout": (0.2, 0.3)},
    "dropout": {"dropout": 0.4, "recurrent_dropout": 0.3},
    "sizes": {"hidden_size": (9, 4)},
    "sizes, projected": {"hidden_size": (9, 6), "proj_size": 2},
}


def make(option="plain", dtype=np.float32, layers=2):
    settings = {"hidden_size": H, "num_layers": layers, **OPTIONS[option]}
    return LSTM(I, **settings, dtype=dtype, seed=0)


def flat(state):
    """Return the arrays of a state, also of a model's."""
    if isinstance(state, dict):
        return [array for part in state.values() for array in flat(part)]
    if isinstance(state, np.ndarray):
        return [state]
    return [array for part in state for array in flat(part)]


def assert_same(state, expected):
    for actual, array in zip(flat(state), flat(expected), strict=True):
        np.testing.assert_array_equal(actual, array, strict=True)


def started(stream, rng):
    """Let a stream make two steps, so that its state is not zero; return it."""
    I = stream.lstm.input_size
    for _ in range(2):
        stream.step(rng.standard_normal((stream.batch_size, I)).astype(stream.lstm.dtype))
    return stream


# ---- steps of some rows


@pytest.mark.parametrize("option", OPTIONS)
def test_rows_have_the_bits_of_each_alone_and_of_all(option, dtype, rng, isa):
    lstm = make(option, dtype)
    stream, alone = lstm.stream(B), [lstm.stream() for _ in range(B)]
    for n in (5, 2, 1, 4, 3, 0):
        rows, x = rng.permutation(B)[:n], rng.standard_normal((n, I)).astype(dtype)
        before, everyone = stream.state, stream.copy()
        padded = np.zeros((B, I), dtype)
        padded[rows] = x
        together = everyone.step(padded)
        y = stream.step(x, rows=rows)
        assert y.shape == (n, lstm.stream(1).step(x[:0], rows=[]).shape[1])
        np.testing.assert_array_equal(y, together[rows], strict=True)
        for x_row, y_row, row in zip(x, y, rows, strict=True):
            np.testing.assert_array_equal(alone[row].step(x_row[None])[0], y_row, strict=True)
            assert_same(stream.take(row), alone[row].state)
        others = np.setdiff1d(np.arange(B), rows)
        for now, old in zip(flat(stream.state), flat(before), strict=True):
            np.testing.assert_array_equal(now[:, others], old[:, others])


@pytest.mark.parametrize("threads", [1, 2])
def test_many_rows_on_several_threads(threads, rng):
    lstm = LSTM(16, 48, 2, seed=0)
    lf.set_num_threads(threads)
    try:
        stream, other = lstm.stream(3000), lstm.stream(3000)
        x = rng.standard_normal((3000, 16), np.float32)
        rows = rng.permutation(3000)[:1700]
        y, expected = stream.step(x[rows], rows=rows), other.step(x)
        np.testing.assert_array_equal(y, expected[rows])
        assert_same(stream.take(rows), other.take(rows))
        stream.put(rows, lstm.stream(1700).state)
        assert not any(array.any() for array in flat(stream.state))
    finally:
        lf.set_num_threads(None)


ROWS = {
    "list": ([3, 0], [3, 0]),
    "tuple": ((1, 4), [1, 4]),
    "one": (2, [2]),
    "the last": (-1, [4]),
    "NumPy's integer": (np.int64(1), [1]),
    "negative": (np.array([-1, 0, -3]), [4, 0, 2]),
    "of 32 bits": (np.array([4, 1], np.int32), [4, 1]),
    "unsigned": (np.array([4, 1], np.uint64), [4, 1]),
    "strided": (np.arange(5)[::-2], [4, 2, 0]),
    "byte-swapped": (np.array([4, 1]).astype(np.dtype(np.intp).newbyteorder("S")), [4, 1]),
    "slice": (slice(3, None, -2), [3, 1]),
    "mask": (np.array([True, False, False, True, False]), [0, 3]),
    "list of booleans": ([False, True, False, False, True], [1, 4]),
    "strided mask": (np.array([True, False] * 5)[::2], [0, 1, 2, 3, 4]),
    "nobody": ([], []),
    "no row": (np.zeros(5, bool), []),
    "an empty array": (np.zeros(0, int), []),
    "all": (range(5), [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("form", ROWS)
def test_forms_of_rows(form, rng):
    given_rows, rows = ROWS[form]
    kept = copy.deepcopy(given_rows)
    stream = started(make().stream(B), rng)
    other, x = stream.copy(), rng.standard_normal((len(rows), I), np.float32)
    expected = [other.step(x[k : k + 1], rows=[row])[0] for k, row in enumerate(rows)]
    out = np.empty((len(rows), H), np.float32)
    assert stream.step(x, out, rows=given_rows) is out
    np.testing.assert_array_equal(out, np.reshape(expected, (-1, H)))
    assert_same(stream.state, other.state)
    taken = stream.take(given_rows)
    assert_same(taken, tuple(part[:, rows] for part in stream.state))
    stream.reset(given_rows)
    assert not any(part[:, rows].any() for part in stream.state)
    stream.put(given_rows, taken)
    assert_same(stream.state, other.state)
    np.testing.assert_array_equal(given_rows, kept)


WRONG = {
    "twice": ([1, 2, 1], ValueError),
    "twice, from the end": ([4, -1], ValueError),
    "too large": ([0, B], IndexError),
    "too small": ([0, -B - 1], IndexError),
    "unsigned": (np.array([2**64 - 1], np.uint64), IndexError),
    "huge": ([2**63], (IndexError, TypeError)),
    "huger": ([2**70], TypeError),
    "too few booleans": ([True, False], IndexError),
    "two axes of booleans": (np.ones((B, 1), bool), IndexError),
    "two axes": ([[0, 1]], IndexError),
    "ragged": ([[0], [1, 2]], ValueError),
    "numbers": ([0.0, 1.0], TypeError),
    "a boolean": (True, IndexError),
    "text": ("0", TypeError),
    "an ellipsis": (..., TypeError),
    "masked": (np.ma.array([0, 1], mask=[0, 1]), TypeError),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_other_rows_are_refused_and_change_nothing(wrong, rng):
    rows, error = WRONG[wrong]
    stream = started(make().stream(B), rng)
    before = stream.state
    with pytest.raises(error, match=r"^rows: "):
        stream.step(np.zeros((2, I), np.float32), rows=rows)
    with pytest.raises(error, match=r"^rows: "):
        stream.put(rows, stream.take([0, 1]))
    if not wrong.startswith("twice"):
        for call in (stream.take, stream.reset):
            with pytest.raises(error, match=r"^rows: "):
                call(rows)
    assert_same(stream.state, before)


def test_wrong_arrays_with_rows_change_nothing(rng):
    stream = started(make().stream(B), rng)
    before, x = stream.state, np.zeros((2, I), np.float32)
    for wrong in (x[:1], np.zeros((B, I), np.float32), x[:, :2]):
        with pytest.raises(ValueError, match=r"x_t: expected shape .* = \(2, 3\)"):
            stream.step(wrong, rows=[0, 3])
    with pytest.raises(TypeError, match="x_t"):
        stream.step(x.astype(float), rows=[0, 3])
    with pytest.raises(ValueError, match="out"):
        stream.step(x, np.zeros((3, H), np.float32), rows=[0, 3])
    assert_same(stream.state, before)


def test_steps_of_rows_need_no_second_state(rng):
    stream = LSTM(3, 64, seed=0).stream(1000)
    stream.step(np.zeros((2, 3), np.float32), rows=[5, 900])
    assert len(pickle.dumps(stream)) < 1.5 * sum(part.nbytes for part in stream.state) + 1e5


# ---- sessions that come, go and move


@pytest.mark.parametrize("option", ["plain", "projection", "sizes"])
def test_grow(option, rng, dtype):
    lstm = make(option, dtype)
    stream = started(lstm.stream(2), rng)
    before = stream.state
    assert stream.grow(3).tolist() == [2, 3, 4]
    assert stream.batch_size == 5
    assert_same(stream.take([0, 1]), before)
    assert not any(array.any() for array in flat(stream.take([2, 3, 4])))
    x = rng.standard_normal((5, I)).astype(dtype)
    fresh = lstm.stream(3).step(x[2:])
    np.testing.assert_array_equal(stream.step(x)[2:], fresh)
    assert stream.grow(1).tolist() == [5]


@pytest.mark.parametrize(
    ("count", "error"), [(0, ValueError), (-1, ValueError), (1.0, TypeError), (2**60, ValueError)]
)
def test_grow_by_another_number(count, error, rng):
    stream = started(make().stream(2), rng)
    before = stream.state
    with pytest.raises(error, match=r"^count: "):
        stream.grow(count)
    assert stream.batch_size == 2
    assert_same(stream.state, before)


@pytest.mark.parametrize("option", ["plain", "projection", "sizes"])
def test_sessions_move_to_another_stream(option, rng, dtype):
    lstm = make(option, dtype)
    one, other = started(lstm.stream(B), rng), started(lstm.stream(B), rng)
    other.put([4, 1], one.take([0, 3]))
    x = rng.standard_normal((2, I)).astype(dtype)
    np.testing.assert_array_equal(other.step(x, rows=[4, 1]), one.step(x, rows=[0, 3]))


def test_take_may_repeat_rows_and_copies(rng):
    stream = started(make().stream(B), rng)
    before = stream.state
    h, c = stream.take([2, 2, 0])  # as a beam search goes on from the best ones
    assert_same((h, c), tuple(part[:, [2, 2, 0]] for part in before))
    h.fill(1)
    assert_same(stream.state, before)
    stream.put(slice(3), (h, c))
    assert_same(stream.take([0, 1, 2]), (h, c))


WRONG_STATES = {
    "nothing": (None, TypeError),
    "one part": (lambda h, c: (h, None), TypeError),
    "three parts": (lambda h, c: (h, c, c), ValueError),
    "other dtype": (lambda h, c: (h, c.astype(float)), TypeError),
    "other rows": (lambda h, c: (h, c[:, :1]), ValueError),
    "other columns": (lambda h, c: (h[..., 1:], c), ValueError),
}


@pytest.mark.parametrize("wrong", WRONG_STATES)
def test_a_wrong_state_is_refused_and_changes_nothing(wrong, rng):
    stream = started(make().stream(B), rng)
    before = stream.state
    change, error = WRONG_STATES[wrong]
    given_state = change and change(*(part + 1 for part in stream.take([0, 1])))
    with pytest.raises(error, match=r"^(state|h|c): "):
        stream.put([0, 1], given_state)
    assert_same(stream.state, before)


def test_sessions_in_files(tmp_path, rng):
    lstm = make()
    stream = started(lstm.stream(B), rng)
    few = lstm.stream(2)
    few.state = stream.take([3, 1])
    lf.save(tmp_path / "two.safetensors", few)
    stream.reset()
    stream.put([3, 1], lf.load(tmp_path / "two.safetensors").state)
    assert_same(stream.take([3, 1]), few.state)


# ---- NaN

POLICIES = ["keep", "raise", "hold", "reset"]


def with_nan(rng, n, rows, dtype=np.float32):
    x = rng.standard_normal((n, I)).astype(dtype)
    x[rows, 1] = np.nan
    return x


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("chosen", [None, [4, 2, 0]])
def test_nan_in_a_row(option, chosen, dtype, rng):
    lstm = make(option, dtype)
    n, bad = (B, [1, 3]) if chosen is None else (3, [1])
    x, rows = with_nan(rng, n, bad, dtype), chosen or list(range(B))
    named = ", ".join(str(rows[k]) for k in bad)
    begun = started(lstm.stream(B), rng).state
    found = {}
    for policy in POLICIES:
        stream = lstm.stream(B, on_nan=policy)
        assert stream.on_nan == policy
        stream.state = begun
        if policy == "raise":
            with pytest.raises(FloatingPointError, match=rf"rows {named} has NaN"):
                stream.step(x, rows=chosen)
            assert_same(stream.state, begun)
            continue
        y = stream.step(x, rows=chosen)
        assert np.isnan(y[bad]).any(axis=1).all()
        assert not np.isnan(np.delete(y, bad, 0)).any()
        found[policy] = y, stream.state
    rows_bad = [rows[k] for k in bad]
    keep = found["keep"][1]
    for policy in ("hold", "reset"):
        np.testing.assert_array_equal(found[policy][0], found["keep"][0])
        for now, kept, old in zip(flat(found[policy][1]), flat(keep), flat(begun), strict=True):
            expected = kept.copy()
            expected[:, rows_bad] = old[:, rows_bad] if policy == "hold" else 0
            np.testing.assert_array_equal(now, expected)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("policy", ["hold", "reset"])
def test_nan_in_a_chunk_is_that_of_its_steps(policy, batch_first, rng):
    lstm = LSTM(I, H, 2, batch_first=batch_first, seed=0)
    x = np.stack([with_nan(rng, B, rows) for rows in ([], [2], [], [0, 2], [])])
    one, other = lstm.stream(B, policy), lstm.stream(B, policy)
    expected = np.stack([one.step(x_t) for x_t in x])
    y = other(x.swapaxes(0, 1).copy()).swapaxes(0, 1) if batch_first else other(x)
    np.testing.assert_array_equal(y, expected)
    assert_same(other.state, one.state)
    assert not any(np.isnan(array).any() for array in other.state)


def test_nan_in_a_chunk_raises_and_changes_nothing(rng):
    stream = started(LSTM(I, H, seed=0).stream(B, "raise"), rng)
    before = stream.state
    with pytest.raises(FloatingPointError, match="rows 2 has"):
        stream(np.stack([with_nan(rng, B, []), with_nan(rng, B, [2])]))
    assert_same(stream.state, before)


def test_an_error_names_some_of_many_rows():
    stream = LSTM(I, H, seed=0).stream(40, "raise")
    with pytest.raises(FloatingPointError, match=r"rows 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\. has"):
        stream.step(np.full((40, I), np.nan, np.float32))


@pytest.mark.parametrize(("on_nan", "error"), [("stop", ValueError), (None, TypeError)])
def test_other_policies_are_refused(on_nan, error):
    for block in (make(), Sequential(lstm=make())):
        with pytest.raises(error, match=r"on_nan: "):
            block.stream(2, on_nan=on_nan)


@pytest.mark.parametrize("model", [False, True])
def test_copies_and_files_have_the_policy(model, tmp_path, rng):
    block = Sequential(lstm=make()) if model else make()
    stream = block.stream(2, on_nan="hold")
    stream.step(rng.standard_normal((2, I), np.float32))
    stream.grow(1)
    stream.save(tmp_path / "s.safetensors")
    others = [
        stream.copy(),
        pickle.loads(pickle.dumps(stream)),
        lf.load(tmp_path / "s.safetensors"),
    ]
    for other in (*others, copy.deepcopy(stream)):
        assert (other.on_nan, other.batch_size) == ("hold", 3)
        assert_same(other.state, stream.state)
        other.step(with_nan(rng, 3, [0]))
        assert not any(np.isnan(array).any() for array in flat(other.state))


# ---- models


def model():
    return Sequential(
        embed=Embedding(7, 5, seed=1),
        below=Sequential(lstm=LSTM(5, H, 2, seed=2), norm=LayerNorm(H)),
        above=LSTM(H, (4, 6), 2, seed=3),
        last=Last(),
        head=Linear(6, 3, seed=4),
    )


def test_sessions_of_a_model(rng):
    made = model()
    stream, alone = made.stream(3), [made.stream() for _ in range(5)]
    assert stream.grow(2).tolist() == [3, 4]
    for n in (2, 5, 0, 1, 3):
        rows, x = rng.permutation(5)[:n], rng.integers(0, 7, n)
        y = stream.step(x, rows=rows)
        assert y.shape == (n, 3)
        for x_row, y_row, row in zip(x, y, rows, strict=True):
            np.testing.assert_array_equal(alone[row].step([x_row])[0], y_row)
            assert_same(stream.take(row), alone[row].state)
    taken = stream.take([4, 0])
    stream.reset([4, 0])
    assert not any(array.any() for array in flat(stream.take([0, 4])))
    stream.put([1, 2], taken)
    assert_same(stream.take([1, 2]), taken)


def test_errors_of_a_model_change_nothing(rng):
    stream = model().stream(4)
    stream.step(rng.integers(0, 7, 4))
    before = stream.state
    wrong = copy.deepcopy(stream.take([0, 1]))
    wrong["above"] = wrong["above"][0], None
    for call, match in {
        lambda: stream.step([1, 2], rows=[1, 1]): "rows",
        lambda: stream.step([1, 2, 3], rows=[1, 2]): "x_t",
        lambda: stream.put([0, 1], wrong): "c",
        lambda: stream.put([0, 1], {}): "state",
        lambda: stream.put([0, 0], stream.take([0, 1])): "rows",
        lambda: stream.reset([4]): "rows",
        lambda: stream.take([4]): "rows",
        lambda: stream.grow(0): "count",
    }.items():
        with pytest.raises((ValueError, TypeError, IndexError), match=rf"^{match}: "):
            call()
    assert stream.batch_size == 4
    assert_same(stream.state, before)


def test_nan_in_a_model(rng):
    made = Sequential(below=LSTM(I, 4, seed=0), above=LSTM(4, 5, seed=1))
    with made.writable() as parameters:
        parameters["above.weight_ih_l0"][...] = np.inf  # the lower one is finite
    stream = made.stream(2, on_nan="raise")
    with pytest.raises(FloatingPointError, match="above: the next state of rows 0, 1 has NaN"):
        stream.step(np.ones((2, I), np.float32))
    assert not any(array.any() for array in flat(stream.state))
    held = Sequential(below=LSTM(I, 4, seed=0), above=LSTM(4, 5, seed=1)).stream(2, "hold")
    held.step(rng.standard_normal((2, I), np.float32))
    before = held.take(1)
    held.step(with_nan(rng, 2, [1]))
    assert_same(held.take(1), before)


# ---- any order of all of it

COMMANDS = st.lists(
    st.tuples(
        st.sampled_from(["step", "step", "all", "grow", "reset", "move", "wrong"]),
        st.integers(0, 2**32 - 1),
    ),
    max_size=12,
)


@MANY
@given(
    commands=COMMANDS,
    option=st.sampled_from([*OPTIONS]),
    policy=st.sampled_from(["keep", "hold", "reset"]),
    first=st.integers(1, 4),
)
def test_sessions_are_independent_streams(dtype, commands, option, policy, first):
    lstm = make(option, dtype)
    stream = lstm.stream(first, policy)
    alone = [lstm.stream(1, policy) for _ in range(first)]
    for command, seed in commands:
        rng, n = np.random.default_rng(seed), len(alone)
        rows = rng.permutation(n)[: rng.integers(0, n + 1)]
        if command in ("step", "all"):
            rows = np.arange(n) if command == "all" else rows
            x = with_nan(rng, len(rows), rng.random(len(rows)) < 0.1, dtype)
            y = stream.step(x) if command == "all" else stream.step(x, rows=rows)
            for x_row, y_row, row in zip(x, y, rows, strict=True):
                np.testing.assert_array_equal(alone[row].step(x_row[None])[0], y_row)
        elif command == "grow":
            count = int(rng.integers(1, 4))
            assert stream.grow(count).tolist() == [*range(n, n + count)]
            alone += [lstm.stream(1, policy) for _ in range(count)]
        elif command == "reset":
            stream.reset(rows)
            for row in rows:
                alone[row].reset()
        elif command == "move":
            to = rng.permutation(n)[: len(rows)]
            states = [alone[row].state for row in rows]
            stream.put(to, stream.take(rows))
            for row, state in zip(to, states, strict=True):
                alone[row].state = state
        else:
            with pytest.raises((IndexError, ValueError), match="rows"):
                stream.step(np.zeros((2, I), dtype), rows=[0, n if seed % 2 else 0])
        for row, one in enumerate(alone):
            assert_same(stream.take(row), one.state)


# ---- the engine's part

STATE = np.zeros((2, 4, 3), np.float32)
INDICES = np.array([1, 3])
ENGINE_REFUSES = {
    "indices that are not there": lambda e: e.gather([STATE], INDICES + 1),
    "negative ones": lambda e: e.scatter([STATE.copy()], INDICES - 2, None),
    "indices of 32 bits": lambda e: e.gather([STATE], INDICES.astype(np.int32)),
    "another type": lambda e: e.gather([STATE.astype(np.float16)], INDICES),
    "two axes": lambda e: e.gather([STATE[0]], INDICES),
    "another order": lambda e: e.rows_with_nan([np.asfortranarray(STATE)]),
    "different rows": lambda e: e.rows_with_nan([STATE, STATE[:, 1:].copy()]),
    "too few arrays": lambda e: e.scatter([STATE.copy()], INDICES, []),
    "other columns": lambda e: e.scatter([STATE.copy()], INDICES, [np.zeros((2, 2, 4), "f4")]),
    "a read-only state": lambda e: e.scatter([np.broadcast_to(STATE, STATE.shape)], INDICES, None),
    "a strided mask": lambda e: e.rows_of_mask(np.zeros(4, bool)[::2]),
    "indices of two axes": lambda e: e.check_indices("rows", INDICES[None], 4, True),
}


@pytest.mark.parametrize("wrong", ENGINE_REFUSES)
def test_the_engine_refuses(wrong):
    with pytest.raises((ValueError, IndexError)):
        ENGINE_REFUSES[wrong](engine_sessions)


def test_the_engine_writes_all_arrays_or_none():
    state, wrong = [STATE.copy(), STATE.copy()], np.ones((2, 2, 2), np.float32)
    with pytest.raises(ValueError, match="some"):
        engine_sessions.scatter(state, INDICES, [np.ones((2, 2, 3), np.float32), wrong])
    assert not any(array.any() for array in state)
