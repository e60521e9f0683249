"""`Trainer`: makes a model better, batch after batch."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Sized
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from .. import nn
from ..engine import Array
from ..engine.runtime.arithmetic import DefaultArithmetic
from ..engine.update import squared_norm
from ..network import checks
from ..network.block import Block
from ..network.layout import Gradients
from ..optim import clip_by_global_norm
from .checkpoints import Checkpoint, as_checkpoint
from .diagnosis import where_backward, where_forward
from .history import History
from .interrupts import Interrupts
from .processes import Communicator, Processes
from .progress import Progress
from .protocols import Loss, Model, Optimizer, Schedule
from .run import Run
from .sources import Batch, Source, axes_of, epoch_of

__all__ = ["Trainer"]


class _Outcome(NamedTuple):
    """Of a try to make an update."""

    batches: bool  # whether any process had some; else the epoch is over
    loss: float | None  # None without an update
    stop: bool  # whether Ctrl-C came in a process


class Trainer:
    """Trains a model: forward, loss, backward, clipping, learning rate, update.

    Parameters
    ----------
    model : block
    loss : callable
        ``loss(y, target, weight, lengths)`` gives a mean over what counts and its gradient for y. A
        method ``count(target, weight, lengths)`` says how much that is; without it, all steps count
        alike.
    optimizer : optimizer
    clip_norm : float, optional
        Gradients whose norm is larger are scaled to it, by `optim.clip_by_global_norm`.
    schedule : callable, optional
        The learning rate, from the number of the update, the first of which is 0. If it has a
        method `tell`, this is told the validation loss after each epoch.
    comm : mpi4py.MPI.Comm, optional
        One run on all its processes, each with its own batches: an update takes the mean of their
        gradients, weighted by what counts in each. All begin with the parameters of process 0,
        which alone prints and writes.
    accumulate : int
        Batches whose gradients make one update: that of the batch which they would be together.
    seed : int, optional
        Of the noise of the model (dropout, zoneout), other noise in each process. Without it, the
        blocks draw as they were made.

    Attributes
    ----------
    updates : int
        How many were made, in all calls of `fit`.

    Raises
    ------
    TypeError, ValueError
        If an argument has a wrong type or value.
    """

    def __init__(
        self,
        model: Model,
        loss: Loss,
        optimizer: Optimizer,
        *,
        clip_norm: float | None = None,
        schedule: Schedule | None = None,
        comm: Communicator | None = None,
        accumulate: int = 1,
        seed: int | None = None,
    ) -> None:
        for name, given, method in (
            ("model", model, "backward"),
            ("loss", loss, "__call__"),
            ("optimizer", optimizer, "step"),
            ("schedule", schedule, "__call__"),
        ):
            if isinstance(given, type):
                raise TypeError(
                    f"{name}: expected an object, got the class; write {given.__name__}()"
                )
            if given is not None and not hasattr(given, method):
                raise TypeError(f"{name}: {type(given).__name__} has no {method}")
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.clip_norm = None if clip_norm is None else checks.number("clip_norm", clip_norm)
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm: expected more than 0, got {clip_norm}")
        self.schedule = schedule
        self.accumulate = checks.integer("accumulate", accumulate, 1)
        self.updates = 0
        self._processes = Processes(comm)
        if seed is not None:
            seeds = np.random.SeedSequence([checks.integer("seed", seed, 0), self._processes.rank])
            model.set_random_state(_reseeded(model.random_state(), seeds))

    def fit(
        self,
        batches: Source,
        validation: Source | None = None,
        epochs: int = 1,
        patience: int | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        progress: bool = True,
    ) -> History:
        """Train.

        Parameters
        ----------
        batches : iterable, or callable
            Of batches (x, target) or `Batch`; it is iterated anew each epoch. Or a function of the
            number of the epoch that returns such an iterable. `batches` and `truncated` go on from
            a checkpoint without computing again what came before it.
        validation : iterable, or callable, optional
            The same. After each epoch the loss on it is computed; at the end the parameters with
            the least one are put back.
        epochs : int
            Times to go through all batches, including those before a checkpoint.
        patience : int, optional
            End after so many epochs without a lesser validation loss than the least.
        checkpoint : path or Checkpoint, optional
            Write the run to this file after each epoch; if it is there already, go on from it, to
            the same bits as if the run had not been stopped.
        progress : bool
            Show a bar (where tqdm is installed) or, without a terminal, some lines, on stderr.

        Returns
        -------
        History
            If Ctrl-C came: what there was up to then, with `interrupted` True. The update that was
            being made is finished before, and a checkpoint written. A second Ctrl-C raises.

        Raises
        ------
        TypeError, ValueError
            If an argument has a wrong type or value, or a checkpoint is broken, was written by a
            newer version or belongs to another training; nothing changes then. If a batch is one
            sequence without an axis of a batch, and has lengths.
        FloatingPointError
            If a loss or a gradient is not finite. The parameters are those before that update.
        """
        epochs = checks.integer("epochs", epochs, 0)
        if patience is not None:
            patience = checks.integer("patience", patience, 1)
            if validation is None:
                raise ValueError("patience: needs validation")
        where = as_checkpoint(checkpoint)
        shown = checks.boolean("progress", progress) and self._processes.rank == 0
        for name, source in (("batches", batches), ("validation", validation)):
            if epochs > 1 and isinstance(source, Iterator):
                raise TypeError(
                    f"{name}: expected what can be iterated {epochs} times (epochs), got "
                    f"{type(source).__name__}"
                )
        run = Run(
            *(self.model, self.optimizer, self.schedule, batches, self._processes, self.updates)
        )
        with Interrupts() as interrupts:
            with interrupts.shield():
                resumed = where is not None and run.resume(where.path)
                if not resumed and self._processes.size > 1:
                    with self.model._parameters.update() as flat:
                        self._processes.copy_first(flat)
            steps = -(-len(batches) // self.accumulate) if isinstance(batches, Sized) else None
            with Progress(shown, epochs, steps, len(run.history.loss)) as display:
                if resumed and where is not None:
                    display.say(f"{where.path}: goes on after {run.updates} updates")
                try:
                    while run.epoch < epochs and not (patience and run.stale >= patience):
                        self._epoch(run, batches, validation, where, interrupts, display)
                        if run.history.interrupted:
                            break
                except KeyboardInterrupt:
                    if interrupts.seen > 1:
                        raise
                    run.history.interrupted = True
                finally:
                    self.updates = run.updates
            with interrupts.shield():
                if run.best is not None:
                    self.model.load_state_dict(run.best)
        run.history.interrupted |= interrupts.seen > 0  # also where it was too late
        return run.history

    def evaluate(self, batches: Source) -> float:
        """Return the mean loss over all that counts in batches; NaN if nothing does."""
        loss, _ = self._evaluate("batches", batches, Interrupts())
        return loss

    # ---- an epoch

    def _epoch(
        self,
        run: Run,
        batches: Source,
        validation: Source | None,
        where: Checkpoint | None,
        interrupts: Interrupts,
        display: Progress,
    ) -> None:
        """Train until the end of an epoch, or until Ctrl-C, and write checkpoints."""
        start = time.perf_counter()
        display.begin(run.epoch)
        stream = epoch_of("batches", batches, run.epoch, run.position)
        loss, stop = None, False
        while not stop:
            done = self._update(stream, run, interrupts)
            stop = done.stop
            if done.loss is not None:
                display.step(done.loss)
                every = None if where is None else where.every
                if where is not None and every and run.updates % every == 0:
                    with interrupts.shield():
                        run.save(where.path)
            if not done.batches:
                break
        if not stop and validation is not None:
            loss, stop = self._evaluate("validation", validation, interrupts)
        with interrupts.shield():
            if stop:
                run.history.interrupted = True
            else:
                if loss is not None:
                    run.note(loss)
                run.history.add_epoch(loss, time.perf_counter() - start)
                run.epoch, run.position = run.epoch + 1, 0
                display.end(loss, int(np.diff(run.history.steps, prepend=0)[-1]))
            if where is not None:
                run.save(where.path)

    def _evaluate(self, name: str, source: Source, interrupts: Interrupts) -> tuple[float, bool]:
        """Return the mean loss, and whether Ctrl-C came before it was complete."""
        sums = np.zeros(3)  # losses, what counts, Ctrl-C
        state = None
        for batch in epoch_of(name, source, 0):
            if interrupts.seen:
                break
            y, state = self.model(batch.x, state if batch.state else None, lengths=batch.lengths)
            lengths, count = self._counted(y, batch)
            if count:
                loss = self.loss(y, batch.target, batch.weight, lengths)[0]
                sums += float(loss) * count, count, 0
        sums[2] = interrupts.seen
        losses, count, stop = self._processes.sum(sums)
        return float(losses / count) if count else math.nan, bool(stop)

    # ---- an update

    def _update(self, stream: Iterator[Batch], run: Run, interrupts: Interrupts) -> _Outcome:
        """Take the next batches and make an update from what counts in them, if anything does."""
        layout = self.model._parameters.layout
        alone = self.accumulate == self._processes.size == 1
        total: Array | None = None  # gradients times what counts, but of one batch as they are
        losses = counted = 0.0  # the losses times what counts; what counts
        own, wrong = 0, None
        for batch in islice(stream, self.accumulate):
            before = run.state if batch.state else None
            y, run.state, cache = self.model.forward(batch.x, before, lengths=batch.lengths)
            lengths, count = self._counted(y, batch)
            own += 1
            if not count:
                continue
            share = 1.0 if alone else count
            loss, dy = self.loss(y, batch.target, batch.weight, lengths)
            _, _, grads = self.model.backward(dy, None, cache)
            flat = layout.flat(grads)
            if wrong is None and not math.isfinite(loss):
                wrong = where_forward(self.model, batch, before)
            losses += float(loss) * share
            counted += share
            with DefaultArithmetic():
                if not alone:
                    flat *= share
                total = flat if total is None else np.add(total, flat, out=total)
        mine, taken, stop = total, own, bool(interrupts.seen)
        if self._processes.size > 1:
            total, (losses, counted, taken, stop) = self._sum_over_processes(
                total, losses, counted, own, stop
            )
        if total is None or not counted:
            run.position += own
            return _Outcome(bool(taken), None, bool(stop))
        if not alone:
            total /= counted
        loss, norm = losses / counted, math.sqrt(squared_norm(total))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            if wrong is None:
                found = {} if mine is None else layout.views(mine)
                wrong = where_backward(self.model, found)
            raise FloatingPointError(
                f"step {run.updates}: the loss is {loss:.6g}, the norm of the gradient {norm:.6g}; "
                f"not finite first: {wrong}"
            )
        grads = Gradients(layout, total)
        if self.clip_norm is not None and norm > self.clip_norm:
            clip_by_global_norm(grads, self.clip_norm)
        if self.schedule is not None:
            self.optimizer.lr = self.schedule(run.updates)
        with interrupts.shield():
            self.optimizer.step(self.model, grads)
            run.history.add_step(loss, norm, self.optimizer.lr)
            run.updates += 1
            run.position += own
        if self._processes.size == 1:  # others could not know of it
            stop = bool(interrupts.seen)
        return _Outcome(bool(taken), loss, bool(stop))

    def _counted(self, y: Array, batch: Batch) -> tuple[Any, float]:
        """Return the lengths for the loss, and how much it counts of a batch."""
        if batch.lengths is not None and self._takes_one(batch.x):
            raise ValueError(
                f"lengths: x is one sequence, of shape {batch.x.shape}; pass its steps without "
                "padding, or all axes of a batch"
            )
        lengths = batch.target_lengths
        if lengths is None and y.ndim > 2:  # else y is one for all steps
            lengths = batch.lengths
        count = getattr(self.loss, "count", None)
        if count is not None:
            return lengths, float(count(batch.target, batch.weight, lengths))
        if batch.weight is not None:
            raise TypeError(
                f"loss: {type(self.loss).__name__} has no method count, which weights need"
            )
        return lengths, float(math.prod(y.shape[:-1]) if lengths is None else np.sum(lengths))

    def _takes_one(self, x: Any) -> bool:
        """Whether x is one sequence; what a class of the user's takes, only that knows."""
        known = isinstance(self.model, Block) and not isinstance(self.model, nn.Model)
        return known and isinstance(x, np.ndarray) and x.ndim == axes_of(x)

    def _sum_over_processes(self, total: Array | None, *numbers: float) -> tuple[Array, list[Any]]:
        """Return the sums of gradients and of numbers, in one message."""
        layout = self.model._parameters.layout
        message = np.zeros(layout.size + len(numbers), layout.dtype)
        if total is not None:
            message[: layout.size] = total
        message[layout.size :] = numbers
        message = self._processes.sum(message)
        return message[: layout.size], message[layout.size :].tolist()


def _reseeded(state: Any, seeds: np.random.SeedSequence) -> Any:
    """Return the state of blocks with all generators in it begun anew, from seeds of their own."""
    if isinstance(state, dict) and "bit_generator" in state:
        [seed] = seeds.spawn(1)
        return getattr(np.random, state["bit_generator"])(seed).state
    if isinstance(state, dict):
        return {key: _reseeded(value, seeds) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_reseeded(value, seeds) for value in state]
    return state
