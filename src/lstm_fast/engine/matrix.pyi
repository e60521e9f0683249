import numpy as np

from lstm_fast.engine import Array

class Packed:
    depth: int
    columns: int
    @property
    def dtype(self) -> np.dtype[np.floating]: ...
    @property
    def nbytes(self) -> int: ...

def pack(matrix: Array) -> Packed: ...
def multiply(
    a: Array,
    b: Packed,
    init: Array | None = None,
    out: Array | None = None,
    accumulate: bool = False,
) -> Array: ...
def sum_rows(a: Array) -> Array: ...
