"""Layers and directions on the engine's arrays: which of them one call of the engine computes.

Layers of one direction are one call, in which they may form a pipeline. With two directions each
layer is a call, since the next one reads both; so is each layer in training with dropout.

Arrays (x, h0, c0, y, hn, cn) are those of `_forward.forward`: x (T, B, I) or, of a ragged batch,
(N, I); states (L D, B, columns), layer-major, then direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _backward, _engine, _forward
from ._checks import Array
from ._engine import Cell, Ragged
from ._packing import Packing
from .checkpoint import Checkpoint

__all__ = ["Cache", "Stage", "dropout_mask", "infer", "train"]

Kept = list[_engine.Tape] | list[Checkpoint]
Arrays = tuple[Array, Array | None, Array | None, Array, Array, Array]  # x, h0, c0, y, hn, cn


def _stages(cells: list[Cell], directions: int, apart: bool) -> list[slice]:
    """Return what each call of the engine takes of the cells; `apart`: one layer."""
    step = directions if apart or directions == 2 else len(cells)
    return [slice(first, first + step) for first in range(0, len(cells), step)]


def _part(state: Array | None, stage: slice) -> Array | None:
    return None if state is None else state[stage]


def infer(
    cells: list[Cell],
    directions: int,
    arrays: Arrays,
    ragged: Ragged | None,
    blas: bool,
) -> None:
    """Write y, hn and cn."""
    if directions == 1 or len(cells) == 2:
        _forward.forward(cells, *arrays, directions=directions, ragged=ragged, blas=blas)
        return
    x, h0, c0, y, hn, cn = arrays
    for stage in _stages(cells, directions, False):
        above = y if stage.stop == len(cells) else np.empty((*x.shape[:-1], y.shape[-1]), y.dtype)
        _forward.forward(
            cells[stage],
            x,
            _part(h0, stage),
            _part(c0, stage),
            above,
            hn[stage],
            cn[stage],
            directions=directions,
            ragged=ragged,
            blas=blas,
        )
        x = above


# What a call of the engine keeps: its cells, their tapes, its input, and the mask of dropout on it.
Stage = tuple[slice, Kept, Array, Array | None]


class Cache:
    """What `LSTM.backward` needs from `LSTM.forward`. Opaque, but for its size.

    Parameters
    ----------
    lstm : LSTM
        Whose it is.
    cells : list of Cell
        Of all layers and directions.
    stages : list of Stage
    rows : T, B
    batched : bool
        Whether the user sees B.
    packing : Packing, optional
        Of a ragged batch.
    blas : bool
    """

    def __init__(
        self,
        lstm: Any,
        cells: list[Cell],
        stages: list[Stage],
        rows: tuple[int, int],
        batched: bool = True,
        packing: Packing | None = None,
        blas: bool = False,
    ) -> None:
        self.lstm, self.cells, self._stages = lstm, cells, stages
        self.rows, self.batched, self.packing, self._blas = rows, batched, packing, blas

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it holds."""
        return sum(
            x.nbytes + sum(part.nbytes for part in kept) + (0 if mask is None else mask.nbytes)
            for _, kept, x, mask in self._stages
        )

    def backward(
        self, dy: Array | None, dhn: Array | None, dcn: Array | None
    ) -> tuple[Array, Array, Array, list[Array]]:
        """Return the gradients of x, h0, c0, and of the parameters, cell by cell."""
        if len(self._stages) == 1:
            _, kept, _, _ = self._stages[0]
            dx, dh, dc, grads = self._differentiate(kept, dy, dhn, dcn)
            return dx, dh, dc, _backward.in_order(self.cells, grads)
        dhs: list[Array] = []
        dcs: list[Array] = []
        named: list[Array] = []
        for stage, kept, _, mask in reversed(self._stages):
            dy, dh, dc, grads = self._differentiate(kept, dy, _part(dhn, stage), _part(dcn, stage))
            dhs.insert(0, dh)
            dcs.insert(0, dc)
            named[:0] = _backward.in_order(self.cells[stage], grads)
            if mask is not None:
                np.multiply(dy, mask, out=dy)
        assert dy is not None
        return dy, np.concatenate(dhs), np.concatenate(dcs), named

    def _differentiate(
        self,
        kept: Kept,
        dy: Array | None,
        dh: Array | None,
        dc: Array | None,
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
    directions: int,
    arrays: Arrays,
    ragged: Ragged | None,
    blas: bool,
    draw_mask: Callable[[tuple[int, ...]], Array] | None,
    checkpoint: int | None,
) -> list[Stage]:
    """Write y, hn and cn, and return what backward needs; `draw_mask` draws that of dropout."""
    x, h0, c0, y, hn, cn = arrays
    x = x.copy()  # the cache outlives the call, and the caller may write to x before backward
    stages: list[Stage] = []
    mask: Array | None = None
    for stage in _stages(cells, directions, draw_mask is not None):
        last = stage.stop == len(cells)
        above = y if last else np.empty((*x.shape[:-1], y.shape[-1]), y.dtype)
        arguments = (x, _part(h0, stage), _part(c0, stage), above, hn[stage], cn[stage])
        kept: Kept
        if checkpoint is None:
            kept = _forward.forward(
                cells[stage],
                *arguments,
                directions=directions,
                ragged=ragged,
                training=True,
                blas=blas,
            )
        else:
            per_direction = [cells[stage]] if directions == 1 else [[c] for c in cells[stage]]
            kept = [
                Checkpoint(part, d, *arguments, checkpoint, ragged, blas)
                for d, part in enumerate(per_direction)
            ]
        stages.append((stage, kept, x, mask))
        if draw_mask is not None and not last:
            mask = draw_mask(above.shape)
            above *= mask
        x = above
    return stages


def dropout_mask(
    rng: np.random.Generator, rate: float, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> Array:
    """Return per element 0 with probability `rate`, else 1 / (1 - rate)."""
    kept = rng.random(shape, np.float32) >= rate
    scale = 1 / (1 - rate) if rate < 1 else 0.0
    mask: Array = np.where(kept, dtype.type(scale), dtype.type(0))
    return mask
