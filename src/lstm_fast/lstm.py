"""The `LSTM` class: sequences forward and backward."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt

from .engine import Array
from .engine.tape import Cache
from .network import checks, options, unsaid
from .network.arguments import Arguments, BackwardArguments, Input, State
from .network.block import Block
from .network.initial import initial_values
from .network.network import Network
from .network.noise import RATES, NoiseSource, Rates
from .network.options import Activation
from .network.parameters import Parameters
from .network.results import Out
from .network.settings import Init, Merge, Settings, warn_of_dropout
from .stream import Stream

__all__ = ["LSTM"]


class LSTM(Block):
    """A long short-term memory network on the CPU, for NumPy arrays.

    Each layer computes, for every time step, with ``s`` the logistic sigmoid and ``*`` the product
    of elements::

        i = s(W_ii x + b_ii + W_hi h + b_hi)        f = s(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)     o = s(W_io x + b_io + W_ho h + b_ho)
        c' = f * c + i * g                          h' = o * tanh(c'), or W_hr times this

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
        Which multiply serves the products over the whole sequence: the package's own kernels
        ("packed"), or BLAS. "auto" is "packed", which was the faster one wherever it was measured.
        With "packed" the bits of a row's results depend neither on its batch nor on how a sequence
        is cut into calls, and no bits depend on the number of threads.

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

    stateful = True
    _said = unsaid.said

    # What __getattr__ finds.
    input_size: int
    hidden_size: Any
    num_layers: int
    bias: bool
    bidirectional: bool
    proj_size: int
    reverse: bool
    merge: Merge
    peephole: bool
    coupled: bool
    clip: float | None
    cell_clip: float | None
    activations: tuple[Activation, ...]
    layer_norm: bool
    residual: bool
    init: Init
    forget_bias: float | None
    dropout: float
    variational_dropout: float
    recurrent_dropout: float
    zoneout: tuple[float, float] | None

    matmul: checks.Matmul

    _network: Network[Parameters]

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        reverse: bool = False,
        merge: Merge = "concat",
        peephole: bool = False,
        coupled: bool = False,
        clip: float | None = None,
        cell_clip: float | None = None,
        activations: Sequence[Activation] = options.PLAIN,
        layer_norm: bool = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: tuple[float, float] | None = None,
        residual: bool = False,
        init: Init = "uniform",
        forget_bias: float | None = None,
        dtype: npt.DTypeLike = np.float32,
        seed: int | np.random.Generator | None = None,
        matmul: checks.Matmul = "auto",
    ) -> None:
        given = locals()
        settings = Settings(**{name: given[name] for name in SETTINGS})
        matmul = checks.matmul(matmul)
        rng = checks.generator("seed", seed)
        rates = Rates(dropout, variational_dropout, recurrent_dropout, zoneout)
        noise = NoiseSource(settings, rates, rng)
        warn_of_dropout(settings, dropout)
        parameters = Parameters(initial_values(settings, rng))
        object.__setattr__(self, "_network", Network(settings, parameters, noise, matmul))

    # ---- computing

    def __call__(
        self,
        x: Input,
        state: State | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
        padding: checks.Padding = "zero",
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
        network = self._network
        one_call = network.one_call
        if one_call is not None and lengths is None and mask is None and padding == "zero":
            found = one_call.infer(x, state, out)
            if found is not None:
                return found
        given = Arguments(network.settings, x, state, lengths, mask, padding, out)
        network.infer(given.arrays, given.ragged)
        return given.results()

    def forward(
        self,
        x: Input,
        state: State | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        mask: npt.NDArray[np.bool_] | None = None,
        padding: checks.Padding = "zero",
        out: Out | None = None,
        checkpoint: int | None = None,
    ) -> tuple[Array, State, Cache]:
        """Run over sequences in training: with dropout, and a cache for `backward`.

        Parameters
        ----------
        x, state, lengths, mask, padding, out
            As of a call.
        checkpoint : int, optional
            Store the state about every so many time steps and recompute the rest in `backward`:
            less memory, for up to a third more time. Segments are whole chunks of at least 512
            rows; the last is stored entirely. The bits of all results stay the same.

        Returns
        -------
        y, (hn, cn)
            As of a call.
        cache
            Opaque; ``cache.nbytes`` is its size. For each time step, row, layer and direction it
            holds 24 H bytes in float32 (H a multiple of 16), and 4 I for the input.
        """
        network = self._network
        if checkpoint is not None:
            checkpoint = min(checks.integer("checkpoint", checkpoint, 1), sys.maxsize)
        if lengths is None and mask is None and padding == "zero":
            found = network.train_as_is(self, x, state, out, checkpoint)
            if found is not None:
                return found
        given = Arguments(network.settings, x, state, lengths, mask, padding, out)
        cache = network.train(
            self, given.arrays, given.T, given.B, given.batched, given.packing, checkpoint
        )
        return *given.results(), cache

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
            Gradient with respect to `y`, excluding the part passed in `dstate`.
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
        if cache._owner is not self:
            raise ValueError("cache: comes from another LSTM")
        network = self._network
        found = network.differentiate_as_is(cache, dy, dstate)
        if found is not None:
            return found
        given = BackwardArguments(network.settings, dy, dstate, cache)
        dx, dh0, dc0, grads = network.differentiate(cache, *given.arrays)
        return *given.results(dx, dh0, dc0), grads

    def stream(self, batch_size: int = 1) -> Stream[LSTM]:
        """Return a `Stream`, which runs this LSTM one time step at a time from a zero state.

        Raises
        ------
        ValueError
            If the LSTM is bidirectional or runs in reverse, from the end of the sequence.
        """
        return Stream(self, batch_size)

    def _forward(self, x: Any, state: Any, lengths: Any, owned: bool) -> tuple[Array, State, Cache]:
        found = None
        if lengths is None:
            found = self._network.train_as_is(self, x, state, copy=not owned)
        return self.forward(x, state, lengths=lengths) if found is None else found

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in signature(LSTM).parameters if name != "seed"}

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return *shape[:-1], self._network.settings.columns

    @property
    def _generators(self) -> dict[str, np.random.Generator]:
        return {"noise": self._network.noise.rng}

    # ---- settings and parameters, as attributes

    @property
    def _parameters(self) -> Parameters:
        return self._network.parameters

    def __getattr__(self, name: str) -> Any:
        network = self.__dict__.get("_network")
        if network is not None:
            if name in SETTINGS:
                return getattr(network.settings, name)
            if name in RATES:
                return getattr(network.noise.rates, name)
            if name == "matmul":
                return network.matmul
            if name in network.parameters:
                return network.parameters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in RATES:
            self._network.set_rate(name, value)
        elif name == "matmul":
            self._network.matmul = checks.matmul(value)
        elif name in SETTINGS:
            raise AttributeError(f"{name} is fixed when an LSTM is made")
        elif name in self._network.parameters:
            raise AttributeError(f"{name} is read-only: use writable() or load_state_dict()")
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *SETTINGS, *RATES, "matmul", *self.parameters})

    def __repr__(self) -> str:
        words = [str(self.input_size), str(self.hidden_size)]
        words += [f"{k}={getattr(self, k)!r}" for k, v in DEFAULTS.items() if getattr(self, k) != v]
        return f"LSTM({', '.join(words)}, dtype={self.dtype})"


# Arguments of the constructor that have a default, but those that only make the first parameters.
DEFAULTS = {
    name: parameter.default
    for name, parameter in signature(LSTM).parameters.items()
    if name not in ("input_size", "hidden_size", "dtype", "seed")
}
SETTINGS = {*signature(LSTM).parameters} - {*RATES, "seed", "matmul"}
