from typing import Any

from ._checks import Array
from ._engine import Cell, Tape

State = tuple[Array | None, Array | None]
Out = tuple[Array | None, tuple[Array | None, Array | None] | None]

Short = tuple[Any, ...]  # cells, directions, noise, time_first

def infer(
    short: Short, x: Any, state: State | None, out: Out | None
) -> tuple[Array, tuple[Array, Array]] | None: ...
def train(
    short: Short, x: Any, state: State | None, out: Out | None
) -> tuple[Array, tuple[Array, Array], Array, list[Tape]] | None: ...
def gradients(
    cells: list[Cell], dy: Array | None, dstate: State | None, T: int, B: int, directions: int
) -> tuple[Array, Array | None, Array | None] | None: ...
def step(
    short: Short,
    x: Array,
    now: tuple[Array, Array],
    y: Array | None,
    later: tuple[Array, Array],
) -> bool: ...
