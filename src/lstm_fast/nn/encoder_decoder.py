"""`EncoderDecoder`: reads one sequence and writes another, as in translation or a summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..network import checks
from ..network.block import Block
from ..network.checks import Indices
from ..network.layout import Gradients
from .attention import Attention
from .model import Model, named
from .rows import Kept, kept_in

__all__ = ["EncoderDecoder"]


class EncoderDecoder(Model):
    """An encoder, a decoder that goes on from its states, and a head that chooses what follows.

    ::

        memory, state = encoder(read)        y, _ = decoder(written, state)
        scores = head([y, attention(y, memory)])

    Sutskever and others (2014), "Sequence to Sequence Learning with Neural Networks", with
    Luong's attention; see `Attention`. Its x is a pair, and so are its `lengths`: those of batches
    that ``training.batches(read, targets, begin=)`` makes.

    Parameters
    ----------
    encoder, decoder : Block
        As `Sequential` of an `Embedding` and an `LSTM`. States go from one to the other as they
        are: with the same names, layers, directions and sizes.
    head : Block
        From the decoder's columns, with attention twice as many, to scores (before a softmax).
    attention : float, optional
        Scale of the dot products, as 1 / sqrt(columns). None: no attention, the states say all.

    Raises
    ------
    TypeError, ValueError
        As `Model`; if the order of T and B differs; if an encoder without a time axis is asked.

    Examples
    --------
    >>> def reader(seed):
    ...     return Sequential(embed=Embedding(9, 8, seed=seed), lstm=LSTM(8, 16, seed=seed))
    >>> model = EncoderDecoder(reader(0), reader(1), Linear(32, 9, seed=2), attention=0.25)
    >>> model.generate([[3], [4], [5]], begin=0, end=1, beam=3, longest=5)
    [array([...])]
    """

    encoder: Block
    decoder: Block
    head: Block

    def __init__(
        self, encoder: Block, decoder: Block, head: Block, *, attention: float | None = None
    ) -> None:
        super().__init__(encoder=encoder, decoder=decoder, head=head)
        for name, block in self.blocks.items():
            if block.batch_first != self.batch_first:
                raise ValueError(
                    f"{name}: has batch_first={block.batch_first}, and encoder {self.batch_first}"
                )
        if not (encoder.stateful and decoder.stateful):
            raise ValueError("encoder: its states go to the decoder, and one of them has none")
        if head.stateful or not head.keeps_time:
            raise ValueError("head: expected a block of each step by itself")
        self.attention: Attention | None = None
        if attention is not None:
            if not encoder.keeps_time:
                raise ValueError("attention: needs the time steps of the encoder, which has none")
            scale = checks.number("attention", attention)
            self.attention = Attention(scale, batch_first=self.batch_first, dtype=self.dtype)

    def __call__(self, x: Any, state: None = None, *, lengths: Any = None) -> tuple[Array, None]:
        """Compute in inference.

        Parameters
        ----------
        x : tuple of array
            What is read, and what has been written, each as its block takes it.
        state : None
            There is none: both sequences are whole.
        lengths : tuple of array_like of int, optional
            Time steps of each sequence of both. None instead of one: it has no padding.

        Returns
        -------
        scores : ndarray, shape (T, B, columns of the head), or (B, T, ...) with `batch_first`
            Of what follows each step of what has been written.
        state : None

        Raises
        ------
        TypeError, ValueError, RuntimeError
            As the blocks, with the name of the block before the message.
        """
        (read, written), (n, m) = _pairs(x, state, lengths)
        memory, after = self._read(read, n)
        with named("decoder"):
            y, _ = self.decoder(written, after, lengths=m)
        return self._scores(y, memory, n, m), None

    def forward(
        self, x: Any, state: None = None, *, lengths: Any = None
    ) -> tuple[Array, None, Kept]:
        """Compute in training: as a call, and return a cache for `backward` besides."""
        (read, written), (n, m) = _pairs(x, state, lengths)
        with named("encoder"):
            memory, after, of_encoder = self.encoder.forward(read, lengths=n)
        with named("decoder"):
            y, _, of_decoder = self.decoder.forward(written, after, lengths=m)
        of_attention = None
        if self.attention is not None:
            with named("attention"):
                context, of_attention = self.attention.forward(y, memory, lengths=n)
            y = np.concatenate([y, context], axis=2)
        with named("head"):
            scores, _, of_head = self.head.forward(y, lengths=m)
        return scores, None, Kept(self, (of_encoder, of_decoder, of_attention, of_head))

    def backward(self, dy: Any, dstate: None, cache: Kept) -> tuple[Any, None, Gradients]:
        """Return the gradients of both inputs (None where they hold numbers) and the parameters.

        Parameters
        ----------
        dy : ndarray, shape of scores
            Gradient of what `forward` returned.
        dstate : None
            There is none.
        cache
            From `forward` of this model.

        Returns
        -------
        dx : tuple of ndarray or None
        dstate : None
        grads : dict
            Keys and shapes of `state_dict`. All of them are views of the one array ``grads.flat``.
        """
        of_encoder, of_decoder, of_attention, of_head = kept_in(cache, self)
        with named("head"):
            dy, _, head = self.head.backward(dy, None, of_head)
        dmemory = None
        if self.attention is not None:
            dy, dcontext = np.split(dy, 2, axis=2)
            dquery, dmemory = self.attention.backward(dcontext, of_attention)
            dy = dy + dquery
        dwritten, dafter, decoder = self.decoder.backward(dy, None, of_decoder)
        dread, _, encoder = self.encoder.backward(dmemory, dafter, of_encoder)
        grads = self.gradients(encoder=encoder, decoder=decoder, head=head)
        return (dread, dwritten), None, grads

    def generate(
        self,
        read: Any,
        lengths: npt.ArrayLike | None = None,
        *,
        begin: int,
        end: int,
        beam: int = 1,
        longest: int = 100,
    ) -> list[Indices]:
        """Return what the decoder writes for each sequence that is read: numbers, by beam search.

        The `beam` likeliest beginnings of each sequence are continued step by step. Likeliest is
        what has the greatest mean logarithm of the probability of its numbers, `end` included.

        Parameters
        ----------
        read : array, shape (T, B) or (T, B, I); with `batch_first` B before T
            As the encoder takes it.
        lengths : array_like of int, shape (B,), optional
            Time steps of each.
        begin : int
            What the decoder is given first.
        end : int
            The number after which a sequence is over.
        beam : int
            1: greedy search, always on with the likeliest number.
        longest : int
            Numbers after which a sequence is over in any case.

        Returns
        -------
        list of ndarray of int
            The numbers written for each sequence, without `begin` and `end`.

        Raises
        ------
        TypeError, ValueError
            For arguments that do not fit, or fit no number that the head has a score for.
        """
        beam, longest = checks.integer("beam", beam, 1), checks.integer("longest", longest, 1)
        begin, end = checks.integer("begin", begin, 0), checks.integer("end", end, 0)
        memory, state = self._read(read, lengths)
        if memory.ndim != 2 + self.encoder.keeps_time:
            axes = "B, T" if self.batch_first else "T, B"
            raise ValueError(f"read: expected axes ({axes}), got shape {np.shape(read)}")
        B = memory.shape[0] if self.batch_first else memory.shape[-2]
        rows = np.arange(B)
        written = np.full((1, beam, B), begin)  # so many of each sequence
        total = np.full((beam, B), -np.inf)  # logarithm of the probability
        total[0] = 0  # at first all are the same, and one is enough
        ended, counts = np.zeros((beam, B), bool), np.zeros((beam, B))
        state = _of_rows(state, np.tile(rows, beam))
        while len(written) <= longest and not ended.all():
            odds, state = self._next(written[-1], state, memory, lengths)
            V = odds.shape[2]
            if end >= V:
                raise ValueError(f"end: expected a number below {V}, of which there are scores")
            with DefaultArithmetic():
                odds[ended] = -np.inf
                odds[ended, end] = 0  # which changes nothing
                odds += total[..., None]
                counts += ~ended
                mean = (odds / counts[..., None]).swapaxes(0, 1).reshape(B, -1)
            best = np.argpartition(mean, -beam)[:, -beam:].T  # (beam, B)
            of, number = divmod(best, V)
            total, counts = odds[of, rows, number], counts[of, rows]
            written = np.concatenate([written[:, of, rows], number[None]])
            ended = number == end
            state = _of_rows(state, (of * B + rows).ravel())
        best = np.argmax(total / counts, axis=0)
        return [_until(end, one) for one in written[1:, best, rows].T]

    def _read(self, read: Any, lengths: Any) -> tuple[Array, Any]:
        """Return the outputs of the encoder and its states."""
        with named("encoder"):
            return self.encoder(read, lengths=lengths)

    def _next(
        self, numbers: Indices, state: Any, memory: Array, lengths: Any
    ) -> tuple[npt.NDArray[np.float64], Any]:
        """Return logarithms of what follows numbers (n, B), n for each memory, and the states."""
        n, B = numbers.shape
        shape = (-1, 1) if self.batch_first else (1, -1)
        with named("decoder"):
            y, state = self.decoder(numbers.reshape(shape), state)
        y = y.reshape(n, B, -1)  # n queries of each memory, as if these were time steps
        if self.batch_first:
            y = y.swapaxes(0, 1)
        scores = self._scores(y, memory, lengths)
        if self.batch_first:
            scores = scores.swapaxes(0, 1)
        with DefaultArithmetic():
            odds = scores.astype(np.float64)
            odds -= odds.max(axis=2, keepdims=True)
            odds -= np.log(np.exp(odds).sum(axis=2, keepdims=True))
        return odds, state

    def _scores(self, y: Array, memory: Array, n: Any, m: Any = None) -> Array:
        """Return the scores of outputs of the decoder, with what they find in the encoder's."""
        if self.attention is not None:
            with named("attention"):
                y = np.concatenate([y, self.attention(y, memory, lengths=n)], axis=2)
        with named("head"):
            return self.head(y, lengths=m)[0]

    # As all blocks of the package, and unlike a `Model` of the user's, it is made from its file.
    save = Block.save

    def _options(self) -> dict[str, Any]:
        return super()._options() | {"attention": self.attention and self.attention.scale}


def _pairs(x: Any, state: Any, lengths: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Return both inputs and both lengths."""
    if state is not None:
        raise ValueError("state: expected None, since an EncoderDecoder has none")
    lengths = (None, None) if lengths is None else lengths
    for name, given in (("x", x), ("lengths", lengths)):
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError(f"{name}: expected a pair, of what is read and what is written")
    return tuple(x), tuple(lengths)


def _of_rows(state: Any, rows: Indices) -> Any:
    """Return the states of some sequences, (layers, B, size) each."""
    if isinstance(state, Mapping):
        return {name: _of_rows(part, rows) for name, part in state.items()}
    return tuple(part[:, rows] for part in state)


def _until(end: int, numbers: Indices) -> Indices:
    """Return the numbers before the first that is the end."""
    at = np.flatnonzero(numbers == end)
    return numbers[: at[0]] if len(at) else numbers.copy()
