"""Arrays by name: to the bit, or within a tolerance."""

import numpy as np


def by_name(arrays):
    """Return arrays by name, those of a sequence by their place."""
    return arrays if isinstance(arrays, dict) else dict(enumerate(arrays))


def assert_identical(actual, expected, where=""):
    """The same arrays: shapes, dtypes and bits; a NaN is as good as another."""
    actual, expected = by_name(actual), by_name(expected)
    assert actual.keys() == expected.keys(), where
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, f"{name} {where}", strict=True)
        sign = np.signbit(actual[name]) == np.signbit(array)
        assert (sign | np.isnan(array)).all(), f"{name}: a zero of the other sign {where}"


def assert_close(actual, expected, tolerance, *, floor=0.0, dtype=None, where=""):
    """No element errs by more than `tolerance` times the largest one of its array, or `floor`.

    The largest is that of the expected array. With a dtype, all results must have it.
    """
    actual, expected = by_name(actual), by_name(expected)
    assert actual.keys() == expected.keys(), where
    for name, array in expected.items():
        assert actual[name].shape == array.shape, f"{name} {where}"
        assert dtype is None or actual[name].dtype == dtype, f"{name} {where}"
        error = np.abs(actual[name] - array).max(initial=0)
        limit = tolerance * np.abs(array).max(initial=floor)
        assert error <= limit, f"{name}: {error:.3g} > {limit:.3g} {where}"


def in_dtype(given, dtype):
    """Return arguments with their floating-point arrays in another dtype, and the rest as it is."""
    if isinstance(given, dict):
        return {name: in_dtype(value, dtype) for name, value in given.items()}
    if isinstance(given, (list, tuple)):
        return type(given)(in_dtype(value, dtype) for value in given)
    real = isinstance(given, np.ndarray) and given.dtype.kind == "f"
    return given.astype(dtype) if real else given
