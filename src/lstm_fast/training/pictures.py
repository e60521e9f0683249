"""Pictures of a training, and of what goes on in an LSTM. They need matplotlib (extra ``plot``)."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import numpy as np

from ..engine import Array
from ..lstm import LSTM
from ..network import checks, options

__all__ = ["gates", "gradient_norms", "learning_curve"]

DPI = 150
# What a plain LSTM has, of which alone `gates` knows the equations.
PLAIN: dict[str, Any] = {
    "bidirectional": False,
    "reverse": False,
    "proj_size": 0,
    "peephole": False,
    "coupled": False,
    "clip": None,
    "cell_clip": None,
    "activations": tuple(options.PLAIN),
    "layer_norm": False,
    "residual": False,
}


def _figure(width: float, height: float) -> Any:
    try:
        figure = import_module("matplotlib.figure").Figure
    except ImportError as error:
        raise ImportError(
            "pictures need matplotlib, which comes with: pip install 'lstm_fast[plot]'"
        ) from error
    return figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)


def _written(axes: Any, path: Any) -> Any:
    if path is not None:
        first = axes.flat[0] if isinstance(axes, np.ndarray) else axes
        first.figure.savefig(path)
    return axes


def learning_curve(history: Any, path: Any = None) -> Any:
    """Draw the losses of a training over its updates.

    Parameters
    ----------
    history : History
        The loss of each update is drawn pale, its mean over each epoch and the validation loss
        after it as lines, and the best epoch is marked.
    path : path, optional
        File to write.

    Returns
    -------
    axes : matplotlib.axes.Axes
    """
    axes = _figure(7, 4).subplots()
    loss, steps, validation = history.loss, history.steps, history.validation
    axes.plot(np.arange(1, len(loss) + 1), loss, color="tab:blue", alpha=0.25, lw=0.8)
    means = [part.mean() if part.size else np.nan for part in np.split(loss, steps)[: len(steps)]]
    style = {"marker": "o", "ms": 3.5, "lw": 1.6}
    middles = np.diff(steps, prepend=0) / -2 + steps
    axes.plot(middles, means, color="tab:blue", label="training, mean of each epoch", **style)
    if history.best is not None:
        axes.plot(steps, validation, color="tab:orange", label="validation", **style)
        best = history.best
        axes.plot(
            *([steps[best.epoch]], [best.validation]),
            **{"ls": "", "marker": "o", "ms": 9, "mfc": "none", "mec": "tab:orange"},
            clip_on=False,
            label=f"best: {best.validation:.4g} after epoch {best.epoch + 1}",
        )
    shown = loss[np.isfinite(loss)]
    if shown.size and shown.min() > 0 and shown.max() > 20 * shown.min():
        axes.set_yscale("log")
    axes.set(xlabel="update", ylabel="loss", title="Learning curve", xlim=(0, max(len(loss), 1)))
    _tidy(axes)
    axes.legend(framealpha=0.85, edgecolor="none")
    return _written(axes, path)


# ---- gates


def _check_lstm(given: Any) -> None:
    if not isinstance(given, LSTM):
        found = type(given).__name__
        raise TypeError(f'lstm: expected an LSTM, got {found}; of a model take model["lstm"]')


def gates(lstm: LSTM, x: Array, path: Any = None, *, layer: int = 0) -> Any:
    """Draw what the gates and the cells of an LSTM do over one sequence.

    Parameters
    ----------
    lstm : LSTM
        A plain one: one direction, no projection, no variant of the cell.
    x : ndarray, shape (T, I)
        The sequence.
    path : path, optional
        File to write.
    layer : int
        Whose cells.

    Returns
    -------
    axes : ndarray of matplotlib.axes.Axes, shape (4,)
        Of i, f, o and c: a row for each unit, a column for each step. The units are in the order of
        their mean forget gates, those that keep longest at the top.
    """
    _check_lstm(lstm)
    layer = checks.integer("layer", layer, 0)
    if layer >= lstm.num_layers:
        raise ValueError(f"layer: expected at most {lstm.num_layers - 1}, got {layer}")
    wrong = [name for name, value in PLAIN.items() if getattr(lstm, name) != value]
    if wrong:
        raise ValueError(f"lstm: expected a plain one, got {', '.join(wrong)}")
    given = checks.real("x", x, lstm.dtype)
    if given.ndim != 2 or given.shape[1] != lstm.input_size or not len(given):
        raise ValueError(
            f"x: expected shape (T, I) = (T, {lstm.input_size}), T > 0, got {given.shape}"
        )
    weights = lstm.state_dict()
    rows: Array = given.astype(np.float64)
    for number in range(layer + 1):
        values = _cells(rows, weights, f"_l{number}")
        rows = values.pop("h")
    order = np.argsort(-values["f"].mean(axis=0), kind="stable")
    figure = _figure(8, 8)
    axes = figure.subplots(4, 1, sharex=True, sharey=True)
    title = f"Gates and cells of layer {layer}; units by their mean forget gate"
    figure.suptitle(title, fontsize="large")
    names = {"i": "input gate i", "f": "forget gate f", "o": "output gate o", "c": "cell state c"}
    for axis, (name, text) in zip(axes, names.items(), strict=True):
        value = values[name][:, order].T
        limit = max(float(np.abs(value).max()), 1e-3)
        colours = ("RdBu_r", -limit, limit) if name == "c" else ("viridis", 0.0, 1.0)
        style = dict(zip(("cmap", "vmin", "vmax"), colours, strict=True))
        image = axis.imshow(value, aspect="auto", interpolation="nearest", **style)
        figure.colorbar(image, ax=axis, pad=0.01)
        axis.set(title=text, ylabel="unit")
        axis.spines[:].set_visible(False)
        axis.locator_params(integer=True)
    axes[-1].set_xlabel("time step")
    return _written(axes, path)


def _cells(x: Array, weights: Mapping[str, Array], suffix: str) -> dict[str, Array]:
    """Return i, f, o, c and h of one plain layer, (T, H) each, from zero."""
    w_ih, w_hh = (weights[f"weight_{part}{suffix}"].astype(np.float64) for part in ("ih", "hh"))
    H = w_hh.shape[1]
    bias = sum((weights.get(f"bias_{part}{suffix}", np.zeros(4 * H)) for part in ("ih", "hh")), 0.0)
    h: Array = np.zeros(H)
    c: Array = np.zeros(H)
    values: dict[str, Array] = {name: np.empty((len(x), H)) for name in "ifoch"}
    for t, x_t in enumerate(x):
        i, f, g, o = np.split(w_ih @ x_t + w_hh @ h + bias, 4)
        i, f, o = (0.5 + 0.5 * np.tanh(z / 2) for z in (i, f, o))  # the sigmoid
        c = f * c + i * np.tanh(g)
        h = o * np.tanh(c)
        for name, value in zip("ifoch", (i, f, o, c, h), strict=True):
            values[name][t] = value
    return values


# ---- gradients


def gradient_norms(
    lstm: LSTM | Mapping[str, LSTM], x: Array, path: Any = None, *, seed: int = 0
) -> Any:
    """Draw how large the gradient for the input is, step by step back from the end.

    The loss looks at the last output only, in a direction drawn at random. Beside the LSTM is a
    plain recurrence of the same size, ``h(t) = tanh(w_ih x(t) + w_hh h(t-1) + b)``, with parameters
    from -1 / sqrt(H) to 1 / sqrt(H), whose gradient vanishes.

    Parameters
    ----------
    lstm : LSTM, or dict of str to LSTM
        Of one direction; several with their names, all with the same input size.
    x : ndarray, shape (T, I) or (T, B, I)
        One or more sequences, time first.
    path : path, optional
        File to write.
    seed : int
        Of the direction, and of the plain recurrence, which is as large as the first LSTM.

    Returns
    -------
    axes : matplotlib.axes.Axes
        Norms over time steps, each curve in units of that at the last step.
    """
    several = dict(lstm) if isinstance(lstm, Mapping) else {"LSTM": lstm}
    if not several:
        raise ValueError("lstm: expected at least one")
    curves = {}
    for name, one in several.items():
        _check_lstm(one)
        if one.bidirectional or one.reverse or one.batch_first:
            raise ValueError(
                f"lstm: expected time first and one direction, forward; {name} is another"
            )
        rng = np.random.default_rng(seed)
        before = one.random_state()
        y, _, cache = one.forward(x if x.ndim == 3 else x[:, None])
        one.set_random_state(before)  # a picture changes nothing in the training
        if not len(y):
            raise ValueError("x: expected at least one step, got none")
        dy = np.zeros_like(y)
        dy[-1] = rng.standard_normal(y.shape[-1])
        curves[name] = np.linalg.norm(one.backward(dy, None, cache)[0], axis=-1)
    first = next(iter(several.values()))
    size = int(np.max(first.hidden_size))
    curves["plain tanh recurrence"] = _plain_recurrence(
        x.reshape(len(x), -1, x.shape[-1]), size, seed
    )
    axes = _figure(7, 4).subplots()
    colours = [f"C{n}" for n in range(10) if n != 7]
    for n, (name, curve) in enumerate(curves.items()):
        plain = n == len(curves) - 1
        style = {"color": "0.45", "ls": "--"} if plain else {"color": colours[n % 9]}
        mean = curve.mean(axis=1)
        scaled = mean / mean[-1] if mean[-1] else mean
        scaled[scaled == 0] = np.nan  # nothing left, of which there is no logarithm
        axes.plot(np.arange(len(scaled)) - len(scaled) + 1, scaled, label=name, lw=1.6, **style)
    axes.set(
        yscale="log",
        xlabel="time step, from the last one",
        ylabel="norm of the gradient / that at the last step",
        title="What is left of the gradient of the last output",
    )
    _tidy(axes)
    axes.legend(loc="lower right", framealpha=0.85, edgecolor="none")
    return _written(axes, path)


def _plain_recurrence(x: Array, size: int, seed: int) -> Array:
    """Return the norms (T, B) of the gradient of x (T, B, I), given one of the last h."""
    rng = np.random.default_rng(seed)
    dh = np.tile(rng.standard_normal(size), (x.shape[1], 1))
    bound = size**-0.5
    w_ih, w_hh, b = (
        rng.uniform(-bound, bound, shape) for shape in ((size, x.shape[-1]), (size, size), size)
    )
    h = [np.zeros((x.shape[1], size))]
    for x_t in x:
        h.append(np.tanh(x_t @ w_ih.T + h[-1] @ w_hh.T + b))
    norms = np.empty(x.shape[:2])
    for t in reversed(range(len(x))):
        dz = dh * (1 - h[t + 1] ** 2)
        norms[t] = np.linalg.norm(dz @ w_ih, axis=-1)
        dh = dz @ w_hh
    return norms
