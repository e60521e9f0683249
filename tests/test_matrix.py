"""Packed matrices and products with them: sizes, layouts, values, threads."""

import numpy as np
import pytest
from support.comparing import assert_identical
from support.internals import Packed, multiply, pack, sum_rows
from support.layouts import byte_swapped, unaligned, with_odd_steps

import lstm_fast

# Around the widths of vectors and panels.
SIZES = [1, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 100, 257]
ROWS = [0, 1, 2, 3, 7, 100]
DEPTHS = [0, 1, 2, 17, 300, 600]
RELATIVE = {"float32": 2e-6, "float64": 1e-14}  # of the sum of absolute terms, 600 of them


def draw(rng, shape, dtype):
    return rng.standard_normal(shape).astype(dtype)


def exact(a, b, init=0):
    """Return a b + init in float64, and the sum of its terms' absolute values."""
    a, b, init = (np.asarray(m, float) for m in (a, b, init))
    return a @ b + init, np.abs(a) @ np.abs(b) + np.abs(init)


def assert_right(actual, expected, scale, dtype):
    assert actual.shape == expected.shape
    assert actual.dtype == dtype
    assert (np.abs(actual - expected) <= RELATIVE[dtype.name] * scale).all()


# A matrix as `pack` may be given it.
PACKABLE = {
    "C order": np.ascontiguousarray,
    "transposed": lambda b: np.ascontiguousarray(b.T).T,
    "rows apart": lambda b: np.concatenate([b, b + 1], axis=1)[:, : b.shape[1]],
    "columns apart": lambda b: np.concatenate([b.T, b.T + 1], axis=1)[:, : b.shape[0]].T,
    "from the last row": lambda b: b[::-1].copy()[::-1],
    "from the last column": lambda b: np.ascontiguousarray(b.T[::-1])[::-1].T,
    "read-only": lambda b: np.frombuffer(b.tobytes(), b.dtype).reshape(b.shape),
}
# A left-hand side.
LAYOUTS = {
    **PACKABLE,
    "every third element": lambda a: np.repeat(np.repeat(a, 3, 0), 3, 1)[1::3, 1::3],
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "of three axes": lambda a: np.stack([a, a + 1], axis=-1)[..., 0],
}


@pytest.mark.parametrize("columns", SIZES)
def test_products(isa, dtype, rng, columns):
    for depth in DEPTHS:
        b = draw(rng, (depth, columns), dtype)
        init = draw(rng, columns, dtype)
        packed, transposed = pack(b), pack(np.ascontiguousarray(b.T).T)
        assert (packed.depth, packed.columns, packed.dtype) == (depth, columns, dtype)
        for rows in ROWS:
            a = draw(rng, (rows, depth), dtype)
            for given in (None, init):
                actual = multiply(a, packed, given)
                assert_right(actual, *exact(a, b, 0 if given is None else given), dtype)
                assert_identical([multiply(a, transposed, given)], [actual])


@pytest.mark.parametrize("layout", PACKABLE)
def test_layouts_of_what_is_packed(isa, dtype, rng, layout):
    for depth in (1, 31, 32, 33, 100):
        for columns in SIZES:
            b, a = draw(rng, (depth, columns), dtype), draw(rng, (3, depth), dtype)
            laid = PACKABLE[layout](b)
            np.testing.assert_array_equal(laid, b)
            assert_identical([multiply(a, pack(laid))], [multiply(a, pack(b))])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_the_left_hand_side(isa, dtype, rng, layout):
    for rows in (1, 2, 7, 100, 257):
        for depth, columns in [(1, 5), (8, 33), (300, 257)]:
            a, b = draw(rng, (rows, depth), dtype), pack(draw(rng, (depth, columns), dtype))
            assert_identical([multiply(LAYOUTS[layout](a), b)], [multiply(a, b)])


def test_one_row_for_all(isa, dtype, rng):
    b = pack(draw(rng, (20, 33), dtype))
    a = np.broadcast_to(draw(rng, (1, 20), dtype), (5, 20))
    assert_identical([multiply(a, b)], [multiply(a.copy(), b)])


@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("apart", [0, 3])
def test_results_go_where_they_are_wanted(isa, dtype, rng, columns, apart):
    for rows, depth in [(0, 9), (1, 9), (9, 0), (5, 9), (100, 300)]:
        memory = np.full((rows, columns + apart), 7, dtype)
        out, beyond = memory[:, :columns], memory[:, columns:]
        a, b = draw(rng, (rows, depth), dtype), draw(rng, (depth, columns), dtype)
        init = draw(rng, columns, dtype)
        expected, scale = exact(a, b, init)
        assert multiply(a, pack(b), init, out) is out
        assert_identical([out], [multiply(a, pack(b), init)])
        multiply(a, pack(b), init, out=out, accumulate=True)
        assert_right(out, 2 * expected, 2 * scale, dtype)
        assert (beyond == 7).all()


def test_float32_errs_no_more_than_numpy(isa, rng):
    a, b = draw(rng, (64, 600), np.float32), draw(rng, (600, 257), np.float32)
    expected = exact(a, b)[0]
    error = np.abs(multiply(a, pack(b)) - expected).max()
    assert error <= 2 * np.abs(a @ b - expected).max()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_does_not_reach_another(isa, dtype, rng, value):
    a, b = draw(rng, (7, 20), dtype), draw(rng, (20, 33), dtype)
    packed = pack(b)
    expected = multiply(a, packed)
    a[3, 5] = value
    actual = multiply(a, packed)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(actual[3], (a[3].astype(float) @ b).astype(dtype))
    rest = [0, 1, 2, 4, 5, 6]
    assert_identical([actual[rest]], [expected[rest]])


def test_a_column_does_not_reach_another(isa, dtype, rng):
    for how in (np.ascontiguousarray, np.asfortranarray):
        a, b = draw(rng, (7, 20), dtype), draw(rng, (20, 33), dtype)
        expected = multiply(a, pack(how(b)))
        b[4, 32] = np.nan
        actual = multiply(a, pack(how(b)))
        assert np.isnan(actual[:, 32]).all()
        assert_identical([actual[:, :32]], [expected[:, :32]])


def test_subnormal_numbers_are_kept(isa, dtype):
    tiny = np.finfo(dtype).smallest_subnormal
    a, b = np.full((3, 1), tiny, dtype), np.full((1, 9), 3, dtype)
    np.testing.assert_array_equal(multiply(a, pack(b)), np.full((3, 9), 3 * tiny, dtype))


def test_the_matrix_is_packed_as_it_was(isa, dtype, rng):
    a, b = draw(rng, (3, 5), dtype), draw(rng, (5, 9), dtype)
    expected = multiply(a, pack(b))
    for given in (b.copy(), b.T.copy().T):
        packed = pack(given)
        given[:] = 0
        assert_identical([multiply(a, packed)], [expected])


# ---- sums


@pytest.mark.parametrize("columns", SIZES)
def test_sums(isa, dtype, rng, columns):
    for rows in (0, 1, 2, 31, 32, 33, 1000):
        a = draw(rng, (rows, columns), dtype)
        expected = a.sum(0, dtype=float)
        actual = sum_rows(a)
        assert_right(actual, expected, np.abs(a).sum(0, dtype=float), dtype)
        assert_identical([sum_rows(np.concatenate([a, a], axis=1)[:, :columns])], [actual])


def test_sums_without_columns(dtype):
    assert sum_rows(np.zeros((3, 0), dtype)).shape == (0,)


# ---- threads


def test_bits_do_not_depend_on_the_threads(isa, dtype, rng, threads):
    cases = [(1, 700, 1000), (2, 600, 5000), (400, 65, 33), (100, 300, 100), (1000, 1, 1000)]
    arrays = []
    for rows, depth, columns in cases:
        shapes = (rows, depth), (depth, columns), columns
        arrays.append([draw(rng, shape, dtype) for shape in shapes])
    expected = None
    for count in (1, 2, 3, 5):
        lstm_fast.set_num_threads(count)
        actual = []
        for a, b, init in arrays:
            actual += [multiply(a, pack(b), init), multiply(a.T.copy().T, pack(b.T.copy().T))]
            actual += [sum_rows(b), sum_rows(np.broadcast_to(init, (500, len(init))))]
        expected = expected or actual
        assert_identical(actual, expected)


def test_rows_do_not_depend_on_the_batch(isa, dtype, rng):
    a, b = draw(rng, (100, 300), dtype), pack(draw(rng, (300, 257), dtype))
    expected = multiply(a, b)
    for start, stop in [(0, 1), (3, 5), (10, 17), (0, 97)]:
        assert_identical([multiply(a[start:stop], b)], [expected[start:stop]])


# ---- what cannot be


def test_a_packed_matrix_comes_from_pack():
    with pytest.raises(TypeError, match="pack"):
        Packed()


def wrong_calls():
    a, b, init, out = (np.zeros(s, np.float32) for s in [(3, 5), (5, 9), (9,), (3, 9)])
    packed = pack(b)
    read_only = np.broadcast_to(init, (3, 9))
    return {
        "whole numbers": lambda: pack(b.astype(int)),
        "halves": lambda: pack(b.astype(np.float16)),
        "complex numbers": lambda: pack(b.astype(complex)),
        "byte-swapped": lambda: pack(byte_swapped(b)),
        "a vector": lambda: pack(init),
        "three axes": lambda: pack(b[None]),
        "nothing contiguous": lambda: pack(np.zeros((10, 18), np.float32)[::2, ::2]),
        "a of another depth": lambda: multiply(a[:, :4], packed),
        "a of another type": lambda: multiply(a.astype(float), packed),
        "a of one axis": lambda: multiply(a[0], packed),
        "a byte-swapped": lambda: multiply(byte_swapped(a), packed),
        "a unaligned": lambda: multiply(unaligned((3, 5), np.dtype(np.float32)), packed),
        "odd steps": lambda: multiply(with_odd_steps(a), packed),
        "init too short": lambda: multiply(a, packed, init[:8]),
        "init of another type": lambda: multiply(a, packed, init.astype(float)),
        "init of two axes": lambda: multiply(a, packed, out),
        "init with gaps": lambda: multiply(a, packed, np.zeros(18, np.float32)[::2]),
        "out too small": lambda: multiply(a, packed, None, out[:2]),
        "out too narrow": lambda: multiply(a, packed, None, out[:, :8]),
        "out of another type": lambda: multiply(a, packed, None, out.astype(float)),
        "out transposed": lambda: multiply(a, packed, None, np.zeros((9, 3), np.float32).T),
        "out of one axis": lambda: multiply(a[:1], packed, None, init),
        "out read-only": lambda: multiply(a, packed, None, read_only),
        "nothing to accumulate in": lambda: multiply(a, packed, accumulate=True),
        "sums of whole numbers": lambda: sum_rows(b.astype(int)),
        "sums of a vector": lambda: sum_rows(init),
        "sums of columns": lambda: sum_rows(b.T),
    }


@pytest.mark.parametrize("wrong", wrong_calls())
def test_wrong_arguments_raise(wrong):
    with pytest.raises(ValueError, match=r"^(a|b|init|out|matrix): expected"):
        wrong_calls()[wrong]()
