"""What a model of OpenVINO holds: layers and edges of the XML file, constants of the other one."""

from __future__ import annotations

import math
import os
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from ...engine import Array
from ...network import storage
from ...network.lower import of_bfloat16
from ..reports import refusal

__all__ = ["Body", "File", "Layer", "Port"]

TYPES = {
    "f16": np.float16,
    "f32": np.float32,
    "f64": np.float64,
    "bf16": np.uint16,
    "i32": np.int32,
    "i64": np.int64,
    "u64": np.int64,  # of shapes
    "i8": np.int8,
    "u8": np.uint8,
    "boolean": np.uint8,
}
VERSIONS = ("10", "11")
MOST_AXES = 16
LOOPS = ("TensorIterator", "Loop")
DEPTH = 4  # of loops in loops
MOST_PORTS = 1000  # of a loop
SPARE = 2**24  # bytes: constants may be used twice, large ones not often
# Python's tree of an XML file: 512 bytes a tag, 128 an attribute.
MOST_MEMORY = 64 * 2**20


class Layer(NamedTuple):
    """A layer of the graph."""

    number: str
    name: str
    kind: str
    version: str  # of the operator
    data: dict[str, str]  # its attributes
    inputs: tuple[tuple[str, int], ...]  # layers and places among their outputs
    outputs: int  # how many
    body: Body | None = None  # of a loop

    def text(self, name: str, default: str = "") -> str:
        """Return an attribute."""
        return self.data.get(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return an attribute that is true or false."""
        return self.data.get(name, str(default)).lower() in ("true", "1")


class Port(NamedTuple):
    """What an input or an output of a loop is in its body.

    Attributes
    ----------
    place : int
        Among the inputs or outputs of the loop; -1 if it is none of them.
    inner : str
        The number of the Parameter or Result in the body.
    data : dict of str to str
        Its attributes: with an axis, it is sliced or put together along that.
    """

    place: int
    inner: str
    data: dict[str, str]

    def integer(self, name: str, default: int) -> int:
        """Return an attribute that is an integer."""
        return _integer(self.data.get(name, str(default)))


class Body(NamedTuple):
    """The body of a loop: its layers, what its inputs and outputs are, and what goes back.

    `back` has, by the Parameters whose value changes from step to step, the Results that give it.
    """

    layers: dict[str, Layer]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    back: dict[str, str]


class File:
    """A model: an XML file with one for the constants beside it.

    Parameters
    ----------
    path : path-like
        Of the XML file.

    Attributes
    ----------
    layers : dict of str to Layer
        By their numbers, each after those that it needs.
    parameters, results : list of Layer
        In the order of the model's inputs and outputs.
    writers : list of Layer
        What keeps variables for the next call.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, or if it is no such model.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path
        self._constants = Path(path).with_suffix(".bin")
        for file in (Path(path), self._constants):
            storage.existing(file)
        self._size = self._constants.stat().st_size
        self.count_anew()
        try:
            in_file = _layers(_parsed(Path(path).read_bytes()))
            self.layers = _in_order(in_file)
            self.parameters, self.results, self.writers = (
                [layer for layer in in_file.values() if layer.kind == kind]
                for kind in ("Parameter", "Result", "Assign")
            )
        except ValueError as error:
            raise refusal(path, "XML", error, "it is no model of OpenVINO") from None

    def count_anew(self) -> None:
        """Forget which constants were read: arrays of an earlier reading are gone."""
        self._used = 0

    def stored(self, layer: Layer) -> npt.NDArray[Any]:
        """Return the numbers of a constant.

        Raises
        ------
        ValueError
            If they are not where the layer says, or of a type that cannot be read.
        """
        kind = layer.text("element_type")
        if kind not in TYPES:
            instead = f"{[*TYPES]} are read: compress the weights to int8, or not"
            raise refusal(self.path, layer.name, f"is of type {kind}", instead)
        try:
            shape = extents(layer.text("shape"))
            offset, size = _integer(layer.text("offset")), _integer(layer.text("size"))
        except ValueError as error:
            raise refusal(self.path, layer.name, error, "the file is broken") from None
        dtype = np.dtype(TYPES[kind])
        if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != size:
            raise refusal(
                self.path, layer.name, f"{size} bytes for {kind} of {shape}", "the file is broken"
            )
        if not 0 <= offset <= self._size - size:
            raise refusal(
                self.path, layer.name, f"is at byte {offset} of {self._size}", "the file is cut"
            )
        self._used += size
        if self._used > self._size + SPARE:
            raise refusal(self.path, layer.name, "is used many times", "it would take much memory")
        with open(self._constants, "rb") as file:
            file.seek(offset)
            data = file.read(size)
        array = np.frombuffer(data, dtype.newbyteorder("<")).reshape(shape)
        return of_bfloat16(array) if kind == "bf16" else array

    def floats(self, layer: Layer) -> Array:
        """Return the numbers of a constant, half precision as float32."""
        found = self.stored(layer)
        if found.dtype.kind != "f":
            raise refusal(
                self.path, layer.name, f"holds {found.dtype}", "floating-point numbers are needed"
            )
        return found.astype(np.float64 if found.dtype.itemsize == 8 else np.float32)


def extents(text: str) -> tuple[int, ...]:
    """Return a shape, -1 where any extent goes, as "?" or a range says."""
    parts = [part.strip() for part in text.split(",")] if text.strip() else []
    if len(parts) > MOST_AXES:
        raise ValueError(f"a shape has {len(parts)} axes")
    return tuple(-1 if part == "?" or ".." in part else _integer(part) for part in parts)


def _integer(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,18}", text.strip()):
        raise ValueError(f"{text[:40]!r} is no integer")
    return int(text)


def _parsed(data: bytes) -> ElementTree.Element:
    """Return the root of an XML file without document type, entities or other encodings."""
    if b"\0" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ValueError("is not in UTF-8")
    declared = re.match(rb"(?:\xef\xbb\xbf)?<\?xml[^>]*encoding\s*=\s*[\"']([^\"']*)", data)
    if declared and declared[1].lower() not in (b"utf-8", b"us-ascii"):
        raise ValueError(f"is in {declared[1][:40]!r}, not in UTF-8")
    if re.search(rb"<!(?!--)", data):
        raise ValueError("has a document type or entities")
    if 512 * data.count(b"<") + 128 * data.count(b"=") > MOST_MEMORY:
        raise ValueError("has too many elements")
    try:
        return ElementTree.fromstring(data)
    except ElementTree.ParseError as error:
        raise ValueError(f"cannot be read ({error})") from None


def _layers(root: ElementTree.Element) -> dict[str, Layer]:
    if root.tag != "net" or root.get("version") not in VERSIONS:
        raise ValueError(f"is <{root.tag[:40]} version={root.get('version')!r}>, not IR 10 or 11")
    return _connected(root, 0)


def _connected(net: ElementTree.Element, depth: int) -> dict[str, Layer]:
    """Return the layers of a model, or of the body of a loop."""
    layers, edges = net.find("layers"), net.find("edges")
    if layers is None or edges is None:
        raise ValueError("has no layers or no edges")
    outputs: dict[str, dict[str, int]] = {}  # of layers: ports, numbered
    for layer in layers:
        number = layer.get("id", "")
        if not number or number in outputs:
            raise ValueError(f"two layers have the number {number[:40]!r}")
        outputs[number] = {port: n for n, port in enumerate(_ports(layer, "output"))}
    sources: dict[tuple[str, str], tuple[str, int]] = {}
    for edge in edges:
        place = edge.get("to-layer", ""), edge.get("to-port", "")
        source, port = edge.get("from-layer", ""), edge.get("from-port", "")
        if place in sources or source not in outputs or port not in outputs[source]:
            raise ValueError(f"the edge to {place} leads nowhere, or a second time")
        sources[place] = source, outputs[source][port]
    found = {}
    for layer in layers:
        number = layer.get("id", "")
        inputs = [sources.get((number, port)) for port in _ports(layer, "input")]
        data = layer.find("data")
        name = layer.get("name", "")[:200] or f"layer {number}"
        if any(one is None for one in inputs):
            raise ValueError(f"{name} has an input that comes from nowhere")
        found[number] = Layer(
            number,
            name,
            layer.get("type", "")[:80],
            layer.get("version", ""),
            {} if data is None else dict(data.attrib),
            tuple(one for one in inputs if one is not None),
            len(outputs[number]),
            _body(layer, depth + 1) if layer.get("type") in LOOPS else None,
        )
    return found


def _body(loop: ElementTree.Element, depth: int) -> Body:
    body, ports, back = loop.find("body"), loop.find("port_map"), loop.find("back_edges")
    if body is None or ports is None or depth > DEPTH or len(ports) > MOST_PORTS:
        raise ValueError("has a loop without a body, with many ports, or in too many loops")
    layers = _in_order(_connected(body, depth))
    kinds = {number: (layer.kind, len(layer.inputs)) for number, layer in layers.items()}
    sides = {"input": ("Parameter", 0), "output": ("Result", 1)}
    places = {side: {n: place for place, n in enumerate(_ports(loop, side))} for side in sides}
    mapped: dict[str, list[Port]] = {side: [] for side in sides}
    for port in ports:
        outside, inner = port.get("external_port_id", ""), port.get("internal_layer_id", "")
        place = -1 if outside == "-1" else places.get(port.tag, {}).get(outside)
        if place is None or port.tag not in sides or kinds.get(inner) != sides[port.tag]:
            raise ValueError(f"a loop maps {outside[:40]!r} to {inner[:40]!r}, which is not there")
        mapped[port.tag].append(Port(place, inner, dict(port.attrib)))
    given = {}
    for edge in () if back is None else back:
        source, target = edge.get("from-layer", ""), edge.get("to-layer", "")
        ends = kinds.get(target), kinds.get(source)
        if ends != (sides["input"], sides["output"]) or target in given:
            raise ValueError(f"a loop gives {source[:40]!r} back to {target[:40]!r}")
        given[target] = source
    return Body(layers, tuple(mapped["input"]), tuple(mapped["output"]), given)


def _in_order(found: dict[str, Layer]) -> dict[str, Layer]:
    """Return the layers in an order in which they can be computed."""
    needs = {number: {source for source, _ in layer.inputs} for number, layer in found.items()}
    try:
        return {number: found[number] for number in TopologicalSorter(needs).static_order()}
    except CycleError:
        raise ValueError("has a circle of layers") from None


def _ports(layer: ElementTree.Element, side: str) -> list[str]:
    ports = layer.find(side)
    found = [] if ports is None else [port.get("id", "") for port in ports]
    if len({*found}) < len(found):
        raise ValueError("a layer has two ports of one number")
    return found
