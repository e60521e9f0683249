"""exp, sigmoid and tanh of the kernels: error in ULP, sign, special values, tails.

The error is |got - true| / ulp, where ulp is that of the true value rounded to the dtype: at most
0.5 where the result is correctly rounded. The true value comes from a wider type.
"""

import re
from pathlib import Path

import numpy as np
import pytest
from support.internals import elementwise, isas

FUNCTIONS = ["exp", "sigmoid", "tanh"]
VMATH = Path(__file__).parents[1] / "include/lstm_fast/vmath.h"
CHUNK = 1 << 16  # inputs whose intermediate results stay in the cache
PROMISED = {"float32": 2, "float64": 3}

# The largest error and an input that has it, for ISAs with FMA and without. float32: over all 2^32
# inputs, the table of vmath.h. float64: the largest of 3 * 10^7 random inputs.
WORST = {
    ("float32", "exp", "fma"): (1.047, "-0x1.75a312p+2"),
    ("float32", "exp", "baseline"): (1.022, "-0x1.762c42p+2"),
    ("float32", "sigmoid", "fma"): (2.000, "-0x1.69c008p-12"),
    ("float32", "sigmoid", "baseline"): (2.000, "-0x1.69c008p-12"),
    ("float32", "tanh", "fma"): (1.966, "0x1.0a0d6ep-1"),
    ("float32", "tanh", "baseline"): (1.990, "0x1.0a09fcp-1"),
    ("float64", "exp", "fma"): (0.983, "0x1.edbdb7df9b7b4p+1"),
    ("float64", "exp", "baseline"): (0.951, "0x1.7acf86469fa37p+8"),
    ("float64", "sigmoid", "fma"): (1.986, "-0x1.3d04b000ab800p-10"),
    ("float64", "sigmoid", "baseline"): (1.985, "-0x1.98c8dce961b80p-8"),
    ("float64", "tanh", "fma"): (2.084, "0x1.c246d1dfa3b60p-3"),
    ("float64", "tanh", "baseline"): (2.047, "0x1.fdc9d90a71152p-2"),
}
# Where the result is the limit, to the left and to the right; None: there is none.
LIMITS = {
    ("exp", "float32"): [(-104, 0), (88.8, np.inf)],
    ("exp", "float64"): [(-745.2, 0), (709.8, np.inf)],
    ("sigmoid", "float32"): [(-104, 0), (18, 1)],
    ("sigmoid", "float64"): [(-745.2, 0), (38, 1)],
    ("tanh", "float32"): [(-10, -1), (10, 1)],
    ("tanh", "float64"): [(-20, -1), (20, 1)],
}


def kind(isa):
    return "baseline" if isa == "baseline" else "fma"


def true_value(function, x):
    x = x.astype(np.float64 if x.dtype == np.float32 else np.longdouble)
    if function == "exp":
        return np.exp(x)
    if function == "tanh":
        return np.tanh(x)
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


def errors(got, true):
    """Return the error of each result in ULP; Inf where the sign, an Inf or a NaN is wrong."""
    rounded = true.astype(got.dtype)
    error = np.abs(got - true) / np.spacing(np.abs(rounded))
    special = ~np.isfinite(rounded) | ~np.isfinite(got)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    error = np.where(special, np.where(same, 0, np.inf), error)
    right_sign = (np.signbit(got) == np.signbit(rounded)) | np.isnan(rounded)
    return np.where(right_sign, error, np.inf)


def largest_error(function, isa, x):
    """Return the largest error over `x` and the input that has it."""
    worst, where = -1.0, 0.0
    with np.errstate(all="ignore"):
        for first in range(0, len(x), CHUNK):
            part = x[first : first + CHUNK]
            error = errors(elementwise(function, part, isa), true_value(function, part))
            n = int(error.argmax())
            if error[n] > worst:
                worst, where = float(error[n]), float(part[n])
    return worst, where


def assert_within(worst, where, *key):
    __tracebackhide__ = True
    found = f"{key}: ({np.ceil(worst * 1000) / 1000}, {where.hex()!r})"
    assert worst <= WORST[key][0], f"larger than the table has it: {found}"


def floats(first, last, step=1):
    """Return float32 numbers by their bit patterns."""
    return np.arange(first, last, step, dtype=np.uint32).view(np.float32)


def sample(dtype, rng):
    """Return inputs of all magnitudes, dense around those where a function changes its ways.

    The edges: 0, the smallest numbers, the largest, those that overflow, underflow or saturate, and
    those where the exponent n of x = n ln 2 + r steps.
    """
    if dtype == np.float32:
        parts = [floats(0, 2**32, 1009), floats(0, 2**23, 61), floats(2**31, 2**31 + 2**23, 61)]
        subnormal_results = -floats(*np.float32([87, 104.5]).view(np.uint32), 5)
        parts.append(subnormal_results)
    else:
        n = 50_000
        bits = rng.integers(0, 2**64, n, dtype=np.uint64)
        parts = [bits.view(np.float64), *(rng.uniform(-r, r, n) for r in (0.5, 2, 8, 40, 750))]
        parts += [rng.uniform(-745.5, -708, n), rng.uniform(-1, 1, n) * 2.0**-1040]
    edges = [0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_normal]
    edges += [np.finfo(dtype).max, 1, 9, 16.6, 18.7, 20, 37, 50, 87.4, 88.73, 89, 103.98, 104]
    edges += [708.4, 709.79, 710, 745.14, 746, *np.log(2) * (np.arange(200) + 0.5)]
    integer = np.uint32 if dtype == np.float32 else np.uint64
    around = np.arange(-64, 64).astype(integer)
    for edge in np.array([*edges, *np.negative(edges)], dtype):
        parts.append((edge.view(integer) + around).view(dtype))
    return np.concatenate([*parts, np.array([np.inf, -np.inf, np.nan], dtype)])


@pytest.mark.parametrize("function", FUNCTIONS)
def test_error_of_a_sample(function, isa, dtype, rng):
    if dtype == np.float64 and np.finfo(np.longdouble).nmant < 63:
        pytest.skip("long double is no wider than double here")
    worst, where = largest_error(function, isa, sample(dtype, rng))
    assert_within(worst, where, dtype.name, function, kind(isa))


@pytest.mark.exhaustive
@pytest.mark.parametrize("function", FUNCTIONS)
def test_error_of_every_float32(function, isa):
    found = max(
        largest_error(function, isa, floats(first, first + 2**26))
        for first in range(0, 2**32, 2**26)
    )
    assert_within(*found, "float32", function, kind(isa))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_the_worst_input_has_the_error_stated(function, isa, dtype):
    stated, where = WORST[dtype.name, function, kind(isa)]
    error, _ = largest_error(function, isa, np.array([float.fromhex(where)], dtype))
    assert stated - 0.001 <= error <= stated


@pytest.mark.parametrize("key", WORST, ids="-".join)
def test_the_promise_holds(key):
    assert WORST[key][0] <= PROMISED[key[0]]


def test_the_header_states_the_same_errors():
    rows = re.findall(r"^ \* +(\w+) +([\d.]+) +(\S+) +([\d.]+) +(\S+)$", VMATH.read_text(), re.M)
    stated = {}
    for function, *cells in rows:
        for name, cell in (("fma", cells[:2]), ("baseline", cells[2:])):
            stated["float32", function, name] = (float(cell[0]), cell[1])
    assert stated == {key: value for key, value in WORST.items() if key[0] == "float32"}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_isas_with_fma_agree_to_the_bit(function, dtype, rng):
    with_fma = [isa for isa in isas()["detected"] if kind(isa) == "fma"]
    x = sample(dtype, rng)
    results = [elementwise(function, x, isa) for isa in with_fma]
    for other in results[1:]:
        np.testing.assert_array_equal(results[0], other)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_limits_are_reached_exactly(function, isa, dtype):
    far = np.ldexp(dtype.type(1), np.linspace(0, np.finfo(dtype).maxexp - 1, 500).astype(int))
    far = np.concatenate([far, far * dtype.type(1.7)])
    for start, limit in LIMITS[function, dtype.name]:
        x = np.append(far[far > abs(start)], [abs(start), np.inf]).astype(dtype)
        got = elementwise(function, np.copysign(x, dtype.type(start)), isa)
        assert (got == limit).all()
        assert (np.signbit(got) == (limit < 0)).all()


def test_zero_keeps_its_sign_in_tanh(isa, dtype):
    got = elementwise("tanh", np.array([0.0, -0.0], dtype), isa)
    assert got.tolist() == [0, 0]
    assert np.signbit(got).tolist() == [False, True]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_nan_stays_nan(function, isa, dtype):
    """Quiet and signalling, of either sign, and none in its neighbours."""
    integer, bits = (np.uint32, 23) if dtype == np.float32 else (np.uint64, 52)
    nan = np.array([np.nan, -np.nan, np.inf, -np.inf], dtype)
    nan.view(integer)[2:] += integer(1) << integer(bits - 3)
    x = np.ones(67, dtype)
    x[[0, 5, 17, 66]] = nan
    assert np.flatnonzero(np.isnan(elementwise(function, x, isa))).tolist() == [0, 5, 17, 66]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_tail_has_the_bits_of_the_whole(function, isa, dtype, rng):
    lanes = 64 // dtype.itemsize  # of the widest ISA
    x = rng.uniform(-20, 20, 3 * lanes + 1).astype(dtype)
    whole = elementwise(function, x, isa)
    for n in range(len(x) + 1):
        np.testing.assert_array_equal(elementwise(function, x[:n], isa), whole[:n])
        np.testing.assert_array_equal(elementwise(function, x[n:], isa), whole[n:])


def test_arguments_are_checked(isa):
    with pytest.raises(ValueError, match="isa: .*" + isa):
        elementwise("exp", np.zeros(1), "mmx")
    with pytest.raises(ValueError, match="function: "):
        elementwise("cosh", np.zeros(1))
    with pytest.raises(TypeError, match="x: "):
        elementwise("exp", np.zeros(1, int))
