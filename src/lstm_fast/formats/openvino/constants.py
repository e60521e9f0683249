"""Constants, and what a model computes from them: weights of 8 bits, and rounded ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...engine import Array
from ..signals import Misfit
from .file import File, Layer

__all__ = ["Step", "Stored"]

MOST_STEPS = 8


class Step(NamedTuple):
    """What a layer computes from numbers and other constants.

    Attributes
    ----------
    kind : str
        Of the layer: Convert, Subtract, Multiply or FakeQuantize.
    others : tuple of Stored
        Its other inputs, each a number for all, or one for each row.
    levels : int
        Of FakeQuantize.
    """

    kind: str
    others: tuple[Stored, ...] = ()
    levels: int = 0


class Stored(NamedTuple):
    """A constant, which is read, and from which steps compute, where it is needed."""

    layer: Layer
    steps: tuple[Step, ...] = ()

    def after(self, step: Step) -> Stored:
        """Return what a step makes of it."""
        computed = {one.kind for other in step.others for one in other.steps} - {"Convert"}
        if computed or len(self.steps) == MOST_STEPS:
            raise Misfit("computes much from constants", "save the model with folded constants")
        return Stored(self.layer, (*self.steps, step))

    def floats(self, file: File) -> Array:
        """Return its numbers, those of fewer than 32 bits as float32; integers need a Convert."""
        if not self.steps or self.steps[0].kind != "Convert":
            array = file.floats(self.layer)
        else:
            stored = file.stored(self.layer)
            array = stored.astype(np.float64 if stored.dtype == np.float64 else np.float32)
        for step in self.steps:
            others = [other.floats(file).astype(array.dtype) for other in step.others]
            array = _computed(step, array, others)
        return array


def _computed(step: Step, array: Array, others: list[Array]) -> Array:
    for other in others:
        extents = (1,) * (array.ndim - other.ndim) + other.shape
        if len(extents) != array.ndim or any(
            n not in (1, m) for n, m in zip(extents, array.shape, strict=True)
        ):
            raise Misfit(f"{step.kind} of shape {array.shape} by {other.shape}", "it is broken")
    with np.errstate(all="ignore"):
        match step.kind:
            case "Subtract":
                return array - others[0]
            case "Multiply":
                return array * others[0]
            case "FakeQuantize":
                return _rounded(array, others, step.levels)
    return array


def _rounded(x: Array, limits: list[Array], levels: int) -> Array:
    """Return what FakeQuantize gives, in the same order of operations as OpenVINO."""
    low, high, out_low, out_high = limits
    most = x.dtype.type(levels - 1)
    place = np.rint((x - low) / (high - low) * most)
    inside = place / most * (out_high - out_low) + out_low
    clipped = np.where(x > np.maximum(low, high), out_high, inside)
    return np.where(x <= np.minimum(low, high), out_low, clipped).astype(x.dtype, copy=False)
