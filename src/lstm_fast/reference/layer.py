"""One layer in one direction, forward and backward, line by line as in the package's docstring."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from . import checks
from .functions import (
    GATE_EPS,
    Activation,
    Array,
    Bools,
    Function,
    Norm,
    hold,
    hold_backward,
    normalize,
    normalize_backward,
    unless_beyond,
)

__all__ = ["Cache", "lstm_backward", "lstm_forward"]


class Step(NamedTuple):
    """What the N rows that run at a step computed there; names as in the module docstring."""

    hm: Array  # (N, R)
    a: Array  # (N, 4H), before the clamp, and after the norm of gates
    gates: tuple[Array, Array, Array, Array]  # i, f, g, o, each (N, H)
    r: Array  # (N, H), as n, u and m
    n: Array
    u: Array
    m: Array
    norms: tuple[Norm, ...]  # of the input's part, the recurrent part, the cell; or of i, f, g, o


class Cache(NamedTuple):
    """What `lstm_backward` needs from `lstm_forward`: private copies, in processing order.

    Step ``k`` of the recurrence reads ``h[k]``, ``c[k]`` and writes ``h[k + 1]``, ``c[k + 1]``.
    It is the input step ``t = k``, or ``t = T - 1 - k`` when ``reverse``.
    """

    x: Array  # (T, B, I)
    parameters: dict[str, Array]  # weights and biases that were given, in the order of gradients
    h: Array  # (T + 1, B, R), h[0] = h0
    c: Array  # (T + 1, B, H), c[0] = c0
    steps: list[Step]  # T
    runs: Bools  # (T, B), which rows do
    coupled: bool
    clip: Any  # scalars of x's dtype, infinity for none
    cell_clip: Any
    activations: tuple[Function, ...]  # F, G, A
    zoneout: tuple[Array, Array] | None  # z_h, z_c, each (T, B, H)
    recurrent_mask: Array  # (B, R)
    reverse: bool
    hold: bool


def lstm_forward(
    x: Array,
    w_ih: Array,
    w_hh: Array,
    b_ih: Array | None = None,
    b_hh: Array | None = None,
    h0: Array | None = None,
    c0: Array | None = None,
    *,
    w_hr: Array | None = None,
    w_ch: Array | None = None,
    w_ln_ih: Array | None = None,
    w_ln_hh: Array | None = None,
    w_ln_c: Array | None = None,
    b_ln_c: Array | None = None,
    w_ln: Array | None = None,
    reverse: bool = False,
    lengths: npt.ArrayLike | None = None,
    mask: npt.ArrayLike | None = None,
    padding: Literal["zero", "hold"] = "zero",
    coupled: bool = False,
    clip: float | None = None,
    cell_clip: float | None = None,
    activations: Sequence[Activation] = ("Sigmoid", "Tanh", "Tanh"),
    zoneout: tuple[float | Array, float | Array] | None = None,
    recurrent_mask: Array | None = None,
) -> tuple[Array, tuple[Array, Array], Cache]:
    """Run one LSTM layer over a sequence; the module docstring has the equations.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (T, B, I)
        Input. T and B may be 0. Every other array of floats must have its dtype.
    w_ih : ndarray, shape (4H, I)
        Input weights, blocks i, f, g, o.
    w_hh : ndarray, shape (4H, H), or (4H, P) with ``w_hr``
        Recurrent weights, blocks i, f, g, o.
    b_ih, b_hh : ndarray, shape (4H,), optional
        Biases, which add; absent means zero.
    h0 : ndarray, shape (B, H), or (B, P) with ``w_hr``, optional
        Initial output; absent means zero.
    c0 : ndarray, shape (B, H), optional
        Initial cell state; absent means zero.
    w_hr : ndarray, shape (P, H), optional
        Projection of the hidden state.
    w_ch : ndarray, shape (3H,), optional
        Peephole weights, blocks i, f, o (ONNX has i, o, f).
    w_ln_ih, w_ln_hh, w_ln_c : ndarray, shapes (4H,), (4H,), (H,), optional
        Gains of layer norm, all three or none: of the input's and of the recurrent part of the
        pre-activations, whose biases are ``b_ih`` and ``b_hh``, and of the cell.
    b_ln_c : ndarray, shape (H,), optional
        Bias of the cell's layer norm, only with the gains; absent means zero.
    w_ln : ndarray, shape (4H,), optional
        Gains of layer norm of each gate, blocks i, f, g, o, not with the gains above: of both parts
        together, with what peepholes add. ``b_ih`` and ``b_hh`` come after it.
    reverse : bool, default False
        Run from t = T-1 to 0. ``y`` stays in input order.
    lengths : array_like of int, shape (B,), optional
        Steps of each row, from 0 to T, in any order; absent means T.
    mask : array_like of bool, shape (B, T), optional
        Which steps a row runs, if they are within its length; absent means all.
    padding : {"zero", "hold"}
        ``y`` where a row does not run: 0, or the output of the last time before that it did.
    coupled : bool, default False
        f = 1 - i: the f blocks of the weights are there and have no effect.
    clip, cell_clip : float > 0, optional
        Limits of the pre-activations, peepholes included, and of the new cell state.
    activations : sequence of three
        ONNX's f, g, h: functions of the gates i, f, o, of the candidate, and of the cell in m.
        Each a name of ONNX or (name, alpha) or (name, alpha, beta); see `FUNCTIONS`, `CONSTANTS`.
    zoneout : (z_h, z_c), optional
        Weights of the previous h and c in the new ones, not with ``w_hr``: floats from 0 to 1, the
        expectation, for inference; or ndarrays (T, B, H) in input order, of 0 and 1, for training.
    recurrent_mask : ndarray, shape (B, H), or (B, P) with ``w_hr``, optional
        Multiplies h[t-1] in the recurrent product, not in zoneout.

    Returns
    -------
    y : ndarray, shape (T, B, H), or (T, B, P) with ``w_hr``
        Output of every step.
    (hn, cn) : tuple of ndarray, shapes of ``h0`` and ``c0``
        State after the last step processed of each row (t = 0 when ``reverse``).
    cache : Cache
        For `lstm_backward`. It shares no memory with the arguments or the results.

    Raises
    ------
    TypeError
        If an array has another dtype than ``x``, or ``x`` is neither float32 nor float64,
        ``lengths`` does not hold integers, ``mask`` does not hold booleans, ``coupled`` is no bool,
        a limit, alpha, beta or zoneout is no number, or ``activations`` holds something else.
    ValueError
        If an array has another shape than the one above; nothing is broadcast. If a length is not
        from 0 to T, ``padding`` is unknown, layer norm is incomplete, a limit is not positive, a
        function is unknown or gets an alpha or beta that it does not have, zoneout is not from 0 to
        1 or comes with ``w_hr``.
    """
    dtype = checks.real("x", x)
    if x.ndim != 3:
        raise ValueError(f"x must have shape (T, B, I), got {x.shape}")
    T, B, I = x.shape
    H = w_hh.shape[0] // 4
    R = H if w_hr is None else w_hr.shape[0]

    x = checks.copy("x", x, (T, B, I), dtype)
    given = {
        "w_ih": (w_ih, (4 * H, I)),
        "w_hh": (w_hh, (4 * H, R)),
        "b_ih": (b_ih, (4 * H,)),
        "b_hh": (b_hh, (4 * H,)),
        "w_hr": (w_hr, (R, H)),
        "w_ch": (w_ch, (3 * H,)),
        "w_ln_ih": (w_ln_ih, (4 * H,)),
        "w_ln_hh": (w_ln_hh, (4 * H,)),
        "w_ln_c": (w_ln_c, (H,)),
        "b_ln_c": (b_ln_c, (H,)),
        "w_ln": (w_ln, (4 * H,)),
    }
    parameters = {
        name: checks.copy(name, value, shape, dtype)
        for name, (value, shape) in given.items()
        if value is not None
    }
    gains = [name for name in ("w_ln_ih", "w_ln_hh", "w_ln_c") if name in parameters]
    if len(gains) < 3 and (gains or b_ln_c is not None):
        raise ValueError("w_ln_ih, w_ln_hh, w_ln_c must come together, and b_ln_c only with them")
    if gains and w_ln is not None:
        raise ValueError("w_ln and w_ln_ih exclude each other: they are of two kinds of layer norm")
    if not isinstance(coupled, (bool, np.bool_)):
        raise TypeError(f"coupled must be a bool, got {coupled!r}")
    a_limit = checks.limit("clip", clip, dtype)
    c_limit = checks.limit("cell_clip", cell_clip, dtype)
    F, G, A = functions = checks.functions(activations)
    runs = checks.runs(lengths, mask, T, B)
    if padding not in ("zero", "hold"):
        raise ValueError(f"padding must be 'zero' or 'hold', got {padding!r}")
    if zoneout is not None and w_hr is not None:
        raise ValueError(
            f"zoneout and w_hr exclude each other: zoneout adds h(t-1), which has P = {R} columns "
            f"with w_hr, and m, which has H = {H}"
        )
    zones = None if zoneout is None else checks.zones(zoneout, (T, B, H), dtype)
    hm_mask = np.ones((B, R), dtype)
    if recurrent_mask is not None:
        hm_mask = checks.copy("recurrent_mask", recurrent_mask, (B, R), dtype)

    h = np.empty((T + 1, B, R), dtype)
    c = np.empty((T + 1, B, H), dtype)
    h[0] = checks.copy_or_zeros("h0", h0, (B, R), dtype)
    c[0] = checks.copy_or_zeros("c0", c0, (B, H), dtype)
    if reverse:
        x, runs = x[::-1], runs[::-1]
        zones = None if zones is None else (zones[0][::-1], zones[1][::-1])
    w_ih, w_hh = parameters["w_ih"], parameters["w_hh"]
    w_hr, w_ch, w_ln = (parameters.get(name) for name in ("w_hr", "w_ch", "w_ln"))
    bias = parameters.get("b_ih", 0) + parameters.get("b_hh", np.zeros(4 * H, dtype))

    steps = []
    for k in range(T):
        rows = runs[k]
        h_prev, c_prev = h[k, rows], c[k, rows]
        hm = h_prev * hm_mask[rows]
        x_part, h_part = x[k, rows] @ w_ih.T, hm @ w_hh.T
        if gains:
            norm_x, norm_h = normalize(x_part), normalize(h_part)
            x_part = norm_x.value * parameters["w_ln_ih"]
            h_part = norm_h.value * parameters["w_ln_hh"]
        a = x_part + h_part if w_ln is not None else x_part + h_part + bias
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)  # views: what is added to them, a receives
        if w_ch is not None:
            p_i, p_f, p_o = np.split(w_ch, 3)
            a_i += p_i * c_prev
            a_f += p_f * c_prev
        if w_ln is not None:
            w_i, w_f, w_g, w_o = np.split(w_ln, 4)
            b_i, b_f, b_g, b_o = np.split(bias, 4)
            norm_i, norm_f, norm_g = (normalize(s, GATE_EPS) for s in (a_i, a_f, a_g))
            a_i[:] = norm_i.value * w_i + b_i
            a_f[:] = norm_f.value * w_f + b_f
            a_g[:] = norm_g.value * w_g + b_g
        i = F(np.clip(a_i, -a_limit, a_limit))
        f = 1 - i if coupled else F(np.clip(a_f, -a_limit, a_limit))
        g = G(np.clip(a_g, -a_limit, a_limit))
        r = f * c_prev + i * g
        n = np.clip(r, -c_limit, c_limit)
        if w_ch is not None:
            a_o += p_o * n
        if w_ln is not None:
            norm_o = normalize(a_o, GATE_EPS)
            a_o[:] = norm_o.value * w_o + b_o
        o = F(np.clip(a_o, -a_limit, a_limit))
        u = n
        if gains:
            norm_c = normalize(n)
            u = norm_c.value * parameters["w_ln_c"]
            u += parameters.get("b_ln_c", 0)
        m = o * A(u)
        h[k + 1], c[k + 1] = h[k], c[k]
        if zones is None:
            h[k + 1, rows] = m if w_hr is None else m @ w_hr.T
            c[k + 1, rows] = n
        else:
            z_h, z_c = zones[0][k, rows], zones[1][k, rows]
            h[k + 1, rows] = z_h * h_prev + (1 - z_h) * m
            c[k + 1, rows] = z_c * c_prev + (1 - z_c) * n
        norms: tuple[Norm, ...] = ()
        if gains:
            norms = (norm_x, norm_h, norm_c)
        elif w_ln is not None:
            norms = (norm_i, norm_f, norm_g, norm_o)
        steps.append(Step(hm, a, (i, f, g, o), r, n, u, m, norms))

    y = np.where(runs[:, :, None], h[1:], dtype.type(0))
    cache = Cache(
        *(x, parameters, h, c, steps, runs, coupled, a_limit, c_limit, functions, zones, hm_mask),
        reverse=reverse,
        hold=padding == "hold",
    )
    y, runs = (y[::-1].copy(), runs[::-1]) if reverse else (y, runs)
    if cache.hold:
        hold(y, runs)
    return y, (h[T].copy(), c[T].copy()), cache


def lstm_backward(
    dy: Array | None, dhn: Array | None, dcn: Array | None, cache: Cache
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]:
    """Differentiate `lstm_forward`: from gradients of its results to those of its arguments.

    Parameters
    ----------
    dy : ndarray, shape (T, B, H), or (T, B, P) with a projection, or None
        Gradient of the loss with respect to ``y``; None means zero, here and below.
    dhn, dcn : ndarray, shapes of ``h0`` and ``c0``, or None
        Gradients with respect to the final state. Since ``hn`` is also a row of ``y``, ``dhn``
        adds to that row of ``dy``.
    cache : Cache
        From `lstm_forward`; left unchanged, so it may serve again.

    Returns
    -------
    dx : ndarray, shape (T, B, I)
        Gradient with respect to ``x``, in input order.
    (dh0, dc0) : tuple of ndarray, shapes of ``h0`` and ``c0``
        Gradients with respect to the initial state.
    grads : dict of str to ndarray
        Gradients of "w_ih" and "w_hh" and, where they were given, of "b_ih", "b_hh", "w_hr",
        "w_ch", "w_ln_ih", "w_ln_hh", "w_ln_c", "b_ln_c" and "w_ln", in this order, summed over the
        batch. No two share memory.

    Raises
    ------
    TypeError, ValueError
        As in `lstm_forward`.
    """
    x, parameters, h, c, runs = cache.x, cache.parameters, cache.h, cache.c, cache.runs
    a_limit, c_limit = cache.clip, cache.cell_clip
    F, G, A = cache.activations
    w_ih, w_hh = parameters["w_ih"], parameters["w_hh"]
    w_hr, w_ch, w_ln = (parameters.get(name) for name in ("w_hr", "w_ch", "w_ln"))
    dtype = x.dtype
    T, B, R = h[1:].shape
    H = c.shape[2]

    dy = checks.copy_or_zeros("dy", dy, (T, B, R), dtype)
    dh = checks.copy_or_zeros("dhn", dhn, (B, R), dtype)
    dc = checks.copy_or_zeros("dcn", dcn, (B, H), dtype)
    dx = np.zeros_like(x)
    grads = {name: np.zeros_like(value) for name, value in parameters.items()}
    if cache.hold:
        hold_backward(dy, runs[::-1] if cache.reverse else runs)
    dy = dy[::-1] if cache.reverse else dy

    for k in reversed(range(T)):
        rows, step = runs[k], cache.steps[k]
        c_prev = c[k, rows]
        i, f, g, o = step.gates
        a_i, a_f, a_g, a_o = np.split(np.clip(step.a, -a_limit, a_limit), 4, axis=1)
        dh_k, dc_k = dh[rows] + dy[k, rows], dc[rows]
        if cache.zoneout is None:
            dm = dh_k if w_hr is None else dh_k @ w_hr
            dn = dc_k
            dh_prev, dc_prev = np.zeros_like(dh_k), np.zeros_like(dc_k)
        else:
            z_h, z_c = cache.zoneout[0][k, rows], cache.zoneout[1][k, rows]
            dm, dh_prev = (1 - z_h) * dh_k, z_h * dh_k
            dn, dc_prev = (1 - z_c) * dc_k, z_c * dc_k
        if w_hr is not None:
            grads["w_hr"] += dh_k.T @ step.m

        A_u = A(step.u)
        da_o = unless_beyond(a_limit, step.a[:, 3 * H :], dm * A_u * F.derivative(a_o, o))
        du = dm * o * A.derivative(step.u, A_u)
        if "w_ln_c" in grads:
            grads["w_ln_c"] += (du * step.norms[2].value).sum(axis=0)
            if "b_ln_c" in grads:
                grads["b_ln_c"] += du.sum(axis=0)
            du = normalize_backward(du * parameters["w_ln_c"], step.norms[2])
        dn = dn + du
        ds_o = da_o
        if w_ln is not None:
            ds_o = normalize_backward(da_o * w_ln[3 * H :], step.norms[3])
        if w_ch is not None:
            p_i, p_f, p_o = np.split(w_ch, 3)
            dn = dn + p_o * ds_o
        dr = unless_beyond(c_limit, step.r, dn)
        di = dr * (g - c_prev) if cache.coupled else dr * g
        da_i = di * F.derivative(a_i, i)
        da_f = np.zeros_like(di) if cache.coupled else dr * c_prev * F.derivative(a_f, f)
        da_g = dr * i * G.derivative(a_g, g)
        da = unless_beyond(a_limit, step.a, np.concatenate((da_i, da_f, da_g, da_o), axis=1))
        dc_prev += dr * f
        ds = da
        if w_ln is not None:
            gates = zip(np.split(da * w_ln, 4, axis=1), step.norms, strict=True)
            ds = np.concatenate([normalize_backward(d, norm) for d, norm in gates], axis=1)
            normal = np.concatenate([norm.value for norm in step.norms], axis=1)
            grads["w_ln"] += (da * normal).sum(axis=0)
        if w_ch is not None:
            ds_i, ds_f, _, ds_o = np.split(ds, 4, axis=1)
            dc_prev += p_i * ds_i + p_f * ds_f
            dp = np.concatenate((ds_i * c_prev, ds_f * c_prev, ds_o * step.n), axis=1)
            grads["w_ch"] += dp.sum(axis=0)

        dx_part = dh_part = ds
        if "w_ln_ih" in grads:
            norm_x, norm_h, _ = step.norms
            grads["w_ln_ih"] += (da * norm_x.value).sum(axis=0)
            grads["w_ln_hh"] += (da * norm_h.value).sum(axis=0)
            dx_part = normalize_backward(da * parameters["w_ln_ih"], norm_x)
            dh_part = normalize_backward(da * parameters["w_ln_hh"], norm_h)
        dx[k, rows] = dx_part @ w_ih
        grads["w_ih"] += dx_part.T @ x[k, rows]
        grads["w_hh"] += dh_part.T @ step.hm
        for name in grads.keys() & {"b_ih", "b_hh"}:
            grads[name] += da.sum(axis=0)
        dh[rows] = dh_prev + dh_part @ w_hh * cache.recurrent_mask[rows]
        dc[rows] = dc_prev

    return (dx[::-1].copy() if cache.reverse else dx), (dh, dc), grads
