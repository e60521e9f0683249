"""The `LSTM` class: sequences forward and backward."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _checks, _direct, _engine
from ._checks import Array, Padding
from ._packing import Packing, packing_of
from ._results import Out, Results
from .settings import Settings
from .stack import Cache, infer, train
from .streaming import Stream

__all__ = ["LSTM"]

State = tuple[Any, Any]
Input = Array | tuple[Array, npt.ArrayLike]


class LSTM(Settings):
    """A long short-term memory network on the CPU, for NumPy arrays.

    Each layer computes, for every time step, with ``s`` the logistic sigmoid and ``*`` the product
    of elements::

        i = s(W_ii x + b_ii + W_hi h + b_hi)        f = s(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)     o = s(W_io x + b_io + W_ho h + b_ho)
        c' = f * c + i * g                          h' = o * tanh(c'), projected: W_hr (o *
        tanh(c'))

    Names, shapes, gate order and initial values are those of ``torch.nn.LSTM``. The options after
    `proj_size` are variants, with their equations in ``docs/variants.md``.

    Parameters
    ----------
    input_size : int
        Features of the input, I.
    hidden_size : int or sequence of int
        Units, H; or those of each layer. With different ones, each part of a state is a tuple of
        arrays, (D, B, H) of each layer.
    num_layers : int
        Layers, L; each takes the output of the one below.
    bias : bool
        Whether there are biases ``b_ih`` and ``b_hh``.
    batch_first : bool
        Batched input and output are (B, T, ...) instead of (T, B, ...). States are not affected.
    dropout : float
        Probability with which `forward` (not inference) zeroes an output of every layer but the
        last; the others are scaled by 1 / (1 - dropout).
    bidirectional : bool
        Each layer runs in both directions (D = 2) and outputs both: see `merge`.
    proj_size : int
        If positive, the outputs of each direction are projected to this size, P < H.
    reverse : bool
        The one direction runs from the end of the sequence to its start; `y` is in input order.
    merge : {"concat", "sum", "mul", "ave"}
        What a bidirectional layer outputs: both directions side by side, or their sum, product or
        mean.
    peephole : bool
        i and f see c(t-1), and o sees c(t), each unit its own.
    coupled : bool
        f = 1 - i. Weights keep the rows of f, which have no effect.
    clip, cell_clip : float, optional
        Pre-activations, and c(t), are cut to at most this much above and below 0; the gradient is 0
        there.
    activations : three of str or (str, alpha, beta)
        ONNX's f, g, h, by ONNX's names: of the gates i, f and o, of the candidate g, and of c(t) in
        h(t). Sigmoid, Tanh, Relu, HardSigmoid, Softsign, Softplus, Elu, LeakyRelu, ThresholdedRelu,
        ScaledTanh, Affine.
    layer_norm : bool
        Normalise both parts of the pre-activations, and c(t) in h(t), over the units.
    variational_dropout : float
        Probability with which `forward` zeroes an input of each layer, in all time steps alike.
    recurrent_dropout : float
        The same for h(t-1) in the recurrent product.
    zoneout : (float, float), optional
        Probabilities with which an element of h and of c keeps its value in a time step of
        `forward`; in inference, their weights in a mean of old and new value.
    residual : bool
        Each layer but the first adds its input to its output.
    init : {"uniform", "keras"}
        Initial weights: from -1 / sqrt(H) to 1 / sqrt(H), as PyTorch's; or Glorot's uniform ones,
        orthogonal recurrent ones, and biases of 0 but 1 for the forget gate, as Keras's.
    forget_bias : float, optional
        Initial bias of the forget gate, both of them together.
    dtype : numpy.float32 or numpy.float64
        Of the parameters, of all that is passed and returned, and of the computation.
    seed : int or numpy.random.Generator, optional
        Source of the initial parameters, of dropout and of zoneout.
    matmul : {"auto", "packed", "blas"}
        Which multiply serves the products over the whole sequence: the own kernels, or BLAS;
        ``"auto"`` is the faster one, which is ``"packed"`` as far as measured. With that the bits
        of a row's results do not depend on its batch or on how a sequence is cut into calls, and
        no bits depend on the number of threads.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, weight_ih_l0_reverse, ... :
    ndarray
        Read-only views of the parameters, shapes (4 H, I), (4 H, H or P), (4 H,), (4 H,), (P, H).
        With `peephole` also weight_ch_l0 (3 H,), order i, f, o; with `layer_norm` the gains
        weight_ln_ih_l0 and weight_ln_hh_l0 (4 H,), weight_ln_c_l0 (H,), and bias_ln_c_l0 (H,).
    dropout, variational_dropout, recurrent_dropout, zoneout, matmul
        As above; may be set. The other settings are fixed.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If it has a wrong value, or two do not go together.

    Examples
    --------
    >>> lstm = LSTM(3, 5, seed=0)
    >>> y, (hn, cn) = lstm(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    # ---- computing

    def __call__(
        self,
        x: Input,
        state: State | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
        padding: Padding = "zero",
        out: Out | None = None,
    ) -> tuple[Array, State]:
        """Run over sequences without keeping anything for backward.

        Parameters
        ----------
        x : ndarray, shape (T, B, I), or (B, T, I) with `batch_first`, or (T, I) for one sequence
            T and B may be 0. Any strides, either byte order; the dtype must be that of the LSTM.
            Or (concatenated, offsets): sequences one after the other, (steps of all, I), of which
            number b has the rows from offsets[b] to offsets[b + 1]; `y` has this form then.
        state : (h0, c0), optional
            Initial state, shapes (L D, B, H) (h0: P columns when projected), or (L D, H) for one
            sequence. Zeros where absent or None.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence, from 0 to T, in any order. What comes after the end of a
            sequence is neither read nor computed, its final state is that at its last step, and its
            reverse direction starts there. A sequence of length 0 keeps its state.
        mask : ndarray of bool, shape (B, T), optional
            Where it is False, a sequence has no step. With `lengths`, both must allow a step.
        padding : {"zero", "hold"}
            What `y` has where a sequence has no step: zeros, or the output of its last step before
            (zeros if there is none).
        out : (y, (hn, cn)), optional
            Arrays for the results, which are then returned; any of them None. They may overlap with
            `x` and `state`.

        Returns
        -------
        y : ndarray, shape (T, B, D H), or as `x`; P instead of H when projected
        (hn, cn) : tuple of ndarray
            State after the last step, shaped as the initial one.

        Raises
        ------
        TypeError
            If an array has another dtype or is no array.
        ValueError
            If a shape or value is wrong.
        """
        if lengths is None and mask is None and padding == "zero":
            short = self._short
            if short is None:
                short = self._for_short_calls()
            if short:
                found = _direct.infer(short, x, state, out)
                if found is not None:
                    return found
        y, state, _ = self._run(x, state, lengths, mask, padding, out, False, None)
        return y, state

    def forward(
        self,
        x: Input,
        state: State | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
        padding: Padding = "zero",
        out: Out | None = None,
        checkpoint: int | None = None,
    ) -> tuple[Array, State, Cache]:
        """Run over sequences in training: with dropout, and a cache for `backward`.

        Parameters
        ----------
        x, state, lengths, mask, padding, out
            As of a call.
        checkpoint : int, optional
            Keep the state only at every so many time steps, or some more (whole chunks of
            `backward`, of at least 512 rows), and all of the last of these segments; compute the
            rest again in `backward`: less memory, for up to a third more time. The bits of all
            results stay the same.

        Returns
        -------
        y, (hn, cn)
            As of a call.
        cache
            Opaque; ``cache.nbytes`` is its size. For each time step, row, layer and direction it
            holds 24 H bytes in float32 (H a multiple of 16), and 4 I for the input.
        """
        plain = lengths is None and mask is None and padding == "zero" and checkpoint is None
        if plain and self._quiet:
            short = self._for_short_calls() if self._short is None else self._short
            given = _direct.train(short, x, state, out) if short else None
            if given is not None:
                y, last, x, tapes = given
                cells = short[0]
                stage = slice(0, len(cells)), tapes, x, None, None
                return y, last, Cache(self, cells, self._wiring, [stage], x.shape[:2])
        if checkpoint is not None:
            checkpoint = min(_checks.integer("checkpoint", checkpoint, 1), sys.maxsize)
        y, state, cache = self._run(x, state, lengths, mask, padding, out, True, checkpoint)
        assert cache is not None
        return y, state, cache

    def _run(
        self,
        x: Input,
        state: State | None,
        lengths: npt.ArrayLike | None,
        mask: npt.NDArray[np.bool_] | None,
        padding: Padding,
        out: Out | None,
        training: bool,
        checkpoint: int | None,
    ) -> tuple[Array, State, Cache | None]:
        cells, blas, wiring = self._packed(), self.matmul == "blas", self._wiring
        hold = _checks.padding(padding) == "hold"
        batched = True
        if isinstance(x, tuple):
            if lengths is not None or mask is not None:
                raise ValueError("x: (concatenated, offsets) goes with neither lengths nor mask")
            concatenated, steps = _checks.concatenated("x", x, self.dtype, self.input_size)
            x, T, B = concatenated[:, None], len(concatenated), len(steps)
            packing: Packing | None = Packing(steps, T, hold, None, True)
        else:
            batched, x = self._time_major("x", x, self.input_size)
            T, B, _ = x.shape
            packing = packing_of(*_checks.steps(lengths, mask, T, B), T, hold)
        whole = packing is not None and packing.concatenated
        _checks.fits("x", (max(T, B) if whole else max(T, 1) * B) * self._widest, self.dtype)
        h0, c0 = self._state("state", state, ("h0", "c0"), B, batched)
        shapes = (T, 1 if whole else B, self._columns), *self._state_shapes(B)
        results = Results(
            shapes, self.dtype, batched, batched and not whole, self.batch_first, out, (x, h0, c0)
        )
        y, hn, cn, ragged = results.y, results.hn, results.cn, None
        if packing is not None:
            x, ragged = packing.pack(x), packing.ragged
            h0, c0 = packing.sort(h0), packing.sort(c0)
            y = _engine.empty((len(x), self._columns), self.dtype)
            hn, cn = _like(hn), _like(cn)
        noise = self._noise(x.shape, packing) if training else self._mean_noise
        arrays = np.ascontiguousarray(x), h0, c0, y, hn, cn
        cache = None
        if training:
            masks = self._input_masks(x.shape, packing) if self._drops_out() else None
            stages = train(cells, wiring, arrays, ragged, blas, masks, noise, checkpoint)
            cache = Cache(self, cells, wiring, stages, (T, B), batched, packing, blas)
        else:
            infer(cells, wiring, arrays, ragged, blas, noise)
        if packing is not None:
            packing.unpack(y, results.y)
            packing.unsort(hn, results.hn)
            packing.unsort(cn, results.cn)
        return *results.finished(), cache

    def backward(
        self,
        dy: Array | None,
        dstate: State | None,
        cache: Cache,
    ) -> tuple[Array, State, dict[str, Array]]:
        """Return the gradients of a scalar loss for the input, the state and the parameters.

        Parameters
        ----------
        dy : ndarray, shape of y, or None for zeros
            Gradient with respect to `y`, without what `dstate` says of its last step.
        dstate : (dhn, dcn) or None
            Gradients with respect to `hn` and `cn`; None for zeros.
        cache
            From `forward` of this LSTM. It is not changed and may be used again. The gradients
            belong to the parameters that `forward` used, whatever was written to them since.

        Returns
        -------
        dx : ndarray, shape of x
        (dh0, dc0) : tuple of ndarray
        grads : dict
            Keys and shapes of `state_dict`.

        Raises
        ------
        TypeError
            If an array has another dtype, or `cache` is no cache.
        ValueError
            If a shape is wrong, or `cache` comes from another LSTM.
        """
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache.lstm is not self:
            raise ValueError("cache: comes from another LSTM")
        (T, B), packing = cache.rows, cache.packing
        if packing is None and cache.batched and self._direct_form:
            given = _direct.gradients(cache.cells, dy, dstate, T, B, self._directions)
            if given is not None:
                dx, dh0, dc0, values = cache.backward(*given)
                return dx, (dh0, dc0), dict(zip(self._parameters, values, strict=True))
        whole = packing is not None and packing.concatenated
        if dy is not None:
            batched, dy = self._time_major("dy", dy, self._columns)
            if batched != (cache.batched and not whole) or dy.shape[:2] != (T, 1 if whole else B):
                raise ValueError(
                    f"dy: expected the shape of y for T={T}, B={B}, got {dy.shape} (time first)"
                )
            dy = np.ascontiguousarray(dy) if packing is None else packing.pack_gradient(dy)
        dhn, dcn = self._state("dstate", dstate, ("dhn", "dcn"), B, cache.batched)
        if packing is None:
            dx, dh0, dc0, values = cache.backward(dy, dhn, dcn)
        else:
            packed, *states, values = cache.backward(dy, packing.sort(dhn), packing.sort(dcn))
            dx = packing.unpack_gradient(packed)
            dh0, dc0 = map(packing.unsort, states)
        grads = dict(zip(self._parameters, values, strict=True))
        if not cache.batched:
            dh0, dc0 = (_unbatched(states) for states in (dh0, dc0))
        dstate = (tuple(dh0), tuple(dc0)) if self._differ else (dh0, dc0)
        if whole or not cache.batched:
            return dx[:, 0], dstate, grads
        return (dx.swapaxes(0, 1) if self.batch_first else dx), dstate, grads

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a `Stream`, which runs this LSTM one time step at a time from a zero state.

        Raises
        ------
        ValueError
            If the LSTM is bidirectional or runs in reverse, from the end of the sequence.
        """
        return Stream(self, batch_size)


def _like(states: Any) -> Any:
    """Return uninitialised arrays like a state, or a list of those of each layer."""
    return [*map(np.empty_like, states)] if isinstance(states, list) else np.empty_like(states)


def _unbatched(states: Any) -> Any:
    """Return states without the axis of B."""
    return [a[:, 0] for a in states] if isinstance(states, list) else states[:, 0]
