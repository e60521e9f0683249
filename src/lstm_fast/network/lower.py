"""Parameters of lower precision: 8-bit integers with scales, and bfloat16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.cell import Cell, bfloat16_bits
from ..engine.direct import Version
from ..engine.runtime.arithmetic import DefaultArithmetic
from . import checks
from .cells import by_cell
from .options import CellOptions
from .parameters import copy_checked, lock

__all__ = [
    "Inputs",
    "LowerCells",
    "Weights",
    "dequantized",
    "lower_shapes",
    "of_bfloat16",
    "quantized",
]

Weights = Literal["int8", "bfloat16"]
Inputs = Literal["bfloat16", "int8", "float32"]
Shapes = Mapping[str, tuple[int, ...]]

PACKED = ("weight_ih", "weight_hh", "weight_hr")  # what becomes smaller; the rest stays float32
PACKED_KINDS = ("w_ih", "w_hh", "w_hr")  # what `Cell` calls these
SCALE = "_scale"  # after the name of a weight: one for each row
MOST = 127  # the largest magnitude of an 8-bit weight


def is_packed(name: str) -> bool:
    """Return whether a parameter is one that becomes smaller."""
    return name.startswith(PACKED)


def lower_shapes(shapes: Shapes, weights: Weights) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the arrays that parameters of these shapes become."""
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        found[name] = shape
        if weights == "int8" and is_packed(name):
            found[name + SCALE] = shape[:1]
    return found


def quantized(parameters: Mapping[str, Array], weights: Weights) -> dict[str, Any]:
    """Return parameters in lower precision: arrays with the names of `lower_shapes`.

    int8: in each row of a weight w the nearest integers of w / s, ties to even, and
    s = max |w| / 127. bfloat16: the nearest ones, ties to even, as their bits in uint16.

    Raises
    ------
    ValueError
        If a weight is not finite, or not as bfloat16.
    """
    found: dict[str, Any] = {}
    with DefaultArithmetic():
        for name, value in parameters.items():
            if not is_packed(name):
                found[name] = value.copy()
                continue
            if not np.isfinite(value).all():
                raise ValueError(f"{name}: a weight is not finite, and has no number near it")
            if weights == "int8":
                found[name], found[name + SCALE] = _rows(value)
            else:
                found[name] = bfloat16_bits(value)
                if not _finite(found[name]):
                    raise ValueError(f"{name}: a weight is too large for bfloat16")
    return found


def _rows(w: Array) -> tuple[npt.NDArray[np.int8], Array]:
    """Return the integers of each row, and its scale."""
    scale = np.abs(w).max(axis=1, initial=0) / np.float32(MOST)
    divisor = np.where(scale > 0, scale, 1)[:, None]
    return np.clip(np.rint(w / divisor), -MOST, MOST).astype(np.int8), scale


def _finite(w: npt.NDArray[np.uint16]) -> bool:
    """Return whether bfloat16 numbers are: their exponents are not all ones."""
    return bool(((w & 0x7F80) != 0x7F80).all())


def dequantized(arrays: Mapping[str, Any]) -> dict[str, Array]:
    """Return the float32 parameters that arrays of lower precision stand for."""
    found: dict[str, Array] = {}
    with DefaultArithmetic():
        for name, value in arrays.items():
            if name + SCALE in arrays:
                found[name] = value * arrays[name + SCALE][:, None]
            elif value.dtype == np.uint16:
                found[name] = of_bfloat16(value)
            elif not name.endswith(SCALE):
                found[name] = value
    return found


def of_bfloat16(bits: npt.NDArray[np.integer[Any]]) -> Array:
    """Return the numbers whose upper halves as float32 these are."""
    widened = bits.astype(np.uint32)
    widened <<= 16
    return widened.view(np.float32)


def checked(
    arrays: Mapping[str, Any], shapes: Shapes, weights: Weights, prefix: str = ""
) -> dict[str, Any]:
    """Return copies of arrays of lower precision, with the names of `lower_shapes`.

    Those of `arrays` begin with a prefix.

    Raises
    ------
    TypeError
        If an array has another dtype.
    ValueError
        If a name or a shape is another one, or a value is impossible.
    """
    expected = lower_shapes(shapes, weights)
    checks.keys("state_dict", arrays, [prefix + name for name in expected])
    found: dict[str, Any] = {}
    for name, shape in expected.items():
        label, value = f"state_dict[{prefix + name!r}]", arrays[prefix + name]
        if not is_packed(name) or name.endswith(SCALE):
            found[name] = copy_checked(label, value, shape, np.dtype(np.float32))
            if name.endswith(SCALE) and not (np.isfinite(found[name]) & (found[name] >= 0)).all():
                raise ValueError(f"{label}: expected finite scales, from 0 on")
            continue
        dtype = np.dtype(np.int8 if weights == "int8" else np.uint16)
        if not isinstance(value, np.ndarray) or value.dtype != dtype:
            given = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
            raise TypeError(f"{label}: expected {dtype}, got {given}")
        if value.shape != shape:
            raise ValueError(f"{label}: expected shape {shape}, got {value.shape}")
        if weights == "int8" and value.size and value.min() < -MOST:
            raise ValueError(f"{label}: expected integers from -{MOST} to {MOST}")
        if weights == "bfloat16" and not _finite(value):
            raise ValueError(f"{label}: expected finite weights")
        found[name] = np.array(value, dtype, order="C")
    return found


class LowerCells:
    """The cells of a network whose weights have lower precision: what `PackedCells` is for others.

    They hold the only copy of these weights.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Of the floating-point parameters, by layers and directions.
    options : CellOptions
    weights : {"int8", "bfloat16"}
    inputs : {"bfloat16", "int8", "float32"}

    Attributes
    ----------
    version : Version
        Its number is another one after `load`.
    names : tuple of str
        None: nothing is trained.
    kept : tuple
        As of `PackedCells`.
    """

    names: tuple[str, ...] = ()
    bfloat16 = False

    def __init__(
        self, shapes: Shapes, options: CellOptions, weights: Weights, inputs: Inputs
    ) -> None:
        self.shapes, self.weights, self.inputs = shapes, weights, inputs
        self._options = None if options.plain else options
        self.version = Version()
        self._rest: dict[str, Array] = {}
        self.kept: tuple[int, list[Cell], bool, bool] = -1, [], False, False

    def load(self, arrays: Mapping[str, Any]) -> None:
        """Use these arrays, which `checked` or `quantized` returned, from the next call on."""
        cells = [
            Cell(
                **{kind: arrays[name] for kind, name in names.items()},
                options=self._options,
                scales=tuple(arrays.get(names.get(kind, "") + SCALE) for kind in PACKED_KINDS),
                inputs=self.inputs,
            )
            for names in by_cell(self.shapes)
        ]
        rest = {name: arrays[name] for name in self.shapes if not is_packed(name)}
        with lock():
            self._rest = rest
            self.kept = self.version.number + 1, cells, False, False
            self.version.number += 1

    def current(self, training: bool, blas: bool, of_input: bool = True) -> list[Cell]:
        """Return the cells, for inference."""
        if training:
            raise RuntimeError("weights of lower precision are for inference: train the LSTM")
        return self.kept[1]

    def arrays(self) -> dict[str, Any]:
        """Return copies of all arrays, with the names of `lower_shapes`."""
        with lock():
            cells, rest = self.kept[1], self._rest
        found: dict[str, Any] = {name: value.copy() for name, value in rest.items()}
        for cell, names in zip(cells, by_cell(self.shapes), strict=True):
            weights, scales = cell.weights()
            for n, kind in enumerate(PACKED_KINDS):
                if kind in names:
                    found[names[kind]] = weights[n]
                if kind in names and scales is not None:
                    found[names[kind] + SCALE] = scales[n]
        return {name: found[name] for name in lower_shapes(self.shapes, self.weights)}

    @property
    def nbytes(self) -> int:
        """Bytes of memory that all parameters take."""
        return sum(cell.nbytes for cell in self.kept[1]) + sum(
            value.nbytes for value in self._rest.values()
        )
