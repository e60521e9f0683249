"""Operators of ONNX on constants, as exporters put them before weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .graph import BFLOAT16, TYPES, Attributes

__all__ = ["Folding", "axes_of", "sliced"]

AnyArray = npt.NDArray[Any]

# Bytes that folding may allocate, beside four times those of the file (int8 becomes float32).
FOLDED_AT_MOST = 16 * 2**20


def axes_of(given: Sequence[int], rank: int) -> list[int]:
    """Return axes counted from the front, each once."""
    axes = [axis + rank if axis < 0 else axis for axis in given]
    if any(not 0 <= axis < rank for axis in axes) or len({*axes}) < len(axes):
        raise ValueError(f"axes {[*given]} of {rank}")
    return axes


def sliced(starts: Any, ends: Any, axes: Any, steps: Any, rank: int) -> dict[int, slice]:
    """Return the slice of each axis, as Python has them, of what Slice of ONNX has."""
    axes = range(len(starts)) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    places = axes_of([int(axis) for axis in axes], rank)
    if not len(starts) == len(ends) == len(places) == len(steps):
        raise ValueError("starts, ends, axes and steps differ in length")
    found = {}
    for place, start, end, step in zip(places, starts, ends, steps, strict=True):
        before = step < 0 and end < -(2**31)  # to the very first
        found[place] = slice(int(start), None if before else int(end), int(step))
    return found


class Folding:
    """Operators on constants, which may be shapes: object arrays of what is not known yet.

    Parameters
    ----------
    size : int
        Bytes of the file.
    """

    def __init__(self, size: int) -> None:
        self._left = FOLDED_AT_MOST + 4 * size
        self._operators: dict[str, Callable[..., AnyArray]] = {
            "Cast": self._cast,
            "Concat": self._concat,
            "DequantizeLinear": self._dequantize,
            "Equal": lambda _, a, b: self._equal(a, b),
            "Gather": self._gather,
            "Identity": lambda _, x: x,
            "Mul": lambda _, a, b: self._product(a, b),
            "ReduceProd": self._reduce_product,
            "Reshape": self._reshape,
            "Slice": self._slice,
            "Squeeze": self._squeeze,
            "Transpose": self._transpose,
            "Unsqueeze": self._unsqueeze,
        }

    def __contains__(self, operator: str) -> bool:
        return operator in self._operators

    def __call__(self, operator: str, attributes: Attributes, inputs: Sequence[Any]) -> AnyArray:
        """Return what a node gives of constants.

        Raises
        ------
        ValueError, TypeError, IndexError, OverflowError
            If it cannot, or would give very much.
        """
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        # Of optional inputs, only the axes of Slice stand before another one.
        if not all(isinstance(x, np.ndarray) for n, x in enumerate(inputs) if (n, x) != (3, None)):
            raise ValueError("has an input that is no constant")
        result = self._operators[operator](attributes, *inputs)
        if unasked := attributes.unasked():
            raise ValueError(f"attribute {unasked[0]!r} is not known")
        if not any(x is not None and np.may_share_memory(result, x) for x in inputs):
            self.allow(result.nbytes)
        return result

    def allow(self, nbytes: int) -> None:
        """Count bytes that are allocated."""
        self._left -= nbytes
        if self._left < 0:
            raise ValueError("gives more than a file of this size should")

    def _cast(self, attributes: Attributes, x: AnyArray) -> AnyArray:
        kind = attributes.integer("to")
        if x.dtype == object:
            return x
        if kind not in TYPES or kind == BFLOAT16:
            raise ValueError(f"to data type {kind}")
        attributes.integer("saturate")
        self._affordable(x.size * 8)
        with np.errstate(over="ignore", invalid="ignore"):
            return x.astype(TYPES[kind][0], copy=False)

    def _concat(self, attributes: Attributes, *parts: AnyArray) -> AnyArray:
        self._affordable(sum(part.nbytes for part in parts))
        return np.concatenate(parts, attributes.integer("axis"))

    def _dequantize(
        self, attributes: Attributes, x: AnyArray, scale: AnyArray, zero: AnyArray | None = None
    ) -> AnyArray:
        if attributes.integer("block_size", 0):
            raise ValueError("has scales of blocks")
        axis = attributes.integer("axis", 1)
        attributes.integer("output_dtype")
        self._affordable(2 * x.size * 8)
        shape = [1] * x.ndim
        if scale.size > 1:
            shape[axis] = scale.size
        shifted = x.astype(scale.dtype)
        if zero is not None:
            shifted -= zero.astype(scale.dtype).reshape(shape)
        shifted *= scale.reshape(shape)
        return shifted

    def _equal(self, a: AnyArray, b: AnyArray) -> AnyArray:
        sizes = [*a.ravel(), *b.ravel()]
        if len(sizes) > 64 or not all(isinstance(size, int | np.integer) for size in sizes):
            raise ValueError("compares sizes that are not known")
        return np.asarray(a == b, np.bool_)

    def _gather(self, attributes: Attributes, x: AnyArray, at: AnyArray) -> AnyArray:
        axis = axes_of([attributes.integer("axis", 0)], x.ndim)[0]
        self._affordable(at.size * x.nbytes // max(x.shape[axis], 1))
        return np.asarray(np.take(x, at.astype(np.intp), axis))

    def _product(self, a: AnyArray, b: AnyArray) -> AnyArray:
        if object not in (a.dtype, b.dtype) or max(a.size, b.size) > 64:
            raise ValueError("is no product of sizes")
        return np.asarray(a * b, object)

    def _reduce_product(
        self, attributes: Attributes, x: AnyArray, axes: AnyArray | None = None
    ) -> AnyArray:
        given = attributes.integers("axes") if axes is None else [int(n) for n in axes]
        attributes.integer("noop_with_empty_axes")
        if x.ndim != 1 or x.size > 64 or given not in (None, [0], [-1]):
            raise ValueError("is no product of sizes")
        found = np.asarray(math.prod(x.astype(object)), object)
        return found.reshape(1) if attributes.integer("keepdims", 1) else found

    def _reshape(
        self, attributes: Attributes, x: AnyArray, shape: AnyArray | None = None
    ) -> AnyArray:
        target = attributes.integers("shape") if shape is None else [int(n) for n in shape]
        if attributes.integer("allowzero", 0) == 0 and target is not None:
            target = [x.shape[n] if size == 0 else size for n, size in enumerate(target)]
        return x.reshape(target or ())

    def _slice(self, attributes: Attributes, x: AnyArray, *given: AnyArray | None) -> AnyArray:
        parts: Sequence[Any] = given
        if not given:
            parts = [attributes.integers(name) for name in ("starts", "ends", "axes")]
        starts, ends, axes, steps = (*parts, None, None)[:4]
        slices = sliced(starts, ends, axes, steps, x.ndim)
        return x[tuple(slices.get(axis, slice(None)) for axis in range(x.ndim))]

    def _squeeze(
        self, attributes: Attributes, x: AnyArray, axes: AnyArray | None = None
    ) -> AnyArray:
        given = attributes.integers("axes") if axes is None else [int(n) for n in axes]
        return np.squeeze(x, None if given is None else tuple(axes_of(given, x.ndim)))

    def _transpose(self, attributes: Attributes, x: AnyArray) -> AnyArray:
        return np.transpose(x, attributes.integers("perm"))

    def _unsqueeze(
        self, attributes: Attributes, x: AnyArray, axes: AnyArray | None = None
    ) -> AnyArray:
        given = attributes.integers("axes") if axes is None else [int(n) for n in axes.ravel()]
        return np.expand_dims(x, tuple(axes_of(given or [], x.ndim + len(given or []))))

    def _affordable(self, nbytes: int) -> None:
        """Raise where this is more than may be allocated, before it is."""
        if nbytes > self._left:
            raise ValueError("gives more than a file of this size should")
