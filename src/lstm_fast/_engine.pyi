from ._checks import Array

class Cell:
    parameters: tuple[str, ...]
    input_size: int
    hidden_size: int
    proj_size: int
    def __init__(
        self,
        w_ih: Array,
        w_hh: Array,
        b_ih: Array | None = None,
        b_hh: Array | None = None,
        w_hr: Array | None = None,
    ) -> None: ...
    @property
    def isa(self) -> str: ...

class Tape:
    T: int
    B: int
