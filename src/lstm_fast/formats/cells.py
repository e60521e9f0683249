"""An `LSTM`, or a model around it, of what a file holds: weights in any order of gates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..engine import Array
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..lstm import LSTM
from ..network.block import Block
from ..network.layout import checked
from ..network.parameters import without_values
from .reports import refusal

__all__ = ["Cell", "cell", "chain", "embedding", "linear", "loaded", "lstm"]

GATES = "ifgo"
READ = (np.float16, np.float32, np.float64)  # half precision becomes single
ARRAYS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "weight_ch", "weight_ln")


class Cell(NamedTuple):
    """One direction of one layer, as its source has it.

    Attributes
    ----------
    weight_ih : ndarray, shape (4 H, I)
    weight_hh : ndarray, shape (4 H, H), or (4 H, P) with a projection
    bias_ih, bias_hh : ndarray, shape (4 H,), or None
        Two that add; a source that has one gives one.
    weight_hr : ndarray, shape (P, H), or None
    weight_ch : ndarray, shape (3 H,), or None
        Peepholes in the order i, f, o.
    weight_ln : ndarray, shape (4 H,), or None
        Gains of the layer norm of each gate.
    order : str
        Of the blocks of rows in the others: "ifgo", "iofg", ..., where g is the candidate.
    """

    weight_ih: Array
    weight_hh: Array
    bias_ih: Array | None
    bias_hh: Array | None
    weight_hr: Array | None = None
    weight_ch: Array | None = None
    weight_ln: Array | None = None
    order: str = GATES

    @property
    def arrays(self) -> list[Array]:
        """Those that are there."""
        return [value for value in self[: len(ARRAYS)] if isinstance(value, np.ndarray)]


def cell(
    source: Any,
    name: str,
    order: str,
    *,
    weight_ih: Array,
    weight_hh: Array,
    bias_ih: Array | None = None,
    bias_hh: Array | None = None,
    weight_hr: Array | None = None,
    weight_ch: Array | None = None,
    weight_ln: Array | None = None,
) -> Cell:
    """Return one direction of one layer, checked.

    Parameters
    ----------
    source : path-like or object
        Of the weights, for errors.
    name : str
        Of the layer, for errors.
    order, weight_ih, weight_hh, bias_ih, bias_hh, weight_hr, weight_ch, weight_ln
        As in `Cell`.

    Raises
    ------
    ValueError
        If shapes contradict one another, or a tensor does not hold floating-point numbers.
    """
    w_hh = _floats(source, f"{name} recurrent weights", weight_hh)
    if w_hh.ndim != 2 or not w_hh.size or w_hh.shape[0] % 4:
        raise _wrong(source, f"{name} recurrent weights", "(4 H, H)", w_hh.shape)
    H = w_hh.shape[0] // 4
    P = H if weight_hr is None else w_hh.shape[1]
    w_ih = _floats(source, f"{name} input weights", weight_ih)
    if w_ih.ndim != 2 or w_ih.shape[0] != 4 * H or not w_ih.size:
        raise _wrong(source, f"{name} input weights", f"({4 * H}, I)", w_ih.shape)
    shapes = {
        "recurrent weights": (w_hh, (4 * H, P)),
        "input bias": (bias_ih, (4 * H,)),
        "recurrent bias": (bias_hh, (4 * H,)),
        "projection": (weight_hr, (P, H)),
        "peepholes": (weight_ch, (3 * H,)),
        "gains of layer norm": (weight_ln, (4 * H,)),
    }
    arrays: dict[str, Array | None] = {}
    for what, (value, shape) in shapes.items():
        array = None if value is None else _floats(source, f"{name} {what}", value)
        if array is not None and array.shape != shape:
            raise _wrong(source, f"{name} {what}", str(shape), array.shape)
        arrays[what] = array
    return Cell(
        w_ih,
        w_hh,
        arrays["input bias"],
        arrays["recurrent bias"],
        arrays["projection"],
        arrays["peepholes"],
        arrays["gains of layer norm"],
        order,
    )


def lstm(source: Any, name: str, layers: Sequence[Sequence[Cell]], **options: Any) -> LSTM:
    """Return an `LSTM` with these weights.

    Parameters
    ----------
    source : path-like or object
        For errors.
    name : str
        In the file, for errors.
    layers : sequence of sequences of Cell
        The directions of each layer, forward first.
    options
        Arguments of `LSTM` that weights do not say: batch_first, reverse, merge, coupled, clip,
        cell_clip, activations, residual.

    Raises
    ------
    ValueError
        If layers do not fit one another.
    """
    directions = {len(layer) for layer in layers}
    if directions not in ({1}, {2}):
        raise refusal(
            source, name, f"has {sorted(directions)} directions", "layers need equally many"
        )
    cells = [one for layer in layers for one in layer]
    first = cells[0]
    kinds = {"bias": "bias_ih", "projection": "weight_hr", "peephole": "weight_ch"}
    kinds["layer norm"] = "weight_ln"
    for what, field in kinds.items():
        there = {_has(one, field) for one in cells}
        if len(there) > 1:
            raise refusal(source, name, f"only some layers have a {what}", "all need one, or none")
    sizes = [layer[0].weight_hh.shape[0] // 4 for layer in layers]
    dtype = np.result_type(np.float32, *(one.weight_hh.dtype for one in cells))
    try:
        with without_values():
            made = LSTM(
                first.weight_ih.shape[1],
                sizes if len(set(sizes)) > 1 else sizes[0],
                len(layers),
                bias=_has(first, "bias_ih"),
                bidirectional=directions == {2},
                proj_size=0 if first.weight_hr is None else first.weight_hr.shape[0],
                peephole=first.weight_ch is not None,
                layer_norm=False if first.weight_ln is None else "gates",
                **{"dtype": dtype, **options},
            )
        _fill(made, layers)
    except (ValueError, TypeError) as error:
        raise refusal(source, name, error, "no LSTM of lstm_fast is like this") from error
    return made


def linear(weight: Array, bias: Array | None, **how: Any) -> Block:
    """Return a `Linear` with weights (O, I) and a bias (O,); `how` is as of `Linear`."""
    O, I = weight.shape
    values = {"weight": weight} | ({} if bias is None else {"bias": bias})
    return loaded(lambda: nn.Linear(I, O, bias is not None, **how), values)


def embedding(table: Array, **how: Any) -> Block:
    """Return an `Embedding` with this table (V, E); `how` is as of `Embedding`."""
    return loaded(lambda: nn.Embedding(*table.shape, **how), {"weight": table})


def loaded(make: Callable[[], Block], values: Mapping[str, Array]) -> Block:
    """Return a new block with these parameters, without first ones that take time and memory."""
    with without_values():
        made = make()
    made._load(values)
    return made


def chain(source: Any, parts: Sequence[tuple[str, Block]]) -> Block:
    """Return the one block, or a `Sequential` of all, by their names (dots become underscores)."""
    if len(parts) == 1:
        return parts[0][1]
    named = {name.replace(".", "_"): block for name, block in parts}
    if len(named) < len(parts):
        raise refusal(source, "names", [name for name, _ in parts], "each needs its own")
    try:
        return nn.Sequential(**named)
    except (ValueError, TypeError) as error:
        raise refusal(source, "layers", error, "they do not follow one another") from error


def _has(one: Cell, field: str) -> bool:
    if field == "bias_ih":
        return one.bias_ih is not None or one.bias_hh is not None
    return getattr(one, field) is not None


def _fill(made: LSTM, layers: Sequence[Sequence[Cell]]) -> None:
    """Write weights to a new LSTM of zeros, rows of gates where they belong."""
    with made.writable() as parameters, DefaultArithmetic():
        for number, layer in enumerate(layers):
            for one, direction in zip(layer, ("", "_reverse"), strict=False):
                for name in ARRAYS:
                    value, key = getattr(one, name), f"{name}_l{number}{direction}"
                    if value is not None:
                        value = checked(key, value, parameters[key].shape)
                        of_gates = name not in ("weight_hr", "weight_ch")
                        _copy_rows(parameters[key], value, one.order if of_gates else GATES)


def _copy_rows(target: Array, source: Array, order: str) -> None:
    if order == GATES:
        np.copyto(target, source, casting="same_kind")
        return
    to, of = (array.reshape(4, -1, *array.shape[1:]) for array in (target, source))
    for n, gate in enumerate(GATES):
        np.copyto(to[n], of[order.index(gate)], casting="same_kind")


def _floats(source: Any, name: str, value: Any) -> Array:
    array = np.asarray(value)
    if array.dtype.newbyteorder("=").type not in READ:
        raise refusal(source, name, f"holds {array.dtype}", "floating-point numbers are needed")
    return array


def _wrong(source: Any, name: str, expected: str, shape: tuple[int, ...]) -> ValueError:
    return refusal(source, name, f"has shape {shape}", f"{expected} is needed")
