"""Tensors by the names that PyTorch's modules give them: which LSTMs and blocks they are.

A state_dict says which parameters there are, in the order in which the modules were made. What has
no parameters, as activations, it does not say, nor what is computed from what.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..reports import Found, refusal
from .pickled import Made

__all__ = [
    "LSTMS",
    "PARAMETER",
    "Leaves",
    "Module",
    "chosen",
    "found",
    "leaves",
    "listed",
    "lstm_sizes",
    "modules",
]

PARAMETER = re.compile(
    r"(weight_ih|weight_hh|bias_ih|bias_hh|weight_hr)(?:_l(0|[1-9]\d{0,4})(_reverse)?)?"
)
LSTMS = ("LSTM", "LSTMCell")
OF_ROWS = {4: "LSTM", 3: "GRU", 1: "RNN"}  # by rows of the recurrent weights, over their columns
SCRIPT = "__torch__.torch.nn.modules."  # before the names of PyTorch's classes in scripts
# Those that compute nothing but with parameters, or nothing in inference.
IN_SCRIPTS = ("LSTM", "LSTMCell", "Linear", "Embedding", "LayerNorm", "Dropout", "Identity")
DEPTH = 32
MOST_NAMES = 2**24  # characters of all names
LISTED = 12


class Leaves(NamedTuple):
    """Tensors by name.

    Attributes
    ----------
    names : dict of str to tensor
    outer : str
        What stood before all names, and was left out of them.
    whole : str or None
        The class of a whole pickled module that some of them are in.
    """

    names: dict[str, Any]
    outer: str
    whole: str | None


class Module(NamedTuple):
    """Tensors of one module of PyTorch.

    Attributes
    ----------
    name : str
        With those of the modules that it is in; "" for the outermost one.
    kind : str
        A name of a block where the shapes of the tensors are those of one; "LSTMCell"; otherwise
        what it may be.
    tensors : dict of str to tensor
        By the last part of their names.
    """

    name: str
    kind: str
    tensors: dict[str, Any]


# ---- from a tree to names


def leaves(source: Any, tree: Any) -> Leaves:
    """Return the tensors of a tree by names with dots, but those of optimisers.

    What stands around the one dict that has all of them is left out of the names; so are
    ``_orig_mod.`` of ``torch.compile``, and a ``module.`` before all names, of ``DataParallel``.

    Raises
    ------
    ValueError
        If two names are the same.
    """
    walk = _Walk()
    paths, length = [], 0
    for path, value in walk.paths(tree, (), 0):
        length += sum(map(len, path))
        if length > MOST_NAMES:
            raise refusal(source, "names", f"are longer than {MOST_NAMES}", "it is damaged")
        paths.append((path, value))
    outer = _common([path[:-1] for path, value in paths if _is_weight(value)])
    names: dict[str, Any] = {}
    for path, value in paths:
        if path[: len(outer)] == outer:
            parts = ".".join(path[len(outer) :]).split(".")
            name = ".".join(part for part in parts if part != "_orig_mod")
            if name in names:
                raise refusal(source, name, "stands twice", "leave one of them out")
            names[name] = value
    return Leaves(_unwrapped(names), ".".join(outer), walk.whole)


class _Walk:
    """Goes through a tree of containers, each of which it enters once."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}  # by identity, and kept, so that no other has it
        self.whole: str | None = None

    def paths(
        self, tree: Any, path: tuple[str, ...], depth: int
    ) -> Iterator[tuple[tuple[str, ...], Any]]:
        """Return tensors, and what may be some, each with the keys on the way to it."""
        if _computes(tree):
            yield (*path, ""), tree
        elif _is_tensor(tree):
            yield path or ("tensor",), tree
        elif id(tree) not in self.seen and depth <= DEPTH:
            self.seen[id(tree)] = tree
            for keys, value in _inside(tree):
                for found in self.paths(value, (*path, *keys), depth + 1):
                    if _is_module(tree):
                        self.whole = tree.name
                    yield found


UNREADABLE = ("_rebuild", "_reconstruct")  # functions that make tensors of other kinds, or arrays


def _inside(tree: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Return what a container holds, each with the names that it has there."""
    if isinstance(tree, Made):
        state = tree.state if isinstance(tree.state, Mapping) else {"": tree.state}
        if _is_module(tree):
            for part in ("_parameters", "_buffers", "_modules"):
                yield from _inside(state.get(part))
        else:
            # A scripted LSTM has its parameters in a list besides.
            yield from (((str(k),), v) for k, v in state.items() if k != "_flat_weights")
            yield from _inside(tree.items)
    elif isinstance(tree, Mapping):
        if not ("param_groups" in tree and "state" in tree):  # of an optimiser
            yield from (((str(key),), tree[key]) for key in tree)
    elif isinstance(tree, list | tuple):
        yield from (((str(n),), value) for n, value in enumerate(tree))


def _is_tensor(tree: Any) -> bool:
    """Return whether this is a tensor, which is not read if it is a `Made`."""
    if isinstance(tree, Made):
        return tree.name.rpartition(".")[2].startswith(UNREADABLE)
    return hasattr(tree, "shape") and hasattr(tree, "dtype")


def _computes(tree: Any) -> bool:
    """Return whether this is a scripted module of PyTorch that is none of the blocks."""
    if not isinstance(tree, Made) or not tree.name.startswith(SCRIPT):
        return False
    group, *_, kind = tree.name.removeprefix(SCRIPT).split(".")
    return group != "container" and kind not in IN_SCRIPTS


def _is_module(tree: Any) -> bool:
    return isinstance(tree, Made) and isinstance(tree.state, Mapping) and "_modules" in tree.state


def _is_weight(value: Any) -> bool:
    """Return whether a tensor is likely to be one: no number of steps, no state of a generator."""
    if isinstance(value, Made):
        return True
    real = getattr(value.dtype, "kind", "") == "f" or "float" in str(value.dtype)
    return real and len(value.shape) > 0


def _unwrapped(names: dict[str, Any]) -> dict[str, Any]:
    while names and all(name.startswith("module.") for name in names):
        names = {name.removeprefix("module."): value for name, value in names.items()}
    return names


def _common(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    if not paths:
        return ()
    low, high = min(paths), max(paths)
    same = [a == b for a, b in zip(low, high, strict=False)]
    return low[: same.index(False) if False in same else len(same)]


# ---- from names to modules


def chosen(source: Any, given: Leaves, prefix: str | None) -> dict[str, Any]:
    """Return the tensors of one module, by the rest of their names; all of them without a prefix.

    Raises
    ------
    ValueError
        If there is no such module.
    """
    names, outer = given.names, given.outer
    if not prefix or prefix == outer:
        return names
    for start in (f"{prefix}.", f"{prefix}.".removeprefix(f"{outer}.")):
        inside = {name[len(start) :]: names[name] for name in names if name.startswith(start)}
        if inside:
            return _unwrapped(inside)
    about = listed(module.name for module in modules(names))
    raise refusal(source, f"prefix={prefix!r}", "no tensor is there", f"there are {about}")


def modules(names: dict[str, Any]) -> list[Module]:
    """Return the modules that have tensors, in the order in which they come first."""
    grouped: dict[str, dict[str, Any]] = {}
    for name, value in names.items():
        module, _, last = name.rpartition(".")
        grouped.setdefault(module, {})[last] = value
    return [Module(name, _kind(tensors), tensors) for name, tensors in grouped.items()]


def _kind(tensors: dict[str, Any]) -> str:
    for value in tensors.values():
        if _computes(value):
            return str(value.name.rpartition(".")[2])
    shapes = {name: tuple(getattr(value, "shape", ())) for name, value in tensors.items()}
    ends = [PARAMETER.fullmatch(name) for name in tensors]
    for name, shape in shapes.items():
        if name.startswith("weight_hh") and PARAMETER.fullmatch(name) and len(shape) == 2:
            if "weight_hr" in {end[1] for end in ends if end}:
                return "LSTM"
            kind = OF_ROWS.get(shape[0] // shape[1], "RNN") if shape[1] else "RNN"
            return f"{kind}Cell" if name == "weight_hh" else kind
    weight, bias = shapes.get("weight", ()), shapes.get("bias")
    if shapes.keys() == {"weight", "bias"} and bias == weight[:1]:
        return {1: "LayerNorm", 2: "Linear"}.get(len(weight), "other")
    if shapes.keys() == {"weight"} and len(weight) == 2:
        return "Embedding or Linear without bias"
    return "other"


def found(source: Any, tree: Any) -> list[Found]:
    """Return a row for each module."""
    rows = []
    for module in modules(leaves(source, tree).names):
        shapes = {name: tuple(getattr(t, "shape", ())) for name, t in module.tensors.items()}
        weight = shapes.get("weight", ())
        sizes, options = " x ".join(map(str, weight)), ""
        if module.kind in ("LSTM", "LSTMCell"):
            sizes, options = lstm_sizes(module)
        elif module.kind == "Linear":
            sizes = f"{weight[1]} -> {weight[0]}"
        elif module.kind == "other":
            options = listed(shapes)
        first = next(iter(module.tensors.values()))
        count = sum(math.prod(shape) for shape in shapes.values())
        dtype = str(getattr(first, "dtype", getattr(first, "name", "")))
        row = Found(module.name, module.kind, sizes, options, dtype.removeprefix("torch."), count)
        rows.append(row)
    return rows


def lstm_sizes(module: Module) -> tuple[str, str]:
    """Return "I -> H", and layers, directions and projection, where they are not 1, 1 and none."""
    shapes = {name: tuple(getattr(t, "shape", ())) for name, t in module.tensors.items()}
    end = "" if module.kind == "LSTMCell" else "_l0"
    w_ih, w_hh = (shapes.get(f"weight_{of}{end}", ()) for of in ("ih", "hh"))
    sizes = f"{w_ih[-1] if w_ih else '?'} -> {w_hh[0] // 4 if w_hh else '?'}"
    layers = sum(bool(re.fullmatch(r"weight_hh_l\d+", name)) for name in shapes)
    words = [f"{layers} layers"] if layers > 1 else []
    words += ["bidirectional"] if f"weight_hh{end}_reverse" in shapes else []
    words += [f"projected to {shapes[f'weight_hr{end}'][0]}"] if f"weight_hr{end}" in shapes else []
    words += [] if f"bias_ih{end}" in shapes else ["no bias"]
    return sizes, ", ".join(words)


def listed(names: Any) -> str:
    names = [f"{name!s:.80}" for name in names]
    rest = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return (", ".join(names[:LISTED]) or "nothing") + rest
