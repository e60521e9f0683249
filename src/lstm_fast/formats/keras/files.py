"""Files of Keras: what they say of the model, and the arrays of each layer.

A .keras file is a zip of config.json, metadata.json and model.weights.h5. In .h5 files of Keras 1
and 2 arrays have names, and the configuration is an attribute, or missing. In .weights.h5 files of
Keras 3 arrays have numbers, and there is no configuration.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

from ...engine import Array
from ..reports import refusal
from .config import Layer
from .hdf5 import SPARE, Tree

__all__ = ["KerasFile", "Place", "config_of", "open_keras"]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
LARGEST_CONFIG = 2**21  # bytes, of which Python may make twenty times as many
BROKEN_ZIP = (
    *(zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError),
    *(ValueError, KeyError, IndexError, OverflowError, MemoryError),
)
# Where Keras 3 has the arrays of a layer, within its group; else in the group itself.
INSIDE = {
    "LSTM": ("cell",),
    "RNN": ("cell",),
    "Bidirectional": ("forward_layer/cell", "backward_layer/cell"),
    "TimeDistributed": ("layer",),
}


class Place(NamedTuple):
    """Where one array is, and its name in the file, if Keras gives it one."""

    name: str
    path: str


class KerasFile:
    """An open file.

    Attributes
    ----------
    source : path-like
    config : dict or None
        Of the model.
    version : tuple of int, or None
        Of the Keras that wrote it, where the file says so.
    tree : Tree
    numbered : bool
        Whether arrays have numbers, as in Keras 3.
    names : list of str
        Of the layers, in the order of the file; none where arrays have numbers.
    """

    def __init__(self, source: Any, tree: Tree, config: Any, version: str | None) -> None:
        self.source, self.tree, self.config = source, tree, config
        self._root = "model_weights" if "model_weights" in tree.groups else ""
        names = tree.texts(self._root, "layer_names")
        self.names, self.numbered = names or [], names is None
        if not self.numbered:
            version = version or tree.text("", "keras_version")
            version = version or tree.text(self._root, "keras_version") or "1"
        numbers = re.match(r"(\d{1,4})(?:\.(\d{1,4}))?", version or "")
        self.version = (int(numbers[1]), int(numbers[2] or 0)) if numbers else None

    def __enter__(self) -> KerasFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.tree.close()

    def arrays_of(self, layer: Layer) -> list[Place]:
        """Return where the arrays of a layer are, in Keras's order."""
        if not layer.place or layer.kind == "InputLayer":  # without a place it is the user's
            return []
        if not self.numbered:
            return self._by_name(layer)
        found = []
        for inside in _inside(layer):
            path = "/".join(filter(None, [layer.path, inside, "vars"]))
            if path not in self.tree.groups:  # tf.keras 2.12
                path = path.replace("layers/", "_layer_checkpoint_dependencies/")
            numbers = sorted(self.tree.groups.get(path, []), key=lambda name: (len(name), name))
            if numbers != [str(n) for n in range(len(numbers))]:
                raise refusal(self.source, path, f"has arrays {numbers}", "numbers are missing")
            found += [Place("", f"{path}/{n}") for n in numbers]
        return self._present(found)

    def _by_name(self, layer: Layer) -> list[Place]:
        outer = layer.place[0]
        if outer not in (self.names):
            raise refusal(self.source, f"layer {layer.name}", "has no arrays", "another file?")
        group = f"{self._root}/{outer}".removeprefix("/")
        names = self.tree.texts(group, "weight_names") or []
        if len(layer.place) > 1:  # the group has all arrays of the outermost model
            own = re.compile(rf"(^|/){re.escape(layer.place[-1])}(/|_[WUb](_|:|$))")
            names = [name for name in names if own.search(name)]
        if len(set(names)) < len(names):
            raise refusal(self.source, group, f"names {names}", "each array needs its own name")
        return self._present([Place(name, f"{group}/{name}") for name in names])

    def _present(self, found: list[Place]) -> list[Place]:
        for one in found:
            if one.path not in self.tree.arrays:
                raise refusal(self.source, one.path, "is not there", "the file is damaged")
        return found

    def read(self, found: list[Place]) -> list[Array]:
        """Return arrays."""
        return [self.tree.array(one.path) for one in found]


def _inside(layer: Layer) -> tuple[str, ...]:
    """Return where Keras 3 has the arrays of a layer, within its group."""
    match layer.settings.get("cell"):
        case {"class_name": "StackedRNNCells", "config": {"cells": list(cells)}}:
            ends = ("", *(f"_{n}" for n in range(1, len(cells))))
            return tuple(f"cell/cells/lstm_cell{end}" for end in ends)
    return INSIDE.get(layer.kind, ("",))


def open_keras(path: str | os.PathLike[str], config: Any) -> KerasFile:
    """Open a file, whatever its name.

    Parameters
    ----------
    path : path-like
        The file.
    config : dict, str, path-like or None
        The model's configuration, where the file has none.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of another kind, damaged or contradicts itself.
    ImportError
        If the package h5py is not installed.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"path: there is no file {os.fspath(path)}")
    if not Path(path).is_file():
        raise refusal(path, "path", "is a folder", "save the model as one file, model.keras")
    if not Path(path).stat().st_size:
        raise refusal(path, "file", "is empty", "nothing to read")
    given, version = (None, None) if config is None else _given(config)
    with open(path, "rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        zipped = data[:4] == b"PK\3\4"
        found, own, weights = _unzipped(path, len(data)) if zipped else (None, None, data)
        tree = Tree(path, weights)
    try:
        text = None if zipped else tree.text("", "model_config")
        found = found if text is None else config_of(path, text)
        if found is not None and given is not None:
            raise refusal(path, "config", "stands in the file", "call without config=")
        return KerasFile(path, tree, found if given is None else given, own or version)
    except BaseException:
        tree.close()
        raise


def _given(config: Any) -> tuple[Any, str | None]:
    """Return a configuration that the user has: a dict, or a file that `to_json` wrote."""
    if isinstance(config, str | os.PathLike):
        text = Path(config).read_bytes()
        try:
            config = config_of(config, text.decode())
        except UnicodeDecodeError:
            raise refusal(config, "config", "is no text", "what to_json() returns") from None
    if not isinstance(config, Mapping):
        raise TypeError(f"config: expected a dict or a path, got {type(config).__name__}")
    version = config.get("keras_version")
    return config, version if isinstance(version, str) else None


def config_of(source: Any, text: str) -> Any:
    """Return a configuration from JSON, without keys that stand twice."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            raise ValueError("a key stands twice")
        return found

    if len(text) > LARGEST_CONFIG:
        raise refusal(source, "configuration", f"has {len(text)} characters", "damaged, or a trap")
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise refusal(source, "configuration", f"is no JSON ({error})", "damaged") from None


def _unzipped(path: Any, size: int) -> tuple[Any, str | None, bytes]:
    """Return the configuration, the version and the weights of a .keras file."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            names = [part.filename for part in parts]
            odd = [n for n in names if n.startswith(("/", "\\")) or ".." in n or ":" in n]
            if odd or len(set(names)) < len(names):
                raise refusal(path, "zip", f"has the names {odd or names}", "damaged, or a trap")
            for name in (CONFIG, WEIGHTS):
                if name not in names:
                    raise refusal(path, name, "is not in the zip", "is this a file of Keras?")
            by_name = dict(zip(names, parts, strict=True))
            config = _member(path, archive, by_name[CONFIG], LARGEST_CONFIG)
            weights = _member(path, archive, by_name[WEIGHTS], size + SPARE)
            about = b"{}"
            if METADATA in names:
                about = _member(path, archive, by_name[METADATA], 2**16)
        metadata = config_of(path, about.decode())
        version = metadata.get("keras_version") if isinstance(metadata, dict) else None
        return (
            config_of(path, config.decode()),
            version if isinstance(version, str) else None,
            weights,
        )
    except BROKEN_ZIP as error:
        if isinstance(error, ValueError) and str(error).startswith(os.fspath(path)):
            raise
        raise refusal(path, "zip", f"cannot be read ({error})", "the file is damaged") from None


def _member(path: Any, archive: zipfile.ZipFile, part: zipfile.ZipInfo, most: int) -> bytes:
    if part.file_size > most:
        raise refusal(
            path, part.filename, f"would be {part.file_size} bytes", "damaged, or a zip bomb"
        )
    with archive.open(part) as file:
        data = file.read(most + 1)
    if len(data) != part.file_size:
        raise refusal(path, part.filename, f"has {len(data)} bytes", "the file is damaged")
    return data
