"""One node LSTM of ONNX: its weights and what its attributes say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engine import Array
from ...lstm import LSTM
from ...network.options import FUNCTIONS, PLAIN, Activation
from .. import cells
from ..reports import Found, refusal
from .graph import Attributes

__all__ = ["INPUTS", "QUANTISED", "Node", "copied", "is_lstm", "layered", "read_node"]

AnyArray = npt.NDArray[Any]

INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
QUANTISED = ("W_scale", "W_zero_point", "R_scale", "R_zero_point")
DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
NAMES = {name.lower(): name for name in FUNCTIONS}
# Of these, the specification gives no alpha and beta that all runtimes take.
WITHOUT_DEFAULTS = ("Affine", "ScaledTanh", "ThresholdedRelu")


@dataclass(frozen=True, eq=False)
class Node:
    """What a node LSTM computes."""

    name: str
    directions: tuple[cells.Cell, ...]
    options: Mapping[str, Any]  # arguments of `LSTM`: reverse, coupled, clip, activations
    batch_first: bool  # layout 1
    proto: Any
    arrays: Mapping[str, AnyArray]  # its constant inputs as they are

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of its inputs."""
        return INPUTS + (QUANTISED if self.proto.op_type == "DynamicQuantizeLSTM" else ())

    @property
    def input_size(self) -> int:
        return int(self.directions[0].weight_ih.shape[1])

    @property
    def hidden_size(self) -> int:
        return int(self.directions[0].weight_ih.shape[0]) // 4

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.result_type(np.float32, self.directions[0].weight_hh.dtype)

    def like(self, other: Node) -> bool:
        """Return whether both can be layers of one `LSTM`."""

        def kind(node: Node) -> tuple[Any, ...]:
            first = node.directions[0]
            parts = (first.bias_ih is None, first.weight_ch is None, len(node.directions))
            return (*parts, node.dtype, {**node.options})

        return kind(self) == kind(other)

    def found(self) -> Found:
        """Return its row of a table."""
        words = [f"{len(self.directions)} directions"] * (len(self.directions) > 1)
        words += [
            word
            for word, usual in (("reverse", False), ("coupled", False))
            if self.options[word] != usual
        ]
        if self.options["clip"] is not None:
            words.append(f"clip {self.options['clip']:g}")
        if self.options["activations"] != PLAIN:
            words.append(f"activations {self.options['activations']}")
        if self.directions[0].weight_ch is not None:
            words.append("peephole")
        if self.directions[0].bias_ih is None:
            words.append("no bias")
        sizes = f"{self.input_size} -> {self.hidden_size * len(self.directions)}"
        count = sum(array.size for one in self.directions for array in one.arrays)
        return Found(self.name, "LSTM", sizes, ", ".join(words), str(self.dtype), count)


def is_lstm(node: Any) -> bool:
    """Return whether a NodeProto is an LSTM, of ONNX or quantised by ONNX Runtime."""
    if node.op_type == "DynamicQuantizeLSTM":
        return bool(node.domain == "com.microsoft")
    return node.op_type == "LSTM" and node.domain in ("", "ai.onnx")


def read_node(
    source: Any, name: str, node: Any, attributes: Attributes, arrays: Mapping[str, AnyArray]
) -> Node:
    """Return what a node computes.

    Parameters
    ----------
    source : path-like or object
        For errors.
    name : str
        Of the node.
    node : NodeProto
        Which `is_lstm`.
    attributes : Attributes
        Of the node.
    arrays : mapping of str to ndarray
        The inputs that are constant, by the names of ONNX, but for states and lengths.

    Raises
    ------
    ValueError
        If it is none that `LSTM` can be, or contradicts itself.
    """

    def wrong(what: str, found: object, instead: str) -> ValueError:
        return refusal(source, f"{name} {what}", found, instead)

    try:
        direction = attributes.text("direction", "forward").lower()
        layout, coupled = (attributes.integer(key, 0) for key in ("layout", "input_forget"))
        hidden_size, clip = attributes.integer("hidden_size"), attributes.number("clip")
        attributes.integer("output_sequence")  # of the oldest: whether there is Y
    except ValueError as error:
        raise wrong("attributes", error, "the file is damaged") from None
    if direction not in DIRECTIONS:
        raise wrong("direction", repr(direction), f"expected one of {', '.join(DIRECTIONS)}")
    if layout not in (0, 1) or coupled not in (0, 1):
        raise wrong("layout, input_forget", (layout, coupled), "each is 0 or 1")
    D = DIRECTIONS[direction]
    stored = arrays
    if node.op_type == "DynamicQuantizeLSTM":
        arrays = {**arrays, **_dequantised(arrays, wrong)}
    shapes = {"W": 3, "R": 3, "B": 2, "P": 2}
    for key, rank in shapes.items():
        array = arrays.get(key)
        if array is not None and (array.ndim != rank or len(array) != D):
            raise wrong(key, f"has shape {array.shape}", f"{D} directions and {rank} axes expected")
    H = arrays["R"].shape[2]
    if hidden_size not in (None, H):
        raise wrong("hidden_size", hidden_size, f"R has {H} columns")
    if "B" in arrays and arrays["B"].shape[1] != 8 * H:
        raise wrong("B", f"has shape {arrays['B'].shape}", f"({D}, {8 * H}) is needed")
    directions = tuple(_direction(source, name, arrays, d, H) for d in range(D))
    try:
        functions = [*_functions(attributes, D)]
    except ValueError as error:
        raise wrong("activations", error, "they are not those of an LSTM of lstm_fast") from None
    if unasked := attributes.unasked():
        raise wrong("attributes", unasked, "their meaning is not known")
    if len({*functions}) > 1:
        raise wrong(
            "activations", functions, "an LSTM of lstm_fast has the same in both directions"
        )
    options = {
        "reverse": direction == "reverse",
        "coupled": bool(coupled),
        "clip": clip,
        "activations": functions[0],
    }
    return Node(name, directions, options, bool(layout), copied(node), stored)


def copied(message: Any) -> Any:
    """Return a copy of a part of a model, which does not keep the whole in memory."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy


def _direction(
    source: Any, name: str, arrays: Mapping[str, AnyArray], d: int, H: int
) -> cells.Cell:
    bias = arrays.get("B")
    peephole = arrays["P"][d] if "P" in arrays else None
    if peephole is not None and len(peephole) == 3 * H:
        i, o, f = np.split(peephole, 3)
        peephole = np.concatenate([i, f, o])
    return cells.cell(
        source,
        name,
        "iofg",
        weight_ih=arrays["W"][d],
        weight_hh=arrays["R"][d],
        bias_ih=None if bias is None else bias[d, : 4 * H],
        bias_hh=None if bias is None else bias[d, 4 * H :],
        weight_ch=peephole,
    )


def _functions(attributes: Attributes, D: int) -> Iterator[tuple[Activation, ...]]:
    """Yield f, g, h of each direction.

    Alphas, and betas, are listed for all functions together: each that has such a number takes the
    next one, and its default when the list is used up.
    """
    names = attributes.texts("activations") or [*PLAIN] * D
    if len(names) != 3 * D:
        raise ValueError(f"{len(names)} functions, not {3 * D}")
    lists = [iter(attributes.numbers(f"activation_{kind}")) for kind in ("alpha", "beta")]
    found: list[Activation] = []
    for given in names:
        name = NAMES.get(given.lower())
        if name is None:
            raise ValueError(f"{given!r} is none of {', '.join(FUNCTIONS)}")
        numbers = []
        for values, default in zip(lists, FUNCTIONS[name], strict=False):
            number = next(values, None)
            if number is None and name in WITHOUT_DEFAULTS:
                raise ValueError(f"{name} without alpha or beta, for which runtimes take others")
            numbers.append(float(default if number is None else number))
        plain = tuple(numbers) == FUNCTIONS[name]
        found.append(name if plain else (name, *numbers))  # type: ignore[arg-type]
    if any(next(values, None) is not None for values in lists):
        raise ValueError("more numbers in activation_alpha or activation_beta than functions take")
    for d in range(D):
        yield tuple(found[3 * d : 3 * d + 3])


def _dequantised(arrays: Mapping[str, AnyArray], wrong: Any) -> dict[str, Array]:
    """Return W and R as ONNX has them: those of DynamicQuantizeLSTM are (D, I, 4 H), (D, H, 4 H).

    Scale and zero point are (D,), or (D, 4 H) of each channel.
    """
    found = {}
    for key in ("W", "R"):
        values, scale = arrays[key], arrays.get(f"{key}_scale")
        zero = arrays.get(f"{key}_zero_point")
        if values.dtype not in (np.int8, np.uint8) or values.ndim != 3 or scale is None:
            raise wrong(key, f"holds {values.dtype}, {values.ndim} axes", "int8 with scales needed")
        D, _, rows = values.shape
        for what, given in ((f"{key}_scale", scale), (f"{key}_zero_point", zero)):
            if given is not None and given.shape not in ((D,), (D, rows), (1,), ()):
                raise wrong(what, f"has shape {given.shape}", f"({D},) or ({D}, {rows}) needed")

        def per_row(given: AnyArray, rank: int = D) -> AnyArray:
            return given.reshape(rank if given.size > 1 else 1, 1, -1).astype(np.float32)

        numbers = values.astype(np.float32)
        if zero is not None:
            numbers -= per_row(zero)
        numbers *= per_row(scale)
        found[key] = numbers.swapaxes(1, 2)
    return found


def layered(source: Any, nodes: list[Node], batch_first: bool, **options: Any) -> LSTM:
    """Return an `LSTM` whose layers these nodes are, all of the same kind."""
    name = nodes[0].name
    for below, above in pairwise(nodes):
        if not above.like(below):
            raise refusal(
                source,
                f"{below.name}, {above.name}",
                "differ in directions, variants or dtype",
                "read each by itself",
            )
    layers = [node.directions for node in nodes]
    made = {**nodes[0].options, "batch_first": batch_first, **options}
    return cells.lstm(source, name, layers, **made)
