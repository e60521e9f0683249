from ._checks import Array
from ._engine import Cell, Tape

def forward(
    cell: Cell,
    x: Array,
    h0: Array | None,
    c0: Array | None,
    y: Array,
    hn: Array,
    cn: Array,
    reverse: bool = False,
    training: bool = False,
    blas: bool = False,
) -> Tape | None: ...
