from lstm_fast.engine.batch import Ragged
from lstm_fast.engine.cell import Cell

def segments(
    cell: Cell, T: int, B: int, ragged: Ragged | None, reverse: bool, steps: int, bands: int
) -> list[tuple[int, int]]: ...
