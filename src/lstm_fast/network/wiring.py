"""How layers and directions are connected: what one call of the engine computes, what is between.

Layers of one direction are one call, in which they may form a pipeline. With two directions each
layer is a call, since the next one reads both; so is each layer where something happens between
layers: another size, a residual connection, dropout in training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Array
from ..engine.memory import empty
from ..engine.tape import Tape
from .checkpoint import Checkpoint
from .settings import Settings

__all__ = ["Arrays", "Kept", "States", "Wiring"]

Kept = list[Tape] | list[Checkpoint]
States = Array | list[Array]
Arrays = tuple[Array, States | None, States | None, Array, States, States]  # x, h0, c0, y, hn, cn


class Wiring:
    """The connections of a network.

    Arrays are those of `engine.forward`, but that states may be one array, (L D, B, columns),
    layer-major, then direction, or a list with those of each layer.
    """

    __slots__ = (
        "_merge",
        "_residual",
        "apart",
        "directions",
        "keeps_z",
        "layers",
        "merges",
        "reverse",
    )

    def __init__(self, settings: Settings) -> None:
        self.layers, self.directions = settings.num_layers, settings.directions
        self.reverse, self.merges = settings.reverse, settings.merges
        self._merge, self._residual = settings.merge, settings.residual
        self.apart = settings.directions == 2 or settings.differ or settings.residual
        self.keeps_z = settings.merge == "mul"

    def stages(self, apart: bool = False) -> list[slice]:
        """Return what each call of the engine takes of the cells: with `apart`, one layer."""
        step = self.directions if apart or self.apart else self.layers
        return [slice(n, n + step) for n in range(0, self.layers * self.directions, step)]

    def jobs(self, stage: slice) -> list[slice]:
        """Return what of a stage runs in one direction."""
        if self.directions == 1:
            return [slice(0, stage.stop - stage.start)]
        return [slice(0, 1), slice(1, 2)]

    def part(self, states: States | None, stage: slice) -> Any:
        """Return the states of a stage."""
        if isinstance(states, list):
            return states[stage.start // self.directions]
        return None if states is None else states[stage]

    def outputs(self, x: Array, hn: Array, y: Array | None) -> tuple[Array, Array]:
        """Return arrays for the output of a layer, `y` if given, and of the engine in it."""
        columns = hn.shape[-1] * self.directions
        if y is None:
            merged = hn.shape[-1] if self.merges else columns
            y = empty((*x.shape[:-1], merged), x.dtype)
        return y, empty((*x.shape[:-1], columns), x.dtype) if self.merges else y

    def finish(self, z: Array, y: Array, stage: slice, x: Array) -> None:
        """Write y of a layer from z, the engine's output, and x, the layer's input."""
        if self.merges:
            forward, reverse = np.split(z, 2, axis=-1)
            if self._merge == "mul":
                np.multiply(forward, reverse, out=y)
            else:
                np.add(forward, reverse, out=y)
            if self._merge == "ave":
                y *= y.dtype.type(0.5)
        if self._residual and stage.start > 0:
            y += x

    def merge_backward(self, dy: Array | None, z: Array | None) -> Array | None:
        """Return the gradient of the engine's output from that of the layer's, and z for "mul"."""
        if dy is None or not self.merges:
            return dy
        if self._merge == "ave":
            dy = dy * dy.dtype.type(0.5)
        both = np.concatenate((dy, dy), axis=-1)
        if z is not None:
            forward, reverse = np.split(z, 2, axis=-1)
            both *= np.concatenate((reverse, forward), axis=-1)
        return both

    def residual_backward(self, dx: Array, dy: Array | None, stage: slice) -> None:
        """Add to dx what goes past the layer."""
        if self._residual and stage.start > 0 and dy is not None:
            np.add(dx, dy, out=dx)
