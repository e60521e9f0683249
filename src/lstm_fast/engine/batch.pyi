import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.intp]

class Ragged:
    lengths: Indices
    counts: Indices
    offsets: Indices
    def __init__(self, lengths: Indices) -> None: ...
    def shares(self, parts: int, first_t: int, end_t: int) -> list[tuple[int, int]]: ...
