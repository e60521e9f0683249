"""The blocks that modules of PyTorch are, by their tensors: an LSTM, and what is around it."""

from __future__ import annotations

import re
from itertools import pairwise, permutations, product
from typing import Any

import numpy as np

from ... import nn
from ...engine import Array
from ...lstm import LSTM
from ...network.block import Block
from .. import cells
from ..raw import Raw
from ..reports import refusal
from .names import LSTMS, PARAMETER, Module, listed, lstm_sizes, modules
from .pickled import Made

__all__ = ["block"]

# What modules around an LSTM can be: Embedding, Linear, LayerNorm; and their likely orders.
LETTERS = {"Linear": "L", "LayerNorm": "N", "Embedding or Linear without bias": "EL"}
LIKELY = re.compile("E?(|L|N|LN|NL)RN?L?")
MOST_AROUND = 5
# Names of norms that have a vector of weights and one of biases, too, but compute something else.
OTHER_NORM = re.compile(r"(^|[._])(gn|bn|group|batch|instance)[^.]*$", re.IGNORECASE)
QUANTISED = re.compile(r"_packed_params|_all_weight_values")  # in names of such modules
UNSAID = "a state_dict does not say what is computed between modules: "
ALONE = "prefix={!r} reads the LSTM alone"


def block(
    source: Any, names: dict[str, Any], ordered: bool, batch_first: bool, dropout: float
) -> Block:
    """Return the LSTM of these tensors, or the model around it.

    Parameters
    ----------
    source : path-like or object
        For errors.
    names : dict
        Tensors by their names.
    ordered : bool
        Whether modules stand in the order in which they were made.
    batch_first, dropout
        As of `LSTM`.

    Raises
    ------
    ValueError
        If there is none or more than one, or if what is around it leaves a doubt.
    """
    name = _checked(source, modules(names))
    arrays = {key: _array(source, key, value) for key, value in names.items()}
    native = {array.dtype.newbyteorder("=") for array in arrays.values()}
    dtype = np.result_type(np.float32, *native)
    parts = modules(arrays)
    options = {"batch_first": batch_first, "dropout": dropout, "dtype": dtype}
    lstm = next(_lstm(source, part, **options) for part in parts if part.name == name)
    if len(parts) == 1:
        return lstm
    order = _order(source, parts, name, lstm, ordered)
    by_name = {part.name: part for part in parts}
    made = [
        (of, lstm if role == "R" else _around(by_name[of], role, batch_first, dtype))
        for of, role in order.items()
    ]
    return _nested(source, made)


def _checked(source: Any, parts: list[Module]) -> str:
    """Return the name of the only LSTM; raise if what is there cannot be read as blocks."""
    lstms = [part for part in parts if part.kind in LSTMS]
    if any(QUANTISED.search(part.name) for part in parts):
        raise refusal(source, _kinds(parts), "is quantised", "save the model before it becomes so")
    if not lstms:
        raise refusal(source, "LSTM", "there is none", f"the file has {_kinds(parts)}")
    if len(lstms) > 1:
        rows = [(part.name, ", ".join(filter(None, lstm_sizes(part)))) for part in lstms]
        about = listed(f"{name!r} ({sizes})" for name, sizes in rows)
        raise refusal(source, "LSTM", f"there are {len(lstms)}: {about}", "prefix= chooses one")
    name = lstms[0].name
    inner = f"{name}." if name else ""
    for part in parts:
        if part.name != name and part.name.startswith(inner):
            how = "such a module computes more than an LSTM"
            raise refusal(source, name or "LSTM", f"has {part.name!r} inside", how)
    others = [
        part
        for part in parts
        if part.kind not in (*LSTMS, *LETTERS)
        or (part.kind == "LayerNorm" and OTHER_NORM.search(part.name))
    ]
    if others or len(parts) - 1 > MOST_AROUND:
        how = UNSAID + ALONE.format(name)
        raise refusal(source, _kinds(others or parts), "cannot be read around an LSTM", how)
    tensors = [t for part in parts for t in part.tensors.values() if isinstance(t, Raw)]
    held = {id(tensor.data): len(tensor.data) for tensor in tensors}
    if sum(tensor.nbytes for tensor in tensors) > 2 * sum(held.values()):  # two may be tied
        raise refusal(source, "tensors", "share their numbers", "the file is damaged")
    return name


def _kinds(parts: list[Module]) -> str:
    return listed(f"{part.name or 'tensors'} ({part.kind})" for part in parts)


def _array(source: Any, name: str, value: Any) -> Array:
    """Return the values of a tensor, of whatever kind."""
    if isinstance(value, Made):
        how = "a quantised or sparse model is to be saved before it becomes one"
        raise refusal(source, name, f"is made by {value.name}", how)
    if isinstance(value, Raw):
        return value.array(source, name)
    if hasattr(value, "detach"):  # PyTorch's
        value = value.detach().cpu()
        value = value.float() if "bfloat16" in str(value.dtype) else value
        if getattr(value, "is_quantized", False) or getattr(value, "is_sparse", False):
            raise refusal(source, name, f"holds {value.dtype}", "dequantise it")
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise refusal(source, name, f"holds {array.dtype}", "floating-point numbers are needed")
    return array


def _lstm(source: Any, of: Module, **options: Any) -> LSTM:
    name = of.name or "LSTM"
    found: dict[tuple[int, bool], dict[str, Array]] = {}
    for key, value in of.tensors.items():
        match = PARAMETER.fullmatch(key)
        if match is None or (match[2] is None) != (of.kind == "LSTMCell"):
            how = (
                "PyTorch's LSTM has no such parameter; lstm_fast.LSTM may have, and load_state_dict"
            )
            raise refusal(source, f"{name}: {key}", "is not known", how)
        found.setdefault((int(match[2] or 0), match[3] is not None), {})[match[1]] = value
    directions = (False, True) if any(reverse for _, reverse in found) else (False,)
    layers = 1 + max(layer for layer, _ in found)
    if len(found) != layers * len(directions):
        how = f"weights of {layers} layers in {len(directions)} directions are needed"
        raise refusal(source, name, f"has weights of {len(found)}", how)
    cell_rows = []
    for layer in range(layers):
        row = []
        for reverse in directions:
            end = f"_l{layer}{'_reverse' * reverse}" if of.kind == "LSTM" else ""
            values = found.get((layer, reverse), {})
            missing = [kind for kind in ("weight_ih", "weight_hh") if kind not in values]
            if ("bias_ih" in values) != ("bias_hh" in values):
                missing.append("bias_hh" if "bias_ih" in values else "bias_ih")
            if missing:
                how = "the file is not a whole one"
                raise refusal(source, f"{name}: {missing[0]}{end}", "is missing", how)
            row.append(cells.cell(source, name + end, "ifgo", **values))
        cell_rows.append(row)
    return cells.lstm(source, name, cell_rows, **options)


def _order(
    source: Any, parts: list[Module], name: str, lstm: LSTM, ordered: bool
) -> dict[str, str]:
    """Return what each module is, as a letter, in the order in which they compute.

    The widths of arrays have to follow. Where they leave several orders, that of the names in the
    file decides, if it is one of them.
    """
    possible: list[dict[str, str]] = []
    for order in permutations(parts):
        for roles in product(*(LETTERS.get(part.kind, "R") for part in order)):
            if LIKELY.fullmatch("".join(roles)):
                widths = [_widths(*one, lstm) for one in zip(order, roles, strict=True)]
                if all(left[1] == right[0] for left, right in pairwise(widths)):
                    names = (part.name for part in order)
                    possible.append(dict(zip(names, roles, strict=True)))
    around = _kinds([part for part in parts if part.name != name])
    if not possible:
        found = "their sizes do not follow one another in an order that can be read"
        raise refusal(source, around, found, UNSAID + ALONE.format(name))
    if len(possible) == 1:
        return possible[0]
    as_made = [roles for roles in possible if [*roles] == [part.name for part in parts]]
    # An embedding may be made after the LSTM, where it looks like a linear layer without a bias.
    late = [n for roles in possible for n in roles if roles[n] == "E" and as_made[:1] != [roles]]
    if not ordered or len(as_made) != 1 or any(as_made[0][n] != "E" for n in late):
        found = "their sizes leave more than one order"
        raise refusal(source, around, found, UNSAID + ALONE.format(name))
    return as_made[0]


def _widths(part: Module, role: str, lstm: LSTM) -> tuple[int, int]:
    """Return columns of the input and the output; an embedding has 0 of the input."""
    if role == "R":
        return lstm.input_size, lstm._shape_after((0,))[0]
    shape = part.tensors["weight"].shape
    if role == "N":
        return shape[0], shape[0]
    return (shape[1], shape[0]) if role == "L" else (0, shape[1])


def _around(part: Module, role: str, batch_first: bool, dtype: np.dtype[Any]) -> Block:
    shape = part.tensors["weight"].shape
    how: dict[str, Any] = {"batch_first": batch_first, "dtype": dtype}
    if role == "E":
        return cells.embedding(part.tensors["weight"], **how)
    if role == "N":
        return cells.loaded(lambda: nn.LayerNorm(*shape, **how), part.tensors)
    return cells.linear(part.tensors["weight"], part.tensors.get("bias"), **how)


def _nested(source: Any, parts: list[tuple[str, Block]]) -> Block:
    """Return a model whose parameters have the names of the file."""
    grouped: dict[str, list[tuple[str, Block]]] = {}
    for name, one in parts:
        first, _, rest = name.partition(".")
        grouped.setdefault(first, []).append((rest, one))
    names = [".".join(filter(None, (k, rest))) for k, of in grouped.items() for rest, _ in of]
    if names != [name for name, _ in parts]:
        raise refusal(source, listed(names), "lie in one another", "prefix= reads the LSTM alone")
    try:
        return nn.Sequential(
            **{
                first: of[0][1] if not of[0][0] else _nested(source, of)
                for first, of in grouped.items()
            }
        )
    except (ValueError, TypeError) as error:
        raise refusal(source, "modules", error, "prefix= reads the LSTM alone") from error
