"""Models of ONNX, written so that ONNX Runtime computes the same numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...engine import Array
from ...lstm import LSTM
from ...network.block import Block
from ...network.options import FUNCTIONS, function
from ...network.storage import write_whole
from ...nn import (
    Activation,
    Dropout,
    Embedding,
    Last,
    LayerNorm,
    Linear,
    Pool,
    Sequential,
    Softmax,
)
from .writing import Graph

__all__ = ["to_onnx"]

LARGEST = 2**31 - 2**20  # bytes of a file that protobuf reads, less what is around the arrays
MERGES = {"sum": "ReduceSum", "ave": "ReduceMean", "mul": "ReduceProd"}
# What an LSTM can have and ONNX's cannot, by the value that it has otherwise.
WITHOUT = {"proj_size": 0, "cell_clip": None, "layer_norm": False, "zoneout": None}


def to_onnx(
    path: str | os.PathLike[str], block: Block, *, lengths: bool = False, state: bool = False
) -> None:
    """Write a block as a model of ONNX, whole or not at all.

    The input is ``x`` and the output ``y``, both as of a call of the block; the axes of T and B are
    free. Blocks: `LSTM`, `Embedding`, `Linear`, `LayerNorm`, `Activation`, `Softmax`, `Dropout`
    (which does nothing in inference), `Last`, `Pool`, and `Sequential` of these. Opset 17.

    Parameters
    ----------
    path : path-like
        Whose folder exists.
    block : Block
        Of float32: ONNX Runtime has no LSTM of float64.
    lengths : bool
        Whether there is an input ``lengths``, int32, (B,). ONNX Runtime gives a sequence of length
        0 a final state of zeros, not its initial one.
    state : bool
        Whether states are inputs ``h0`` and ``c0``, (L D, B, H), and outputs ``hn`` and ``cn``; of
        an LSTM in a `Sequential`, ``<name>.h0`` and so on; of layers with different sizes,
        ``h0_l0`` and so on. Otherwise states begin as zeros.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    TypeError
        If a block is none of these.
    ValueError
        If a block has something that ONNX has not.

    Examples
    --------
    ::

        lf.to_onnx("model.onnx", model)
        session = onnxruntime.InferenceSession("model.onnx")
        (y,) = session.run(["y"], {"x": x})
    """
    try:
        import onnx
    except ImportError:
        raise ImportError(
            "models of ONNX need the package onnx: pip install 'lstm_fast[onnx]'"
        ) from None
    if not isinstance(block, Block):
        raise TypeError(f"block: expected a block, got {type(block).__name__}")
    blocks = [*_flat("", block)]
    for name, one in blocks:
        _check(name, one)
    graph = Graph(onnx.helper, block.batch_first, lengths, state)
    _write(graph, blocks)
    if graph.nbytes > LARGEST:
        raise ValueError("block: has more than 2 GiB of parameters, which no file of ONNX holds")
    write_whole(path, graph.model().SerializeToString())


def _flat(name: str, block: Block) -> list[tuple[str, Block]]:
    """Return the blocks of models within models."""
    if not isinstance(block, Sequential):
        return [(name, block)]
    before = f"{name}." if name else ""
    return [one for key, inner in block.blocks.items() for one in _flat(before + key, inner)]


def _check(name: str, block: Block) -> None:
    where = f"{name}: " if name else ""
    if type(block) not in WRITERS:
        raise TypeError(f"{where}{type(block).__name__} has no form in ONNX")
    if block.dtype != np.float32:
        raise ValueError(f"{where}is of {block.dtype}; ONNX Runtime has LSTMs of float32 only")
    if isinstance(block, LSTM):
        for option, usual in WITHOUT.items():
            if getattr(block, option) != usual:
                raise ValueError(f"{where}{option}: an LSTM of ONNX has none")


def _write(graph: Graph, blocks: list[tuple[str, Block]]) -> None:
    """Write blocks, each of which takes the output of the one before."""
    first = blocks[0][1]
    shape: tuple[Any, ...] = ("B", "T") if graph.batch_first else ("T", "B")
    kind: Any = np.int64
    if not isinstance(first, Embedding):
        kind, sizes = np.float32, [_input_size(block) for _, block in blocks]
        shape = (*shape, next(filter(None, sizes), "I"))
    value = graph.input("x", kind, shape)
    if graph.lengths:
        graph.input("lengths", np.int32, ["B"])
    if graph.batch_first:
        value = graph.swapped(value, len(shape))
    with_time, masked = True, False
    for name, block in blocks:
        value = WRITERS[type(block)](graph, name, block, value)
        shape = block._shape_after(shape)
        with_time = with_time and block.keeps_time
        masked = isinstance(block, LSTM) or (masked and isinstance(block, Dropout))
        if not isinstance(block, LSTM | Dropout):
            graph.last_states = ("", 0, False)
    if graph.lengths and with_time and not masked:
        value = graph.masked(value, 0.0)
    if graph.batch_first and with_time:
        value = graph.swapped(value, 3)
    graph.output("y", value, shape)


def _input_size(block: Block) -> int | None:
    return getattr(block, "input_size", getattr(block, "columns", None))


# ---- LSTM


def _lstm(graph: Graph, name: str, lstm: LSTM, x: str) -> str:
    sizes = lstm.hidden_size if isinstance(lstm.hidden_size, tuple) else (lstm.hidden_size,)
    sizes = sizes * lstm.num_layers if len(sizes) == 1 else sizes
    D = 2 if lstm.bidirectional else 1
    states = _initial(graph, name, lstm, sizes, D) if graph.state else {}
    values = lstm.state_dict()
    options = _options(lstm, D)
    finals: dict[str, list[str]] = {"h": [], "c": []}
    for layer, H in enumerate(sizes):
        weights = [
            graph.constant(_stacked(values, layer, D, *names)) if names[0] in _kinds(values) else ""
            for names in (
                ("weight_ih",),
                ("weight_hh",),
                ("bias_ih", "bias_hh"),
            )
        ]
        peephole = graph.constant(_peepholes(values, layer, D)) if lstm.peephole else ""
        given = states.get(layer, ("", ""))
        of_lengths = "lengths" if graph.lengths else ""
        inputs = [x, *weights, of_lengths, *given, peephole]
        y, h, c = graph.add_all("LSTM", inputs, 3, hidden_size=H, **options)
        finals["h"].append(h)
        finals["c"].append(c)
        y = _merged(graph, lstm.merge, y, D, H)
        x = graph.add("Add", y, x) if lstm.residual and layer else y
    plain = lstm.merge == "concat" and not lstm.residual
    if plain:
        graph.last_states = (finals["h"][-1], D, lstm.reverse)
    if graph.state:
        _final(graph, name, lstm, finals, sizes, D)
    return x


def _kinds(values: Mapping[str, Array]) -> set[str]:
    return {name.partition("_l")[0] for name in values}


def _initial(
    graph: Graph, name: str, lstm: LSTM, sizes: Sequence[int], D: int
) -> dict[int, tuple[str, ...]]:
    """Return the names of initial h and c of each layer."""
    before = f"{name}." if name else ""
    if len({*sizes}) > 1:
        return {
            n: tuple(graph.input(f"{before}{s}0_l{n}", np.float32, [D, "B", H]) for s in ("h", "c"))
            for n, H in enumerate(sizes)
        }
    L = len(sizes)
    whole = [graph.input(f"{before}{s}0", np.float32, [L * D, "B", sizes[0]]) for s in ("h", "c")]
    if L == 1:
        return {0: tuple(whole)}
    parts = [graph.add_all("Split", [one, graph.integers(*[D] * L)], L, axis=0) for one in whole]
    return dict(enumerate(zip(*parts, strict=True)))


def _final(
    graph: Graph,
    name: str,
    lstm: LSTM,
    finals: Mapping[str, list[str]],
    sizes: Sequence[int],
    D: int,
) -> None:
    before = f"{name}." if name else ""
    for kind, parts in finals.items():
        if len({*sizes}) > 1:
            for n, (part, H) in enumerate(zip(parts, sizes, strict=True)):
                graph.output(f"{before}{kind}n_l{n}", part, [D, "B", H])
        else:
            whole = graph.add("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
            graph.output(f"{before}{kind}n", whole, [len(parts) * D, "B", sizes[0]])


def _merged(graph: Graph, merge: str, y: str, D: int, H: int) -> str:
    """Return the output of a layer, (T, B, columns), of that of ONNX, (T, D, B, H)."""
    if D == 1:
        return graph.add("Squeeze", y, graph.integers(1))
    if merge == "sum":
        return graph.add("ReduceSum", y, graph.integers(1), keepdims=0)
    if merge != "concat":
        return graph.add(MERGES[merge], y, axes=[1], keepdims=0)
    turned = graph.add("Transpose", y, perm=[0, 2, 1, 3])
    return graph.add("Reshape", turned, graph.integers(0, 0, 2 * H))


def _stacked(values: Mapping[str, Array], layer: int, D: int, *names: str) -> Array:
    """Return (D, ...): gates i, o, f, g of each array, the arrays one after the other."""
    found = []
    for end in ("", "_reverse")[:D]:
        blocks = []
        for name in names:
            i, f, g, o = np.split(values[f"{name}_l{layer}{end}"], 4)
            blocks += [i, o, f, g]
        found.append(np.concatenate(blocks))
    return np.stack(found)


def _peepholes(values: Mapping[str, Array], layer: int, D: int) -> Array:
    """Return (D, 3 H): i, o, f."""
    found = []
    for end in ("", "_reverse")[:D]:
        i, f, o = np.split(values[f"weight_ch_l{layer}{end}"], 3)
        found.append(np.concatenate([i, o, f]))
    return np.stack(found)


def _options(lstm: LSTM, D: int) -> dict[str, Any]:
    """Return the attributes that all layers have."""
    found: dict[str, Any] = {
        "direction": "bidirectional" if D == 2 else "reverse" if lstm.reverse else "forward"
    }
    if lstm.coupled:
        found["input_forget"] = 1
    if lstm.clip is not None and np.isfinite(lstm.clip):
        found["clip"] = float(lstm.clip)
    names, alphas, betas = [], [], []
    for given in (*lstm.activations,) * D:
        number, alpha, beta = function("activations", given)
        name = [*FUNCTIONS][number]
        names.append(name)
        alphas += [alpha] * (len(FUNCTIONS[name]) > 0)
        betas += [beta] * (len(FUNCTIONS[name]) > 1)
    found["activations"] = names
    return found | {
        key: numbers
        for key, numbers in (("activation_alpha", alphas), ("activation_beta", betas))
        if numbers
    }


# ---- other blocks


def _embedding(graph: Graph, name: str, block: Embedding, x: str) -> str:
    return graph.add("Gather", graph.constant(block.weight), x, axis=0)


def _linear(graph: Graph, name: str, block: Linear, x: str) -> str:
    y = graph.add("MatMul", x, graph.constant(np.ascontiguousarray(block.weight.T)))
    return y if block.bias is None else graph.add("Add", y, graph.constant(block.bias))


def _activation(graph: Graph, name: str, block: Activation, x: str) -> str:
    number, alpha, beta = function("function", block.function)
    kind = [*FUNCTIONS][number]
    if kind == "Affine":
        return graph.add("Add", graph.add("Mul", x, graph.scalar(alpha)), graph.scalar(beta))
    if kind == "ScaledTanh":
        inner = graph.add("Tanh", graph.add("Mul", x, graph.scalar(beta)))
        return graph.add("Mul", inner, graph.scalar(alpha))
    numbers = dict(zip(("alpha", "beta"), (alpha, beta), strict=True))
    given = {key: numbers[key] for key in [*numbers][: len(FUNCTIONS[kind])]}
    return graph.add(kind, x, **given)


def _softmax(graph: Graph, name: str, block: Softmax, x: str) -> str:
    return graph.add("Softmax", x, axis=-1)


def _layer_norm(graph: Graph, name: str, block: LayerNorm, x: str) -> str:
    constants = [graph.constant(value) for value in block.state_dict().values()]
    return graph.add("LayerNormalization", x, *constants, axis=-1, epsilon=block.eps)


def _dropout(graph: Graph, name: str, block: Dropout, x: str) -> str:
    return x


def _last(graph: Graph, name: str, block: Last, x: str) -> str:
    states, *of_states = graph.last_states
    if states and of_states == [block.directions, block.reverse]:
        if block.directions == 1:
            return graph.add("Squeeze", states, graph.integers(0))
        turned = graph.add("Transpose", states, perm=[1, 0, 2])
        return graph.add("Reshape", turned, graph.integers(0, -1))
    if block.directions == 1:
        return _at_end(graph, x, block.reverse)
    columns = graph.add_all("Split", [x], 2, axis=2)
    ends = [_at_end(graph, part, bool(n)) for n, part in enumerate(columns)]
    return graph.add("Concat", *ends, axis=1)


def _at_end(graph: Graph, x: str, reverse: bool) -> str:
    """Return the last step, or the first one, where the reverse direction ends."""
    if graph.lengths and not reverse:
        return graph.at_end(x)
    first = graph.masked(x, 0.0) if graph.lengths else x
    return graph.add("Gather", first, graph.constant(np.int64(0 if reverse else -1)), axis=0)


def _pool(graph: Graph, name: str, block: Pool, x: str) -> str:
    if block.kind == "mean" and not graph.lengths:
        return graph.add("ReduceMean", x, axes=[0], keepdims=0)
    if block.kind == "max" and not graph.lengths:
        return graph.add("ReduceMax", x, axes=[0], keepdims=0)
    steps = graph.steps()
    if block.kind == "mean":
        total = graph.add("ReduceSum", graph.masked(x, 0.0), graph.integers(0), keepdims=0)
        at_least_one = graph.add("Max", steps, graph.constant(np.int32(1)))
        return graph.add("Div", total, graph.add("Cast", at_least_one, to=1))
    largest = graph.add("ReduceMax", graph.masked(x, -np.inf), axes=[0], keepdims=0)
    some = graph.add("Greater", steps, graph.constant(np.int32(0)))
    return graph.add("Where", some, largest, graph.scalar(0.0))


WRITERS: dict[type, Any] = {
    LSTM: _lstm,
    Activation: _activation,
    Dropout: _dropout,
    Embedding: _embedding,
    Last: _last,
    LayerNorm: _layer_norm,
    Linear: _linear,
    Pool: _pool,
    Softmax: _softmax,
}
