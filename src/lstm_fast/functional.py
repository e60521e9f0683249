"""One LSTM layer in one direction on plain arrays: nothing kept between calls but the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .engine import Array
from .engine.backward import backward
from .engine.cell import Cell
from .engine.forward import forward
from .engine.memory import empty
from .engine.packing import Packing, packing_of
from .engine.runtime.arithmetic import DefaultArithmetic
from .engine.tape import Noise, Tape
from .network import checks
from .network.checks import Padding
from .network.options import PLAIN, ZONEOUT_PROJECTED, Activation, cell_options

__all__ = ["lstm_backward", "lstm_forward"]


class Cache:
    """What `lstm_backward` needs from `lstm_forward`. Opaque."""

    __slots__ = ("_blas", "_dtype", "_names", "_packing", "_shape", "_tapes")

    def __init__(
        self,
        tapes: list[Tape],
        names: tuple[str, ...],  # of the parameters
        blas: bool,
        dtype: np.dtype[Any],
        shape: tuple[int, int, int, int],  # T, B, H, columns of y
        packing: Packing | None,
    ) -> None:
        self._tapes, self._names, self._blas = tapes, names, blas
        self._dtype, self._shape, self._packing = dtype, shape, packing


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
    training: bool = True,
    matmul: checks.Matmul = "auto",
    lengths: npt.ArrayLike | None = None,
    mask: npt.NDArray[np.bool_] | None = None,
    padding: Padding = "zero",
    coupled: bool = False,
    clip: float | None = None,
    cell_clip: float | None = None,
    activations: Sequence[Activation] = PLAIN,
    zoneout: tuple[float | Array, float | Array] | None = None,
    recurrent_mask: Array | None = None,
) -> tuple[Array, tuple[Array, Array], Cache | None]:
    """Run one LSTM layer over a sequence.

    The equations are those of `reference`. The weights are packed anew at every call; `LSTM`
    keeps them.

    Parameters
    ----------
    x : ndarray of float32 or float64, shape (T, B, I)
        Input; T and B may be 0. Every other array must have its dtype. Any strides, either byte
        order.
    w_ih : ndarray, shape (4 H, I)
        Input weights; blocks of rows i, f, g, o.
    w_hh : ndarray, shape (4 H, H), or (4 H, P) with `w_hr`
        Recurrent weights, in the same blocks.
    b_ih, b_hh : ndarray, shape (4 H,), optional
        Biases, which add.
    h0, c0 : ndarray, shapes (B, H), or (B, P) with `w_hr`, and (B, H), optional
        Initial state; zeros where absent.
    w_hr : ndarray, shape (P, H), optional
        Projection of the output.
    w_ch : ndarray, shape (3 H,), optional
        Peephole weights i, f, o: i and f see c(t-1), o sees c(t).
    w_ln_ih, w_ln_hh, w_ln_c, b_ln_c : ndarray, shapes (4 H,), (4 H,), (H,), (H,), optional
        Gains of layer norm of the input's part of the pre-activations, of the recurrent part, and
        of the cell state, all or none of them; and the bias of the last, which may be absent.
    w_ln : ndarray, shape (4 H,), optional
        Gains of layer norm of each gate alone, without those above.
    reverse : bool
        Run from t = T - 1 down to 0; `y` stays in input order.
    training : bool
        Make the cache that `lstm_backward` needs.
    matmul : {"auto", "packed", "blas"}
        Which multiply serves the whole-sequence products; see `LSTM`.
    lengths : array_like of int, shape (B,), optional
        Time steps of each row, from 0 to T; what comes after is neither read nor computed.
    mask : ndarray of bool, shape (B, T), optional
        Where it is False, a row has no step. With `lengths`, both must allow a step.
    padding : {"zero", "hold"}
        What `y` has where a row has no step: zeros, or the output of its last step before.
    coupled : bool
        f = 1 - i. The blocks of f in the weights have no effect.
    clip, cell_clip : float, optional
        Bounds of the pre-activations and of the cell state, beyond which they are cut.
    activations : three of str or (str, alpha, beta)
        ONNX's functions f, g, h: of the gates, of the candidate, and of the cell state in h.
    zoneout : (z_h, z_c), optional
        Weights from 0 to 1 of the previous h and c in the new ones: floats, or arrays (T, B, H).
    recurrent_mask : ndarray, shape (B, H or P), optional
        Multiplies h(t-1) in the recurrent product.

    Returns
    -------
    y : ndarray, shape (T, B, H) or (T, B, P)
    (hn, cn) : tuple of ndarray, shaped as h0 and c0
    cache : opaque, or None unless `training`

    Raises
    ------
    TypeError
        If an array has another dtype or is no array.
    ValueError
        If a shape or value is wrong.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x: expected a NumPy array, got {type(x).__name__}")
    dtype = checks.real_dtype("x", x.dtype.newbyteorder("="))
    x = checks.real("x", x, dtype)
    if x.ndim != 3:
        raise ValueError(f"x: expected shape (T, B, I), got {x.shape}")
    T, B, I = x.shape
    rows = checks.real("w_hh", w_hh, dtype).shape[:1]
    H = rows[0] // 4 if rows else 0
    if H == 0 or rows[0] % 4:
        raise ValueError(f"w_hh: expected four blocks of rows, got shape {w_hh.shape}")
    P = H
    if w_hr is not None:
        P = (*checks.real("w_hr", w_hr, dtype).shape, 0)[0]
        w_hr = checks.shaped("w_hr", w_hr, dtype, (P, H), "P, H")
        if P == 0:
            raise ValueError(f"w_hr: expected at least one row, got shape {w_hr.shape}")
    w_ih = checks.shaped("w_ih", w_ih, dtype, (4 * H, I), "4 H, I")
    w_hh = checks.shaped(
        "w_hh", w_hh, dtype, (4 * H, P), "4 H, P" if w_hr is not None else "4 H, H"
    )
    if b_ih is not None:
        b_ih = checks.shaped("b_ih", b_ih, dtype, (4 * H,), "4 H,")
    if b_hh is not None:
        b_hh = checks.shaped("b_hh", b_hh, dtype, (4 * H,), "4 H,")
    if h0 is not None:
        h0 = checks.shaped("h0", h0, dtype, (B, P), "B, P" if w_hr is not None else "B, H")
    if c0 is not None:
        c0 = checks.shaped("c0", c0, dtype, (B, H), "B, H")
    if w_ch is not None:
        w_ch = checks.shaped("w_ch", w_ch, dtype, (3 * H,), "3 H,")
    gains = {"w_ln_ih": (w_ln_ih, 4 * H), "w_ln_hh": (w_ln_hh, 4 * H), "w_ln_c": (w_ln_c, H)}
    absent = [name for name, (gain, _) in gains.items() if gain is None]
    if absent and (len(absent) < 3 or b_ln_c is not None):
        raise ValueError(f"{absent[0]}: layer norm needs {', '.join(gains)}")
    w_ln_ih, w_ln_hh, w_ln_c = (
        None if gain is None else checks.shaped(name, gain, dtype, (n,), f"{n // H} H,")
        for name, (gain, n) in gains.items()
    )
    if b_ln_c is not None:
        b_ln_c = checks.shaped("b_ln_c", b_ln_c, dtype, (H,), "H,")
    if w_ln is not None:
        if not absent:
            raise ValueError("w_ln: layer norm of gates excludes that of w_ln_ih")
        w_ln = checks.shaped("w_ln", w_ln, dtype, (4 * H,), "4 H,")
    options = cell_options(coupled, clip, cell_clip, activations)
    reverse, training = checks.boolean("reverse", reverse), checks.boolean("training", training)
    matmul = checks.matmul(matmul)
    checks.fits("x", max(T, 1) * B * max(5 * H, I), dtype)

    padding = checks.padding(padding)
    packing = packing_of(*checks.steps(lengths, mask, T, B), T, padding == "hold")
    noise = _noise(zoneout, recurrent_mask, dtype, (T, B, H, P), w_hr is not None, packing)

    cell = Cell(
        *(w_ih, w_hh, b_ih, b_hh, w_hr, w_ch, w_ln_ih, w_ln_hh, w_ln_c, b_ln_c, w_ln),
        options=options,
        training=training,
    )
    h, c = (None if a is None else a[None] for a in (h0, c0))
    hn, cn = np.empty((1, B, P), dtype), np.empty((1, B, H), dtype)
    y = empty((T, B, P), dtype)
    if packing is None:
        # The cache outlives the call, and the caller may write to x before backward.
        x = np.array(x, order="C") if training else checks.in_order(x)
    arrays = x, h, c, y, hn, cn
    inner = arrays if packing is None else packing.arguments(arrays)
    blas = matmul == "blas"
    cell.prepare(training, blas)
    tapes = forward(
        [cell],
        inner,
        reverse=reverse,
        ragged=None if packing is None else packing.ragged,
        training=training,
        blas=blas,
        noise=noise,
    )
    if packing is not None:
        packing.results(inner, arrays)
    shape = T, B, H, P
    cache = Cache(tapes, cell.parameters, blas, dtype, shape, packing) if training else None
    return y, (hn[0], cn[0]), cache


def _noise(
    zoneout: Any,
    recurrent_mask: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, int, int, int],
    projected: bool,
    packing: Packing | None,
) -> list[Noise] | None:
    """Return zoneout and the mask of the recurrent product, in the order of the engine's rows."""
    if zoneout is None and recurrent_mask is None:
        return None
    T, B, H, P = shape
    if recurrent_mask is not None:
        recurrent_mask = checks.shaped("recurrent_mask", recurrent_mask, dtype, (B, P), "B, P")
        recurrent_mask = recurrent_mask.copy()
        if packing is not None:
            recurrent_mask = packing.sort(recurrent_mask[None])[0]
    zones: list[Array | None] = [None, None]
    if zoneout is not None:
        if projected:
            raise ValueError(f"zoneout and w_hr: {ZONEOUT_PROJECTED}")
        for n, zone in enumerate(checks.pair("zoneout", zoneout)):
            name = f"zoneout[{n}]"
            if isinstance(zone, np.ndarray):
                zone = checks.shaped(name, zone, dtype, (T, B, H), "T, B, H").copy()
                zones[n] = zone.reshape(T * B, H) if packing is None else packing.pack(zone)
            else:
                with DefaultArithmetic():
                    zones[n] = np.full(H, checks.fraction(name, zone), dtype)
    if zones[0] is not None and zones[1] is not None and zones[0].ndim != zones[1].ndim:
        whole = max(zones[0].shape, zones[1].shape, key=len)
        zones = [np.broadcast_to(z, whole).copy() for z in zones if z is not None]
    return [Noise(recurrent_mask, *zones)]


def lstm_backward(
    dy: Array | None, dhn: Array | None, dcn: Array | None, cache: Cache
) -> tuple[Array, tuple[Array, Array], dict[str, Array]]:
    """Return the gradients of a scalar loss, as `reference.lstm_backward` does.

    Parameters
    ----------
    dy : ndarray, shape of y, or None
        Gradient of the loss with respect to `y`, excluding the part passed in `dhn`.
    dhn, dcn : ndarray, shapes of hn and cn, or None
        The same for `hn` and `cn`. None means zeros.
    cache
        From `lstm_forward`. It is not changed and may be used again.

    Returns
    -------
    dx : ndarray, shape of x
    (dh0, dc0) : tuple of ndarray
    grads : dict
        Gradients of the weights by argument name: ``"w_ih"``, ``"w_hh"``, and those of biases,
        projection, peepholes and layer norm that were given.

    Raises
    ------
    TypeError
        If an array has another dtype, or `cache` does not come from `lstm_forward`.
    ValueError
        If a shape is wrong.
    """
    if not isinstance(cache, Cache):
        raise TypeError(f"cache: expected what lstm_forward returned, got {type(cache).__name__}")
    T, B, H, P = cache._shape
    if dy is not None:
        dy = checks.shaped("dy", dy, cache._dtype, (T, B, P), "T, B, columns of y")
    if dhn is not None:
        dhn = checks.shaped("dhn", dhn, cache._dtype, (B, P), "B, columns of y")
    if dcn is not None:
        dcn = checks.shaped("dcn", dcn, cache._dtype, (B, H), "B, H")
    packing, dstate = cache._packing, [None if a is None else a[None] for a in (dhn, dcn)]
    if packing is not None:
        dy, *dstate = packing.gradients((dy, *dstate))
    dx, *states, grads = backward(cache._tapes, dy, *dstate, blas=cache._blas)
    if packing is not None:
        dx = packing.unpack_gradient(dx)
        states = [packing.unsort(a) for a in states]
    return dx, (states[0][0], states[1][0]), dict(zip(cache._names, grads, strict=True))
