"""Gradient checkpointing over time: keep little in forward, compute the rest again in backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..engine import Array
from ..engine.backward import backward
from ..engine.batch import Ragged
from ..engine.cell import Cell
from ..engine.chunks import segments
from ..engine.forward import forward
from ..engine.memory import empty
from ..engine.sums import Sums, bands_of
from ..engine.tape import Noise, Tape

__all__ = ["Checkpoint"]

State = tuple[Array | None, Array | None]


class Checkpoint:
    """Layers of one direction, of which only the input and the state now and then are kept.

    Forward stores the state at the start of each segment of time. Backward takes the segments from
    the last one: it runs each forward again from its state, and then backward. The last segment is
    kept as forward left it, until backward has used it. Bits are those of the whole: segments
    consist of whole chunks of `engine.backward`, and forward may be cut anywhere. (Not with
    ``matmul="blas"``, whose products depend on where forward is cut.)

    Parameters
    ----------
    cells : list of Cell
        Chained layers.
    jobs : slice
        Which part of states are those of `cells`, and, with two directions, which columns of y.
    arrays : x, h0, c0, y, hn, cn
        As of `engine.forward`, which this computes.
    reverse : bool
    steps : int
        The least number of time steps of a segment.
    ragged, blas
        As of `engine.forward`.
    noise : list of Noise, optional
        For each cell.
    """

    def __init__(
        self,
        cells: list[Cell],
        jobs: slice,
        arrays: tuple[Array, Array | None, Array | None, Array, Array, Array],
        reverse: bool,
        steps: int,
        ragged: Ragged | None,
        blas: bool,
        noise: list[Noise] | None,
    ) -> None:
        x, h0, c0, y, hn, cn = arrays
        self._cells, self._x, self._ragged, self._blas = cells, x, ragged, blas
        self._noise, self._jobs, self._reverse = noise, jobs, reverse
        self._columns = slice(jobs.start * hn.shape[2], (jobs.start + 1) * hn.shape[2])
        T, B = x.shape[:2] if ragged is None else (len(ragged.counts) - 1, len(ragged.lengths))
        self._bands = bands_of(cells, T, B, ragged, noise is None and not blas)
        bands = len(self._bands) - 1
        self._segments = segments(cells[0], T, B, ragged, self._reverse, steps, bands)
        self._states: list[State] = []
        state: State = tuple(None if a is None else a[self._jobs].copy() for a in (h0, c0))  # type: ignore[assignment]
        last = hn[self._jobs], cn[self._jobs]
        self._end = np.empty_like(last[0]), np.empty_like(last[1])  # written, never read
        for times in self._segments:
            self._states.append(state)
            end = np.empty_like(last[0]), np.empty_like(last[1])
            training = times == self._segments[-1]
            self._tapes = self._forward(times, state, y[..., self._columns], end, training)
            state = end
        for target, source in zip(last, state, strict=True):
            target[...] = source

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        states = [a for state in self._states for a in state if a is not None]
        parts = [*states, *self._tapes, *(self._noise or ())]
        return sum(int(part.nbytes) for part in parts)

    def _rows(self, times: tuple[int, int]) -> tuple[slice, Ragged | None]:
        """Return where the arrays have some times, and the rows that run there."""
        first, end = times
        if self._ragged is None:
            return slice(first, end), None
        lengths, offsets = self._ragged.lengths, self._ragged.offsets
        part = Ragged(np.clip(lengths - first, 0, end - first))
        return slice(offsets[first], offsets[end]), part

    def _forward(
        self,
        times: tuple[int, int],
        state: State,
        y: Array | None,
        end: tuple[Array, Array],
        training: bool,
    ) -> list[Tape]:
        """Run a segment."""
        rows, ragged = self._rows(times)
        return forward(
            self._cells,
            (self._x[rows], *state, None if y is None else y[rows], *end),
            reverse=self._reverse,
            ragged=ragged,
            training=training,
            blas=self._blas,
            noise=self._noise_of(times),
            bounds=self._bands,
        )

    def _noise_of(self, times: tuple[int, int]) -> list[Noise] | None:
        """Return the noise of some times."""
        if self._noise is None:
            return None
        B = self._end[0].shape[1]
        first, end = (
            n * B if self._ragged is None else int(self._ragged.offsets[n]) for n in times
        )
        return [noise.rows(first, end) for noise in self._noise]

    def backward(
        self,
        dy: Array | None,
        dhn: Array | None,
        dcn: Array | None,
        of_input: bool,
    ) -> tuple[Any, Array, Array, list[Array]]:
        """Return what `engine.backward` does, for these cells of all that it is given."""
        dh, dc = (None if a is None else a[self._jobs] for a in (dhn, dcn))
        dx = empty(self._x.shape, self._x.dtype) if of_input else None
        sums = Sums(self._cells, self._bands)
        tapes, self._tapes = self._tapes, []
        for times, state in zip(reversed(self._segments), reversed(self._states), strict=True):
            rows, _ = self._rows(times)
            tapes = tapes or self._forward(times, state, None, self._end, True)
            of_rows, dh, dc, _ = backward(
                tapes,
                None if dy is None else dy[rows][..., self._columns],
                dh,
                dc,
                sums=sums,
                blas=self._blas,
                of_input=of_input,
            )
            if dx is not None:
                dx[rows] = of_rows
            tapes = []
        assert dh is not None and dc is not None
        return dx, dh, dc, sums.total()
