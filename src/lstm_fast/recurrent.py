"""What an `LSTM` and a `QuantizedLSTM` have in common: inference, and streams."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .engine import Array
from .network import checks, unsaid
from .network.arguments import Arguments, Input, State
from .network.block import Block
from .network.network import Network
from .network.options import Activation, LayerNorm
from .network.results import Out
from .network.settings import Init, Merge
from .stream import OnNaN, Stream

__all__ = ["Recurrent"]


class Recurrent(Block):
    """A block that runs a `Network` over sequences."""

    stateful = True

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
    layer_norm: LayerNorm
    residual: bool
    init: Init
    forget_bias: float | None
    zoneout: tuple[float, float] | None

    _network: Network[Any]

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
        if one_call is not None and mask is None and padding == "zero":
            found = one_call.infer(x, state, out, lengths)
            if found is not None:
                return found
        given = Arguments(network.settings, x, state, lengths, mask, padding, out)
        network.infer(given.arrays, given.ragged)
        return given.results()

    def stream(self, batch_size: int = 1, on_nan: OnNaN = "keep") -> Stream[Any]:
        """Return a `Stream`, which runs this LSTM one time step at a time from a zero state.

        Raises
        ------
        ValueError
            If the LSTM is bidirectional or runs in reverse, from the end of the sequence.
        """
        return Stream(self, batch_size, on_nan)

    def _said(self) -> dict[str, Array]:
        return unsaid.said(self)

    def _shape_after(self, shape: tuple[Any, ...]) -> tuple[Any, ...]:
        return *shape[:-1], self._network.settings.columns
