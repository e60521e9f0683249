from lstm_fast.engine import Array, Gradients
from lstm_fast.engine.batch import Ragged
from lstm_fast.engine.cell import Cell
from lstm_fast.engine.tape import Tape

def segments(
    cell: Cell, T: int, B: int, ragged: Ragged | None, reverse: bool, steps: int
) -> list[tuple[int, int]]: ...
def in_order(cells: list[Cell], grads: list[Gradients]) -> list[Array]: ...
def backward(
    tapes: list[Tape],
    dy: Array | None,
    dhn: Array | None,
    dcn: Array | None,
    *,
    grads: list[Gradients] | None = None,
    blas: bool = False,
) -> tuple[Array, Array, Array, list[Gradients]]: ...
