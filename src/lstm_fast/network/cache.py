"""What `LSTM.backward` needs from `LSTM.forward`."""

from __future__ import annotations

from ..engine.cell import Cell
from ..engine.packing import Packing
from ..engine.tape import Stage

__all__ = ["Cache"]


class Cache:
    """What forward keeps. Opaque, but for its size; `Network` fills and reads it."""

    __slots__ = ("_B", "_T", "_batched", "_blas", "_cells", "_owner", "_packing", "_stages")

    def __init__(
        self,
        owner: object,
        cells: list[Cell],
        stages: list[Stage],
        T: int,
        B: int,
        blas: bool,
        batched: bool = True,
        packing: Packing | None = None,
    ) -> None:
        self._owner, self._cells, self._stages, self._blas = owner, cells, stages, blas
        # As users see them: extents, whether they see B in states, and where the valid rows are.
        self._T, self._B, self._batched, self._packing = T, B, batched, packing

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it asked for.

        Buffers of earlier calls are used again, so that it may hold up to twice as much.
        """
        return sum(stage.nbytes for stage in self._stages)

    def __reduce__(self) -> None:  # type: ignore[override]
        raise TypeError("a cache can be neither pickled nor copied")
