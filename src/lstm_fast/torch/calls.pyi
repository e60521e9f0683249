from collections.abc import ItemsView, Sequence
from typing import Any

from torch import Tensor

from lstm_fast.engine import Array
from lstm_fast.engine.cell import Cell
from lstm_fast.engine.direct import Version
from lstm_fast.engine.tape import Cache
from lstm_fast.network.network import Network
from lstm_fast.network.settings import Settings

def refresh(*_: Any) -> None: ...
def tensors_of(arrays: Any) -> tuple[Tensor, ...]: ...
def any_given(grads: Sequence[Tensor | None]) -> bool: ...
def any_batched(grads: Sequence[Tensor | None]) -> bool: ...
def want_gradient(x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor]) -> bool: ...
def token_of(cache: Cache) -> Tensor: ...
def cache_of(tensor: Tensor) -> Cache | None: ...

class Weights:
    names: tuple[str, ...]
    version: Version
    settled: bool
    def __init__(self, shapes: dict[str, tuple[int, ...]], type_number: int) -> None: ...
    def items(self) -> ItemsView[str, Array]: ...
    def hold(self, tensors: Sequence[Tensor], anew: bool) -> Sequence[Tensor]: ...

class Calls:
    settings: Settings
    weights: Weights
    network: Network[Weights]
    def __init__(self, settings: Settings, weights: Weights, network: Network[Weights]) -> None: ...
    def infer(
        self, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], steps: Any
    ) -> tuple[Tensor, ...]: ...
    def train(
        self,
        x: Tensor,
        states: Sequence[Tensor],
        weights: Sequence[Tensor],
        steps: Any,
        of_input: bool = True,
    ) -> tuple[tuple[Tensor, ...], Cache]: ...
    def differentiate(
        self, cache: Cache, grads: Sequence[Tensor | None], of_input: bool = True
    ) -> tuple[Tensor | None, ...]: ...
    def packed(
        self, weights: Sequence[Tensor], training: bool, of_input: bool = True
    ) -> list[Cell]: ...
