"""What a training needs of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy.typing as npt

from ..engine import Array

__all__ = ["Loss", "Model", "Optimizer", "Schedule"]


class Model(Protocol):
    """A block; a model of several has them by name, in their order, in `blocks`."""

    @property
    def _parameters(self) -> Any: ...

    def __call__(self, x: Any, state: Any = None, *, lengths: Any = None) -> tuple[Any, Any]:
        """Return y and the state."""

    def forward(self, x: Any, state: Any = None, *, lengths: Any = None) -> tuple[Any, Any, Any]:
        """Return y, the state and a cache."""

    def backward(self, dy: Any, dstate: Any, cache: Any) -> tuple[Any, Any, Any]:
        """Return the gradients of x, the state and the parameters."""

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name."""

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set all parameters; nothing changes if this raises."""

    def random_state(self) -> Any:
        """Return the state of what `forward` draws from: dicts, lists, arrays and numbers."""

    def set_random_state(self, state: Any) -> None:
        """Set it."""


class Loss(Protocol):
    """A mean over what counts of a batch; its method `count`, if any, says how much that is."""

    def __call__(
        self, y: Any, target: Any, weight: Any = None, lengths: Any = None
    ) -> tuple[Any, Any]:
        """Return the loss and its gradient for y."""


class Optimizer(Protocol):
    """Changes the parameters of a model."""

    lr: float

    def step(self, model: Any, grads: Any) -> Any:
        """Update the parameters."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that the next step depends on: dicts, lists, arrays and numbers."""

    def load_state_dict(self, state_dict: Any) -> None:
        """Set it; nothing changes if this raises."""


# The learning rate of an update, the first of which has number 0. One that follows the validation
# loss has a method `tell`, which is told it after each epoch, and a `state_dict`.
Schedule: TypeAlias = Callable[[int], float]
