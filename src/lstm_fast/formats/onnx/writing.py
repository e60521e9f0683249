"""A graph of ONNX that grows, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...engine import Array

__all__ = ["Graph"]

OPSET, IR = 17, 8  # of 2022, which every ONNX Runtime since 1.13 reads


class Graph:
    """A graph that grows, block by block; time first within.

    Parameters
    ----------
    helper : module
        ``onnx.helper``.
    batch_first, lengths, state : bool
    """

    def __init__(self, helper: Any, batch_first: bool, lengths: bool, state: bool) -> None:
        self._helper = helper
        self.batch_first, self.lengths, self.state = batch_first, lengths, state
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._named = 0
        # Y_h of the block before, and the arguments of `Last` that it is; "" if that is no LSTM.
        self.last_states: tuple[str, int, bool] = ("", 0, False)

    # ---- parts

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return its output."""
        return self.add_all(kind, inputs, 1, **attributes)[0]

    def add_all(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node and return its outputs."""
        self._named += 1
        outputs = [f"{kind.lower()}_{self._named}.{n}" for n in range(count)]
        node = self._helper.make_node(
            kind, [*inputs], outputs, f"{kind.lower()}_{self._named}", **attributes
        )
        self._nodes.append(node)
        return outputs

    def constant(self, array: Any) -> str:
        """Add a constant and return its name."""
        self._named += 1
        name = f"constant_{self._named}"
        self._constants[name] = np.asarray(array)
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def input(self, name: str, dtype: Any, shape: Sequence[Any]) -> str:
        self._inputs.append(self._described(name, dtype, shape))
        return name

    def output(self, name: str, value: str, shape: Sequence[Any]) -> None:
        """Give a value this name, under which the model returns it."""
        self._nodes.append(self._helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._described(name, np.float32, shape))

    def _described(self, name: str, dtype: Any, shape: Sequence[Any]) -> Any:
        kind = self._helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self._helper.make_tensor_value_info(name, kind, shape)

    # ---- the whole

    @property
    def nbytes(self) -> int:
        """Bytes of all constants."""
        return sum(array.nbytes for array in self._constants.values())

    def model(self) -> Any:
        from onnx.numpy_helper import from_array

        tensors = [from_array(array, name) for name, array in self._constants.items()]
        outputs = sorted(self._outputs, key=lambda one: str(one.name) != "y")
        graph = self._helper.make_graph(self._nodes, "lstm_fast", self._inputs, outputs, tensors)
        opsets = [self._helper.make_opsetid("", OPSET)]
        return self._helper.make_model(
            graph, opset_imports=opsets, ir_version=IR, producer_name="lstm_fast"
        )

    # ---- time, and which steps there are

    def swapped(self, value: str, rank: int) -> str:
        return self.add("Transpose", value, perm=[1, 0, 2][:rank])

    def masked(self, value: str, elsewhere: float) -> str:
        """Return a value (T, B, columns) with another number past the end of each sequence."""
        return self.add("Where", self._compared("Less", value), value, self.scalar(elsewhere))

    def at_end(self, value: str) -> str:
        """Return the rows (B, columns) of the last steps; zeros of sequences without steps."""
        last = self.add("Sub", self.add("Cast", "lengths", to=7), self.integers(1))
        there = self._compared("Equal", value, last)
        rows = self.add("Where", there, value, self.scalar(0.0))
        return self.add("ReduceSum", rows, self.integers(0), keepdims=0)

    def steps(self) -> str:
        """Return lengths as (B, 1)."""
        return self.add("Unsqueeze", "lengths", self.integers(1))

    def scalar(self, number: float) -> str:
        return self.constant(np.float32(number))

    def _compared(self, kind: str, value: str, numbers: str | None = None) -> str:
        """Compare the number of each step, (T, 1, 1), with one of each row, (B, 1)."""
        T = self.add("Gather", self.add("Shape", value), self.constant(np.int64(0)))
        zero, one = self.constant(np.int64(0)), self.constant(np.int64(1))
        times = self.add("Unsqueeze", self.add("Range", zero, T, one), self.integers(1, 2))
        numbers = self.add("Cast", "lengths", to=7) if numbers is None else numbers
        return self.add(kind, times, self.add("Unsqueeze", numbers, self.integers(1)))
