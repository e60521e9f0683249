from typing import Any

from lstm_fast.engine import Array
from lstm_fast.engine.batch import Ragged
from lstm_fast.engine.cell import Cell
from lstm_fast.engine.packing import Packing
from lstm_fast.engine.tape import Cache, Noise

class Form:
    def __init__(
        self,
        type_number: int,
        layers: int,
        directions: int,
        input_size: int,
        hidden_size: int,
        output_size: int,
    ) -> None: ...
    def arguments(
        self, x: Any, state: Any, out: Any
    ) -> tuple[Array, Array | None, Array | None, Array, Array, Array] | None: ...
    def gradients(
        self, dy: Any, dstate: Any, T: int, B: int
    ) -> tuple[Array, Array | None, Array | None] | None: ...
    def step(self, x: Any, y: Any, B: int) -> bool: ...

class Version:
    number: int

class OneCall:
    blas: bool
    quiet: bool
    noise: list[Noise] | None
    def __init__(
        self,
        form: Form | None,
        version: Version,
        names: tuple[str, ...],
        cells: Any,
        directions: int,
        reverse: bool,
    ) -> None: ...
    def infer(
        self, x: Any, state: Any, out: Any, lengths: Any = None
    ) -> tuple[Array, tuple[Array, Array]] | None: ...
    def train(
        self, owner: object, x: Any, state: Any, out: Any, copy: bool = True, lengths: Any = None
    ) -> tuple[Array, tuple[Array, Array], Cache] | None: ...
    def step(self, x: Any, now: Any, y: Any, later: Any) -> bool: ...
    def differentiate(
        self, owner: object, of_forward: Any, dy: Any, dstate: Any
    ) -> tuple[Array, tuple[Array, Array], dict[str, Array]] | None: ...
    def gradients(
        self,
        cache: Cache,
        dy: Array | None,
        dhn: Any,
        dcn: Any,
        of_input: bool = True,
    ) -> tuple[Any, Array, Array, dict[str, Array]] | None: ...
    def run(
        self, arrays: Any, ragged: Ragged | None = None, cells: list[Cell] | None = None
    ) -> None: ...
    def keep(
        self,
        owner: object,
        arrays: Any,
        T: int,
        B: int,
        batched: bool = True,
        packing: Packing | None = None,
        cells: list[Cell] | None = None,
        copy: bool = True,
    ) -> Cache: ...
    def present(self, training: bool, of_input: bool = True) -> list[Cell]: ...
