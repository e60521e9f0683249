from typing import Any

from lstm_fast.engine import Array

class Noise:
    recurrent: Array | None
    zone_h: Array | None
    zone_c: Array | None
    def __init__(
        self,
        recurrent: Array | None = None,
        zone_h: Array | None = None,
        zone_c: Array | None = None,
    ) -> None: ...
    def rows(self, first: int, last: int) -> Noise: ...
    @property
    def nbytes(self) -> int: ...

class Tape:
    @property
    def nbytes(self) -> int: ...

class Stage:
    cells: slice
    kept: list[Any]
    x: Array
    mask: Array | None
    z: Array | None
    def __init__(
        self,
        cells: slice,
        kept: list[Any],
        x: Array,
        mask: Array | None = None,
        z: Array | None = None,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...

class Cache:
    _owner: object
    _stages: list[Stage]
    _packing: Any
    _T: int
    _B: int
    _blas: bool
    _batched: bool
    def __init__(
        self,
        owner: object,
        stages: list[Stage],
        T: int,
        B: int,
        blas: bool,
        batched: bool = True,
        packing: Any = None,
    ) -> None: ...
    @property
    def nbytes(self) -> int: ...
