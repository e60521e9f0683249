import numpy as np
import numpy.typing as npt

from ._checks import Array

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
    ) -> None: ...
    def prepare_backward(self, blas: bool) -> None: ...
    @property
    def isa(self) -> str: ...

class Ragged:
    lengths: Indices
    counts: Indices
    offsets: Indices
    def __init__(self, lengths: Indices) -> None: ...

def add(a: Array, b: Array) -> None: ...

class Tape:
    @property
    def nbytes(self) -> int: ...
