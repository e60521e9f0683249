"""Layers and directions on the engine's arrays: which of them one call of the engine computes.

Layers of one direction are one call, in which they may form a pipeline. With two directions each
layer is a call, since the next one reads both; so is each layer where something happens between
layers: another size, a residual connection, dropout in training.

Arrays (x, h0, c0, y, hn, cn) are those of `_forward.forward`: x (T, B, I) or, of a ragged batch,
(N, I); states (L D, B, columns), layer-major, then direction, or one such array for each layer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import _backward, _engine, _forward
from ._checks import Array
from ._engine import Cell, Noise, Ragged
from ._packing import Packing
from .checkpoint import Checkpoint

__all__ = ["Arrays", "Cache", "Stage", "States", "Wiring", "infer", "train"]

Kept = list[_engine.Tape] | list[Checkpoint]
States = Array | list[Array]
Arrays = tuple[Array, States | None, States | None, Array, States, States]  # x, h0, c0, y, hn, cn


class Wiring(NamedTuple):
    """How layers and directions are connected.

    Parameters
    ----------
    directions : int
    reverse : bool
        The one direction runs from the end.
    merge : str
        What becomes of the outputs of two directions: see `LSTM`.
    merges : bool
        Whether the outputs of two directions become one of the same size.
    residual : bool
        Each layer but the first adds its input to its output.
    apart : bool
        A layer is a call of the engine, whatever happens between them.
    """

    directions: int
    reverse: bool
    merge: str
    merges: bool
    residual: bool
    apart: bool

    def stages(self, cells: list[Cell], apart: bool = False) -> list[slice]:
        """Return what each call of the engine takes of the cells."""
        apart = apart or self.apart or self.directions == 2
        step = self.directions if apart else len(cells)
        return [slice(first, first + step) for first in range(0, len(cells), step)]

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
            y = _engine.empty((*x.shape[:-1], merged), x.dtype)
        return y, _engine.empty((*x.shape[:-1], columns), x.dtype) if self.merges else y

    def finish(self, z: Array, y: Array, residual: Array | None) -> None:
        """Write y of a layer from z, the engine's output, and the layer's input."""
        if self.merges:
            forward, reverse = np.split(z, 2, axis=-1)
            if self.merge == "mul":
                np.multiply(forward, reverse, out=y)
            else:
                np.add(forward, reverse, out=y)
            if self.merge == "ave":
                y *= y.dtype.type(0.5)
        if self.residual and residual is not None:
            y += residual

    def merge_backward(self, dy: Array, z: Array | None) -> Array:
        """Return the gradient of z from that of y; z is given where it matters."""
        if self.merge == "ave":
            dy = dy * dy.dtype.type(0.5)
        both = np.concatenate((dy, dy), axis=-1)
        if z is not None:
            forward, reverse = np.split(z, 2, axis=-1)
            both *= np.concatenate((reverse, forward), axis=-1)
        return both


def infer(
    cells: list[Cell],
    wiring: Wiring,
    arrays: Arrays,
    ragged: Ragged | None,
    blas: bool,
    noise: list[Noise] | None = None,
) -> None:
    """Write y, hn and cn."""
    stages = wiring.stages(cells)
    if len(stages) == 1 and not wiring.merges:
        _forward.forward(
            cells,
            *arrays,  # type: ignore[arg-type]  # lists of states have several stages
            directions=wiring.directions,
            reverse=wiring.reverse,
            ragged=ragged,
            blas=blas,
            noise=noise,
        )
        return
    x, h0, c0, y, hn, cn = arrays
    for stage in stages:
        h_part = wiring.part(hn, stage)
        above, z = wiring.outputs(x, h_part, y if stage is stages[-1] else None)
        _forward.forward(
            cells[stage],
            x,
            wiring.part(h0, stage),
            wiring.part(c0, stage),
            z,
            h_part,
            wiring.part(cn, stage),
            directions=wiring.directions,
            reverse=wiring.reverse,
            ragged=ragged,
            blas=blas,
            noise=None if noise is None else noise[stage],
        )
        wiring.finish(z, above, x if stage.start > 0 else None)
        x = above


# What a call of the engine keeps: which cells; their tapes or checkpoints; its input, which they
# read; the mask by which that was multiplied; the outputs of two directions whose product the layer
# gave. A plain tuple, since a call of a small LSTM takes two microseconds.
Stage = tuple[slice, Kept, Array, Array | None, Array | None]


class Cache:
    """What `LSTM.backward` needs from `LSTM.forward`. Opaque, but for its size.

    Parameters
    ----------
    lstm : LSTM
        Whose it is.
    cells : list of Cell
        Of all layers and directions.
    wiring : Wiring
    stages : list of Stage
    rows : T, B
        As users see them.
    batched : bool
        Whether they see B in y.
    packing : Packing, optional
        Of a ragged batch.
    blas : bool
    """

    def __init__(
        self,
        lstm: Any,
        cells: list[Cell],
        wiring: Wiring,
        stages: list[Stage],
        rows: tuple[int, int],
        batched: bool = True,
        packing: Packing | None = None,
        blas: bool = False,
    ) -> None:
        self.lstm, self.cells, self.wiring, self._stages = lstm, cells, wiring, stages
        self.rows, self.batched, self.packing, self._blas = rows, batched, packing, blas

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        return sum(
            sum(part.nbytes for part in kept) + sum(a.nbytes for a in arrays if a is not None)
            for _, kept, *arrays in self._stages
        )

    def backward(
        self, dy: Array | None, dhn: States | None, dcn: States | None
    ) -> tuple[Array, States, States, list[Array]]:
        """Return the gradients of x, h0, c0, and of the parameters, cell by cell."""
        wiring = self.wiring
        if len(self._stages) == 1 and not wiring.merges and self._stages[0][3] is None:
            dx, dh, dc, grads = self._differentiate(self._stages[0][1], dy, dhn, dcn)
            return dx, dh, dc, _backward.in_order(self.cells, grads)
        dhs: list[Array] = []
        dcs: list[Array] = []
        named: list[Array] = []
        for stage, kept, _, mask, z in reversed(self._stages):
            dz = wiring.merge_backward(dy, z) if dy is not None and wiring.merges else dy
            dx, dh, dc, grads = self._differentiate(
                kept, dz, wiring.part(dhn, stage), wiring.part(dcn, stage)
            )
            dhs.insert(0, dh)
            dcs.insert(0, dc)
            named[:0] = _backward.in_order(self.cells[stage], grads)
            if mask is not None:
                np.multiply(dx, mask, out=dx)
            if wiring.residual and stage.start > 0 and dy is not None:
                _engine.add(dx, dy)
            dy = dx
        assert dy is not None
        if len({dh.shape[2] for dh in dhs}) > 1 or len({dc.shape[2] for dc in dcs}) > 1:
            return dy, dhs, dcs, named
        return dy, np.concatenate(dhs), np.concatenate(dcs), named

    def _differentiate(
        self, kept: Kept, dy: Array | None, dh: Any, dc: Any
    ) -> tuple[Array, Array, Array, list[_backward.Gradients]]:
        if not isinstance(kept[0], Checkpoint):
            return _backward.backward(kept, dy, dh, dc, blas=self._blas)
        parts = [part.backward(dy, dh, dc) for part in kept]
        dx = parts[0][0]
        for part in parts[1:]:
            _engine.add(dx, part[0])
        dh, dc = (np.concatenate([part[n] for part in parts]) for n in (1, 2))
        return dx, dh, dc, [grad for part in parts for grad in part[3]]


def train(
    cells: list[Cell],
    wiring: Wiring,
    arrays: Arrays,
    ragged: Ragged | None,
    blas: bool,
    masks: list[Array | None] | None,
    noise: list[Noise] | None,
    checkpoint: int | None,
) -> list[Stage]:
    """Write y, hn and cn, and return what backward needs; `masks` multiply the layers' inputs."""
    x, h0, c0, y, hn, cn = arrays
    below = x.copy()  # the cache outlives the call, and the caller may write to x before backward
    found: list[Stage] = []
    stages = wiring.stages(cells, masks is not None)
    for layer, stage in enumerate(stages):
        mask = None if masks is None else masks[layer]
        x = below if mask is None else below * mask
        h_part = wiring.part(hn, stage)
        above, z = wiring.outputs(x, h_part, y if stage is stages[-1] else None)
        arguments = (
            x,
            wiring.part(h0, stage),
            wiring.part(c0, stage),
            z,
            h_part,
            wiring.part(cn, stage),
        )
        part_noise = None if noise is None else noise[stage]
        kept: Kept
        if checkpoint is None:
            kept = _forward.forward(
                cells[stage],
                *arguments,
                directions=wiring.directions,
                reverse=wiring.reverse,
                ragged=ragged,
                training=True,
                blas=blas,
                noise=part_noise,
            )
        else:
            kept = [
                Checkpoint(
                    cells[stage][jobs],
                    jobs,
                    wiring.reverse or jobs.start == 1,
                    *arguments,
                    checkpoint,
                    ragged,
                    blas,
                    None if part_noise is None else part_noise[jobs],
                )
                for jobs in _jobs(len(cells[stage]), wiring.directions)
            ]
        wiring.finish(z, above, below if stage.start > 0 else None)
        found.append((stage, kept, x, mask, z if wiring.merge == "mul" else None))
        below = above
    return found


def _jobs(count: int, directions: int) -> list[slice]:
    """Return what of a stage runs in one direction."""
    return [slice(0, count)] if directions == 1 else [slice(0, 1), slice(1, 2)]
