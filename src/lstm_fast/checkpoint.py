"""Gradient checkpointing over time: keep little in forward, compute the rest again in backward."""

from __future__ import annotations

import numpy as np

from . import _backward, _engine, _forward
from ._checks import Array
from ._engine import Cell, Noise, Ragged

__all__ = ["Checkpoint"]

State = tuple[Array | None, Array | None]


class Checkpoint:
    """Layers of one direction, of which only the input and the state now and then are kept.

    A sequence is cut into segments; `backward` runs one after the other forward again, from the
    state with which it begins, and then backward. What it needs of the last segment, where it
    begins, is kept, until it has been used once. Bits and sums are those of the whole: segments
    consist of whole chunks of `_backward`, and forward may be cut anywhere. (Not with
    ``matmul="blas"``, whose products depend on where forward is cut.)

    Parameters
    ----------
    cells : list of Cell
        Chained layers.
    jobs : slice
        Which part of states are those of `cells`, and, with two directions, which columns of y.
    reverse : bool
    x, h0, c0, y, hn, cn, ragged, blas
        As of `_forward.forward`, which this computes.
    steps : int
        The least number of time steps of a segment.
    noise : list of Noise, optional
        For each cell.
    """

    def __init__(
        self,
        cells: list[Cell],
        jobs: slice,
        reverse: bool,
        x: Array,
        h0: Array | None,
        c0: Array | None,
        y: Array,
        hn: Array,
        cn: Array,
        steps: int,
        ragged: Ragged | None,
        blas: bool,
        noise: list[Noise] | None,
    ) -> None:
        self._cells, self._x, self._ragged, self._blas = cells, x, ragged, blas
        self._noise, self._jobs, self._reverse = noise, jobs, reverse
        for cell in cells:  # with the weights of now
            cell.prepare_backward(blas)
        direction = jobs.start if y.shape[-1] > hn.shape[2] else 0
        self._columns = slice(direction * hn.shape[2], (direction + 1) * hn.shape[2])
        T, B = x.shape[:2] if ragged is None else (len(ragged.counts) - 1, len(ragged.lengths))
        self._segments = _backward.segments(cells[0], T, B, ragged, self._reverse, steps)
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
        first, last = times
        if self._ragged is None:
            return slice(first, last), None
        lengths, offsets = self._ragged.lengths, self._ragged.offsets
        part = _engine.Ragged(np.clip(lengths - first, 0, last - first))
        return slice(offsets[first], offsets[last]), part

    def _forward(
        self,
        times: tuple[int, int],
        state: State,
        y: Array | None,
        end: tuple[Array, Array],
        training: bool,
    ) -> list[_engine.Tape]:
        """Run a segment."""
        rows, ragged = self._rows(times)
        return _forward.forward(
            self._cells,
            self._x[rows],
            *state,
            None if y is None else y[rows],
            *end,
            reverse=self._reverse,
            ragged=ragged,
            training=training,
            blas=self._blas,
            noise=self._noise_of(times),
        )

    def _noise_of(self, times: tuple[int, int]) -> list[Noise] | None:
        """Return the noise of some times."""
        if self._noise is None:
            return None
        B = self._end[0].shape[1]
        first, last = (
            n * B if self._ragged is None else int(self._ragged.offsets[n]) for n in times
        )
        return [noise.rows(first, last) for noise in self._noise]

    def backward(
        self,
        dy: Array | None,
        dhn: Array | None,
        dcn: Array | None,
    ) -> tuple[Array, Array, Array, list[_backward.Gradients]]:
        """Return what `_backward.backward` does, for these cells of all that it is given."""
        dh, dc = (None if a is None else a[self._jobs] for a in (dhn, dcn))
        dx = _engine.empty(self._x.shape, self._x.dtype)
        grads: list[_backward.Gradients] | None = None
        tapes, self._tapes = self._tapes, []
        for times, state in zip(reversed(self._segments), reversed(self._states), strict=True):
            rows, _ = self._rows(times)
            tapes = tapes or self._forward(times, state, None, self._end, True)
            dx[rows], dh, dc, grads = _backward.backward(
                tapes,
                None if dy is None else dy[rows][..., self._columns],
                dh,
                dc,
                grads=grads,
                blas=self._blas,
            )
            tapes = []
        assert dh is not None and dc is not None and grads is not None
        return dx, dh, dc, grads
