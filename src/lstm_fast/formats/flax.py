"""Trees of arrays from JAX: cells of Flax, Haiku and Equinox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..engine import Array
from ..lstm import LSTM
from .cells import Cell, cell, lstm
from .reports import Found, Verify, random_input, refusal, verified

__all__ = ["from_flax", "inspect"]

MOST_DEPTH = 32
NUMBERED = re.compile(r"(.*?)_?(\d+)")
DIRECTIONS = ({"forward_rnn", "backward_rnn"}, {"forward", "backward"})
FLAX = {f"{side}{gate}" for side in "ih" for gate in "ifgo"}
FLAX_JOINT = {"dense_i", "dense_h"}
EQUINOX = ("weight_ih", "weight_hh", "bias")
HAIKU = re.compile(r"/lstm(_\d+)?/linear$")  # its LSTM under the name that it has by itself
HAIKU_FORGET = 1.0  # what its LSTM adds to the forget gate at run time
KINDS = ("flax", "haiku", "equinox")


def from_flax(
    tree: Any, *, kind: str | None = None, batch_first: bool = False, verify: Verify = None
) -> LSTM:
    """Make an LSTM of the parameters of Flax, Haiku or Equinox.

    Which of them is seen by the names. All of them have sigmoid and tanh, unless the cell was made
    with others, which a tree does not show.

    * Flax has `ii` to `ho` (linen, or nnx, where `if` is `if_`) or `dense_i` and `dense_h`
      (nnx.OptimizedLSTMCell), with one bias.
    * Haiku has `lstm/linear` with `w` and `b`, and adds 1 to the forget gate at run time, which
      becomes part of the bias. Where its module has another name, say ``kind="haiku"``.
    * Equinox has `weight_ih`, `weight_hh` and `bias`.

    Several layers are a list, or are numbered: `lstm_0`, `lstm_1`. Two directions are called
    `forward_rnn` and `backward_rnn`, as in Flax's `Bidirectional`, or `forward` and `backward`.

    Parameters
    ----------
    tree : mapping, module or sequence of these
        Of one LSTM: where a model has other layers, the part that is its LSTM. Arrays are of JAX or
        NumPy; half precision becomes float32.
    kind : {"flax", "haiku", "equinox"}, optional
        What it has to be.
    batch_first : bool
        x is (B, T, I) instead of (T, B, I).
    verify : (x, y) or True, optional
        An input and what the LSTM gives for it, which is compared; or True: the package that the
        cells are of runs them, which shows that they were read right, not how a program joins them.

    Returns
    -------
    LSTM

    Raises
    ------
    ValueError
        If something else is in the tree, or it is not clear how its cells are connected.
    ImportError
        If `verify` is True, and the package is not installed.

    Examples
    --------
    >>> lstm = from_flax(variables["params"]["OptimizedLSTMCell_0"])  # doctest: +SKIP
    """
    if kind not in (None, *KINDS):
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    layers = _layers(_Source(tree, kind), tree, "tree", 0)
    kinds = {one.kind for layer in layers for one in layer}
    if kind is not None and kinds != {kind}:
        raise refusal(tree, "tree", f"holds cells of {', '.join(sorted(kinds))}", f"not of {kind}")
    cells = [[one.cell for one in layer] for layer in layers]
    made = lstm(tree, "tree", cells, batch_first=batch_first)
    verified(made, verify, lambda: _run(made, layers))
    return made


def inspect(tree: Any) -> list[Found]:
    """Return what is in a tree: its cells, and all that is none."""
    return [*_found(tree, "", 0)]


# ---- how cells are connected


class _Source(NamedTuple):
    """The whole tree, for errors, and the kind that it has to be, if the user says so."""

    tree: Any
    kind: str | None


class _Read(NamedTuple):
    """A cell, what it is of, and the part of the tree that it was read from."""

    kind: str
    cell: Cell
    tree: Any


def _layers(source: _Source, tree: Any, path: str, depth: int) -> list[list[_Read]]:
    """Return the layers below a place of the tree, each with its directions."""
    if depth > MOST_DEPTH:
        raise refusal(
            source.tree, path[:80], f"is more than {MOST_DEPTH} deep", "it cannot be read"
        )
    found = _cell(source, tree, path)
    if found is not None:
        return [[found]]
    if isinstance(tree, list | tuple) and tree:
        parts = [(f"{path}[{n}]", part) for n, part in enumerate(tree)]
    elif isinstance(tree, Mapping) and tree:
        tree = _without_seeds(tree)
        names = {_name(key) for key in tree}
        if names in DIRECTIONS:
            return [_directions(source, {_name(k): v for k, v in tree.items()}, path, depth)]
        parts = [(f"{path}/{_name(key)}", tree[key]) for key in _in_order(source, tree, path)]
    else:
        raise refusal(
            source.tree,
            path,
            f"is a {type(tree).__name__}, no LSTM cell of {', '.join(KINDS)}",
            "give the part of the tree that is the LSTM",
        )
    inner = [_layers(source, part, where, depth + 1) for where, part in parts]
    if isinstance(tree, Mapping) and len(inner) > 1 and all(map(_is_named_by_flax, tree)):
        first, second = inner[0][0][0].cell, inner[1][0][0].cell
        if first.weight_ih.shape == second.weight_ih.shape:
            raise refusal(
                source.tree,
                path,
                f"has {sorted(map(_name, tree))}, which may be layers or directions",
                'give a list of the layers, or {"forward": ..., "backward": ...}',
            )
    return [layer for layers in inner for layer in layers]


def _is_named_by_flax(key: Any) -> bool:
    """Whether Flax gave this name: its Bidirectional has cells with such ones, as layers do."""
    return re.fullmatch(r"(Optimized)?LSTMCell_\d+", _name(key)) is not None


def _directions(source: _Source, tree: Mapping[str, Any], path: str, depth: int) -> list[_Read]:
    both = []
    for name in sorted(tree, reverse=True):  # forward first
        layers = _layers(source, tree[name], f"{path}/{name}", depth + 1)
        if len(layers) != 1 or len(layers[0]) != 1:
            raise refusal(
                source.tree, f"{path}/{name}", "is no single cell", "each direction is one"
            )
        both += layers[0]
    return both


def _without_seeds(tree: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Leave out the states of random numbers, which nnx has in a tree beside a cell."""
    return {key: value for key, value in tree.items() if _name(key) != "rngs"}


def _in_order(source: _Source, tree: Mapping[Any, Any], path: str) -> list[Any]:
    """Return the keys of a mapping in the order of layers, if their names tell it."""
    if len(tree) == 1:
        return [*tree]
    numbers: dict[int, Any] = {}
    stems = set()
    for key in tree:
        name = _layer_name(key)
        match = NUMBERED.fullmatch(name)
        stems.add(match[1] if match else name)
        numbers[int(match[2][:9]) if match else 0] = key
    counts = [*range(len(tree))], [*range(1, len(tree) + 1)]
    if len(stems) > 1 or [*sorted(numbers)] not in counts:
        raise refusal(
            source.tree,
            path,
            f"has {sorted(map(_name, tree))}",
            "give the part of the tree that is the LSTM, or a list of its layers in order",
        )
    return [numbers[n] for n in sorted(numbers)]


def _name(key: Any) -> str:
    """Return a key as text: nnx numbers the elements of its lists."""
    return key if isinstance(key, str) else str(key)


def _layer_name(key: Any) -> str:
    """Return the name of a layer: of Haiku's "deep/~/lstm_1/linear" that is "deep/~/lstm_1"."""
    name = _name(key)
    return name.removesuffix("/linear") if name.endswith("/linear") else name


# ---- one cell


def _cell(source: _Source, tree: Any, path: str) -> _Read | None:
    """Return a cell, or None if this is none."""
    if isinstance(tree, Mapping):
        named = {_name(key).rstrip("_"): value for key, value in tree.items()}
        if FLAX & named.keys():
            return _Read("flax", _of_flax(source, named, path), named)
        if FLAX_JOINT & named.keys():
            return _Read("flax", _of_joint(source, named, path), named)
        if {"weight_ih", "weight_hh"} & named.keys():
            return _Read("equinox", _of_equinox(source, named, path), named)
        if named.keys() in ({"w"}, {"w", "b"}) and _is_haiku(source, path):
            return _Read("haiku", _of_haiku(source, named, path), named)
        return None
    if hasattr(tree, "weight_ih") and hasattr(tree, "weight_hh"):
        values = {name: getattr(tree, name, None) for name in EQUINOX}
        return _Read("equinox", _of_equinox(source, values, path), values)
    return None


def _is_haiku(source: _Source, path: str) -> bool:
    """Whether a layer with `w` and `b` is that of an LSTM; another module may have one, too."""
    return bool(HAIKU.search(path)) or (source.kind == "haiku" and path.endswith("/linear"))


def _of_flax(source: _Source, named: Mapping[str, Any], path: str) -> Cell:
    _expect(source, path, named, FLAX)
    kernels = {
        side: [_leaf(source, f"{path}/{side}{gate}", named[f"{side}{gate}"]) for gate in "ifgo"]
        for side in "ih"
    }
    biases = {
        side: [_bias(source, f"{path}/{side}{gate}", named[f"{side}{gate}"]) for gate in "ifgo"]
        for side in "ih"
    }
    for side in "ih":
        shapes = {one.shape for one in kernels[side]}
        if len(shapes) > 1:
            raise refusal(
                source.tree, f"{path}/{side}*", f"has shapes {sorted(shapes)}", "all alike"
            )
    H = kernels["h"][0].shape[1]
    return cell(
        source.tree,
        path,
        "ifgo",
        weight_ih=np.concatenate(kernels["i"], axis=1).T,
        weight_hh=np.concatenate(kernels["h"], axis=1).T,
        bias_ih=_joined(source, path, biases["i"], H),
        bias_hh=_joined(source, path, biases["h"], H),
    )


def _joined(source: _Source, path: str, biases: list[Array | None], H: int) -> Array | None:
    there = [one for one in biases if one is not None]
    if not there:
        return None
    if len(there) < 4 or any(one.shape != (H,) for one in there):
        raise refusal(
            source.tree, f"{path} biases", [one.shape for one in there], "four of H numbers"
        )
    return np.concatenate(there)


def _of_joint(source: _Source, named: Mapping[str, Any], path: str) -> Cell:
    _expect(source, path, named, FLAX_JOINT)
    return cell(
        source.tree,
        path,
        "ifgo",
        weight_ih=_leaf(source, f"{path}/dense_i", named["dense_i"]).T,
        weight_hh=_leaf(source, f"{path}/dense_h", named["dense_h"]).T,
        bias_ih=_bias(source, f"{path}/dense_i", named["dense_i"]),
        bias_hh=_bias(source, f"{path}/dense_h", named["dense_h"]),
    )


def _of_equinox(source: _Source, named: Mapping[str, Any], path: str) -> Cell:
    if isinstance(named, Mapping) and {"bias_ih", "bias_hh"} & named.keys():
        raise refusal(source.tree, path, "has two biases", "Equinox has one: use from_torch")
    _expect(source, path, named, {"weight_ih", "weight_hh"}, frozenset({"bias"}))
    bias = named.get("bias")
    return cell(
        source.tree,
        path,
        "ifgo",
        weight_ih=_array(source, f"{path}/weight_ih", named["weight_ih"], 2),
        weight_hh=_array(source, f"{path}/weight_hh", named["weight_hh"], 2),
        bias_ih=None if bias is None else _array(source, f"{path}/bias", bias, 1),
    )


def _of_haiku(source: _Source, named: Mapping[str, Any], path: str) -> Cell:
    w = _array(source, f"{path}/w", named["w"], 2)
    H = w.shape[1] // 4
    if w.shape[1] != 4 * H or not 0 < H < w.shape[0]:
        raise refusal(source.tree, f"{path}/w", f"has shape {w.shape}", "(I + H, 4 H) is needed")
    I = w.shape[0] - H
    b = np.zeros(4 * H, w.dtype)
    if "b" in named:
        b = _array(source, f"{path}/b", named["b"], 1).copy()
    if b.shape != (4 * H,):
        raise refusal(source.tree, f"{path}/b", f"has shape {b.shape}", f"({4 * H},) is needed")
    b[2 * H : 3 * H] += HAIKU_FORGET  # blocks i, g, f, o
    return cell(source.tree, path, "igfo", weight_ih=w[:I].T, weight_hh=w[I:].T, bias_ih=b)


def _expect(
    source: _Source,
    path: str,
    named: Mapping[str, Any],
    needed: set[str],
    possible: frozenset[str] = frozenset(),
) -> None:
    """Raise unless these names are there, and no others; seeds of nnx are none."""
    names = named.keys() - {"rngs"}
    if needed - names or names - needed - possible:
        raise refusal(source.tree, path, f"has {sorted(names)}", f"a cell has {sorted(needed)}")


# ---- arrays


def _leaf(source: _Source, path: str, layer: Any) -> Array:
    """Return the kernel of a dense layer, which has nothing but a bias besides."""
    if not isinstance(layer, Mapping) or not {"kernel"} <= {*layer} <= {"kernel", "bias"}:
        keys = sorted(map(_name, layer)) if isinstance(layer, Mapping) else type(layer).__name__
        raise refusal(source.tree, path, keys, "a kernel, and perhaps a bias, is needed")
    return _array(source, f"{path}/kernel", layer["kernel"], 2)


def _bias(source: _Source, path: str, layer: Any) -> Array | None:
    bias = layer.get("bias")
    return None if bias is None else _array(source, f"{path}/bias", bias, 1)


def _array(source: _Source, path: str, value: Any, ndim: int) -> Array:
    """Return an array of NumPy."""
    try:
        array = np.asarray(_value(value))
        if array.dtype.name in ("bfloat16", "float16"):
            array = array.astype(np.float32)
    except (ValueError, TypeError) as error:
        raise refusal(source.tree, path, error, "an array is needed") from None
    if array.dtype not in (np.float32, np.float64) or array.ndim != ndim:
        raise refusal(
            source.tree,
            path,
            f"is {array.dtype} of shape {array.shape}",
            f"floating-point numbers with {ndim} axes are needed",
        )
    return array


def _value(variable: Any) -> Any:
    """Return what a variable holds, where nnx or linen has made one of an array."""
    for attribute in ("value", "get_value"):
        if not hasattr(variable, "shape") and hasattr(variable, attribute):
            inner = getattr(variable, attribute)
            variable = inner() if callable(inner) else inner
    return variable


# ---- the rest


def _found(tree: Any, path: str, depth: int) -> Iterator[Found]:
    name = path or "tree"
    try:
        found = _cell(_Source(tree, None), tree, name) if depth <= MOST_DEPTH else None
    except ValueError as error:
        yield Found(name, f"unknown: {error}", "", "", "", 0)
        return
    if found is not None:
        kind, one, _ = found
        sizes = f"{one.weight_ih.shape[1]} -> {one.weight_hh.shape[1]}"
        count = sum(array.size for array in one.arrays)
        yield Found(name, "LSTM", sizes, kind, one.weight_hh.dtype.name, count)
    elif isinstance(tree, Mapping | list | tuple) and depth <= MOST_DEPTH:
        pairs: Sequence[tuple[Any, Any]] = (
            [*tree.items()] if isinstance(tree, Mapping) else [*enumerate(tree)]
        )
        for key, value in pairs:
            yield from _found(value, f"{path}/{_name(key)}".lstrip("/"), depth + 1)
    else:
        shape = getattr(tree, "shape", None)
        kind = "array" if shape is not None else type(tree).__name__
        size = int(np.prod(shape)) if shape is not None else 0
        yield Found(name, kind, str(shape or ""), "", str(getattr(tree, "dtype", "")), size)


def _run(made: LSTM, layers: Sequence[Sequence[_Read]]) -> tuple[Array, Array]:
    """Let the packages run their cells: a random input, and the output."""
    from .jax_cells import run

    cells = [[(one.kind, _arrays(one.tree)) for one in layer] for layer in layers]
    sizes = [layer[0].cell.weight_hh.shape[1] for layer in layers]
    x = random_input(made, 4, 3)
    if made.batch_first:
        return x, run(cells, sizes, x.swapaxes(0, 1)).swapaxes(0, 1)
    return x, run(cells, sizes, x)


def _arrays(tree: Any) -> Any:
    """Return a part of a tree with arrays of NumPy."""
    if isinstance(tree, Mapping):
        return {_name(key): _arrays(value) for key, value in _without_seeds(tree).items()}
    return None if tree is None else np.asarray(_value(tree))
