"""Values of a graph of ONNX by name, which graphs inside it see, too; names told apart."""

from __future__ import annotations

from typing import Any

from .graph import Tensors
from .values import Other

__all__ = ["Names", "Scope"]


class Names(set[str]):
    """Names, each of which is given once: of several nodes "lstm" the second one is "lstm_2"."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[str, int] = {}  # the last one of each name

    def own(self, name: str) -> str:
        """Return a name that is new, and add it; in constant time, on average over all names."""
        found = name
        while found in self:
            self._numbers[name] = self._numbers.get(name, 1) + 1
            found = f"{name}_{self._numbers[name]}"
        self.add(found)
        return found


class Scope:
    """The values of a graph by name; those of the graphs around it are visible, too."""

    def __init__(self, tensors: Tensors, around: Scope | None = None) -> None:
        self._tensors, self._around = tensors, around
        self._values: dict[str, Any] = {}
        self._stored: dict[str, Any] = {}  # tensors that nobody has asked for

    def __contains__(self, name: str) -> bool:
        return name in self._values or name in self._stored

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self:
            raise ValueError(f"{name!r} stands twice")
        self._values[name] = value

    def store(self, tensor: Any) -> None:
        if tensor.name in self:
            raise ValueError(f"{tensor.name!r} stands twice")
        self._stored[tensor.name] = tensor

    def __getitem__(self, name: str) -> Any:
        if name in self._stored:
            try:
                self._values[name] = self._tensors.array(self._stored.pop(name))
            except ValueError as error:
                self._values[name] = Other(error)
        if name in self._values:
            return self._values[name]
        if self._around is None:
            raise KeyError(name)
        return self._around[name]
