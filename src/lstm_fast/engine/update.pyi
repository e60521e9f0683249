import numpy as np
import numpy.typing as npt

from lstm_fast.engine import Array

def sgd(
    p: Array,
    g: Array,
    m: Array | None,
    *,
    rate: float,
    momentum: float,
    nesterov: bool,
    decay: float,
    decayed: npt.NDArray[np.intp],
) -> None: ...
def adam(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    rate: float,
    momentum: float,
    square: float,
    root: float,
    eps: float,
    decay: float,
    keep: float,
    decayed: npt.NDArray[np.intp],
) -> None: ...
def rmsprop(
    p: Array,
    g: Array,
    m: Array | None,
    v: Array,
    *,
    rate: float,
    momentum: float,
    square: float,
    eps: float,
    decay: float,
    decayed: npt.NDArray[np.intp],
) -> None: ...
def squared_norm(x: Array) -> float: ...
def average(m: Array, kept: float, x: Array) -> None: ...
def scale(x: Array, factor: float) -> None: ...
def clip(x: Array, limit: float) -> None: ...
