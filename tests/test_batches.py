"""Batches of ragged sequences, windows of a series, and a stream in pieces."""

import numpy as np
import pytest

from lstm_fast.training import batches, truncated, windows

pytestmark = pytest.mark.no_isa

LENGTHS = [4, 0, 7, 7, 1, 3, 9, 2, 5, 7, 6]


def ragged(lengths=LENGTHS, features=2):
    """Return sequences whose values tell which they are, and the step."""
    return [
        (1000 * n + 10 * np.arange(T)[:, None] + np.arange(features)).astype(np.float32)
        for n, T in enumerate(lengths)
    ]


def rows(batch):
    """Return the sequences of a batch, without padding."""
    T, B = batch.x.shape[:2]
    lengths = [T] * B if batch.lengths is None else batch.lengths
    return [batch.x[:n, b] for b, n in enumerate(lengths)]


def same(a, b):
    return len(a) == len(b) and all(
        np.array_equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)
    )


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("bucket", [False, True])
@pytest.mark.parametrize("batch_size", [1, 4, 11, 20])
def test_every_sequence_comes_once_an_epoch(shuffle, bucket, batch_size):
    sequences = ragged()
    targets = np.arange(len(sequences))
    source = batches(sequences, targets, batch_size, shuffle=shuffle, bucket=bucket, seed=3)
    seen = []
    found = [*source]
    assert len(found) == len(source)
    for batch in found:
        assert batch.x.dtype == np.float32
        for row, target in zip(rows(batch), batch.target, strict=True):
            assert np.array_equal(row, sequences[target])
            seen.append(target)
        if batch.lengths is not None:
            beyond = np.arange(len(batch.x))[:, None] >= batch.lengths
            assert not batch.x[beyond].any() and beyond.any()
    assert sorted(seen) == [*range(len(sequences))]
    if not shuffle and not bucket:
        assert seen == [*range(len(sequences))]


def test_targets_of_steps_are_padded_like_their_sequences():
    sequences = ragged()
    for targets in (
        [s[:, :1] + 0.5 for s in sequences],
        [s[:, 0].astype(int) for s in sequences],
    ):
        for batch in batches(sequences, targets, 3, seed=0):
            assert batch.target.shape[:2] == batch.x.shape[:2]
            expected = batch.x[..., :1] + 0.5 if batch.target.ndim == 3 else batch.x[..., 0]
            valid = np.arange(len(batch.x))[:, None] < (
                len(batch.x) if batch.lengths is None else batch.lengths
            )
            assert np.array_equal(batch.target[valid], expected[valid])
            assert not batch.target[~valid].any()


def test_integers_and_batch_first():
    tokens = [np.arange(1, n + 1) for n in LENGTHS]
    first = [*batches(tokens, None, 4, seed=1)]
    second = [*batches(tokens, None, 4, seed=1, batch_first=True)]
    for a, b in zip(first, second, strict=True):
        assert a.x.ndim == 2 and a.target is None
        assert np.array_equal(a.x, b.x.T)
    whole = np.arange(24).reshape(4, 3, 2).astype(float)
    batch = next(iter(batches(whole, whole[:, 0], 4, shuffle=False)))
    assert batch.lengths is None
    assert np.array_equal(batch.x, whole.swapaxes(0, 1))
    assert np.array_equal(batch.target, whole[:, 0])


def test_order_depends_on_seed_and_epoch_only():
    def order(source, epoch):
        return [batch.target.tolist() for batch in source.epoch(epoch)]

    def new(seed):
        return batches(ragged(), np.arange(len(LENGTHS)), 2, seed=seed)

    source = new(5)
    once, twice = ([b.target.tolist() for b in source] for _ in range(2))
    assert once != twice
    assert once == order(new(5), 0) and twice == order(new(5), 1)
    assert once != order(new(6), 0)
    without = new(None)
    other = new(None)
    other.set_random_state(without.random_state())
    assert order(without, 3) == order(other, 3)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("columns", [None, 3])
def test_weights_of_sequences_and_steps(batch_first, columns):
    """They broadcast to the targets of a batch, each to that of its sequence."""
    sequences, options = ragged(), {"batch_first": batch_first, "seed": 0}
    N, more = len(sequences), () if columns is None else (columns,)
    by_sequence = [np.full(more, n) for n in range(N)]
    by_step = [np.full((T, *more), n) for n, T in enumerate(LENGTHS)]
    if columns is not None:
        by_sequence, by_step = ([t.astype(float) for t in part] for part in (by_sequence, by_step))
    of_steps = [n + np.arange(T) / 100 for n, T in enumerate(LENGTHS)]
    for targets, weight in (
        (by_sequence, [0, 1, *np.arange(2.0, N)]),
        (by_step, [*range(N)]),
        (by_step, of_steps),
    ):
        for batch in batches(sequences, targets, 3, weight=weight, **options):
            spread = np.broadcast_to(batch.weight, batch.target.shape)
            difference = spread - batch.target
            if targets is by_sequence:
                assert not difference.any()
                continue
            by_row = difference if batch_first else difference.swapaxes(0, 1)
            T = by_row.shape[1]
            lengths = [T] * len(by_row) if batch.lengths is None else batch.lengths
            for row, steps in zip(by_row, lengths, strict=True):
                wanted = np.arange(steps) / 100 if weight is of_steps else np.zeros(steps)
                assert np.allclose(row[:steps].T, wanted, atol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
def test_targets_with_lengths_of_their_own(batch_first):
    others = [9, 1, 0, 3, 3, 8, 2, 2, 7, 5, 6]
    targets = [np.full(T, n) for n, T in enumerate(others)]
    source = batches(
        [np.full(T, n) for n, T in enumerate(LENGTHS)],
        targets,
        3,
        aligned=False,
        weight=[np.full(T, n + 0.5) for n, T in enumerate(others)],
        batch_first=batch_first,
        seed=0,
    )
    seen = []
    for batch in source:
        x, target, weight = (
            a if batch_first else a.T for a in (batch.x, batch.target, batch.weight)
        )
        assert len(x) == len(target) and target.shape[1] == max(batch.target_lengths)
        for b, steps in enumerate(batch.target_lengths):
            [n] = {*x[b, : batch.lengths[b]]} or {1}
            assert np.array_equal(target[b, :steps], targets[n])
            assert np.array_equal(weight[b, :steps], targets[n] + 0.5)
            assert not target[b, steps:].any() and not weight[b, steps:].any()
            seen.append(n)
    assert sorted(seen) == [*range(len(LENGTHS))]


@pytest.mark.parametrize("batch_first", [False, True])
def test_what_a_decoder_is_given_comes_a_step_later(batch_first):
    targets = [
        np.arange(10 * n, 10 * n + T) for n, T in enumerate([9, 1, 0, 3, 3, 8, 2, 2, 7, 5, 6])
    ]
    sequences = [np.full(T, n) for n, T in enumerate(LENGTHS)]
    options = {"batch_first": batch_first, "seed": 0}
    plain = [*batches(sequences, targets, 3, aligned=False, **options)]
    begun = [*batches(sequences, targets, 3, begin=7, **options)]
    for one, other in zip(begun, plain, strict=True):
        (x, written), (n, m) = one.x, one.lengths
        assert np.array_equal(x, other.x) and np.array_equal(one.target, other.target)
        assert np.array_equal(n, other.lengths) and m is one.target_lengths
        assert np.array_equal(m, other.target_lengths)
        assert written.shape == one.target.shape and written.dtype == one.target.dtype
        by_row = (a if batch_first else a.T for a in (written, one.target))
        for given, target, steps in zip(*by_row, m, strict=True):
            assert given[:steps].tolist() == [7, *target[: steps - 1]][:steps]


@pytest.mark.parametrize("bucket", [False, True])
def test_an_epoch_begins_anywhere(bucket, monkeypatch):
    source = batches(ragged(), np.arange(len(LENGTHS)), 2, seed=5, bucket=bucket)
    whole = [*source.epoch(2)]
    made = []
    make = type(source)._batch
    monkeypatch.setattr(
        type(source), "_batch", lambda self, order: made.append(order) or make(self, order)
    )
    for start in range(len(whole) + 2):
        made.clear()
        rest = [*source.epoch(2, start)]
        assert len(made) == len(rest) == max(len(whole) - start, 0)
        assert same([b.target for b in rest], [b.target for b in whole[start:]])


def test_buckets_have_less_padding():
    rng = np.random.default_rng(0)
    sequences = ragged(rng.integers(1, 100, 300))

    def padding(bucket):
        source = batches(sequences, None, 8, seed=0, bucket=bucket)
        return sum(
            np.prod(b.x.shape[:2])
            - (np.prod(b.x.shape[:2]) if b.lengths is None else sum(b.lengths))
            for b in source
        )

    assert padding(True) < padding(False) / 5
    source = batches(sequences, None, 8, seed=0)
    longest = [len(b.x) for b in source]
    assert longest != sorted(longest)  # buckets come in any order


def test_drop_last_leaves_out_others_every_epoch():
    source = batches(ragged(), np.arange(len(LENGTHS)), 4, seed=0, drop_last=True)
    assert len(source) == 2
    left_out = set()
    for epoch in range(20):
        found = [n for batch in source.epoch(epoch) for n in batch.target]
        assert len({*found}) == 8
        left_out |= {*range(len(LENGTHS))} - {*found}
    assert left_out == {*range(len(LENGTHS))}


def test_nothing_at_all():
    assert [*batches([], [], 4)] == [] and len(batches([], None, 4)) == 0
    [batch] = batches(ragged([0, 0]), np.arange(2), 4)
    assert batch.x.shape == (0, 2, 2) and batch.lengths is None


WRONG = [
    (TypeError, "sequences", lambda: batches(3)),
    (TypeError, "sequences", lambda: batches("abc")),
    (
        TypeError,
        r"sequences\[1\].*complex",
        lambda: batches([np.ones((2, 1)), np.ones(2, complex)]),
    ),
    (
        TypeError,
        r"sequences\[1\].*float64",
        lambda: batches([np.ones((2, 1)), np.ones((2, 1), "f")]),
    ),
    (ValueError, r"sequences\[1\]", lambda: batches([np.ones((2, 1)), np.ones((2, 3))])),
    (ValueError, r"sequences\[0\].*\(T, F\)", lambda: batches([np.ones(3)])),
    (ValueError, "targets.*11.*2", lambda: batches(ragged(), [1, 2])),
    (ValueError, "weight: needs targets", lambda: batches(ragged(), weight=[1] * 11)),
    (ValueError, "weight.*11.*2", lambda: batches(ragged(), [1] * 11, weight=[1, 2])),
    (TypeError, r"weight\[0\].*complex", lambda: batches(ragged(), [1] * 11, weight=[1j] * 11)),
    (
        ValueError,
        r"weight\[0\]: expected a number, got",
        lambda: batches(ragged(), [1] * 11, weight=ragged(features=1)),
    ),
    (
        ValueError,
        r"weight\[1\]: expected a number or shape \(0,\)",
        lambda: batches(ragged(), ragged(), weight=np.ones((11, 4))),
    ),
    (ValueError, "aligned.*needs targets", lambda: batches(ragged(), aligned=False)),
    (ValueError, "aligned.*time steps", lambda: batches(ragged(), [1] * 11, aligned=False)),
    (TypeError, "aligned", lambda: batches(ragged(), [1] * 11, aligned=0)),
    (ValueError, "begin: needs targets$", lambda: batches(ragged(), begin=0)),
    (ValueError, "begin: needs targets of", lambda: batches(ragged(), ragged(), begin=0)),
    (TypeError, "begin", lambda: batches(ragged(), [np.arange(4)] * 11, begin=0.5)),
    (ValueError, r"targets\[1\].*0 steps", lambda: batches(ragged(), [np.arange(4)] * 11)),
    (ValueError, r"targets\[1\]", lambda: batches(ragged([2, 2]), [np.ones(2), np.ones(3)])),
    (ValueError, "batch_size", lambda: batches(ragged(), None, 0)),
    (TypeError, "batch_size", lambda: batches(ragged(), None, 2.0)),
    (TypeError, "shuffle", lambda: batches(ragged(), shuffle=1)),
    (TypeError, "bucket", lambda: batches(ragged(), bucket="yes")),
    (ValueError, "seed", lambda: batches(ragged(), seed=-1)),
    (TypeError, "series", lambda: windows([1.0, 2.0], 1, 1)),
    (ValueError, "series", lambda: windows(np.ones((2, 2, 2)), 1, 1)),
    (ValueError, "length", lambda: windows(np.ones(5), 0, 1)),
    (ValueError, "horizon", lambda: windows(np.ones(5), 1, 0)),
    (ValueError, "stride", lambda: windows(np.ones(5), 1, 1, 0)),
    (TypeError, "stream", lambda: truncated(np.ones(5, bool), 1, 1)),
    (ValueError, "length", lambda: truncated(np.ones(5), 0, 1)),
    (ValueError, "batch_size", lambda: truncated(np.ones(5), 1, 0)),
    (ValueError, "stream.*5 parts", lambda: truncated(np.ones(5), 1, 5)),
    (ValueError, "targets.*5 steps", lambda: truncated(np.ones(5), 1, 1, np.ones(4))),
    (TypeError, "batch_first", lambda: truncated(np.ones(5), 1, 1, batch_first=0)),
]


@pytest.mark.parametrize(("error", "match", "call"), WRONG)
def test_errors_name_the_argument(error, match, call):
    with pytest.raises(error, match=f"^{match}"):
        call()


# ---- windows


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("features", [None, 1, 3])
def test_windows_are_views_of_the_series(stride, features):
    N, length, horizon = 23, 6, 4
    shape = (N,) if features is None else (N, features)
    series = np.random.default_rng(0).standard_normal(shape)
    x, target = windows(series, length, horizon, stride)
    starts = range(0, N - length - horizon + 1, stride)
    assert len(x) == len(target) == len(starts)
    assert np.shares_memory(x, series) and np.shares_memory(target, series)
    for n, start in enumerate(starts):
        window = series[start : start + length]
        assert np.array_equal(x[n], window[:, None] if features is None else window)
        assert np.array_equal(target[n], series[start + length : start + length + horizon])
    assert not x.flags.writeable


@pytest.mark.parametrize("N", range(12))
def test_short_series_have_few_windows_or_none(N):
    x, target = windows(np.ones((N, 2)), 6, 4)
    assert len(x) == len(target) == max(N - 9, 0)
    assert x.shape[1:] == (6, 2) and target.shape[1:] == (4, 2)


def test_windows_as_batches():
    x, target = windows(np.arange(50.0), 7, 3)
    for batch in batches(x, target, 8, seed=0):
        assert batch.x.shape[::2] == (7, 1) and batch.lengths is None
        assert np.array_equal(batch.target, batch.x[-1] + [1.0, 2.0, 3.0])


# ---- truncated


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("length", [1, 4, 100])
@pytest.mark.parametrize("given", ["integers", "series", "features"])
def test_a_stream_comes_in_pieces_that_follow_one_another(batch_size, length, given):
    stream = {
        "integers": np.arange(32),
        "series": np.arange(32.0),
        "features": np.arange(64.0).reshape(32, 2),
    }[given]
    source = truncated(stream, length, batch_size)
    found = [*source]
    assert len(found) == len(source)
    assert [batch.state for batch in found] == [n > 0 for n in range(len(found))]
    assert all(len(batch.x) <= length and batch.x.flags.c_contiguous for batch in found)
    x, target = (np.concatenate([getattr(b, name) for b in found]) for name in ("x", "target"))
    steps = 31 // batch_size
    assert x.shape[:2] == (steps, batch_size)
    columns = stream.reshape(32, -1)
    for b in range(batch_size):
        start = b * steps
        assert np.array_equal(x[:, b].reshape(steps, -1), columns[start : start + steps])
        assert np.array_equal(target[:, b].reshape(steps, -1), columns[start + 1 :][:steps])


def test_a_stream_with_targets_begins_anywhere():
    stream, targets = np.arange(40), np.arange(40.0)[:, None] / 2
    source = truncated(stream, 6, 2, targets, batch_first=True)
    whole = [*source.epoch(0)]
    assert len(whole) == 4 and whole[-1].x.shape == (2, 2)
    assert np.array_equal(whole[1].target[..., 0], whole[1].x / 2)
    for start in range(6):
        rest = [*source.epoch(7, start)]
        assert same(rest, whole[start:]) or not rest
        assert len(rest) == max(4 - start, 0)
        assert all(batch.state for batch in rest[1:])
