"""Checks of arguments: the one place where what users pass becomes what the engine takes."""

from __future__ import annotations

import contextlib
import operator
import os
from collections.abc import Collection, Mapping
from numbers import Real
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.sessions import check_indices, rows_of_mask

Matmul = Literal["auto", "packed", "blas"]
MatmulPrecision = Literal["highest", "bfloat16"]
Padding = Literal["zero", "hold"]
Indices = npt.NDArray[np.intp]

# A bound on the bytes of any array of a call, so that no size computed from it overflows.
LARGEST_ARRAY = 2**48


def real_dtype(name: str, value: npt.DTypeLike) -> np.dtype[Any]:
    """Return the dtype, float32 or float64 in native byte order."""
    try:
        dtype = None if value is None else np.dtype(value)  # NumPy takes None for float64
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"{name}: expected float32 or float64, got {value!r}")
    return np.dtype(dtype.type)


def integer(name: str, value: Any, least: int) -> int:
    """Return an int (NumPy's included, bool excluded) of at least `least`."""
    number = None
    if not isinstance(value, (bool, np.bool_)) and not getattr(value, "ndim", 0):
        with contextlib.suppress(TypeError):
            number = operator.index(value)
    if number is None:
        raise TypeError(f"{name}: expected an integer, got {value!r} ({type(value).__name__})")
    if number < least:
        raise ValueError(f"{name}: expected at least {least}, got {number}")
    return number


def boolean(name: str, value: Any) -> bool:
    """Return a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected a bool, got {type(value).__name__}")
    return bool(value)


def number(name: str, value: Any) -> float:
    """Return a float (not a bool)."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number, got {value!r} ({type(value).__name__})")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """Return a float from 0 to 1."""
    found = number(name, value)
    if not 0.0 <= found <= 1.0:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {found}")
    return found


def keys(name: str, value: Any, names: Collection[str]) -> None:
    """Raise if `value` is no mapping with exactly these keys."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {type(value).__name__}")
    missing = [key for key in names if key not in value]
    unknown = [key for key in value if key not in names]
    if missing or unknown:
        wrong = [f"missing keys {missing}"] * bool(missing)
        wrong += [f"unknown keys {unknown}"] * bool(unknown)
        raise ValueError(f"{name}: {', '.join(wrong)}")


def one_of(name: str, value: Any, known: tuple[str, ...]) -> str:
    """Return one of some words."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {type(value).__name__}")
    if value not in known:
        raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    return value


def matmul(value: Any) -> Matmul:
    """Return the name of a multiply."""
    return one_of("matmul", value, get_args(Matmul))  # type: ignore[return-value]


def matmul_precision(value: Any, matmul: str, dtype: np.dtype[Any]) -> MatmulPrecision:
    """Return the precision of the products, which goes with a multiply and a dtype."""
    found: Any = one_of("matmul_precision", value, get_args(MatmulPrecision))
    if found == "bfloat16" and dtype != np.float32:
        raise ValueError(f"matmul_precision: bfloat16 is for an LSTM of float32, not of {dtype}")
    if found == "bfloat16" and matmul == "blas":
        raise ValueError("matmul_precision: bfloat16 has no BLAS; set matmul to 'auto'")
    return found  # type: ignore[no-any-return]


def generator(name: str, value: Any) -> np.random.Generator:
    """Return a Generator from a seed or from itself."""
    if isinstance(value, np.random.Generator):
        return value
    if value is not None:
        value = integer(name, value, 0)
    return np.random.default_rng(value)


def real(name: str, value: Any, dtype: np.dtype[Any]) -> Array:
    """Return an array of `dtype` in native byte order: `value`, or a copy with swapped bytes.

    Any strides, writable or not. Other dtypes are not cast, since that would hide a mistake or lose
    digits.
    """
    if type(value) is np.ndarray and value.dtype is dtype:
        return value
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array of {dtype}, got {type(value).__name__}")
    unmasked(name, value)
    if value.dtype.newbyteorder("=") != dtype:
        raise TypeError(
            f"{name}: expected dtype {dtype}, got {value.dtype} (convert it with astype)"
        )
    return np.asarray(value, dtype)


def unmasked(name: str, value: Any) -> None:
    """Raise if `value` is a masked array."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{name}: expected a plain array, got a masked one, whose mask would be ignored"
        )


def shaped(
    name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...], letters: str
) -> Array:
    """Return an array `in_order` of exactly `shape`; `letters` names its axes, as "T, B, I"."""
    array = real(name, value, dtype)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape ({letters}) = {shape}, got {array.shape}")
    return in_order(array)


def in_order(array: Array) -> Array:
    """Return an array, or its copy, that is aligned and in C order, as the engine takes it."""
    return np.require(array, requirements=["C", "ALIGNED"])


def output(name: str, value: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    """Return an array that a result of exactly this dtype and shape can be written to."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{name}: expected a NumPy array of {dtype}, got {got}")
    unmasked(name, value)
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
    if not value.flags.writeable:
        raise ValueError(f"{name}: is read-only")
    return value


def lengths(name: str, value: Any, T: int, B: int) -> npt.NDArray[np.intp]:
    """Return the lengths, from 0 to T, of B sequences."""
    unmasked(name, value)
    if not isinstance(value, (np.ndarray, list, tuple)):
        raise TypeError(f"{name}: expected an array of integers, got {type(value).__name__}")
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: expected shape (B,) = {(B,)}, got {value!r}") from error
    if array.size == 0:
        array = array.astype(np.intp)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    if array.shape != (B,):
        raise ValueError(f"{name}: expected shape (B,) = {(B,)}, got {array.shape}")
    least, most = (array.min(), array.max()) if B else (0, 0)
    if least < 0 or most > T:
        raise ValueError(f"{name}: expected 0 to T = {T}, got {least} to {most}")
    return array.astype(np.intp)


def mask(name: str, value: Any, T: int, B: int) -> npt.NDArray[np.bool_]:
    """Return booleans (B, T)."""
    unmasked(name, value)
    if not isinstance(value, np.ndarray) or value.dtype != np.bool_:
        got = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise TypeError(f"{name}: expected a NumPy array of bool, got {got}")
    if value.shape != (B, T):
        raise ValueError(f"{name}: expected shape (B, T) = {(B, T)}, got {value.shape}")
    return value


def steps(
    lengths_: Any, mask_: Any, T: int, B: int
) -> tuple[npt.NDArray[np.intp] | None, npt.NDArray[np.bool_] | None]:
    """Return lengths and mask, each of which may be None."""
    return (
        None if lengths_ is None else lengths("lengths", lengths_, T, B),
        None if mask_ is None else mask("mask", mask_, T, B),
    )


def rows(name: str, value: Any, B: int, distinct: bool = True) -> Indices:
    """Return the indices, from 0 to B - 1, of rows of a batch.

    `value` is an index, some, a slice, or booleans. With `distinct`, none may come twice.
    """
    array = value
    if type(value) is not np.ndarray:
        if isinstance(value, slice):
            return np.arange(*value.indices(B), dtype=np.intp)
        unmasked(name, value)
        try:
            array = np.asarray(value)
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{name}: expected indices or booleans, got {value!r}") from error
    kind = array.dtype.kind
    if kind == "b":
        if array.shape != (B,):
            raise IndexError(f"{name}: expected {B} booleans, got shape {array.shape}")
        return rows_of_mask(np.ascontiguousarray(array))
    if kind not in "iu" and (array.size or isinstance(value, np.ndarray)):  # [] is of floats
        raise TypeError(f"{name}: expected indices or booleans, got {array.dtype}")
    if array.ndim > 1:
        raise IndexError(f"{name}: expected indices (n,), got shape {array.shape}")
    if kind == "u" and array.size and array.max() >= B:  # a larger one may wrap around
        raise IndexError(f"{name}: expected {-B} to {B - 1}, got {array.max()}")
    indices = np.array(array, np.intp, order="C", ndmin=1)
    check_indices(name, indices, B, distinct)
    return indices


def concatenated(
    name: str, value: tuple[Any, ...], dtype: np.dtype[Any], columns: int
) -> tuple[Array, npt.NDArray[np.intp]]:
    """Return sequences one after the other, (steps of all, columns), and the steps of each."""
    data, offsets = pair(name, value)
    data = real(f"{name}[0]", data, dtype)
    if data.ndim != 2 or data.shape[1] != columns:
        raise ValueError(f"{name}[0]: expected shape (steps, {columns}), got {data.shape}")
    found = np.asarray(offsets)
    if found.dtype.kind not in "iu":
        raise TypeError(f"{name}[1]: expected integers, got {found.dtype}")
    if found.ndim != 1 or found.size == 0:
        raise ValueError(f"{name}[1]: expected shape (B + 1,), got {found.shape}")
    found = found.astype(np.intp)
    steps = np.diff(found)
    if found[0] != 0 or found[-1] != len(data) or (steps < 0).any():
        raise ValueError(
            f"{name}[1]: expected offsets that ascend from 0 to {len(data)}, got {found}"
        )
    return data, steps


def padding(value: Any) -> Padding:
    """Return what comes after the end of a row."""
    if not isinstance(value, str) or value not in ("zero", "hold"):
        raise ValueError(f"padding: expected zero or hold, got {value!r}")
    return value  # type: ignore[return-value]


def pair(name: str, value: Any) -> tuple[Any, Any]:
    """Return the two items of a state (h, c) or of its gradient; (None, None) for None."""
    if value is None:
        return None, None
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected a tuple of two arrays, got {type(value).__name__}")
    if len(value) != 2:
        raise ValueError(f"{name}: expected two arrays, got {len(value)}")
    return value[0], value[1]


def fits(name: str, elements: int, dtype: np.dtype[Any]) -> None:
    """Raise unless an array of so many elements is of a possible size."""
    if elements * dtype.itemsize > LARGEST_ARRAY:
        raise ValueError(
            f"{name}: these sizes need arrays of {elements} elements, too many for any memory"
        )


def affordable(name: str, elements: int, dtype: np.dtype[Any]) -> None:
    """Raise if so many elements are more than the memory of the machine."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not to be had here
        return
    size = elements * dtype.itemsize
    if size > memory:
        raise MemoryError(
            f"{name}: these sizes need {size / 2**30:.0f} GiB for parameters, and the machine has "
            f"{memory / 2**30:.0f} GiB of memory"
        )
