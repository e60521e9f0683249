"""Layers and directions, forward and backward, and the noise of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from . import checks, layer
from .functions import Array, Bools, concatenate, hold, hold_backward, pad

__all__ = ["Cache", "Noise", "draw_noise", "network_backward", "network_forward"]

States = tuple[list[Array], list[Array]]


class Noise(NamedTuple):
    """What makes training differ from inference; each may be None, as may the masks of a layer."""

    input_masks: Sequence[Array | None] | None = None  # D of each layer, (T or 1, B, columns)
    recurrent_masks: Sequence[Array] | None = None  # of each layer and direction, (B, R)
    zoneouts: Sequence[tuple[float | Array, float | Array]] | None = None  # the same: (z_h, z_c)


class Cache(NamedTuple):
    """What `network_backward` needs from `network_forward`."""

    layers: list[list[layer.Cache]]  # of every direction in every layer
    outputs: list[list[Array]]  # z of these
    names: list[list[dict[str, str]]]  # of parameters, by those of `layer`
    runs: Bools  # (T, B)
    merge: str
    residual: bool
    hold: bool
    input_masks: list[Any]
    concatenated: npt.NDArray[np.intp] | None  # lengths of sequences without padding


def network_forward(
    x: Array | tuple[Array, npt.ArrayLike],
    parameters: Mapping[str, Array],
    h0: Sequence[Array] | Array | None = None,
    c0: Sequence[Array] | Array | None = None,
    *,
    reverse: bool = False,
    merge: Literal["concat", "sum", "mul", "ave"] = "concat",
    residual: bool = False,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    padding: Literal["zero", "hold"] = "zero",
    noise: Noise | None = None,
    **options: Any,
) -> tuple[Array, States, Cache]:
    """Run layers of one or two directions; the equations are those of `reference`.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (T, B, I)
        Input. Or (concatenated, offsets): sequences one after the other, shape (steps of all, I),
        of which number b has the rows from offsets[b] to offsets[b+1]; so has ``y`` then.
    parameters : mapping of str to ndarray
        As ``LSTM.state_dict()`` has them, layer by layer, direction by direction: "weight_ih_l0"
        is ``w_ih`` of the first layer, "bias_hh_l1_reverse" ``b_hh`` of the second one's second
        direction. They say how many layers and directions there are, and how large. Options in
        ``lstm_options`` are not read: they are arguments here.
    h0, c0 : sequences of ndarray, shapes (B, R) and (B, H), optional
        Initial states of every layer and direction, in the order of the parameters.
    reverse : bool, default False
        The one direction runs from t = T-1 to 0.
    merge : {"concat", "sum", "mul", "ave"}
        What becomes of the outputs of two directions.
    residual : bool, default False
        Each layer but the first adds its input.
    lengths, mask, padding
        As of a layer.
    noise : Noise, optional
        Of training, from `draw_noise`. In inference only zoneouts matter: probabilities.
    **options
        ``coupled``, ``clip``, ``cell_clip``, ``activations`` of `lstm_forward`, for every layer.

    Returns
    -------
    y : ndarray, shape (T, B, D R), or (T, B, R) where two directions become one, or as ``x``
    (hn, cn) : tuple of list of ndarray, in the order of ``h0`` and ``c0``
    cache : Cache
        For `network_backward`.

    Raises
    ------
    TypeError, ValueError
        As of `lstm_forward`; and if there is not one state, mask or zoneout for each layer and
        direction, if ``merge`` is unknown, ``reverse`` is true of two directions, ``offsets`` do
        not ascend from 0 to the number of rows, or come with ``lengths`` or ``mask``.
    """
    concatenated = None
    if isinstance(x, tuple):
        if lengths is not None or mask is not None:
            raise ValueError("(concatenated, offsets) has its lengths: no others, and no mask")
        x, offsets = x
        lengths = concatenated = np.diff(checks.offsets(offsets, len(x)))
        x = pad(x, concatenated)
    if merge not in ("concat", "sum", "mul", "ave"):
        raise ValueError(f"merge must be concat, sum, mul or ave, got {merge!r}")
    names = _names(parameters)
    L, D = len(names), len(names[0])
    if reverse and D == 2:
        raise ValueError("reverse is for one direction, and there are two")
    noise = noise or Noise()
    input_masks = checks.each("input_masks", noise.input_masks, L)
    given: dict[str, Any] = {
        "h0": h0,
        "c0": c0,
        "recurrent_mask": noise.recurrent_masks,
        "zoneout": noise.zoneouts,
    }
    of_cells = {name: checks.each(name, values, L * D) for name, values in given.items()}

    caches: list[list[layer.Cache]] = []
    outputs: list[list[Array]] = []
    hn, cn = [], []
    y = x
    for number in range(L):
        below, dropped = y, input_masks[number]
        caches.append([])
        outputs.append([])
        for d in range(D):
            weights: dict[str, Any] = {k: parameters[name] for k, name in names[number][d].items()}
            z, (h, c), cache = layer.lstm_forward(
                below if dropped is None else below * dropped,
                **weights,
                **{name: values[number * D + d] for name, values in of_cells.items()},
                **options,
                reverse=reverse or d == 1,
                lengths=lengths,
                mask=mask,
            )
            caches[-1].append(cache)
            outputs[-1].append(z)
            hn.append(h)
            cn.append(c)
        y = _merge(merge, outputs[-1])
        if residual and number > 0:
            y = y + below

    runs = checks.runs(lengths, mask, *x.shape[:2])
    if padding not in ("zero", "hold"):
        raise ValueError(f"padding must be 'zero' or 'hold', got {padding!r}")
    holds = padding == "hold"
    if holds:
        hold(y, runs)
    if concatenated is not None:
        y = concatenate(y, concatenated)
    kept = Cache(*(caches, outputs, names, runs, merge, residual, holds, input_masks), concatenated)
    return y, (hn, cn), kept


def network_backward(
    dy: Array | None,
    dhn: Sequence[Array] | Array | None,
    dcn: Sequence[Array] | Array | None,
    cache: Cache,
) -> tuple[Array, States, dict[str, Array]]:
    """Differentiate `network_forward`.

    Parameters
    ----------
    dy : ndarray, shape of ``y``, or None
        Gradient of the loss with respect to ``y``; None means zero, here and below.
    dhn, dcn : sequences of ndarray, or None
        Gradients with respect to ``hn`` and ``cn``.
    cache : Cache
        From `network_forward`; left unchanged.

    Returns
    -------
    dx : ndarray, shape of ``x``
    (dh0, dc0) : tuple of list of ndarray, in the order of ``h0`` and ``c0``
    grads : dict of str to ndarray
        Gradients of the parameters, by their names.

    Raises
    ------
    TypeError, ValueError
        As in `network_forward`.
    """
    L, D = len(cache.layers), len(cache.layers[0])
    dhn = checks.each("dhn", dhn, L * D)
    dcn = checks.each("dcn", dcn, L * D)
    example = _merge(cache.merge, cache.outputs[-1])
    if cache.concatenated is not None and dy is not None:
        dy = pad(dy, cache.concatenated)
    dy = checks.copy_or_zeros("dy", dy, example.shape, example.dtype)
    if cache.hold:
        hold_backward(dy, cache.runs)

    dh0: list[Any] = [None] * (L * D)
    dc0: list[Any] = [None] * (L * D)
    found: dict[str, Array] = {}
    for number in reversed(range(L)):
        residual = cache.residual and number > 0
        dz = _merge_backward(cache.merge, cache.outputs[number], dy)
        dbelow: Any = 0
        for d in range(D):
            n = number * D + d
            part, (dh0[n], dc0[n]), grads = layer.lstm_backward(
                dz[d], dhn[n], dcn[n], cache.layers[number][d]
            )
            dbelow = dbelow + part
            found |= {cache.names[number][d][short]: grad for short, grad in grads.items()}
        if cache.input_masks[number] is not None:
            dbelow = dbelow * cache.input_masks[number]
        dy = dbelow + dy if residual else dbelow
    if cache.concatenated is not None:
        dy = concatenate(dy, cache.concatenated)
    ordered = {
        name: found[name] for each in cache.names for names in each for name in names.values()
    }
    return dy, (dh0, dc0), ordered


def draw_noise(
    rng: np.random.Generator,
    x: Array,
    parameters: Mapping[str, Array],
    *,
    dropout: float = 0.0,
    variational_dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    zoneout: tuple[float, float] | None = None,
) -> Noise:
    """Draw what `network_forward` takes in training.

    The order is that of ``LSTM.forward``, so that the same generator gives the same masks, unless
    there are lengths or a mask.

    Parameters
    ----------
    rng : Generator
        Source of random numbers.
    x, parameters
        As of `network_forward`.
    dropout : float, default 0
        Probability with which an input of a layer, but not of the first, is zero.
    variational_dropout : float, default 0
        The same for an input of each layer at all time steps alike.
    recurrent_dropout : float, default 0
        The same for an element of h[t-1] in the recurrent product.
    zoneout : (float, float), optional
        Probabilities with which an element of h and of c keeps its value at a step.

    Returns
    -------
    noise : Noise
    """
    T, B, _ = x.shape
    names = _names(parameters)

    def mask(rate: float, *shape: int) -> Array:
        kept = rng.random(shape, np.float32) >= rate
        return (kept / (1 - rate if rate < 1 else 1.0)).astype(x.dtype)

    recurrent_masks, zoneouts = [], []
    for of_cell in (of_cell for of_directions in names for of_cell in of_directions):
        rows, R = parameters[of_cell["w_hh"]].shape
        if recurrent_dropout:
            recurrent_masks.append(mask(recurrent_dropout, B, R))
        if zoneout is not None:
            z_h, z_c = (rng.random((T, B, rows // 4), np.float32) < rate for rate in zoneout)
            zoneouts.append((z_h.astype(x.dtype), z_c.astype(x.dtype)))

    input_masks: list[Array | None] = []
    for number, of_directions in enumerate(names):
        columns = parameters[of_directions[0]["w_ih"]].shape[1]
        masks = []
        if dropout and number > 0:
            masks.append(mask(dropout, T, B, columns))
        if variational_dropout:
            masks.append(mask(variational_dropout, 1, B, columns))
        input_masks.append(np.prod(np.broadcast_arrays(*masks), axis=0) if masks else None)
    return Noise(input_masks, recurrent_masks or None, zoneouts or None)


def _names(parameters: Mapping[str, Array]) -> list[list[dict[str, str]]]:
    """Return names in ``parameters`` by name in `lstm_forward`, for each layer and direction."""
    cells: dict[tuple[str, bool], dict[str, str]] = {}
    for name in parameters:
        if name == "lstm_options":  # no parameter: they are arguments here
            continue
        kind, _, end = name.removesuffix("_reverse").rpartition("_")
        short = kind.replace("weight", "w").replace("bias", "b")
        cells.setdefault((end, name.endswith("_reverse")), {})[short] = name
    layers: dict[str, list[dict[str, str]]] = {}
    for (end, _), names in cells.items():
        layers.setdefault(end, []).append(names)
    if not layers:
        raise ValueError("parameters must be those of one layer or more, got none")
    return list(layers.values())


def _merge(merge: str, z: list[Array]) -> Array:
    """Return the output of a layer from those of its directions."""
    if len(z) == 1:
        return z[0]
    if merge == "concat":
        return np.concatenate(z, axis=2)
    if merge == "mul":
        return z[0] * z[1]
    return z[0] + z[1] if merge == "sum" else (z[0] + z[1]) / 2


def _merge_backward(merge: str, z: list[Array], dy: Array) -> list[Array]:
    """Return the gradients of what `_merge` was given."""
    if len(z) == 1:
        return [dy]
    if merge == "concat":
        return np.split(dy, 2, axis=2)
    if merge == "mul":
        return [dy * z[1], dy * z[0]]
    return [dy, dy] if merge == "sum" else [dy / 2, dy / 2]
