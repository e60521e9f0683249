from typing import Any

from lstm_fast.engine import Array, Gradients
from lstm_fast.engine.tape import Tape

def backward(
    tapes: list[Tape],
    dy: Array | None,
    dhn: Array | None,
    dcn: Array | None,
    *,
    grads: list[Gradients] | None = None,
    blas: bool = False,
    of_input: bool = True,
) -> tuple[Any, Array, Array, list[Gradients]]: ...
