from lstm_fast.engine import Array
from lstm_fast.engine.batch import Ragged
from lstm_fast.engine.cell import Cell
from lstm_fast.engine.tape import Noise, Tape

Arrays = tuple[Array, Array | None, Array | None, Array | None, Array, Array]

def forward(
    cells: list[Cell],
    arrays: Arrays,
    directions: int = 1,
    reverse: bool = False,
    ragged: Ragged | None = None,
    training: bool = False,
    blas: bool = False,
    noise: list[Noise] | None = None,
    copy: bool = False,
    bounds: list[int] | None = None,
) -> list[Tape]: ...
