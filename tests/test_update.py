"""Steps of optimisers, norms and clipping of flat arrays, on every instruction set."""

import math

import numpy as np
import pytest
from support.fenv import needs_fenv, unusual_environment
from support.internals import update

import lstm_fast
from lstm_fast.reference import optimisers

SIZES = [0, 1, *range(7, 34), 1000, 100001]
LARGE = 300_001  # two threads have a part of it
PIECE = 4096
RATE, MOMENTUM, SQUARE, EPS, DECAY, STEP = 0.01, 0.9, 0.99, 1e-6, 0.1, 3
# Scalars that are computed here, where the environment is the usual one.
RATES = {momentum: RATE / (1 - momentum**STEP) for momentum in (MOMENTUM, 0.3)}
ROOT = 1 / math.sqrt(1 - SQUARE**STEP)
KEEP = {decay: 1 - RATE * decay for decay in (DECAY, 0.0)}
# Roundings of one element, of the largest number in its formula.
ROUNDINGS = 8
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310, 1e-42, -1e-42]


def whole(n):
    return np.array([[0, n]], np.intp)


def draw(n, dtype, seed=0):
    """Return p, g, m, v."""
    rng = np.random.default_rng(seed)
    p, g, m = (rng.standard_normal(n).astype(dtype) for _ in range(3))
    return p, g, m, rng.uniform(0.1, 1, n).astype(dtype)


def sgd(p, g, m, v, decayed, decay=DECAY, **options):
    options = {"rate": RATE, "momentum": MOMENTUM, "nesterov": False} | options
    update.sgd(p, g, m, decay=decay, decayed=decayed, **options)


def nesterov(p, g, m, v, decayed, decay=DECAY):
    sgd(p, g, m, v, decayed, decay, nesterov=True)


def plain_sgd(p, g, m, v, decayed, decay=DECAY):
    update.sgd(p, g, None, rate=RATE, momentum=0, nesterov=False, decay=decay, decayed=decayed)


def adam(p, g, m, v, decayed, decay=DECAY, momentum=MOMENTUM, keep=1.0):
    options = {"rate": RATES[momentum], "momentum": momentum, "square": SQUARE, "root": ROOT}
    options |= {"eps": EPS}
    update.adam(p, g, m, v, decay=decay, keep=keep, decayed=decayed, **options)


def low_adam(p, g, m, v, decayed, decay=DECAY):
    adam(p, g, m, v, decayed, decay, momentum=0.3)


def adamw(p, g, m, v, decayed, decay=DECAY):
    adam(p, g, m, v, decayed, 0.0, keep=KEEP[decay])


def rmsprop(p, g, m, v, decayed, decay=DECAY):
    options = {"rate": RATE, "momentum": MOMENTUM, "square": SQUARE, "eps": EPS}
    update.rmsprop(p, g, m, v, decay=decay, decayed=decayed, **options)


def plain_rmsprop(p, g, m, v, decayed, decay=DECAY):
    options = {"rate": RATE, "momentum": 0, "square": SQUARE, "eps": EPS}
    update.rmsprop(p, g, None, v, decay=decay, decayed=decayed, **options)


def of_sgd(p, g, m, v, **options):
    return *optimisers.sgd(p, g, m, lr=RATE, weight_decay=DECAY, **options), v


def of_adam(p, g, m, v, momentum=MOMENTUM, **options):
    options |= {"betas": (momentum, SQUARE), "eps": EPS, "lr": RATE, "weight_decay": DECAY}
    return optimisers.adam(p, g, m, v, STEP, **options)


def of_rmsprop(p, g, m, v, **options):
    options |= {"alpha": SQUARE, "eps": EPS, "lr": RATE, "weight_decay": DECAY}
    return optimisers.rmsprop(p, g, m, v, **options)


# Each step, and p, m, v after it by the reference; where there is no momentum, m is not kept.
STEPS = {
    sgd: lambda *a: of_sgd(*a, momentum=MOMENTUM),
    nesterov: lambda *a: of_sgd(*a, momentum=MOMENTUM, nesterov=True),
    plain_sgd: lambda p, g, m, v: (of_sgd(p, g, np.zeros_like(m), v)[0], m, v),
    adam: of_adam,
    low_adam: lambda *a: of_adam(*a, momentum=0.3),
    adamw: lambda *a: of_adam(*a, decoupled=True),
    rmsprop: lambda *a: of_rmsprop(*a, momentum=MOMENTUM),
    plain_rmsprop: lambda p, g, m, v: (
        of_rmsprop(p, g, np.zeros_like(m), v)[0],
        m,
        of_rmsprop(p, g, m, v)[2],
    ),
}
every_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)


def after(step, arrays, *args, **options):
    """Return p, m, v after a step with copies of p, g, m, v; g stays as it is."""
    p, g, m, v = (a.copy() for a in arrays)
    step(p, g, m, v, *args, **options)
    np.testing.assert_array_equal(g, arrays[1])
    return p, m, v


def assert_bits(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        assert a.tobytes() == e.tobytes()


@every_step
def test_a_step_is_that_of_the_reference(isa, dtype, step):
    for n in SIZES:
        arrays = draw(n, dtype, n)
        expected = STEPS[step](*(a.astype(np.longdouble) for a in arrays))
        for name, a, e in zip("pmv", after(step, arrays, whole(n)), expected, strict=True):
            bound = ROUNDINGS * np.finfo(dtype).eps * np.maximum(1, np.abs(e))
            assert (np.abs(a - e) <= bound).all(), (name, n)


@every_step
def test_weight_decay_has_its_ranges(isa, dtype, step):
    n = 3 * PIECE + 5
    arrays = draw(n, dtype)
    cuts = [0, 3, 3, 64, 80, PIECE - 7, PIECE, 2 * PIECE + 1, n - 2, n]
    with_decay, without = after(step, arrays, whole(n)), after(step, arrays, whole(n), 0.0)
    assert_bits(after(step, arrays, whole(0)), without)
    assert_bits(after(step, arrays, np.empty((0, 2), np.intp)), without)
    for first in (0, 1):  # every other range
        ranges = np.array([*zip(cuts[first::2], cuts[first + 1 :: 2], strict=False)], np.intp)
        inside = np.zeros(n, bool)
        for start, end in ranges:
            inside[start:end] = True
        expected = [np.where(inside, a, b) for a, b in zip(with_decay, without, strict=True)]
        assert_bits(after(step, arrays, ranges), expected)


@needs_fenv
@every_step
def test_bits_do_not_depend_on_threads_or_environment(isa, dtype, step, threads):
    arrays, found = draw(LARGE, dtype), []
    ranges = np.array([[5, LARGE // 2 + 3], [LARGE // 2 + 20, LARGE - 1]], np.intp)
    for n in (1, 2, 3):
        lstm_fast.set_num_threads(n)
        found.append(after(step, arrays, ranges))
        with unusual_environment():
            found.append(after(step, arrays, ranges))
    for other in found[1:]:
        assert_bits(other, found[0])
    # Nor on where an element lies.
    shifted = after(step, [a[7:] for a in arrays], np.maximum(ranges - 7, 0))
    assert_bits([a[20:] for a in shifted], [a[27:] for a in found[0]])


@every_step
def test_special_values_stay_in_their_elements(isa, dtype, step):
    n = 41
    arrays = draw(n, dtype)
    usual = after(step, arrays, whole(n))
    with np.errstate(all="ignore"):
        for value in np.array(SPECIAL).astype(dtype):
            for which in range(4):
                # Means of squares are not negative; infinite means come with a NaN in p.
                if (which == 3 and value < 0) or (which == 2 and np.isinf(value)):
                    continue
                if step is low_adam and which < 2 and np.isinf(value):  # NaN, as PyTorch's lerp
                    continue
                changed = [a.copy() for a in arrays]
                changed[which][[2, n - 1]] = value
                found = after(step, changed, whole(n))
                expected = STEPS[step](*(a[[2, n - 1]].astype(np.longdouble) for a in changed))
                for a, u, e in zip(found, usual, expected, strict=True):
                    a_there = a[[2, n - 1]]
                    bound = ROUNDINGS * np.finfo(dtype).eps * np.maximum(1, np.abs(e))
                    good = (np.abs(a_there - e) <= bound) | (a_there == e)
                    assert (good | (np.isnan(a_there) & np.isnan(e))).all(), (value, which)
                    rest = np.delete(np.arange(n), [2, n - 1])
                    assert_bits([a[rest]], [u[rest]])


def test_subnormals_are_kept(isa, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    p, g = np.full(35, 2 * tiny, dtype), np.full(35, tiny, dtype)
    update.sgd(p, g, None, rate=1, momentum=0, nesterov=False, decay=0, decayed=whole(35))
    assert (p == tiny).all()


# ---- averages, norms, clipping


def exact_squared_norm(x):
    """As the kernels add: in pieces, 16 sums each, halves of these to halves."""
    total = 0.0
    for start in range(0, len(x), PIECE):
        squares = x[start : start + PIECE].astype(float) ** 2
        squares = np.append(squares, np.zeros(-len(squares) % 16)).reshape(-1, 16)
        sums = np.add.accumulate(squares, axis=0)[-1]
        while len(sums) > 1:
            sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
        total += float(sums[0])
    return total


@needs_fenv
def test_squared_norm(isa, dtype, threads):
    for n in [*SIZES, PIECE, PIECE + 1, LARGE]:
        x = draw(n, dtype, n)[0]
        for count in (1, 2):
            lstm_fast.set_num_threads(count)
            found = update.squared_norm(x)
            assert found == exact_squared_norm(x)
            with unusual_environment():
                assert update.squared_norm(x) == found
        assert found == pytest.approx(math.fsum(x.astype(float) ** 2), rel=1e-14)
    for value, expected in [(np.nan, np.nan), (np.inf, np.inf), (-np.inf, np.inf)]:
        x[n // 2] = value
        np.testing.assert_equal(update.squared_norm(x), expected)


def test_squares_of_large_floats_do_not_overflow(isa):
    assert update.squared_norm(np.full(3, 1e30, "f4")) == pytest.approx(3e60)
    assert update.squared_norm(np.full(3, 1e-30, "f4")) == pytest.approx(3e-60)


def test_scale_and_clip(isa, dtype, threads):
    for n in [*SIZES, LARGE]:
        x = draw(n, dtype, n)[0]
        x[: len(SPECIAL)] = np.array(SPECIAL[: len(x)]).astype(dtype)
        with np.errstate(all="ignore"):
            scaled, clipped = x * dtype.type(0.3), np.clip(x, -0.5, 0.5).astype(dtype)
        for count in (1, 2):
            lstm_fast.set_num_threads(count)
            a, b = x.copy(), x.copy()
            update.scale(a, 0.3)
            update.clip(b, 0.5)
            np.testing.assert_array_equal(a, scaled)
            np.testing.assert_array_equal(b, clipped)


@pytest.mark.parametrize("kept", [0, 0.25, 0.5, 0.999, 1])
def test_average(isa, dtype, threads, kept):
    for n in [*SIZES, LARGE]:
        m, x = draw(n, dtype, n)[:2]
        expected = kept * m.astype(np.longdouble) + (1 - kept) * x.astype(np.longdouble)
        found = []
        for count in (1, 2):
            lstm_fast.set_num_threads(count)
            found.append(m.copy())
            update.average(found[-1], kept, x)
        assert_bits(found[:1], found[1:])
        assert (np.abs(found[0] - expected) <= 4 * np.finfo(dtype).eps * (abs(m) + abs(x))).all()
        if kept in (0, 1):
            np.testing.assert_array_equal(found[0], m if kept else x)


# ---- errors


@pytest.mark.no_isa
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("p", np.zeros((4, 2))),
        ("p", np.zeros(8, int)),
        ("p", np.zeros(16)[::2]),
        ("p", np.zeros(8, ">f8")),
        ("p", np.frombuffer(bytes(64))),
        ("g", np.zeros(7)),
        ("g", np.zeros(8, "f4")),
        ("m", np.frombuffer(bytes(64))),
        ("v", np.zeros(9)),
    ],
)
def test_wrong_arrays_are_named(name, value):
    arrays = {k: np.ones(8) for k in "pgmv"} | {name: value}
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        adam(*arrays.values(), whole(8))
    assert all((a == 1).all() for k, a in arrays.items() if k != name)


@pytest.mark.no_isa
@pytest.mark.parametrize(
    "ranges",
    [[[0, 9]], [[-1, 3]], [[4, 3]], [[4, 6], [5, 7]], [[4, 6], [0, 2]], [0, 4], [[0, 4, 8]]],
)
def test_wrong_ranges(ranges):
    arrays = [np.ones(8) for _ in "pgmv"]
    with pytest.raises(ValueError, match=r"^decayed: expected"):
        adam(*arrays, np.array(ranges, np.intp))
    with pytest.raises(ValueError, match=r"^decayed: expected"):
        adam(*arrays, whole(8).astype("i4"))
    assert all((a == 1).all() for a in arrays)
