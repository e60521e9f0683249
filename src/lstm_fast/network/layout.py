"""How the parameters of a block lie in one flat buffer, and their gradients alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.memory import empty
from ..engine.runtime.arithmetic import DefaultArithmetic
from . import checks

__all__ = ["Gradients", "Layout", "checked"]

ALIGNMENT = 16  # elements: a vector of any instruction set begins there
LINE = 64  # bytes of a cache line


def checked(name: str, value: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    """Return floating-point values of one shape as an array, not copied if they are one."""
    checks.unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected shape {shape}, got rows of different lengths"
        ) from error
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected real floating-point numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


@dataclass(frozen=True, init=False)
class Layout:
    """Where arrays are in a flat buffer: one after the other, with gaps of zeros.

    Each begins at a multiple of 16 elements, and `size` is one, so that the layouts of some blocks,
    one after the other, are the layout of all their arrays.

    Parameters
    ----------
    arrays : dict of str to tuple of int
        Shapes by name.
    dtype : data-type
        Of all arrays.

    Attributes
    ----------
    names : tuple of str
    shapes : tuple of tuple of int
    offsets : tuple of int
        Where each array begins, in elements.
    size : int
        Elements of the flat buffer.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    offsets: tuple[int, ...]
    size: int
    dtype: np.dtype[Any]

    def __init__(self, arrays: Mapping[str, tuple[int, ...]], dtype: npt.DTypeLike) -> None:
        offsets, size = [], 0
        for shape in arrays.values():
            offsets.append(size)
            size += -(-math.prod(shape) // ALIGNMENT) * ALIGNMENT
        found = {"names": tuple(arrays), "shapes": tuple(arrays.values()), "size": size}
        found |= {"offsets": tuple(offsets), "dtype": np.dtype(dtype)}
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def ends(self) -> tuple[int, ...]:
        """Where the gap after each array ends, in elements."""
        return (*self.offsets, self.size)[1:]

    def zeros(self) -> Array:
        """Return a new flat buffer, which begins with a cache line."""
        itemsize = self.dtype.itemsize
        memory = np.zeros(self.size + LINE // itemsize, self.dtype)
        start = -memory.ctypes.data % LINE // itemsize
        return memory[start : start + self.size]

    def views(self, flat: Array) -> dict[str, Array]:
        """Return the arrays of a flat buffer by name."""
        return {
            name: flat[offset : offset + math.prod(shape)].reshape(shape)
            for name, shape, offset in zip(self.names, self.shapes, self.offsets, strict=True)
        }

    def fill(self, flat: Array, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Copy a state into a flat buffer; nothing changes if this raises.

        Raises
        ------
        TypeError, ValueError
            As `flat`.
        """
        checks.keys("state_dict", state_dict, self.names)
        values = {
            name: checked(f"state_dict[{name!r}]", state_dict[name], shape)
            for name, shape in zip(self.names, self.shapes, strict=True)
        }
        with DefaultArithmetic():
            for name, view in self.views(flat).items():
                view[...] = values[name]

    def flat(self, grads: Mapping[str, npt.ArrayLike]) -> Array:
        """Return gradients as a flat buffer: that of `Gradients`, or a copy.

        Raises
        ------
        TypeError
            If `grads` is no mapping, or a value does not hold real floating-point numbers.
        ValueError
            If a key is missing or unknown, or a value has another shape.
        """
        if isinstance(grads, Gradients) and grads.layout == self and grads.whole:
            return grads.flat
        checks.keys("grads", grads, self.names)
        values = [
            checked(f"grads[{name!r}]", grads[name], shape)
            for name, shape in zip(self.names, self.shapes, strict=True)
        ]
        flat = empty((self.size,), self.dtype)
        with DefaultArithmetic():
            for offset, end, value in zip(self.offsets, self.ends, values, strict=True):
                np.copyto(flat[offset : offset + value.size].reshape(value.shape), value)
                flat[offset + value.size : end] = 0
        return flat


class Gradients(dict[str, Array]):
    """Gradients by name, views of one flat buffer.

    Parameters
    ----------
    layout : Layout
    flat : ndarray, shape (layout.size,), optional
        Zeros where absent.
    """

    def __init__(self, layout: Layout, flat: Array | None = None) -> None:
        self.layout = layout
        self.flat = layout.zeros() if flat is None else flat
        super().__init__(layout.views(self.flat))
        self._views = tuple(self.values())

    @property
    def whole(self) -> bool:
        """Whether all arrays are those of the flat buffer: none was replaced, added or deleted."""
        return len(self) == len(self._views) and all(
            self.get(name) is view
            for name, view in zip(self.layout.names, self._views, strict=True)
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return (Gradients, (self.layout, self.flat)) if self.whole else (dict, (dict(self),))
