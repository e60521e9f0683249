from ._checks import Array
from ._engine import Cell, Ragged, Tape

State = tuple[Array | None, Array | None]
Out = tuple[Array | None, tuple[Array | None, Array | None] | None]

def plain(
    cells: list[Cell], x: Array, state: State | None, out: Out | None, directions: int = 1
) -> tuple[Array, Array | None, Array | None, Array, Array, Array] | None: ...
def step(
    cells: list[Cell], x: Array, h: Array, c: Array, y: Array | None, hn: Array, cn: Array
) -> bool: ...
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
) -> list[Tape]: ...
