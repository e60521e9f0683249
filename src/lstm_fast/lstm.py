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
from .network import checks, options
from .network.arguments import Arguments, BackwardArguments, Input, State
from .network.initial import new_parameters
from .network.lower import Inputs, Weights
from .network.network import Network
from .network.noise import RATES, NoiseSource, Rates
from .network.options import Activation, LayerNorm
from .network.parameters import Parameters
from .network.results import Out
from .network.settings import Init, Merge, Settings, warn_of_dropout
from .quantized import QuantizedLSTM
from .recurrent import Recurrent

__all__ = ["LSTM"]


class LSTM(Recurrent):
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
    layer_norm : bool or "gates"
        Normalise both parts of the pre-activations, and c(t) in h(t), over the units. "gates":
        their sum, with what peepholes add, over the units of each gate alone, as TensorFlow Lite.
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

    matmul_precision : {"highest", "bfloat16"}
        What the products multiply, in inference and in training: numbers of the dtype, or those of
        float32 rounded to bfloat16, with sums in float32: see docs/precision.md.

    Attributes
    ----------
    weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, weight_hr_l0, weight_ih_l0_reverse, ... :
    ndarray
        Read-only views of the parameters, shapes (4 H, I), (4 H, H or P), (4 H,), (4 H,), (P, H).
        With `peephole` also weight_ch_l0 (3 H,), order i, f, o; with `layer_norm` the gains
        weight_ln_ih_l0 and weight_ln_hh_l0 (4 H,), weight_ln_c_l0 (H,), and bias_ln_c_l0 (H,), or
        with that of gates weight_ln_l0 (4 H,).
    dropout, variational_dropout, recurrent_dropout, zoneout, matmul, matmul_precision
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

    # What __getattr__ finds, besides settings.
    dropout: float
    variational_dropout: float
    recurrent_dropout: float
    matmul: checks.Matmul
    matmul_precision: checks.MatmulPrecision

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
        layer_norm: LayerNorm = False,
        variational_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        zoneout: tuple[float, float] | None = None,
        residual: bool = False,
        init: Init = "uniform",
        forget_bias: float | None = None,
        dtype: npt.DTypeLike = np.float32,
        seed: int | np.random.Generator | None = None,
        matmul: checks.Matmul = "auto",
        matmul_precision: checks.MatmulPrecision = "highest",
    ) -> None:
        given = locals()
        settings = Settings(**{name: given[name] for name in SETTINGS})
        matmul = checks.matmul(matmul)
        precision = checks.matmul_precision(matmul_precision, matmul, settings.dtype)
        rng = checks.generator("seed", seed)
        rates = Rates(dropout, variational_dropout, recurrent_dropout, zoneout)
        noise = NoiseSource(settings, rates, rng)
        warn_of_dropout(settings, dropout)
        parameters = new_parameters(settings, rng)
        object.__setattr__(
            self, "_network", Network(settings, parameters, noise, matmul, precision)
        )

    def quantize(self, weights: Weights, inputs: Inputs = "bfloat16") -> QuantizedLSTM:
        """Return a copy for inference, with weights of lower precision: see docs/precision.md.

        Parameters
        ----------
        weights : {"int8", "bfloat16"}
            8-bit integers with a scale for each row of the weights, and products with h, in 8 bits
            too, by exact sums; or bfloat16, with sums in float32.
        inputs : {"bfloat16", "int8", "float32"}
            What 8-bit weights multiply x as: 8-bit integers, with a scale for each row and step,
            are fastest at large batches and least exact.

        Raises
        ------
        TypeError
            If this LSTM is not of float32.
        ValueError
            If an argument is unknown, or a weight is not finite.
        """
        return QuantizedLSTM._of(self, weights, inputs)

    # ---- training

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
            less memory, for up to a third more time. Segments have at least 256 rows of all times
            together, large batches 512; the last is stored entirely. The bits of all results stay
            the same.

        Returns
        -------
        y, (hn, cn)
            As of a call.
        cache
            Opaque; ``cache.nbytes`` is its size. For each time step, row, layer and direction it
            holds 24 H bytes in float32 (H a multiple of 16), and 4 I for the input.
        """
        network = self._network
        one_call = network.one_call
        plain = mask is None and padding == "zero"
        if plain and one_call is not None and checkpoint is None:
            found = one_call.train(self, x, state, out, True, lengths)
            if found is not None:
                return found
        if checkpoint is not None:
            checkpoint = min(checks.integer("checkpoint", checkpoint, 1), sys.maxsize)
        if plain and lengths is None:
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
        network = self._network
        if network.one_call is not None:
            found = network.one_call.differentiate(self, cache, dy, dstate)
            if found is not None:
                return found
        if not isinstance(cache, Cache):
            raise TypeError(f"cache: expected what forward returned, got {type(cache).__name__}")
        if cache._owner is not self:
            raise ValueError("cache: comes from another LSTM")
        found = network.differentiate_as_is(cache, dy, dstate)
        if found is not None:
            return found
        given = BackwardArguments(network.settings, dy, dstate, cache)
        dx, dh0, dc0, grads = network.differentiate(cache, *given.arrays)
        return *given.results(dx, dh0, dc0), grads

    def _forward(self, x: Any, state: Any, lengths: Any, owned: bool) -> tuple[Array, State, Cache]:
        network, found = self._network, None
        if network.one_call is not None:
            found = network.one_call.train(self, x, state, None, not owned, lengths)
        if found is None and lengths is None:
            found = network.train_as_is(self, x, state, copy=not owned)
        return self.forward(x, state, lengths=lengths) if found is None else found

    def _options(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in signature(LSTM).parameters if name != "seed"}

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
            if name in MULTIPLY:
                return getattr(network, name)
            if name in network.parameters:
                return network.parameters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in RATES:
            self._network.set_rate(name, value)
        elif name == "matmul":
            value = checks.matmul(value)
            checks.matmul_precision(self.matmul_precision, value, self.dtype)
            self._network.matmul = value
        elif name == "matmul_precision":
            value = checks.matmul_precision(value, self.matmul, self.dtype)
            self._network.matmul_precision = value
        elif name in SETTINGS:
            raise AttributeError(f"{name} is fixed when an LSTM is made")
        elif name in self._network.parameters:
            raise AttributeError(f"{name} is read-only: use writable() or load_state_dict()")
        else:
            object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *SETTINGS, *RATES, *MULTIPLY, *self.parameters})

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
MULTIPLY = ("matmul", "matmul_precision")
SETTINGS = {*signature(LSTM).parameters} - {*RATES, *MULTIPLY, "seed"}
