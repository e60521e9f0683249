from ._checks import Array
from ._engine import Cell, Noise, Ragged, Tape

def forward(
    cells: list[Cell],
    x: Array,
    h0: Array | None,
    c0: Array | None,
    y: Array | None,
    hn: Array,
    cn: Array,
    *,
    directions: int = 1,
    reverse: bool = False,
    ragged: Ragged | None = None,
    training: bool = False,
    blas: bool = False,
    noise: list[Noise] | None = None,
) -> list[Tape]: ...
