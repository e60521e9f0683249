"""Models of Keras, from its files, without Keras."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...engine import Array
from ...network.block import Block
from .. import cells
from ..reports import Found, Verify, refusal, verified
from . import bare as keras_bare
from . import config as keras_config
from .config import Layer
from .files import KerasFile, open_keras
from .layers import Builder

__all__ = ["from_keras", "inspect"]

# Blocks by Keras's classes.
BLOCKS = {
    **dict.fromkeys(("LSTM", "CuDNNLSTM", "Bidirectional"), "LSTM"),
    **dict.fromkeys(("ReLU", "LeakyReLU", "ELU", "ThresholdedReLU"), "Activation"),
    **dict.fromkeys(("GlobalAveragePooling1D", "GlobalMaxPooling1D"), "Pool"),
    **dict.fromkeys(("Dense", "BatchNormalization"), "Linear"),
    "LayerNormalization": "LayerNorm",
}


def from_keras(
    path: str | os.PathLike[str],
    *,
    layers: Iterable[str] | Mapping[str, Mapping[str, Any]] | None = None,
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    verify: Verify = None,
) -> Block:
    """Read a model that Keras saved: ``.keras``, ``.h5`` of Keras 1 to 3, or ``.weights.h5``.

    Read are Sequential and functional models whose layers are one after the other: LSTM (also
    CuDNNLSTM, and RNN of an LSTMCell or of StackedRNNCells), Bidirectional, Dense, TimeDistributed,
    Embedding, LayerNormalization, BatchNormalization, Dropout, activations, GlobalAveragePooling1D,
    GlobalMaxPooling1D, Flatten and Masking. Blocks have the names of Keras's layers; those of a
    model in the model have its name and an underscore before. A layer without ``return_sequences``
    is followed by `nn.Last`. Everything is batch first, but for layers with ``time_major``.

    What a call does differently:

    - ``mask_zero`` and Masking become nothing: pass the `lengths` of sequences that end in
      padding. Outputs after the end are 0 then, where Keras may repeat the last one. Padding
      before a sequence, or in it, is to be moved behind it; or pass the `mask` to the LSTM itself.
    - A stateful layer begins from zeros, too: pass the state that the call before returned.
    - The dropout of LSTMs acts on the input and h(t-1) of all steps alike; noise and other
      dropout layers are left out.
    - BatchNormalization becomes a `Linear` with what it computes in inference; so does the sum or
      mean of both directions where a Bidirectional has no ``return_sequences``.
    - Numbers of 16 bits, and layers that compute with such, become float32.

    Parameters
    ----------
    path : path-like
        The file.
    layers : sequence of str, or mapping of str to dict, optional
        Only these layers, one after the other in this order, however the model connects them. Of a
        file without a configuration a mapping from names to what Keras's ``get_config`` would say,
        as ``{"lstm": {"activation": "relu"}, "dense": {"activation": "softmax"}}``; what it does
        not say is Keras's default, but LSTMs return all outputs. With ``"class_name"`` it names
        the class of a layer, also of one that has no arrays. The names are in `inspect`.
    config : dict or path-like, optional
        What ``model.to_json()`` returned, or a file of it, for a file without a configuration.
    verify : (x, y) or True, optional
        Compare with this output; or with that of Keras, which has to be installed.

    Returns
    -------
    LSTM or Sequential
        Or another block, if the model is only that.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged, or has something that no block computes, or if results differ.
    ImportError
        If h5py is not installed, or Keras to verify.

    Examples
    --------
    >>> model = from_keras("sentiment.keras")  # doctest: +SKIP
    >>> y, _ = model(x, lengths=lengths)  # doctest: +SKIP
    """
    if isinstance(layers, str):
        raise TypeError("layers: expected names in a list, got a str")
    layers = layers if layers is None or isinstance(layers, Mapping) else list(layers)
    with open_keras(path, config) as file:
        taken = _taken(file, layers)
        found = [file.arrays_of(layer) for layer in taken]
        stored = {file.tree.arrays[one.path].dtype for ones in found for one in ones}
        dtype = np.float64 if stored & {"float64", ">f8"} else np.float32
        builder = Builder(path, file.version, dtype, not _time_major(path, taken))
        for layer, ones in zip(taken, found, strict=True):
            builder.add(layer, file.read(ones), [one.name for one in ones])
        whole = layers is None and config is None and file.config is not None
    if not builder.parts:
        raise refusal(path, "model", "has no layer that computes something", "nothing to read")
    return verified(cells.chain(path, builder.parts), verify, lambda: _run(path, whole))


def _taken(file: KerasFile, layers: Any) -> list[Layer]:
    """Return the layers to read, in order."""
    own_class = isinstance(layers, Mapping) and not keras_config.is_model(file.config)
    if file.config is None or own_class:
        return keras_bare.chosen(file, layers)
    if layers is None:
        return keras_config.in_order(file.source, file.config)
    if isinstance(layers, Mapping):
        raise refusal(
            file.source, "layers", "have their settings in the file", "a list of names is needed"
        )
    by_name = {layer.name: layer for layer in keras_config.flat(file.source, file.config)}
    missing = [name for name in layers if name not in by_name]
    if missing:
        raise refusal(file.source, "layers", f"{missing} are not there", f"there are {[*by_name]}")
    return [by_name[name] for name in layers]


def _time_major(path: Any, layers: list[Layer]) -> bool:
    """Return whether T comes before B, which all LSTMs have to agree about."""
    found = set()
    for layer in layers:
        values = layer.settings.get("layer", {})
        values = values.get("config", {}) if isinstance(values, dict) else {}
        if layer.kind in ("LSTM", "CuDNNLSTM", "RNN", "Bidirectional"):
            settings = values if layer.kind == "Bidirectional" else layer.settings
            found.add(bool(settings.get("time_major")) if isinstance(settings, dict) else False)
    if len(found) > 1:
        raise refusal(path, "time_major", "is set for some layers only", "all need the same")
    return found == {True}


def _run(path: Any, whole: bool) -> tuple[Array, Array]:
    """Return an input and what Keras computes of it."""
    if not whole:
        raise ValueError("verify: Keras can load whole models only; pass (x, y)")
    try:
        import keras
    except ImportError as error:
        raise ImportError(
            f"verify=True runs Keras and a back-end of it: pip install keras jax ({error})"
        ) from None
    try:
        model = keras.saving.load_model(path, compile=False)
    except (ValueError, TypeError) as error:
        words = str(error).partition("\n")[0]
        raise ValueError(f"verify: Keras cannot load it ({words}); pass (x, y)") from error
    shape = [n or default for n, default in zip(model.inputs[0].shape, (2, 7, 1), strict=False)]
    rng = np.random.default_rng(0)
    x: npt.NDArray[Any] = rng.standard_normal(shape).astype(np.float32)
    first = next((layer for layer in model.layers if hasattr(layer, "input_dim")), None)
    if len(shape) == 2 and first is not None:
        x = rng.integers(min(1, first.input_dim - 1), first.input_dim, shape)  # 0 may be a mask
    return x, np.asarray(model.predict_on_batch(x))  # of a tensor of any back-end


def inspect(path: str | os.PathLike[str]) -> list[Found]:
    """Return what is in a file of Keras, whether or not `from_keras` reads it.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    list of Found
        A row for each layer that has arrays or that a model names.

    Raises
    ------
    FileNotFoundError, ValueError, ImportError
        As `from_keras`, but for what is damaged only.
    """
    with open_keras(path, None) as file:
        if keras_config.is_model(file.config):
            layers = keras_config.flat(path, file.config)
        else:
            layers = keras_bare.bare_layers(file)
        return [_row(file, layer) for layer in layers if layer.kind != "InputLayer"]


def _row(file: KerasFile, layer: Layer) -> Found:
    kind, inner = layer.kind, layer.settings.get({"RNN": "cell"}.get(layer.kind, "layer"))
    if kind in ("TimeDistributed", "RNN") and isinstance(inner, dict):
        kind = str(inner.get("class_name")).removesuffix("Cell").replace("StackedRNNCells", "LSTM")
    try:
        arrays = [file.tree.arrays[one.path] for one in file.arrays_of(layer)]
    except ValueError:  # an operator of a functional model, or a class that is not known
        arrays = []
    shapes = [array.shape for array in arrays]
    matrices = [shape for shape in shapes if len(shape) == 2]
    sizes = " -> ".join(map(str, matrices[0])) if matrices else ""
    if BLOCKS.get(kind) == "LSTM" and matrices and matrices[0][1] % 4 == 0:
        rows = [matrices[0][0], *(one[0] for one in matrices[1::2])]
        sizes = " -> ".join(map(str, rows if layer.kind == "RNN" else rows[:2]))
    return Found(
        layer.name,
        BLOCKS.get(kind, kind or "unknown"),
        sizes,
        _options(layer),
        ", ".join(sorted({array.dtype for array in arrays})),
        sum(int(np.prod(shape, dtype=object)) for shape in shapes),
    )


# Settings of a layer that are worth a word, where they are not as here.
USUAL = {
    "activation": ("tanh", "linear", None),
    "recurrent_activation": ("sigmoid", None),
    "use_bias": (True, None),
    "return_sequences": (True, None),
    "go_backwards": (False, None),
    "stateful": (False, None),
    "time_major": (False, None),
    "mask_zero": (False, None),
    "rate": (None,),
    "dropout": (0, None),
    "recurrent_dropout": (0, None),
}


def _options(layer: Layer) -> str:
    values, words = layer.settings, []
    if layer.kind == "Bidirectional":
        words.append(f"bidirectional, {values.get('merge_mode', 'concat')}")
    inner = values.get("layer")
    if isinstance(inner, dict) and isinstance(inner.get("config"), dict):
        values = inner["config"]
    for key, usual in USUAL.items():
        value = values.get(key)
        if isinstance(value, bool | int | float | str | None) and value not in usual:
            words.append(f"{key}={value}")
    if layer.kind == "Masking" or values.get("mask_zero"):
        words.append("pass lengths")
    return ", ".join(words)
