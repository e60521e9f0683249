from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_fast.engine import Array

def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array: ...
def array_at(address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array: ...
def copy_arrays(targets: list[Array], sources: list[Array]) -> None: ...
