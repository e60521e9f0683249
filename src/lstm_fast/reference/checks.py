"""Checks of arguments: each returns what it has checked, or raises an error that names it."""

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from .functions import CONSTANTS, FUNCTIONS, Array, Bools, Function, Integers


def real(name: str, value: Array) -> np.dtype[Any]:
    """Return the dtype of ``value``, or raise if it is neither float32 nor float64."""
    if value.dtype not in (np.float32, np.float64):
        raise TypeError(f"{name} must be float32 or float64, got {value.dtype}")
    return value.dtype


def runs(lengths: npt.ArrayLike | None, mask: npt.ArrayLike | None, T: int, B: int) -> Bools:
    """Return which rows run at each time, (T, B), or raise if ``lengths`` or ``mask`` is wrong."""
    rows = np.full(B, T) if lengths is None else np.array(lengths)
    if np.ma.isMaskedArray(lengths) or (rows.size > 0 and rows.dtype.kind not in "iu"):
        raise TypeError(f"lengths must hold integers, got {rows.dtype}")
    if rows.shape != (B,):
        raise ValueError(f"lengths must have shape {(B,)}, got {rows.shape}")
    if not ((rows >= 0) & (rows <= T)).all():
        raise ValueError(f"lengths must be from 0 to {T}, got {rows}")
    may = np.ones((B, T), bool) if mask is None else np.array(mask)
    if np.ma.isMaskedArray(mask) or (may.size > 0 and may.dtype != bool):
        raise TypeError(f"mask must hold booleans, got {may.dtype}")
    if may.shape != (B, T):
        raise ValueError(f"mask must have shape (B, T) = {(B, T)}, got {may.shape}")
    both: Bools = (np.arange(T)[:, None] < rows) & may.T.astype(bool)
    return both


def counted(lengths: npt.ArrayLike | None, shape: tuple[int, ...]) -> Bools:
    """Return what counts of (T, B, ...): without ``lengths`` all, of any shape; or raise."""
    if lengths is None:
        return np.ones(shape, bool)
    if len(shape) < 2:
        raise ValueError(f"lengths must come with axes T and B, got shape {shape}")
    rows = runs(lengths, None, *shape[:2])
    return np.broadcast_to(rows.reshape(shape[:2] + (1,) * len(shape[2:])), shape)


def indices(name: str, value: Integers, count: int) -> npt.NDArray[np.intp]:
    """Return a copy of ``value``, or raise if it does not hold integers from 0 to count - 1."""
    if value.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold integers, got {value.dtype}")
    if not ((value >= 0) & (value < count)).all():
        raise ValueError(f"{name} must be from 0 to {count - 1}, got {value}")
    return value.astype(np.intp)


def number(name: str, value: Any) -> float:
    """Return a float, or raise if ``value`` is no number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    result = float(value)
    if np.isnan(result):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return result


def limit(name: str, value: float | None, dtype: np.dtype[Any]) -> Any:
    """Return a scalar of ``dtype``, infinity for None, or raise if ``value`` is not positive."""
    bound = np.inf if value is None else number(name, value)
    if bound <= 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    with np.errstate(over="ignore"):  # 1e300 is infinity in float32
        return dtype.type(bound)


def functions(activations: Any) -> tuple[Function, Function, Function]:
    """Return f, g, h with alpha and beta, or raise if ``activations`` are wrong."""
    if not isinstance(activations, (tuple, list)):
        raise TypeError(f"activations must be a tuple of three, got {activations!r}")
    if len(activations) != 3:
        raise ValueError(f"activations must be three, got {len(activations)}")
    found = [function(f"activations[{n}]", given) for n, given in enumerate(activations)]
    return found[0], found[1], found[2]


def function(where: str, given: Any) -> Function:
    """Return a function with alpha and beta, or raise if it is none of ONNX's."""
    name, *constants = given if isinstance(given, (tuple, list)) and given else (given,)
    if not isinstance(name, str):
        raise TypeError(f"{where} must be a name or (name, alpha, beta), got {given!r}")
    if name not in FUNCTIONS:
        raise ValueError(f"{where} must be one of {', '.join(FUNCTIONS)}, got {name!r}")
    defaults = CONSTANTS[name]
    if len(constants) > len(defaults):
        raise ValueError(f"{where} must have {len(defaults)} constants or less, got {given!r}")
    numbers = [number(where, constant) for constant in constants]
    return Function(name, (*numbers, *defaults[len(numbers) :]))


def zones(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return z_h and z_c, or raise if ``zoneout`` is wrong."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"zoneout must be a pair (z_h, z_c), got {value!r}")
    if len(value) != 2:
        raise ValueError(f"zoneout must be a pair (z_h, z_c), got {len(value)}")
    found: list[Array] = []
    for n, zone in enumerate(value):
        name = f"zoneout[{n}]"
        if isinstance(zone, np.ndarray):
            found.append(copy(name, zone, shape, dtype))
        elif 0 <= number(name, zone) <= 1:
            found.append(np.full(shape, zone, dtype))
        else:
            raise ValueError(f"{name} must be from 0 to 1, got {zone!r}")
    return found[0], found[1]


def copy(
    name: str, value: Array, shape: tuple[int, ...], dtype: np.dtype[Any], like: str = "x"
) -> Array:
    """Return a C-ordered copy of ``value``, or raise if its dtype or shape is another.

    ``like`` names the argument that has the dtype.
    """
    own = np.array(value, order="C")
    if own.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} like {like}, got {own.dtype}")
    if own.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {own.shape}")
    return own


def copy_or_zeros(
    name: str, value: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """As `copy`, with zeros for None."""
    return np.zeros(shape, dtype) if value is None else copy(name, value, shape, dtype)


def offsets(value: npt.ArrayLike, total: int) -> npt.NDArray[np.intp]:
    """Return where sequences begin in ``total`` rows, and where the last ends, or raise."""
    found = np.array(value)
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise TypeError(f"offsets must be a sequence of integers, got {value!r}")
    if len(found) == 0 or found[0] != 0 or found[-1] != total or (np.diff(found) < 0).any():
        raise ValueError(f"offsets must ascend from 0 to {total}, got {found}")
    return found.astype(np.intp)


def each(name: str, values: Sequence[Any] | Array | None, count: int) -> list[Any]:
    """Return a list, all None for None, or raise if there is another number of values."""
    if values is not None and len(values) != count:
        raise ValueError(f"{name} must be {count}, one for each, got {len(values)}")
    return [None] * count if values is None else list(values)
