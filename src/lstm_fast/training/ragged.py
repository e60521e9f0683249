"""`batches`: sequences of any lengths, padded, alike in length, in a new order every epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..network import checks
from .sources import Batch, Epochs, axes_of

__all__ = ["Batches", "batches"]

AnyArray = npt.NDArray[Any]

POOL = 16  # batches whose sequences are sorted by length together: alike in a batch, yet shuffled


@dataclass(eq=False, repr=False)
class Batches(Epochs):
    """What `batches` returns."""

    sequences: Sequence[AnyArray]
    lengths: npt.NDArray[np.intp]
    targets: Sequence[AnyArray] | None
    target_lengths: npt.NDArray[np.intp] | None  # of targets by step; None: one of each sequence
    weights: Sequence[AnyArray] | None  # each one number, or one for each step of a target
    aligned: bool
    begin: int | None
    batch_size: int
    shuffle: bool
    seed: int
    bucket: bool
    drop_last: bool
    batch_first: bool

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from number `start` on."""
        return map(self._batch, self._order(number)[start:])

    def _order(self, number: int) -> list[npt.NDArray[np.intp]]:
        """Return which sequences each batch of an epoch has."""
        rng = np.random.default_rng([self.seed, number])
        N, B = len(self.lengths), self.batch_size
        order = rng.permutation(N) if self.shuffle else np.arange(N)
        if self.drop_last:
            order = order[: N - N % B]  # by chance, and so not always the longest
        if self.bucket:
            pools = [order[n : n + POOL * B] for n in range(0, N, POOL * B)]
            order = np.concatenate(
                [order[:0], *(p[np.argsort(self.lengths[p], kind="stable")] for p in pools)]
            )
        found = [order[n : n + B] for n in range(0, len(order), B)]
        if self.shuffle and self.bucket:
            found = [found[n] for n in rng.permutation(len(found))]
        return found

    def _batch(self, rows: npt.NDArray[np.intp]) -> Batch:
        lengths = self.lengths[rows]
        T = int(lengths.max())
        x: Any = self._padded(self.sequences, rows, T)
        target: Any = None
        aims = None if self.aligned or self.target_lengths is None else self.target_lengths[rows]
        steps = T if aims is None else int(aims.max())
        if self.targets is not None:
            target = (
                np.stack([self.targets[n] for n in rows])
                if self.target_lengths is None
                else self._padded(self.targets, rows, steps)
            )
        weight = None if self.weights is None else self._weight(rows, steps, target.ndim)
        padded = aims is not None or lengths.min() < T
        given: Any = lengths if padded else None
        if self.begin is not None:
            later = 1 if self.batch_first else 0  # the axis of time
            written = np.insert(target, 0, self.begin, later).take(range(steps), later)
            x, given = (x, written), (lengths, aims)
        return Batch(x, target, given, weight, False, aims)

    def _weight(self, rows: npt.NDArray[np.intp], T: int, axes: int) -> AnyArray:
        """Return weights of sequences in a shape that broadcasts to that of their targets."""
        assert self.weights is not None
        if self.weights[rows[0]].ndim:
            weight = self._padded(self.weights, rows, T)
        else:
            weight = np.stack([self.weights[n] for n in rows])
            if self.target_lengths is not None:
                weight = weight[:, None] if self.batch_first else weight[None]
        return weight.reshape(weight.shape + (1,) * (axes - weight.ndim))

    def _padded(self, arrays: Sequence[AnyArray], rows: npt.NDArray[np.intp], T: int) -> AnyArray:
        """Return sequences side by side, with zeros after their ends."""
        first = arrays[rows[0]]
        extents = (len(rows), T) if self.batch_first else (T, len(rows))
        padded = np.zeros((*extents, *first.shape[1:]), first.dtype)
        by_row = padded if self.batch_first else padded.swapaxes(0, 1)
        for row, n in zip(by_row, rows, strict=True):
            row[: len(arrays[n])] = arrays[n]
        return padded

    def random_state(self) -> int:
        """Return the seed, with which another source of the same data has the same order."""
        return self.seed

    def set_random_state(self, state: int) -> None:
        """Set the seed."""
        self.seed = state


def batches(
    sequences: Sequence[AnyArray] | AnyArray,
    targets: Sequence[Any] | AnyArray | None = None,
    batch_size: int = 32,
    *,
    weight: Sequence[Any] | AnyArray | None = None,
    aligned: bool = True,
    begin: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    bucket: bool = True,
    drop_last: bool = False,
    batch_first: bool = False,
) -> Batches:
    """Return sequences of any lengths as batches, padded, in a new order every epoch.

    Parameters
    ----------
    sequences : sequence of ndarray
        Of shape (T, F), or (T,) of integers; T may differ, and may be 0. Or one array, (N, T, F) or
        (N, T).
    targets : sequence, optional
        One for each sequence: for each of its steps, shape (T, K), or (T,) of integers; or for all
        of it, shape (K,), or one integer. Without it, the targets of all batches are None.
    batch_size : int
        Sequences in a batch; the last one of an epoch may have fewer.
    weight : sequence, optional
        How much each sequence counts, (N,); or for each sequence how much each step of its target
        does, of shape (T,). A batch has them in a shape that broadcasts to that of its target.
    aligned : bool
        Targets with time steps have one for each step of their sequence. False: they have steps of
        their own, as translations have; every batch has `lengths` and `target_lengths` then.
    begin : int, optional
        Targets, of integers and with steps of their own, are what a decoder writes. Its input is
        this number and then, at each step, the target of the step before: `x` and `lengths` are
        pairs, of what is read and what is written, as `nn.EncoderDecoder` takes them.
    shuffle : bool
        The order depends on `seed` and the number of the epoch only; else it is always the same.
    seed : int, optional
        Any, if None.
    bucket : bool
        Sequences of similar lengths are in one batch: 16 batches' worth are sorted together.
    drop_last : bool
        Leave out, every epoch, as many sequences as do not fill a batch.
    batch_first : bool
        Batches are (B, T, ...) instead of (T, B, ...).

    Returns
    -------
    Batches
        Each ``iter`` gives the `Batch` es of the next epoch, ``epoch(number, start)`` those of a
        certain one; ``len`` is their number. `Batch.lengths` is None where there is no padding.

    Raises
    ------
    TypeError, ValueError
        If what is given has another type, shape, length or dtype; the message names it.
    """
    arrays = _arrays("sequences", sequences)
    for n, sequence in enumerate(arrays):
        if sequence.ndim != axes_of(sequence):
            raise ValueError(
                f"sequences[{n}]: expected shape (T, F), or (T,) of integers, got "
                f"{sequence.shape} of {sequence.dtype}"
            )
    lengths = np.array([len(sequence) for sequence in arrays], np.intp)
    aligned = checks.boolean("aligned", aligned) and begin is None
    aims = None if targets is None else _arrays("targets", targets)
    if aims is None and not aligned:
        raise ValueError(f"{'aligned: False' if begin is None else 'begin:'} needs targets")
    steps = None if aims is None else _steps(aims, lengths, aligned)
    if begin is not None and aims and (aims[0].ndim > 1 or aims[0].dtype.kind not in "iu"):
        raise ValueError("begin: needs targets of shape (T,), of integers")
    return Batches(
        arrays,
        lengths,
        aims,
        steps,
        None if weight is None else _weights(weight, aims, steps),
        aligned,
        None if begin is None else checks.integer("begin", begin, 0),
        checks.integer("batch_size", batch_size, 1),
        checks.boolean("shuffle", shuffle),
        checks.integer("seed", np.random.SeedSequence().entropy if seed is None else seed, 0),
        checks.boolean("bucket", bucket),
        checks.boolean("drop_last", drop_last),
        checks.boolean("batch_first", batch_first),
    )


def _arrays(name: str, given: Any, dtype: npt.DTypeLike | None = None) -> Sequence[AnyArray]:
    """Return arrays of numbers, of a certain dtype if any, that differ in their first extent."""
    if isinstance(given, np.ndarray) and given.ndim > 1 and given.dtype.kind in "iuf":
        checks.unmasked(name, given)
        return [*given]
    if isinstance(given, (str, bytes)) or not isinstance(given, (Sequence, np.ndarray)):
        raise TypeError(f"{name}: expected a list of arrays, got {type(given).__name__}")
    arrays: list[AnyArray] = []
    for n, item in enumerate(given):
        try:
            array = np.asarray(item)
        except ValueError as error:
            raise ValueError(f"{name}[{n}]: expected an array, got {error}") from error
        checks.unmasked(f"{name}[{n}]", item)
        if array.dtype.kind not in "iuf":
            raise TypeError(f"{name}[{n}]: expected numbers, got {array.dtype}")
        array = array if dtype is None else array.astype(dtype)
        first = arrays[0] if arrays else array
        if array.dtype != first.dtype:
            raise TypeError(f"{name}[{n}]: expected {first.dtype}, as the first, got {array.dtype}")
        if array.ndim != first.ndim or array.shape[1:] != first.shape[1:]:
            raise ValueError(
                f"{name}[{n}]: expected the shape of the first but for its length, "
                f"{first.shape}, got {array.shape}"
            )
        arrays.append(array)
    return arrays


def _steps(
    targets: Sequence[AnyArray], lengths: npt.NDArray[np.intp], aligned: bool
) -> npt.NDArray[np.intp] | None:
    """Return how many steps each target has; None: there is one for each sequence."""
    if len(targets) != len(lengths):
        raise ValueError(
            f"targets: expected one for each of {len(lengths)} sequences, got {len(targets)}"
        )
    if len(targets) == 0 or targets[0].ndim < axes_of(targets[0]):
        if targets and not aligned:
            raise ValueError("aligned: False needs targets that have time steps")
        for n, target in enumerate(targets):
            if target.shape != targets[0].shape:
                raise ValueError(
                    f"targets[{n}]: expected shape {targets[0].shape}, as the first, "
                    f"got {target.shape}"
                )
        return None
    found = np.array([len(target) for target in targets], np.intp)
    if aligned and (found != lengths).any():
        n = int(np.flatnonzero(found != lengths)[0])
        raise ValueError(
            f"targets[{n}]: expected {lengths[n]} steps, as its sequence has, got {found[n]} "
            "(aligned=False: targets have lengths of their own)"
        )
    return found


def _weights(
    given: Any, targets: Sequence[AnyArray] | None, steps: npt.NDArray[np.intp] | None
) -> Sequence[AnyArray]:
    """Return the weight of each target, or the weights of its steps."""
    if targets is None:
        raise ValueError("weight: needs targets")
    weights = _arrays("weight", given, np.float64)
    if len(weights) != len(targets):
        raise ValueError(
            f"weight: expected one for each of {len(targets)} sequences, got {len(weights)}"
        )
    for n, weight in enumerate(weights):
        if weight.ndim and (steps is None or weight.shape != (steps[n],)):
            wanted = "a number" if steps is None else f"a number or shape ({steps[n]},)"
            raise ValueError(f"weight[{n}]: expected {wanted}, got shape {weight.shape}")
    return weights
