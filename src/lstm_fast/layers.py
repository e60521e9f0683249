"""The `LSTM` class: parameters, layers and directions, checks of what is passed, state."""

from __future__ import annotations

import math
import sys
import warnings
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _checks, _direct
from ._checks import Array, Matmul, Padding
from ._packing import Packing
from ._results import Out, Results
from .parameters import ParameterHolder, parameter_shapes
from .stack import Cache, dropout_mask, infer, train
from .streaming import Stream

__all__ = ["LSTM"]

State = tuple[Array, Array]


class LSTM(ParameterHolder):
    """A long short-term memory network on the CPU, for NumPy arrays.

    Each layer computes, for every time step, with ``s`` the logistic sigmoid and ``*`` the product
    of elements::

        i = s(W_ii x + b_ii + W_hi h + b_hi)        f = s(W_if x + b_if + W_hf h + b_hf)
        g = tanh(W_ig x + b_ig + W_hg h + b_hg)     o = s(W_io x + b_io + W_ho h + b_ho)
        c' = f * c + i * g                          h' = o * tanh(c'), projected: W_hr (o *
        tanh(c'))

    Names, shapes, gate order and initial values are those of ``torch.nn.LSTM``.

    Parameters
    ----------
    input_size : int
        Features of the input, I.
    hidden_size : int
        Units, H.
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
        Each layer runs in both directions (D = 2) and outputs both, concatenated.
    proj_size : int
        If positive, the outputs of each direction are projected to this size, P < H.
    dtype : numpy.float32 or numpy.float64
        Of the parameters, of all that is passed and returned, and of the computation.
    seed : int or numpy.random.Generator, optional
        Source of the initial parameters and of dropout.
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
    dropout, matmul
        As above; may be set. The other settings are fixed.

    Raises
    ------
    TypeError
        If an argument has a wrong type.
    ValueError
        If it has a wrong value.

    Examples
    --------
    >>> lstm = LSTM(3, 5, seed=0)
    >>> y, (hn, cn) = lstm(np.zeros((7, 2, 3), np.float32))
    >>> y.shape, hn.shape
    ((7, 2, 5), (1, 2, 5))
    """

    _FIXED = (
        *("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional"),
        *("proj_size", "dtype"),
    )

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        dtype: npt.DTypeLike = np.float32,
        seed: int | np.random.Generator | None = None,
        matmul: Matmul = "auto",
    ) -> None:
        self.input_size = _checks.integer("input_size", input_size, 1)
        self.hidden_size = _checks.integer("hidden_size", hidden_size, 1)
        self.num_layers = _checks.integer("num_layers", num_layers, 1)
        self.bias = _checks.boolean("bias", bias)
        self.batch_first = _checks.boolean("batch_first", batch_first)
        self.dropout = dropout
        self.bidirectional = _checks.boolean("bidirectional", bidirectional)
        self.proj_size = _checks.integer("proj_size", proj_size, 0)
        self.dtype = _checks.real_dtype("dtype", dtype)
        self.matmul = matmul
        if self.proj_size >= self.hidden_size:
            raise ValueError(
                f"proj_size: expected less than hidden_size={hidden_size}, got {proj_size}"
            )
        if self.dropout and self.num_layers == 1:
            warnings.warn(
                f"dropout={dropout} acts between layers, and num_layers=1 has none", stacklevel=2
            )
        self._rng = _checks.generator("seed", seed)
        self._output_size = self.proj_size or self.hidden_size
        self._directions = 2 if self.bidirectional else 1
        # Whether one call of the engine, time first, computes all of it: see `stack`.
        self._one_stage = not self.batch_first and (self._directions == 1 or self.num_layers == 1)
        sizes = (self.input_size, self.hidden_size, self.proj_size)
        _checks.fits("hidden_size", 8 * self.hidden_size**2, self.dtype)
        _checks.fits("input_size", 4 * self.hidden_size * self.input_size, self.dtype)
        _checks.fits("num_layers", 8 * self.hidden_size**2 * self.num_layers, self.dtype)
        shapes = parameter_shapes(*sizes, self.num_layers, self._directions, self.bias)
        bound = 1 / math.sqrt(self.hidden_size)
        super().__init__(
            {
                name: self._rng.uniform(-bound, bound, s).astype(self.dtype)
                for name, s in shapes.items()
            }
        )

    # ---- settings

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "dropout":
            value = _checks.fraction(name, value)
        elif name == "matmul":
            value = _checks.matmul(value)
        elif "_parameters" in self.__dict__:
            if name in self._FIXED:
                raise AttributeError(f"{name} is fixed when an LSTM is made")
            if name in self._parameters:
                raise AttributeError(f"{name} is read-only: use writable() or load_state_dict()")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted")

    def __repr__(self) -> str:
        words = [str(self.input_size), str(self.hidden_size)]
        defaults = {
            "num_layers": 1,
            "bias": True,
            "batch_first": False,
            "dropout": 0.0,
            "bidirectional": False,
            "proj_size": 0,
            "matmul": "auto",
        }
        words += [f"{k}={getattr(self, k)!r}" for k, v in defaults.items() if getattr(self, k) != v]
        return f"LSTM({', '.join(words)}, dtype={self.dtype})"

    # ---- computing

    def __call__(
        self,
        x: Array,
        state: tuple[Array | None, Array | None] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        padding: Padding = "zero",
        out: Out | None = None,
    ) -> tuple[Array, State]:
        """Run over sequences without keeping anything for backward.

        Parameters
        ----------
        x : ndarray, shape (T, B, I), or (B, T, I) with `batch_first`, or (T, I) for one sequence
            T and B may be 0. Any strides, either byte order; the dtype must be that of the LSTM.
        state : (h0, c0), optional
            Initial state, shapes (L D, B, H) (h0: P columns when projected), or (L D, H) for one
            sequence. Zeros where absent or None.
        lengths : array_like of int, shape (B,), optional
            Time steps of each sequence, from 0 to T, in any order. What comes after the end of a
            sequence is neither read nor computed, its final state is that at its last step, and its
            reverse direction starts there. A sequence of length 0 keeps its state.
        padding : {"zero", "hold"}
            What `y` has after the end of a sequence: zeros, or the output of its last step.
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
        if lengths is None and padding == "zero" and self._one_stage and self.matmul != "blas":
            cells = self._cells or self._packed()
            found = _direct.infer(cells, x, state, out, self._directions)
            if found is not None:
                return found
        y, state, _ = self._run(x, state, lengths, padding, out, False, None)
        return y, state

    def forward(
        self,
        x: Array,
        state: tuple[Array | None, Array | None] | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        padding: Padding = "zero",
        out: Out | None = None,
        checkpoint: int | None = None,
    ) -> tuple[Array, State, Cache]:
        """Run over sequences in training: with dropout, and a cache for `backward`.

        Parameters
        ----------
        x, state, lengths, padding, out
            As of a call.
        checkpoint : int, optional
            Keep the state only at every so many time steps, or some more (whole chunks of
            `backward`, of at least 512 rows), and compute the rest again in `backward`: less memory
            for about a third more time. The bits of all results stay the same.

        Returns
        -------
        y, (hn, cn)
            As of a call.
        cache
            Opaque; ``cache.nbytes`` is its size. For each time step, row, layer and direction it
            holds 24 H bytes in float32 (H a multiple of 16), and 4 I for the input.
        """
        plain = lengths is None and padding == "zero" and checkpoint is None
        if plain and self._one_stage and self.matmul != "blas" and not self._drops_out():
            cells = self._cells or self._packed()
            given = _direct.train(cells, x, state, out, self._directions)
            if given is not None:
                y, last, x, tapes = given
                stage = slice(0, len(cells)), tapes, x, None
                return y, last, Cache(self, cells, [stage], x.shape[:2])
        if checkpoint is not None:
            checkpoint = min(_checks.integer("checkpoint", checkpoint, 1), sys.maxsize)
        y, state, cache = self._run(x, state, lengths, padding, out, True, checkpoint)
        assert cache is not None
        return y, state, cache

    def _run(
        self,
        x: Array,
        state: tuple[Array | None, Array | None] | None,
        lengths: npt.ArrayLike | None,
        padding: Padding,
        out: Out | None,
        training: bool,
        checkpoint: int | None,
    ) -> tuple[Array, State, Cache | None]:
        cells, blas, directions = self._packed(), self.matmul == "blas", self._directions
        _checks.padding(padding)
        batched, x = self._time_major("x", x, self.input_size)
        T, B, _ = x.shape
        jobs, columns = self.num_layers * directions, directions * self._output_size
        _checks.fits("x", max(T, 1) * B * max(5 * self.hidden_size, columns), self.dtype)
        h0, c0 = self._state("state", state, ("h0", "c0"), B, batched)
        packing = None
        if lengths is not None:
            packing = Packing(_checks.lengths("lengths", lengths, T, B), T, padding == "hold")
        shapes = (T, B, columns), (jobs, B, self._output_size), (jobs, B, self.hidden_size)
        results = Results(shapes, self.dtype, batched, self.batch_first, out, (x, h0, c0))
        y, hn, cn, ragged = results.y, results.hn, results.cn, None
        if packing is not None:
            x, h0, c0, ragged = packing.pack(x), packing.sort(h0), packing.sort(c0), packing.ragged
            y, hn, cn = (
                np.empty((len(x), columns), self.dtype),
                np.empty_like(hn),
                np.empty_like(cn),
            )
        arrays = np.ascontiguousarray(x), h0, c0, y, hn, cn
        cache = None
        if training:
            draw_mask = None
            if self._drops_out():
                draw_mask = partial(dropout_mask, self._rng, self.dropout, self.dtype)
            stages = train(cells, directions, arrays, ragged, blas, draw_mask, checkpoint)
            cache = Cache(self, cells, stages, (T, B), batched, packing, blas)
        else:
            infer(cells, directions, arrays, ragged, blas)
        if packing is not None:
            packing.unpack(y, results.y)
            packing.unsort(hn, results.hn)
            packing.unsort(cn, results.cn)
        return *results.finished(), cache

    def _drops_out(self) -> bool:
        return self.dropout > 0 and self.num_layers > 1

    def backward(
        self,
        dy: Array | None,
        dstate: tuple[Array | None, Array | None] | None,
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
        if packing is None and cache.batched and not self.batch_first:
            given = _direct.gradients(cache.cells, dy, dstate, T, B, self._directions)
            if given is not None:
                dx, dh0, dc0, values = cache.backward(*given)
                return dx, (dh0, dc0), dict(zip(self._parameters, values, strict=True))
        if dy is not None:
            batched, dy = self._time_major("dy", dy, self._directions * self._output_size)
            if batched != cache.batched or dy.shape[:2] != (T, B):
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
            dh0, dc0 = (packing.unsort(a, np.empty_like(a)) for a in states)
        grads = dict(zip(self._parameters, values, strict=True))
        if cache.batched:
            return (dx.swapaxes(0, 1) if self.batch_first else dx), (dh0, dc0), grads
        return dx[:, 0], (dh0[:, 0], dc0[:, 0]), grads

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a `Stream`, which runs this LSTM one time step at a time from a zero state.

        Raises
        ------
        ValueError
            If the LSTM is bidirectional: its reverse direction starts at the end of the sequence.
        """
        return Stream(self, batch_size)

    # ---- helpers

    def _time_major(self, name: str, value: Array, columns: int) -> tuple[bool, Array]:
        """Return whether `value` is batched, and it as (T, B, columns)."""
        value = _checks.real(name, value, self.dtype)
        if value.ndim not in (2, 3) or value.shape[-1] != columns:
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(
                f"{name}: expected shape ({axes}, {columns}) or (T, {columns}), got {value.shape}"
            )
        if value.ndim == 2:
            return False, value[:, None]
        return True, value.swapaxes(0, 1) if self.batch_first else value

    def _state(
        self, name: str, value: Any, names: tuple[str, str], B: int, batched: bool
    ) -> tuple[Array | None, Array | None]:
        """Return a state or its gradient as arrays (L D, B, columns), or None for zeros."""
        h, c = _checks.pair(name, value)
        rows = (self.num_layers * self._directions, *((B,) if batched else ()))
        letters = "L D, B, columns" if batched else "L D, columns"
        if h is not None:
            h = _checks.shaped(names[0], h, self.dtype, (*rows, self._output_size), letters)
        if c is not None:
            c = _checks.shaped(names[1], c, self.dtype, (*rows, self.hidden_size), letters)
        if batched:
            return h, c
        return None if h is None else h[:, None], None if c is None else c[:, None]
