import numpy as np
import numpy.typing as npt

from ._checks import Array
from ._options import CellOptions

Indices = npt.NDArray[np.intp]

class Cell:
    parameters: tuple[str, ...]
    input_size: int
    hidden_size: int
    proj_size: int
    def __init__(
        self,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None = None,
        b_hh: Array | None = None,
        w_hr: Array | None = None,
        w_ch: Array | None = None,
        w_ln_ih: Array | None = None,
        w_ln_hh: Array | None = None,
        w_ln_c: Array | None = None,
        b_ln_c: Array | None = None,
        options: CellOptions | None = None,
    ) -> None: ...
    def prepare_backward(self, blas: bool) -> None: ...
    @property
    def isa(self) -> str: ...

class Ragged:
    lengths: Indices
    counts: Indices
    offsets: Indices
    def __init__(self, lengths: Indices) -> None: ...

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

def add(a: Array, b: Array) -> None: ...

class Tape:
    @property
    def nbytes(self) -> int: ...

def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array: ...
