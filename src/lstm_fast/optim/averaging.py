"""Averages of the weights of a block over steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.memory import copy_arrays
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..engine.update import average
from ..network import checks
from ..network.block import Block
from ..network.layout import Layout
from ..network.parameters import lock

__all__ = ["Average"]


class Average:
    """The average of the weights of a block after some steps of an optimiser.

        average = decay average + (1 - decay) weights       the first time average = weights
        or the plain mean

    B. T. Polyak, A. B. Juditsky (1992), "Acceleration of stochastic approximation by averaging";
    as `torch.optim.swa_utils.AveragedModel`.

    Parameters
    ----------
    block : Block
    decay : float or None
        From 0 to 1; None: the plain mean.

    Attributes
    ----------
    updates : int
        How many weights are in the average. Before the first, it is what the block had when this
        was made.
    """

    def __init__(self, block: Block, decay: float | None = 0.999) -> None:
        if not isinstance(block, Block):
            raise TypeError(f"block: expected a block, got {type(block).__name__}")
        self.block = block
        self.decay = None if decay is None else checks.fraction("decay", decay)
        self.updates = 0
        parameters = block._parameters
        named = zip(parameters.names, parameters.layout.shapes, strict=True)
        arrays = {f"average.{name}": shape for name, shape in named}
        self._layout = Layout(arrays, parameters.layout.dtype)
        self._flat = self._layout.zeros()
        self._flat[:] = parameters.flat
        self._applied = False

    def update(self) -> None:
        """Take the present weights into the average.

        Raises
        ------
        ValueError
            Inside `applied`, where the weights are the average.
        """
        if self._applied:
            raise ValueError("update: the weights are the average now, inside applied()")
        with lock(), DefaultArithmetic():
            kept = 1 - 1 / (self.updates + 1) if self.decay is None else self.decay
            if self.updates:
                average(self._flat, kept, self.block._parameters.flat)
            else:
                self._flat[:] = self.block._parameters.flat
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the average into the block, and afterwards the weights that it had before.

        Raises
        ------
        ValueError
            Inside `applied`.
        """
        if self._applied:
            raise ValueError("applied: the weights are the average now")
        with lock():
            weights = self.block._parameters.flat.copy()
        try:
            self._applied = True
            self._put(self._flat)
            yield
        finally:
            self._put(weights)
            self._applied = False

    def _put(self, flat: Array) -> None:
        with lock(), self.block._parameters.update() as p:
            copy_arrays([p], [flat])

    def state_dict(self) -> dict[str, Array]:
        """Return the state: ``updates``, and copies of arrays such as ``average.weight_hh_l0``."""
        arrays = self._layout.views(self._flat)
        return {"updates": np.array(self.updates), **{k: a.copy() for k, a in arrays.items()}}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set the state; nothing changes if this raises.

        Raises
        ------
        TypeError
            If `state_dict` is no mapping, or has other values than numbers.
        ValueError
            If a key is missing or unknown, or an array has another shape.
        """
        checks.keys("state_dict", state_dict, ("updates", *self._layout.names))
        updates = checks.integer("state_dict['updates']", state_dict["updates"], 0)
        self._layout.fill(self._flat, {name: state_dict[name] for name in self._layout.names})
        self.updates = updates
