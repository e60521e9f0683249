from typing import Any

from lstm_fast.engine import Array, Gradients
from lstm_fast.engine.batch import Ragged
from lstm_fast.engine.cell import Cell
from lstm_fast.engine.tape import Tape

def segments(
    cell: Cell, T: int, B: int, ragged: Ragged | None, reverse: bool, steps: int
) -> list[tuple[int, int]]: ...
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
