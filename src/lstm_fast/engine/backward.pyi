from typing import Any

from lstm_fast.engine import Array
from lstm_fast.engine.sums import Sums
from lstm_fast.engine.tape import Tape

def backward(
    tapes: list[Tape],
    dy: Array | None,
    dhn: Array | None,
    dcn: Array | None,
    *,
    sums: Sums | None = None,
    blas: bool = False,
    of_input: bool = True,
) -> tuple[Any, Array, Array, Any]: ...
