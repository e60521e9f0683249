from ._checks import Array
from ._engine import Tape

def backward(
    tape: Tape,
    dy: Array | None,
    dhn: Array | None,
    dcn: Array | None,
    use_blas: bool | None = None,
) -> tuple[Array, Array, Array, dict[str, Array]]: ...
