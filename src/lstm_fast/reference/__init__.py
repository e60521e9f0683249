"""An LSTM in plain NumPy: the specification of the fast code.

First one layer in one direction, `lstm_forward` and `lstm_backward`; then networks of them.

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
min(max(v, -k), k), ``LN(v)`` is (v - mean(v)) / sqrt(var(v) + 1e-5) over a row's elements, and
``LG(v)`` the same with 1e-8, over the H elements of one gate::

    hm = h[t-1] * recurrent_mask
    a = x[t] @ w_ih.T + b_ih + hm @ w_hh.T + b_hh, or with layer norm
        LN(x[t] @ w_ih.T) * w_ln_ih + b_ih + LN(hm @ w_hh.T) * w_ln_hh + b_hh
        or with that of gates x[t] @ w_ih.T + hm @ w_hh.T
    a_i += p_i * c[t-1]    a_f += p_f * c[t-1]                peepholes: w_ch is p_i, p_f, p_o
    a_i, a_f, a_g = LG(a_i) * w_i + b_i, LG(a_f) * w_f + b_f, LG(a_g) * w_g + b_g
                                                              layer norm of gates: w_ln, b_ih + b_hh
    i, f, g = F(clamp(a_i, clip)), F(clamp(a_f, clip)), G(clamp(a_g, clip));  coupled: f = 1 - i
    r = f * c[t-1] + i * g
    n = clamp(r, cell_clip)
    a_o += p_o * n
    a_o = LG(a_o) * w_o + b_o                                 layer norm of gates
    o = F(clamp(a_o, clip))
    u = n, or with layer norm LN(n) * w_ln_c + b_ln_c
    m = o * A(u)
    c[t] = n, or with zoneout z_c * c[t-1] + (1 - z_c) * n
    h[t] = m, or m @ w_hr.T, or with zoneout z_h * h[t-1] + (1 - z_h) * m

Backward, each line is differentiated in turn, from the last to the first. The gradient of a clamp
is 0 where the value is beyond the limit; that of the norm is, with w = LN(v)::

    dv = (dw - mean(dw) - w * mean(dw * w)) / sqrt(var(v) + 1e-5)

With ``coupled``, gradients of the f blocks are 0. Layer norm, but for that of gates, is the
exception: its mean and variance are those of all 4H elements, so that the f blocks of ``w_ih`` and
``w_hh`` matter.

Networks, `network_forward` and `network_backward`: layer l = 0 .. L-1 takes x[l], where x[0] = x
and x[l+1] = y[l], and runs in one direction or two, each with its own parameters and states. ``D``
is a mask, in training only, of which an element is 0 with probability p and else 1 / (1 - p); that
of dropout, for l > 0, has its own elements at each t, that of variational dropout the same ones at
all t, and with both it is their product (`draw_noise`). Only y[L-1] is padded with "hold"::

    z_1, z_2 = the outputs of both directions for x[l] * D[l]
    z = z_1 beside z_2, z_1 + z_2, z_1 * z_2, or (z_1 + z_2) / 2      merge: concat, sum, mul, ave
    y[l] = z, or with residual, if l > 0, z + x[l]

Initial values are those of `initial_parameters`. `blocks` are what stands around an LSTM in a
model, `losses` what training makes small. `quantised` is one layer with weights of 8 bits or
bfloat16, rounded where the kernels round.

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
Networks", NIPS 2016 (the masks that are the same at all t).

Y. Wu et al. (2016), "Google's Neural Machine Translation System", arXiv:1609.08144 (residual).

ONNX, operator LSTM (the activations).
"""

from . import blocks, losses, quantised
from .initial import initial_parameters
from .layer import Cache, lstm_backward, lstm_forward
from .network import Noise, draw_noise, network_backward, network_forward

__all__ = [
    "Cache",
    "Noise",
    "blocks",
    "draw_noise",
    "initial_parameters",
    "losses",
    "lstm_backward",
    "lstm_forward",
    "network_backward",
    "network_forward",
    "quantised",
]
