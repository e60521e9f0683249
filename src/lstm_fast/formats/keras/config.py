"""What the configuration of a Keras model says: its layers, in the order in which they compute."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..reports import refusal

__all__ = ["Layer", "Settings", "flat", "in_order", "is_model"]

DEPTH = 16  # of models in models
MODELS = ("Sequential", "Functional", "Model")
# Arguments of layers that say nothing about inference, besides names like kernel_initializer.
SILENT = {
    *("name", "trainable", "dtype", "batch_input_shape", "batch_shape", "batch_size", "shape"),
    *("input_shape", "input_dim", "input_length", "input_dtype", "seed", "implementation"),
    *("consume_less", "unroll", "stateful", "unit_forget_bias", "init", "inner_init"),
    *("forget_bias_init", "zero_output_for_mask", "ragged", "sparse", "optional", "data_format"),
    *("noise_shape", "stddev", "rate", "p", "autocast", "weights", "momentum", "fused"),
    *("synchronized", "gamma_init", "beta_init", "renorm_momentum", "lora_rank", "lora_alpha"),
}
OF_TRAINING = re.compile(r"\w+_(initializer|regularizer|constraint)$")


class Layer(NamedTuple):
    """One layer.

    Attributes
    ----------
    name : str
        With the names of the models that it is in, joined by underscores.
    kind : str
        Keras's class.
    settings : dict
        Its arguments.
    place : tuple of str
        Names in the file: of the layer itself, after those of the models that it is in.
    path : str
        Where Keras 3 has its weights.
    """

    name: str
    kind: str
    settings: dict[str, Any]
    place: tuple[str, ...]
    path: str


Entries = list[tuple[dict[str, Any], Layer]]


class Settings:
    """The arguments of a layer, each of which has to be asked for or to say nothing.

    Parameters
    ----------
    source : path-like
        For errors.
    name : str
        Of the layer.
    values : dict
    """

    def __init__(self, source: Any, name: str, values: Any) -> None:
        if not isinstance(values, Mapping):
            raise refusal(source, name, f"has the settings {values!r:.80}", "they are no dict")
        self.source, self.name, self.values = source, name, values
        self._left = set(values)

    def value(self, *keys: str, default: Any = None) -> Any:
        """Return what the first of these keys says that is there."""
        self._left -= set(keys)
        return next((self.values[key] for key in keys if key in self.values), default)

    def flag(self, *keys: str, default: bool = False) -> bool:
        """Return True or False; None is False."""
        value = self.value(*keys, default=default)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(keys[0], value, "True or False is needed")
        return bool(value)

    def number(self, *keys: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self.value(*keys, default=default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(keys[0], value, "a number is needed")
        if not abs(value) <= 2**63 or not math.isfinite(value):
            raise self.wrong(keys[0], value, "a finite number is needed")
        return float(value)

    def one_of(self, key: str, allowed: tuple[Any, ...], instead: str) -> Any:
        """Return a value that is one of these; absent, it is the first."""
        value = self.value(key, default=allowed[0])
        if value not in allowed:
            raise self.wrong(key, value, instead)
        return value

    def wrong(self, key: str, value: Any, instead: str) -> ValueError:
        """Return the error of a value that cannot be had."""
        return refusal(self.source, f"layer {self.name}", f"{key} = {value!r:.120}", instead)

    def layer(self, *keys: str) -> tuple[str, Settings]:
        """Return the class and the settings of a layer in this one."""
        entry = self.value(*keys)
        match entry:
            case {"class_name": str(kind), "config": dict(values)} if _of_keras(entry):
                return kind, Settings(self.source, f"{self.name} {keys[0]}", values)
        raise self.wrong(keys[0], entry, "a layer of Keras is needed")

    def with_values(self, **values: Any) -> Settings:
        """Return these settings, some of them others."""
        return Settings(self.source, self.name, {**self.values, **values})

    def joined(self, inner: Settings) -> Settings:
        """Return these settings together with those of a layer in this one."""
        rest = {key: self.values[key] for key in self._left & set(self.values)}
        self._left = set()
        return Settings(self.source, self.name, {**inner.values, **rest})

    def done(self) -> None:
        """Raise if a setting is left that might change the results."""
        for key in sorted(map(str, self._left)):
            value = self.values.get(key)
            if key in SILENT or OF_TRAINING.match(key) or not value:
                continue
            raise self.wrong(key, value, "this setting is not known")


def is_model(config: Any) -> bool:
    """Whether it is the configuration of a model that says which layers there are."""
    return isinstance(config, dict) and config.get("class_name") in MODELS


def in_order(source: Any, config: Any) -> list[Layer]:
    """Return the layers of a model that are one after the other, without its inputs.

    Parameters
    ----------
    source : path-like
        For errors.
    config : dict
        Of a Sequential or functional model, as JSON has it.

    Raises
    ------
    ValueError
        If the model is of another kind, or branches.
    """
    return list(_layers(source, config, Layer("", "", {}, (), ""), _chain))


def flat(source: Any, config: Any) -> list[Layer]:
    """Return all layers of a model, however they are connected."""
    return list(_layers(source, config, Layer("", "", {}, (), ""), _all))


def _layers(source: Any, config: Any, outer: Layer, pick: Any) -> Iterator[Layer]:
    kind, values = _described(source, outer.name or "model", config)
    if kind not in MODELS:
        raise refusal(
            source,
            outer.name or "model",
            f"is a {kind}, whose code the file does not have",
            "only Sequential and functional models are read; or name its LSTM: layers={...}",
        )
    if len(outer.place) > DEPTH:
        raise refusal(source, outer.name, "lies in too many models", "the file is damaged")
    given = values if kind == "Sequential" and isinstance(values, list) else _inner(values)
    if not isinstance(given, list) or not given:
        raise refusal(source, outer.name or "model", "has no list of layers", "nothing to read")
    found: Entries = []
    counts: dict[str, int] = {}
    for entry in given:
        inner, settings = _described(source, outer.name or "model", entry)
        settings = settings if isinstance(settings, dict) else {"layers": settings}
        name = entry.get("name") or settings.get("name") or f"{inner.lower()}_{len(found)}"
        if not isinstance(name, str):
            raise refusal(source, "layer", f"has the name {name!r:.80}", "a text is needed")
        path = snake_case(inner)
        counts[path] = counts.get(path, -1) + 1
        path += f"_{counts[path]}" if counts[path] else ""
        whole = f"{outer.name}_{name}" if outer.name else name
        inside = f"{outer.path}/layers/{path}".removeprefix("/")
        found.append((entry, Layer(whole, inner, settings, (*outer.place, name), inside)))
    names = [layer.place[-1] for _, layer in found]
    if len(set(names)) < len(names):
        raise refusal(source, "layers", f"have the names {names}", "each needs its own")
    chosen = found if kind == "Sequential" else pick(source, values, found)
    for entry, layer in chosen:
        if layer.kind in MODELS:
            yield from _layers(source, entry, layer, pick)
        else:
            yield layer


def _inner(values: Any) -> Any:
    return values.get("layers") if isinstance(values, dict) else None


def _described(source: Any, name: str, entry: Any) -> tuple[str, Any]:
    """Return the class and the settings of a layer or model."""
    kind = entry.get("class_name") if isinstance(entry, dict) else None
    if not isinstance(kind, str) or not isinstance(entry.get("config"), dict | list):
        raise refusal(source, name, f"has an entry {entry!r:.80}", "it describes no layer")
    if not _of_keras(entry):  # a class of somebody else may have the name of one of Keras
        kind = f"{entry.get('module')}.{kind}"
    return kind, entry["config"]


def _of_keras(entry: dict[str, Any]) -> bool:
    """Whether the class that is named is Keras's own, and not somebody's of the same name."""
    package = str(entry.get("module") or "keras").partition(".")[0]
    return package in ("keras", "tf_keras", "tensorflow") and ">" not in str(
        entry.get("registered_name")
    )


def snake_case(kind: str) -> str:
    """Return the name that Keras 3 gives to what a layer of this class stores."""
    kind = re.sub(r"\W+", "", kind)
    kind = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", kind)
    return re.sub("([a-z])([A-Z])", r"\1_\2", kind).lower()


# ---- functional models


def _all(source: Any, values: dict[str, Any], found: Entries) -> Entries:
    return found


def _chain(source: Any, values: dict[str, Any], found: Entries) -> Entries:
    """Return the layers from input to output; raise if there is more than one way."""
    by_name = {layer.place[-1]: (entry, layer) for entry, layer in found}
    _one_end(source, "input_layers", values.get("input_layers"))
    name = _one_end(source, "output_layers", values.get("output_layers"))
    chain: Entries = []
    masks: set[str] = set()
    while True:
        if name not in by_name or len(chain) > len(found):
            raise refusal(source, f"layer {name}", "is not there, or in a circle", "damaged")
        entry, layer = by_name.pop(name)
        chain.append((entry, layer))
        if layer.kind == "InputLayer":
            break
        name, mask = _input_of(source, layer, entry.get("inbound_nodes"))
        if mask is not None:
            masks |= _padding_mask(source, layer, mask, found)
    rest = sorted(set(by_name) - masks)
    if rest:
        raise refusal(source, "model", f"has branches: {rest}", BRANCHES)
    return chain[::-1]


BRANCHES = "only layers one after the other are read; layers=[...] takes some of them, in order"


def _one_end(source: Any, what: str, ends: Any) -> str:
    """Return the name of the only input or output of a model."""
    if isinstance(ends, list) and len(ends) == 1 and isinstance(ends[0], list):
        ends = ends[0]
    match ends:
        case [str(name), int(), 0]:
            return name
    raise refusal(source, what, f"{ends!r:.200}", f"one is needed; {BRANCHES}")


def _input_of(source: Any, layer: Layer, nodes: Any) -> tuple[str, Any]:
    """Return the name of the layer before, and the tensor that is the mask, or None."""
    arguments: Any = {}
    match nodes:
        case [[[str(name), int(), 0, dict() as arguments]]]:  # Keras 2
            pass
        case [[[str(name), int(), 0]]]:  # Keras 1
            pass
        case [{"args": [tensor], "kwargs": dict() as arguments}]:  # Keras 3
            name = _origin(tensor)
        case _:
            name = ""
    if not name:
        raise refusal(
            source, f"layer {layer.name}", f"is called with {nodes!r:.200}", f"{BRANCHES}"
        )
    mask = arguments.get("mask")
    others = {key: value for key, value in arguments.items() if key != "mask" and value}
    if others:
        raise refusal(
            source,
            f"layer {layer.name}",
            f"is called with {others!r:.200}",
            "only one input is read: states are passed to the call",
        )
    return name, mask


def _origin(tensor: Any) -> str:
    """Return the name of the layer that a tensor of Keras 3 comes from, or ""."""
    match tensor:
        case {"class_name": "__keras_tensor__", "config": {"keras_history": [str(name), _, 0]}}:
            return name
    return ""


def _padding_mask(source: Any, layer: Layer, mask: Any, found: Entries) -> set[str]:
    """Return the operators of a mask that an Embedding or Masking makes of its own input."""
    operators = {one.place[-1]: (entry, one) for entry, one in found}
    names: set[str] = set()
    while len(names) < 3:
        entry, operator = operators.get(_origin(mask), ({}, layer))
        names.add(operator.place[-1])
        match operator.kind, entry.get("inbound_nodes"):
            case "Any", [{"args": [mask]}]:
                continue
            case "NotEqual", [{"args": [tensor, int() | float() as padding]}]:
                for other, maker in found:
                    match maker.kind, other.get("inbound_nodes"):
                        case "Embedding", [{"args": [given]}]:
                            value = 0 if maker.settings.get("mask_zero") else None
                        case "Masking", [{"args": [given]}]:
                            value = maker.settings.get("mask_value", 0.0)
                        case _:
                            continue
                    if _origin(given) == _origin(tensor) != "" and value == padding:
                        return names
        break
    raise refusal(
        source,
        f"layer {layer.name}",
        f"has a mask from {_origin(mask)}",
        "only those of Embedding and Masking are read",
    )
