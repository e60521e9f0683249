"""One LSTM layer, one direction, in plain NumPy: the specification of the fast code.

Extents: ``T`` steps, ``B`` batch rows, ``I`` inputs, ``H`` units, ``P`` projected units;
``R``, the width of ``h``, is ``P`` with a projection and ``H`` without. The rows of ``w_ih``,
``w_hh`` and the biases are four blocks of ``H``, in the order i, f, g, o. ``s`` is the logistic
sigmoid, ``*`` multiplies element by element, ``@`` is the matrix product. All arithmetic is done
in the dtype of ``x``.

Forward, for t = 0 .. T-1 (``h[-1] = h0``, ``c[-1] = c0``)::

    a[t] = x[t] @ w_ih.T + b_ih + h[t-1] @ w_hh.T + b_hh      (B, 4H), blocks a_i, a_f, a_g, a_o
    i = s(a_i)    f = s(a_f)    o = s(a_o)                    input, forget and output gate
    g = tanh(a_g)                                             candidate
    c[t] = f * c[t-1] + i * g                                 cell state, (B, H)
    m[t] = o * tanh(c[t])                                     hidden state, (B, H)
    h[t] = m[t] @ w_hr.T, or m[t] without a projection        output y[t], (B, R)

Backward, for t = T-1 .. 0, where ``dv`` is the gradient of the loss with respect to ``v``. The
last step receives ``dhn`` and ``dcn`` where the others receive the terms of step t+1::

    dh[t] = dy[t] + da[t+1] @ w_hh
    dm[t] = dh[t] @ w_hr, or dh[t] without a projection
    dc[t] = dc[t+1] * f[t+1] + dm[t] * o * (1 - tanh(c[t])**2)
    da_i = dc[t] * g * i * (1 - i)                            since s' = s * (1 - s)
    da_f = dc[t] * c[t-1] * f * (1 - f)
    da_g = dc[t] * i * (1 - g**2)                             since tanh' = 1 - tanh**2
    da_o = dm[t] * tanh(c[t]) * o * (1 - o)
    dx[t] = da[t] @ w_ih
    dw_ih = sum over t of da[t].T @ x[t]                      db_ih = db_hh = sum of da over t, b
    dw_hh = sum over t of da[t].T @ h[t-1]                    dw_hr = sum over t of dh[t].T @ m[t]
    dh0 = da[0] @ w_hh                                        dc0 = dc[0] * f[0]

With ``reverse=True`` the recurrence runs from t = T-1 to 0: t-1 and t+1 change places above,
while ``x``, ``y``, ``dy`` and ``dx`` stay in input order.

With ``lengths`` and ``mask``, the equations hold for the rows that run: row b does where
t < lengths[b] and mask[b, t]. At the other times a row keeps its state, so that ``hn`` and ``cn``
are those of its own last step, and a reversed row begins at its last t. What is there in ``x`` is
not read. With padding="hold" ``y`` repeats the output of s, the last time before t (in input order,
also when reversed) at which the row ran, if there is one::

    h[t] = h[t-1]    c[t] = c[t-1]    y[t] = 0, or with "hold" y[s]
    dx[t] = 0                         dy[t] is not read, or with "hold" adds to dy[s]

Variants replace lines of the forward pass; each may be combined with each, zoneout and projection
excepted. ``F``, ``G``, ``A`` are the three ``activations``, ``clamp(v, k)`` is
min(max(v, -k), k), ``LN(v)`` is (v - mean(v)) / sqrt(var(v) + 1e-5) over a row's elements::

    hm = h[t-1] * recurrent_mask
    a = x[t] @ w_ih.T + b_ih + hm @ w_hh.T + b_hh, or with layer norm
        LN(x[t] @ w_ih.T) * w_ln_ih + b_ih + LN(hm @ w_hh.T) * w_ln_hh + b_hh
    a_i += p_i * c[t-1]    a_f += p_f * c[t-1]                peepholes: w_ch is p_i, p_f, p_o
    i, f, g = F(clamp(a_i, clip)), F(clamp(a_f, clip)), G(clamp(a_g, clip));  coupled: f = 1 - i
    r = f * c[t-1] + i * g
    n = clamp(r, cell_clip)
    a_o += p_o * n
    o = F(clamp(a_o, clip))
    u = n, or with layer norm LN(n) * w_ln_c + b_ln_c
    m = o * A(u)
    c[t] = n, or with zoneout z_c * c[t-1] + (1 - z_c) * n
    h[t] = m, or m @ w_hr.T, or with zoneout z_h * h[t-1] + (1 - z_h) * m

Backward, each line is differentiated in turn, from the last to the first. The gradient of a clamp
is 0 where the value is beyond the limit; that of the norm is, with w = LN(v)::

    dv = (dw - mean(dw) - w * mean(dw * w)) / sqrt(var(v) + 1e-5)

With ``coupled``, gradients of the f blocks are 0. Layer norm is the exception: its mean and
variance are those of all 4H elements, so that the f blocks of ``w_ih`` and ``w_hh`` matter.

References
----------
S. Hochreiter, J. Schmidhuber (1997), "Long Short-Term Memory", Neural Computation 9(8):1735-1780.

F. A. Gers, J. Schmidhuber, F. Cummins (2000), "Learning to Forget: Continual Prediction with
LSTM", Neural Computation 12(10):2451-2471 (the forget gate).

F. A. Gers, N. N. Schraudolph, J. Schmidhuber (2002), "Learning Precise Timing with LSTM Recurrent
Networks", Journal of Machine Learning Research 3:115-143 (peepholes; first in Gers, Schmidhuber
2000, "Recurrent Nets that Time and Count", IJCNN 2000, 3:189-194).

H. Sak, A. Senior, F. Beaufays (2014), "Long Short-Term Memory Recurrent Neural Network
Architectures for Large Scale Acoustic Modeling", Interspeech 2014, 338-342 (the projection).

K. Greff, R. K. Srivastava, J. Koutnik, B. R. Steunebrink, J. Schmidhuber (2017), "LSTM: A Search
Space Odyssey", IEEE TNNLS 28(10):2222-2232 (coupled gates).

J. L. Ba, J. R. Kiros, G. E. Hinton (2016), "Layer Normalization", arXiv:1607.06450, eq. 20-22.

D. Krueger et al. (2017), "Zoneout: Regularizing RNNs by Randomly Preserving Hidden Activations",
ICLR 2017.

Y. Gal, Z. Ghahramani (2016), "A Theoretically Grounded Application of Dropout in Recurrent Neural
Networks", NIPS 2016 (the recurrent mask).

ONNX, operator LSTM (the activations).
"""

from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Cache", "lstm_backward", "lstm_forward"]

Array = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]
Activation = str | tuple[str] | tuple[str, float] | tuple[str, float, float]


class Function(NamedTuple):
    """An activation function, one of `FUNCTIONS`."""

    name: str
    constants: tuple[float, ...]  # alpha, beta, as many as it has

    def __call__(self, x: Array) -> Array:
        """Return the value at ``x``."""
        return FUNCTIONS[self.name](x, *self.constants)

    def derivative(self, x: Array, y: Array) -> Array:
        """Return the derivative at ``x``, where the value is ``y``."""
        return DERIVATIVES[self.name](x, y, *self.constants).astype(x.dtype)


class Norm(NamedTuple):
    """What `_normalize` returns for N rows of n elements."""

    value: Array  # (N, n)
    scale: Array  # (N, 1), 1 / sqrt(var + 1e-5)


class Step(NamedTuple):
    """What the N rows that run at a step computed there; names as in the module docstring."""

    hm: Array  # (N, R)
    a: Array  # (N, 4H), before the clamp
    gates: tuple[Array, Array, Array, Array]  # i, f, g, o, each (N, H)
    r: Array  # (N, H), as n, u and m
    n: Array
    u: Array
    m: Array
    norms: tuple[Norm, Norm, Norm] | None  # of the input's part, the recurrent part, the cell


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
    dtype = x.dtype
    if dtype not in (np.float32, np.float64):
        raise TypeError(f"x must be float32 or float64, got {dtype}")
    if x.ndim != 3:
        raise ValueError(f"x must have shape (T, B, I), got {x.shape}")
    T, B, I = x.shape
    H = w_hh.shape[0] // 4
    R = H if w_hr is None else w_hr.shape[0]

    x = _copy("x", x, (T, B, I), dtype)
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
    }
    parameters = {
        name: _copy(name, value, shape, dtype)
        for name, (value, shape) in given.items()
        if value is not None
    }
    gains = [name for name in ("w_ln_ih", "w_ln_hh", "w_ln_c") if name in parameters]
    if len(gains) < 3 and (gains or b_ln_c is not None):
        raise ValueError("w_ln_ih, w_ln_hh, w_ln_c must come together, and b_ln_c only with them")
    if not isinstance(coupled, (bool, np.bool_)):
        raise TypeError(f"coupled must be a bool, got {coupled!r}")
    a_limit, c_limit = _limit("clip", clip, dtype), _limit("cell_clip", cell_clip, dtype)
    F, G, A = functions = _functions(activations)
    runs = _runs(lengths, mask, T, B)
    if padding not in ("zero", "hold"):
        raise ValueError(f"padding must be 'zero' or 'hold', got {padding!r}")
    if zoneout is not None and w_hr is not None:
        raise ValueError(
            f"zoneout and w_hr exclude each other: zoneout adds h(t-1), which has P = {R} columns "
            f"with w_hr, and m, which has H = {H}"
        )
    zones = None if zoneout is None else _zones(zoneout, (T, B, H), dtype)
    hm_mask = np.ones((B, R), dtype)
    if recurrent_mask is not None:
        hm_mask = _copy("recurrent_mask", recurrent_mask, (B, R), dtype)

    h = np.empty((T + 1, B, R), dtype)
    c = np.empty((T + 1, B, H), dtype)
    h[0] = _copy_or_zeros("h0", h0, (B, R), dtype)
    c[0] = _copy_or_zeros("c0", c0, (B, H), dtype)
    if reverse:
        x, runs = x[::-1], runs[::-1]
        zones = None if zones is None else (zones[0][::-1], zones[1][::-1])
    w_ih, w_hh = parameters["w_ih"], parameters["w_hh"]
    w_hr, w_ch = parameters.get("w_hr"), parameters.get("w_ch")
    bias = parameters.get("b_ih", 0) + parameters.get("b_hh", np.zeros(4 * H, dtype))

    steps = []
    for k in range(T):
        rows = runs[k]
        h_prev, c_prev = h[k, rows], c[k, rows]
        hm = h_prev * hm_mask[rows]
        x_part, h_part = x[k, rows] @ w_ih.T, hm @ w_hh.T
        if gains:
            norm_x, norm_h = _normalize(x_part), _normalize(h_part)
            x_part = norm_x.value * parameters["w_ln_ih"]
            h_part = norm_h.value * parameters["w_ln_hh"]
        a = x_part + h_part + bias
        a_i, a_f, a_g, a_o = np.split(a, 4, axis=1)  # views: what is added to them, a receives
        if w_ch is not None:
            p_i, p_f, p_o = np.split(w_ch, 3)
            a_i += p_i * c_prev
            a_f += p_f * c_prev
        i = F(np.clip(a_i, -a_limit, a_limit))
        f = 1 - i if coupled else F(np.clip(a_f, -a_limit, a_limit))
        g = G(np.clip(a_g, -a_limit, a_limit))
        r = f * c_prev + i * g
        n = np.clip(r, -c_limit, c_limit)
        if w_ch is not None:
            a_o += p_o * n
        o = F(np.clip(a_o, -a_limit, a_limit))
        u = n
        if gains:
            norm_c = _normalize(n)
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
        norms = (norm_x, norm_h, norm_c) if gains else None
        steps.append(Step(hm, a, (i, f, g, o), r, n, u, m, norms))

    y = np.where(runs[:, :, None], h[1:], dtype.type(0))
    cache = Cache(
        *(x, parameters, h, c, steps, runs, coupled, a_limit, c_limit, functions, zones, hm_mask),
        reverse=reverse,
        hold=padding == "hold",
    )
    y, runs = (y[::-1].copy(), runs[::-1]) if reverse else (y, runs)
    for t in range(1, T if padding == "hold" else 0):
        y[t, ~runs[t]] = y[t - 1, ~runs[t]]
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
        "w_ch", "w_ln_ih", "w_ln_hh", "w_ln_c" and "b_ln_c", in this order, summed over the batch.
        No two share memory.

    Raises
    ------
    TypeError, ValueError
        As in `lstm_forward`.
    """
    x, parameters, h, c, runs = cache.x, cache.parameters, cache.h, cache.c, cache.runs
    a_limit, c_limit = cache.clip, cache.cell_clip
    F, G, A = cache.activations
    w_ih, w_hh = parameters["w_ih"], parameters["w_hh"]
    w_hr, w_ch = parameters.get("w_hr"), parameters.get("w_ch")
    dtype = x.dtype
    T, B, R = h[1:].shape
    H = c.shape[2]

    dy = _copy_or_zeros("dy", dy, (T, B, R), dtype)
    dh = _copy_or_zeros("dhn", dhn, (B, R), dtype)
    dc = _copy_or_zeros("dcn", dcn, (B, H), dtype)
    dx = np.zeros_like(x)
    grads = {name: np.zeros_like(value) for name, value in parameters.items()}
    if cache.hold:
        idle = ~(runs[::-1] if cache.reverse else runs)
        for t in reversed(range(1, T)):
            dy[t - 1, idle[t]] += dy[t, idle[t]]
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
        da_o = _unless_beyond(a_limit, step.a[:, 3 * H :], dm * A_u * F.derivative(a_o, o))
        du = dm * o * A.derivative(step.u, A_u)
        if step.norms is not None:
            grads["w_ln_c"] += (du * step.norms[2].value).sum(axis=0)
            if "b_ln_c" in grads:
                grads["b_ln_c"] += du.sum(axis=0)
            du = _normalize_backward(du * parameters["w_ln_c"], step.norms[2])
        dn = dn + du
        if w_ch is not None:
            p_i, p_f, p_o = np.split(w_ch, 3)
            dn = dn + p_o * da_o
        dr = _unless_beyond(c_limit, step.r, dn)
        di = dr * (g - c_prev) if cache.coupled else dr * g
        da_i = di * F.derivative(a_i, i)
        da_f = np.zeros_like(di) if cache.coupled else dr * c_prev * F.derivative(a_f, f)
        da_g = dr * i * G.derivative(a_g, g)
        da = _unless_beyond(a_limit, step.a, np.concatenate((da_i, da_f, da_g, da_o), axis=1))
        dc_prev += dr * f
        if w_ch is not None:
            da_i, da_f, _, da_o = np.split(da, 4, axis=1)
            dc_prev += p_i * da_i + p_f * da_f
            dp = np.concatenate((da_i * c_prev, da_f * c_prev, da_o * step.n), axis=1)
            grads["w_ch"] += dp.sum(axis=0)

        dx_part = dh_part = da
        if step.norms is not None:
            norm_x, norm_h, _ = step.norms
            grads["w_ln_ih"] += (da * norm_x.value).sum(axis=0)
            grads["w_ln_hh"] += (da * norm_h.value).sum(axis=0)
            dx_part = _normalize_backward(da * parameters["w_ln_ih"], norm_x)
            dh_part = _normalize_backward(da * parameters["w_ln_hh"], norm_h)
        dx[k, rows] = dx_part @ w_ih
        grads["w_ih"] += dx_part.T @ x[k, rows]
        grads["w_hh"] += dh_part.T @ step.hm
        for name in grads.keys() & {"b_ih", "b_hh"}:
            grads[name] += da.sum(axis=0)
        dh[rows] = dh_prev + dh_part @ w_hh * cache.recurrent_mask[rows]
        dc[rows] = dc_prev

    return (dx[::-1].copy() if cache.reverse else dx), (dh, dc), grads


# Functions of the equations


def _sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)); exp only sees -abs(x), so that it cannot overflow."""
    e = np.exp(-np.abs(x))
    s: Array = np.where(x >= 0, 1, e) / (1 + e)
    return s


# ONNX's, with alpha and beta where there are some. NaN stays NaN.
FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Relu": lambda x: np.maximum(x, 0),
    "HardSigmoid": lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1),
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Softplus": lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),  # log(1 + exp(x))
    "Elu": lambda x, alpha: np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0))),
    "LeakyRelu": lambda x, alpha: np.where(x >= 0, x, alpha * x),
    "ThresholdedRelu": lambda x, alpha: np.where(x < alpha, 0, x),
    "ScaledTanh": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "Affine": lambda x, alpha, beta: alpha * x + beta,
}
# The derivative at x, where the function's value is y; at a kink, that of one side.
DERIVATIVES: dict[str, Callable[..., Array]] = {
    "Sigmoid": lambda x, y: y * (1 - y),
    "Tanh": lambda x, y: 1 - y**2,
    "Relu": lambda x, y: np.where(x > 0, 1, 0),
    "HardSigmoid": lambda x, y, alpha, beta: np.where((y > 0) & (y < 1), alpha, 0),
    "Softsign": lambda x, y: 1 / (1 + np.abs(x)) ** 2,
    "Softplus": lambda x, y: _sigmoid(x),
    "Elu": lambda x, y, alpha: np.where(x >= 0, 1, alpha * np.exp(np.minimum(x, 0))),
    "LeakyRelu": lambda x, y, alpha: np.where(x >= 0, 1, alpha),
    "ThresholdedRelu": lambda x, y, alpha: np.where(x < alpha, 0, 1),
    "ScaledTanh": lambda x, y, alpha, beta: alpha * beta * (1 - np.tanh(beta * x) ** 2),
    "Affine": lambda x, y, alpha, beta: np.full_like(x, alpha),
}
# alpha and beta where they are not given
CONSTANTS: dict[str, tuple[float, ...]] = dict.fromkeys(FUNCTIONS, ()) | {
    "HardSigmoid": (0.2, 0.5),
    "Elu": (1.0,),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "ScaledTanh": (1.0, 1.0),
    "Affine": (1.0, 0.0),
}


def _unless_beyond(limit: Any, value: Array, gradient: Array) -> Array:
    """Return the gradient of clamp(value, limit): that of the result, or 0 beyond the limit."""
    return np.where(np.abs(value) > limit, 0, gradient)


def _normalize(v: Array) -> Norm:
    """Return LN(v), of each row, and the factor in it."""
    centred = v - v.mean(axis=1, keepdims=True)
    scale = 1 / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-5)
    return Norm(centred * scale, scale)


def _normalize_backward(dw: Array, norm: Norm) -> Array:
    """Return the gradient of v from that of w = LN(v)."""
    w, scale = norm
    mean_dw = dw.mean(axis=1, keepdims=True)
    mean_dw_w = (dw * w).mean(axis=1, keepdims=True)
    dv: Array = (dw - mean_dw - w * mean_dw_w) * scale
    return dv


# Checks of arguments


def _runs(lengths: npt.ArrayLike | None, mask: npt.ArrayLike | None, T: int, B: int) -> Bools:
    """Return which rows run at each time, (T, B), or raise if ``lengths`` or ``mask`` is wrong."""
    rows = np.full(B, T) if lengths is None else np.array(lengths)
    if np.ma.isMaskedArray(lengths) or (rows.size > 0 and rows.dtype.kind not in "iu"):
        raise TypeError(f"lengths must hold integers, got {rows.dtype}")
    if rows.shape != (B,):
        raise ValueError(f"lengths must have shape {(B,)}, got {rows.shape}")
    if not ((rows >= 0) & (rows <= T)).all():
        raise ValueError(f"lengths must be from 0 to {T}, got {rows}")
    may = np.ones((B, T), bool) if mask is None else np.array(mask)
    if np.ma.isMaskedArray(mask) or (may.size > 0 and may.dtype != bool):
        raise TypeError(f"mask must hold booleans, got {may.dtype}")
    if may.shape != (B, T):
        raise ValueError(f"mask must have shape (B, T) = {(B, T)}, got {may.shape}")
    runs: Bools = (np.arange(T)[:, None] < rows) & may.T.astype(bool)
    return runs


def _number(name: str, value: Any) -> float:
    """Return a float, or raise if ``value`` is no number."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, got {value!r}")
    number = float(value)
    if np.isnan(number):
        raise ValueError(f"{name} must be a number, got {value!r}")
    return number


def _limit(name: str, value: float | None, dtype: np.dtype[Any]) -> Any:
    """Return a scalar of ``dtype``, infinity for None, or raise if ``value`` is not positive."""
    number = np.inf if value is None else _number(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
    with np.errstate(over="ignore"):  # 1e300 is infinity in float32
        return dtype.type(number)


def _functions(activations: Any) -> tuple[Function, Function, Function]:
    """Return f, g, h with alpha and beta, or raise if ``activations`` are wrong."""
    if not isinstance(activations, (tuple, list)):
        raise TypeError(f"activations must be a tuple of three, got {activations!r}")
    if len(activations) != 3:
        raise ValueError(f"activations must be three, got {len(activations)}")
    functions = []
    for n, given in enumerate(activations):
        where = f"activations[{n}]"
        name, *constants = given if isinstance(given, (tuple, list)) and given else (given,)
        if not isinstance(name, str):
            raise TypeError(f"{where} must be a name or (name, alpha, beta), got {given!r}")
        if name not in FUNCTIONS:
            raise ValueError(f"{where} must be one of {', '.join(FUNCTIONS)}, got {name!r}")
        defaults = CONSTANTS[name]
        if len(constants) > len(defaults):
            raise ValueError(f"{where} must have {len(defaults)} constants or less, got {given!r}")
        numbers = [_number(where, constant) for constant in constants]
        functions.append(Function(name, (*numbers, *defaults[len(numbers) :])))
    return functions[0], functions[1], functions[2]


def _zones(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Array, Array]:
    """Return z_h and z_c, or raise if ``zoneout`` is wrong."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"zoneout must be a pair (z_h, z_c), got {value!r}")
    if len(value) != 2:
        raise ValueError(f"zoneout must be a pair (z_h, z_c), got {len(value)}")
    zones: list[Array] = []
    for n, zone in enumerate(value):
        name = f"zoneout[{n}]"
        if isinstance(zone, np.ndarray):
            zones.append(_copy(name, zone, shape, dtype))
        elif 0 <= _number(name, zone) <= 1:
            zones.append(np.full(shape, zone, dtype))
        else:
            raise ValueError(f"{name} must be from 0 to 1, got {zone!r}")
    return zones[0], zones[1]


def _copy(name: str, value: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return a C-ordered copy of ``value``, or raise if its dtype or shape is another."""
    copy = np.array(value, order="C")
    if copy.dtype != dtype:
        raise TypeError(f"{name} must be {dtype} like x, got {copy.dtype}")
    if copy.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {copy.shape}")
    return copy


def _copy_or_zeros(
    name: str, value: Array | None, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """As `_copy`, with zeros for None."""
    return np.zeros(shape, dtype) if value is None else _copy(name, value, shape, dtype)
