"""Models of ONNX: an `LSTM`, or a `Sequential` of what stands around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...network.block import Block
from .. import cells
from ..reports import Found, Verify, refusal, verified
from .graph import model_of
from .lstm import Node, layered
from .scope import Names
from .states import check_order
from .values import AnyStep, Group, LinearStep, LSTMStep, Other, Signal, Stack, joined
from .verify import run_model, run_nodes
from .walk import Entry, Walk

__all__ = ["from_onnx", "inspect"]

MOST_BLOCKS = 1024
MOST_LISTED = 20  # LSTMs in a message


def from_onnx(
    path_or_model: Any, node: str | Sequence[str] | None = None, *, verify: Verify = None
) -> Block:
    """Return the LSTM of a model of ONNX, or the whole model.

    Without `node` the way from the input of the model to its output is read: nodes LSTM, one above
    the other; Gather from a table (`nn.Embedding`), MatMul and Add, or Gemm (`nn.Linear`),
    activations and scalar factors (`nn.Activation`), Softmax and LayerNormalization of the last
    axis, the last step (`nn.Last`), the mean or largest value over time (`nn.Pool`), and what
    only changes the order of axes. Other operators are refused.

    An input and output (B, T, ...) make ``batch_first=True``. An output with an axis of directions,
    as (T, D, B, H) of a node LSTM, is that of `LSTM` here, (T, B, D H). States that are inputs of
    the model, or outputs, are those that a call takes and returns, all layers in one array: parts
    of an input have to go to layers and directions in their order, h before c. An input for
    sequence_lens is ``lengths``: what comes after the end of a sequence is 0 here, and nothing is
    computed from it.

    Parameters
    ----------
    path_or_model : path-like or onnx.ModelProto
        Data outside of the file is read from the folder of the model only.
    node : str or sequence of str, optional
        Only these nodes LSTM, by their names or outputs, the lowest layer first, wherever in the
        model they are: in branches of If and bodies of Loop and Scan, too. Time first, or batch
        first for layout 1. What gives their inputs, states and lengths is up to the caller.
    verify : (x, y) or bool, optional
        Compare with a recorded input and output; True: with ONNX Runtime, from random states where
        the model has inputs for them.

    Returns
    -------
    LSTM, or Sequential where there is more
        float64 if the model is; half precision becomes float32. Weights of DynamicQuantizeLSTM are
        dequantised, and inputs are not rounded as it does.

    Raises
    ------
    ImportError
        If the package onnx is not installed, or ONNX Runtime, and `verify` is True.
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, something cannot be expressed, `node` has to choose, or the numbers
        are not those of `verify`.

    Examples
    --------
    ::

        model = lf.from_onnx("model.onnx", verify=True)
        y, state = model(x)
        lstm = lf.from_onnx("detector.onnx", node="/encoder/LSTM")
    """
    source = path_or_model
    walk = Walk(source, *model_of(source))  # without a name, the model goes before blocks are made
    if node is not None:
        names = [node] if isinstance(node, str) else [*node]
        nodes = [_chosen(source, walk, name) for name in names]
        if not nodes:
            raise refusal(source, "node", "is empty", _listed(walk))
        lstm = layered(source, nodes, nodes[0].batch_first)
        return verified(lstm, verify, lambda: run_nodes(source, nodes))
    output, signal = _output(source, walk)
    batch_first = _order(source, output, signal)
    groups = _groups(signal.steps)
    block = cells.chain(source, _blocks(source, groups, batch_first))
    return verified(block, verify, lambda: run_model(source, walk, output, signal, groups))


def inspect(path_or_model: Any) -> list[Found]:
    """Return what is in a model: nodes LSTM, and the blocks and operators around them.

    Parameters
    ----------
    path_or_model : path-like or onnx.ModelProto
        As of `from_onnx`.

    Raises
    ------
    ImportError, FileNotFoundError, ValueError
        As `from_onnx`, if it is no model of ONNX or damaged.
    """
    return Walk(path_or_model, *model_of(path_or_model)).rows


# ---- what is asked for


def _chosen(source: Any, walk: Walk, name: str) -> Node:
    found = [entry for entry in walk.lstms if name == entry.name or name in entry.outputs]
    if len(found) != 1:
        what = "is no node LSTM" if not found else "are several nodes LSTM"
        raise refusal(source, f"node {name!r}", what, _listed(walk))
    read = found[0].read
    if isinstance(read, ValueError):
        raise read
    return read


def _listed(walk: Walk) -> str:
    """Return what `node` may be."""
    if not walk.lstms:
        return "there is no node LSTM in it"
    names = [*map(_described, walk.lstms[:MOST_LISTED])]
    names += [f"and {len(walk.lstms) - MOST_LISTED} more"] * (len(walk.lstms) > MOST_LISTED)
    return f"node= reads an LSTM alone: {', '.join(names)}"


def _described(entry: Entry) -> str:
    if isinstance(entry.read, ValueError):
        return f"{entry.name!r}"
    return f"{entry.name!r} ({entry.read.found().sizes})"


def _output(source: Any, walk: Walk) -> tuple[str, Signal]:
    """Return the output of the model that blocks compute, and its name; others are states."""
    computed, states = {}, {}
    for name, value in walk.outputs.items():
        signal = _whole(value)
        if signal is not None and signal.rows and signal.chain and not signal.of_states:
            computed[name] = signal
        elif signal is not None and signal.of_states and signal.rows:
            states[name] = signal
        elif not _final(value):
            raise refusal(source, *_why(walk, name, value))
    if not computed and len(states) == 1:
        computed = states
    if len(computed) != 1:
        found = f"{[*(computed or walk.outputs)]}"
        raise refusal(source, "outputs", found, f"one is needed, besides states; {_listed(walk)}")
    name, signal = next(iter(computed.items()))
    try:
        check_order(step for step in signal.steps if isinstance(step, LSTMStep))
    except ValueError as error:
        raise refusal(source, "initial states", error, _listed(walk)) from None
    if not any(isinstance(step, LSTMStep) for step in signal.steps):
        raise refusal(source, f"output {name!r}", "is computed without LSTM", _listed(walk))
    used = {step.name for step in signal.steps}
    for other, value in walk.outputs.items():
        if other != name and not _roots_of_states(value) <= used:
            found = "is the state of another LSTM"
            raise refusal(source, f"output {other!r}", found, _listed(walk))
    return name, signal


def _whole(value: Any) -> Signal | None:
    """Return a value as a signal, both directions side by side."""
    if isinstance(value, Stack):
        try:
            value = joined(value.parts)
        except ValueError:
            return None
    return value if isinstance(value, Signal) else None


def _roots_of_states(value: Any) -> frozenset[str]:
    parts = value.parts if isinstance(value, Stack) else (value,)
    found: set[str] = set()
    for part in parts:
        if isinstance(part, Signal):
            found |= {step.name for step in part.steps if isinstance(step, LSTMStep)}
        elif isinstance(part, Other):
            found |= part.roots
    return frozenset(found)


def _final(value: Any) -> bool:
    """Return whether a value holds final states of LSTMs, and nothing else."""
    if isinstance(value, Stack):
        return all(part.of_states for part in value.parts)
    if isinstance(value, Signal):
        return value.of_states
    return isinstance(value, Other) and value.moved and bool(value.roots)


def _why(walk: Walk, name: str, value: Any) -> tuple[str, object, str]:
    """Return the parts of a refusal of an output."""
    if isinstance(value, Other):
        _, _, words = str(value.error).partition(": ")
        return f"output {name!r}", words, _listed(walk)
    return f"output {name!r}", "has axes in another order, or a part of them", _listed(walk)


# ---- the model


def _order(source: Any, output: str, signal: Signal) -> bool:
    """Return whether the batch comes first, in the input and in the output."""
    axes = [f"{signal.root}.{n}" for n in range(3)]
    places = [axes.index(atom.name) if atom.name in axes else -1 for atom in signal.order]
    if places not in ([0], [0, 1], [1, 0]):
        found, instead = "has axes in another order", "(T, B, columns) or (B, T, columns) is needed"
        raise refusal(source, f"input {signal.root!r}", found, instead)
    batch_first = places == [1, 0]
    outer: list[Group] = [(atom,) for atom in signal.order[signal.over :]]
    if batch_first:
        outer.reverse()
    if [group for group in signal.axes[:-1] if group] != outer:
        instead = f"the input has {'batch' if batch_first else 'time'} first"
        raise refusal(source, f"output {output!r}", "has its axes in another order", instead)
    return batch_first


def _groups(steps: Sequence[AnyStep]) -> dict[str, list[Any]]:
    """Return the steps of each block by its name: layers of an LSTM, or one."""
    groups: list[list[Any]] = []
    for step in steps:
        if isinstance(step, LSTMStep) and groups and _goes_on(groups[-1], step):
            if step.residual and len(groups[-1]) > 1 and not groups[-1][1].residual:
                groups.append([groups[-1].pop()])
            groups[-1].append(step)
        else:
            groups.append([step])
    taken = Names()
    words = [group[0].name.strip("/").replace("/", "_").replace(".", "_") for group in groups]
    return {taken.own(one or "block"): group for one, group in zip(words, groups, strict=True)}


def _blocks(
    source: Any, groups: Mapping[str, list[Any]], batch_first: bool
) -> list[tuple[str, Block]]:
    if len(groups) > MOST_BLOCKS:
        raise refusal(source, "blocks", f"are {len(groups)}", f"at most {MOST_BLOCKS} are read")
    steps = [step for group in groups.values() for step in group]
    dtype = np.result_type(np.float32, *map(_dtype, steps))
    found: list[tuple[str, Block]] = []
    for name, group in groups.items():
        first = group[0]
        if isinstance(first, LSTMStep):
            block: Block = _lstm(source, group, batch_first, dtype)
        elif isinstance(first, LinearStep):
            block = cells.linear(first.weight, first.bias, batch_first=batch_first, dtype=dtype)
        else:
            block = first.make(batch_first, dtype)
        found.append((name, block))
    return found


def _goes_on(group: list[Any], step: LSTMStep) -> bool:
    """Return whether a layer can be the next one of an `LSTM`."""
    below = group[-1]
    if not isinstance(below, LSTMStep) or not step.node.like(below.node):
        return False
    if step.merge != below.merge:
        return False
    return len(group) == 1 or step.residual or not group[1].residual


def _lstm(source: Any, group: list[LSTMStep], batch_first: bool, dtype: Any) -> Block:
    if group[0].residual:
        found, instead = "adds its input to its output", "only layers above another one can"
        raise refusal(source, group[0].name, found, instead)
    for kind in ("h", "c"):
        there = [bool(getattr(step, kind)) for step in group]
        if any(there) and not all(there):
            one = group[there.index(False)].name
            found, instead = (
                f"has no initial_{kind}, and other layers have",
                "all need one, or none",
            )
            raise refusal(source, one, found, instead)
    nodes = [step.node for step in group]
    residual = len(group) > 1 and group[1].residual
    merge = group[0].merge
    return layered(source, nodes, batch_first, merge=merge, residual=residual)


def _dtype(step: Any) -> Any:
    """Return the dtype of the weights of a step, or one that decides nothing."""
    if isinstance(step, LSTMStep):
        return step.node.dtype
    return step.weight.dtype if isinstance(step, LinearStep) else np.float16
