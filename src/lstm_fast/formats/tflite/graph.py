"""The graph of a TensorFlow Lite model: what each tensor is, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ...engine import Array
from ..graphs import received
from ..reports import refusal
from ..signals import Misfit, Signal, WrongOrder
from .file import File, Operator

__all__ = ["Graph", "Rule", "Value"]

Value = Signal | npt.NDArray[np.int64]  # of a tensor: a signal, or integers of a shape


class Graph:
    """The operators of a file, one after the other.

    Parameters
    ----------
    file : File
    batch_first : bool
        The input is (B, T, columns), not (T, B, columns).
    """

    def __init__(self, file: File, batch_first: bool) -> None:
        self.file, self.path = file, file.path
        self._batch_first = batch_first
        file.count_anew()
        self.values: dict[int, Value] = {}
        self.same: dict[int, int] = {}  # constants that are computed from one: float16 made float32
        self.zeros: set[int] = set()  # tensors that are filled with zeros

    def run(self, rules: Mapping[str, Rule]) -> Signal:
        """Return the output; rules say what operators make of their inputs, by their kind."""
        file = self.file
        if len(file.inputs) != 1 or len(file.outputs) != 1:
            names = [file.name(n) for n in (*file.inputs, *file.outputs) if n >= 0]
            raise refusal(
                self.path, "graph", f"inputs and outputs {names}", "one of each is needed"
            )
        shape = file.shape(file.inputs[0], signature=True)
        try:
            self.values[file.inputs[0]] = received(
                self.path, shape, len(shape) == 2, self._batch_first
            )
        except Misfit as misfit:
            name = file.name(file.inputs[0])
            raise refusal(self.path, name, misfit.found, misfit.instead) from None
        for number, operator in enumerate(file.operators):
            name = f"{operator.kind} {number}"
            if not operator.outputs or any(n < 0 for n in operator.outputs):
                raise refusal(self.path, name, "has no output", "the file is broken")
            try:
                self._one(name, operator, rules.get(operator.kind))
            except WrongOrder as wrong:
                if self._batch_first:
                    raise
                raise refusal(self.path, name, wrong.found, wrong.instead) from None
            except Misfit as misfit:
                raise refusal(self.path, name, misfit.found, misfit.instead) from None
        output = self.values.get(file.outputs[0])
        if not isinstance(output, Signal):
            name = file.name(file.outputs[0])
            raise refusal(self.path, name, "does not depend on the input", "there is no model")
        return output

    def _one(self, name: str, operator: Operator, rule: Rule | None) -> None:
        if rule is None:
            raise refusal(self.path, name, "there is no such block", "it cannot be read")
        before = [self.values.get(n) for n in operator.inputs]
        made = rule(self, operator)
        if made is None:
            return
        if len(operator.outputs) != 1:
            raise Misfit(f"has {len(operator.outputs)} outputs")
        if isinstance(made, Signal) and not any(isinstance(v, Signal) for v in before):
            raise Misfit("has no input")
        self.values[operator.outputs[0]] = made

    # ---- arguments of operators

    def signal(self, operator: Operator, place: int = 0) -> Signal:
        """Return an input that depends on that of the graph."""
        number = operator.input(place)
        found = self.values.get(number)
        if not isinstance(found, Signal):
            raise Misfit(f"its input {place} does not depend on the input of the graph")
        return found

    def _constant(self, operator: Operator, place: int) -> int:
        """Return the number of a constant tensor, or -1 where it is left out."""
        number = operator.input(place)
        number = self.same.get(number, number)
        if number in self.values:
            raise Misfit(f"{self.file.name(number)!r} is computed", "a constant is needed here")
        return number

    def array(self, operator: Operator, place: int, hybrid: bool = False) -> Array | None:
        """Return the numbers of a constant, or None where it is left out."""
        number = self._constant(operator, place)
        return None if number < 0 else self.file.floats(number, hybrid)

    def needed(self, operator: Operator, place: int, hybrid: bool = False) -> Array:
        """Return the numbers of a constant."""
        found = self.array(operator, place, hybrid)
        if found is None:
            raise Misfit(f"has no input {place}", "the file is broken")
        return found

    def integers(self, operator: Operator, place: int) -> npt.NDArray[np.int64]:
        """Return integers of a shape: a constant, or computed from shapes."""
        number = operator.input(place)
        found = self.values.get(number)
        if isinstance(found, Signal) or number < 0:
            raise Misfit(f"its input {place} is not constant")
        return self.file.integers(number) if found is None else found

    def is_hybrid(self, operator: Operator) -> bool:
        """Whether an operator works on float32, whatever its weights are."""
        return self.file.dtype(operator.input(0)) == "float32"


# What an operator makes of its inputs; None where that is a constant.
Rule = Callable[[Graph, Operator], Value | None]
