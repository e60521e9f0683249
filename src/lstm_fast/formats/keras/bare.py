"""Files of Keras that have arrays but no configuration: which layers these may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..reports import refusal
from .config import Layer, snake_case
from .files import KerasFile

__all__ = ["bare_layers", "chosen"]

Chosen = Iterable[str] | Mapping[str, Mapping[str, Any]] | None

CONTAINERS = re.compile(r"(^|/)(layers|_layer_checkpoint_dependencies)/")
WITHOUT_EFFECT = re.compile(r"(input|input_layer|dropout)(_\d+)?$")
# What the arrays of a layer are called, and its class.
ROLES = (
    ({"kernel", "bias"}, "Dense"),
    ({"kernel", "recurrent_kernel", "bias"}, "LSTM"),
    ({"embeddings"}, "Embedding"),
    ({"gamma", "beta"}, "LayerNormalization"),
    ({"gamma", "beta", "moving_mean", "moving_variance"}, "BatchNormalization"),
)
OF_KERAS_1 = re.compile(r"_[WUb](_[ifco])?(:0)?$")
CLASSES = (
    *("LSTM", "Bidirectional", "Dense", "Embedding", "LayerNormalization"),
    "BatchNormalization",
)
INSTEAD = "layers={name: settings, ...} says which layers there are, in order"


def bare_layers(file: KerasFile) -> list[Layer]:
    """Return the layers that have arrays, or a name; those of unknown class have kind ""."""
    if not file.numbered:
        return [_of_names(file, name) for name in file.names]
    groups: dict[str, None] = {}
    for path in sorted(file.tree.arrays):
        group, inside, _ = path.partition("/vars/")
        if inside and not group.startswith("optimizer"):
            groups[re.sub(r"/((forward|backward)_layer/)?cell$", "", group)] = None
    return [_of_group(file, group) for group in groups]


def _of_names(file: KerasFile, name: str) -> Layer:
    layer = Layer(name, "", {}, (name,), "")
    found = file.arrays_of(layer)
    arrays = [one.name for one in found]
    roles = {re.sub(r":\d+$", "", array).rpartition("/")[2] for array in arrays}
    kind = next((kind for known, kind in ROLES if roles and roles <= known), "")
    if arrays and all(OF_KERAS_1.search(array) for array in arrays):
        kind = "LSTM" if any("_U" in array for array in arrays) else ""
    if kind == "Dense" and len(file.tree.arrays[found[0].path].shape) != 2:
        kind = ""
    if kind == "LSTM" and len(arrays) in (4, 6, 24):
        kind = "Bidirectional"
    return layer._replace(kind=kind)


def _of_group(file: KerasFile, group: str) -> Layer:
    name = CONTAINERS.sub(r"\1", group)
    if f"{group}/forward_layer/cell/vars" in file.tree.groups:
        kind = "Bidirectional"
    elif f"{group}/cell/vars" in file.tree.groups:
        kind = "LSTM"
    else:
        own = re.sub(r"_\d+$", "", group.removesuffix("/layer").rpartition("/")[2])
        inner = {2: "Dense"}.get(len(file.tree.arrays[f"{group}/vars/0"].shape), "")
        names = {snake_case(one): one for one in CLASSES} | {"time_distributed": inner}
        kind = names.get(own, "")
        name = name.removesuffix("/layer")
    return Layer(name, kind, {}, (name,), group)


def chosen(file: KerasFile, layers: Chosen) -> list[Layer]:
    """Return layers with settings: Keras's defaults, but all outputs, and what the user says.

    Raises
    ------
    ValueError
        If something is in doubt: the order, a class, a function.
    """
    found = {layer.name: layer for layer in bare_layers(file)}
    if layers is None:
        silent = {name for name in found if WITHOUT_EFFECT.match(name)}
        rest = [name for name in found if name not in silent]
        if not rest or (file.numbered and len(rest) > 1):
            raise refusal(file.source, "layers", f"are {rest}, in an unknown order", INSTEAD)
        layers = rest
    given = layers if isinstance(layers, Mapping) else {name: {} for name in layers}
    made = []
    for name, settings in given.items():
        values = dict(settings)
        kind = values.pop("class_name", None)
        if name not in found and kind is None:
            raise refusal(file.source, f"layer {name}", f"is not among {[*found]}", INSTEAD)
        layer = found.get(name, Layer(name, "", {}, (), ""))
        layer = layer._replace(kind=kind or layer.kind, name=name.replace("/", "_"))
        if not layer.kind:
            raise refusal(
                file.source, f"layer {name}", "is of an unknown class", f"class_name; {INSTEAD}"
            )
        made.append(layer._replace(settings=_settings(file, layer, values)))
    return made


def _settings(file: KerasFile, layer: Layer, values: dict[str, Any]) -> dict[str, Any]:
    if layer.kind not in ("LSTM", "Bidirectional"):
        count = len(file.arrays_of(layer))
        return ({"use_bias": count == 2} if layer.kind == "Dense" else {}) | values
    old = file.version is not None and file.version < (2, 3)
    if old and not {"recurrent_activation", "inner_activation"} & set(values):
        raise refusal(
            file.source,
            f"layer {layer.name}",
            f"is of Keras {'.'.join(map(str, file.version or ()))}, where recurrent_activation "
            "was hard_sigmoid or sigmoid",
            f"say which: {INSTEAD}",
        )
    both = layer.kind == "Bidirectional"
    merge = {"merge_mode": values.pop("merge_mode", "concat")} if both else {}
    count = len(file.arrays_of(layer))
    values = {
        "use_bias": count in ((6, 24) if both else (3, 12)),
        "return_sequences": True,
    } | values
    return merge | {"layer": {"class_name": "LSTM", "config": values}} if both else values
