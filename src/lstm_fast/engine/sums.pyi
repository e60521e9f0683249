from lstm_fast.engine import Array
from lstm_fast.engine.batch import Ragged
from lstm_fast.engine.cell import Cell

def bands_of(
    cells: list[Cell], T: int, B: int, ragged: Ragged | None, plain: bool
) -> list[int]: ...

class Sums:
    def __init__(self, cells: list[Cell], bounds: list[int]) -> None: ...
    def total(self) -> list[Array]: ...
