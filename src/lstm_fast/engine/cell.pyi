from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_fast.engine import Array

def bfloat16_bits(a: Array) -> npt.NDArray[np.uint16]: ...

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
        w_ln: Array | None = None,
        options: Any | None = None,
        scales: tuple[Array | None, ...] = ...,
        inputs: str = "bfloat16",
        bfloat16: bool = False,
        training: bool = False,
        of_input: bool = True,
    ) -> None: ...
    def weights(self) -> tuple[tuple[Any, ...], tuple[Any, ...] | None]: ...
    @property
    def nbytes(self) -> int: ...
    def prepare(self, training: bool, blas: bool, of_input: bool = True) -> None: ...
    @property
    def isa(self) -> str: ...
