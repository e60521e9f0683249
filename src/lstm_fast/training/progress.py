"""How far a training is: a bar, or lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from importlib import import_module
from typing import Any

__all__ = ["Progress"]

SILENCE = 5.0  # seconds between two lines
SMOOTHING = 0.05  # weight of the newest loss in what is shown


class Progress:
    """As a context; writes to stderr.

    Parameters
    ----------
    shown : bool
        Nothing is written otherwise.
    epochs : int
    per_epoch : int or None
        Steps of an epoch, if they are known before the first ends.
    done : int
        Steps that an earlier run made.
    """

    def __init__(self, shown: bool, epochs: int, per_epoch: int | None, done: int) -> None:
        self.shown, self.epochs, self.per_epoch = shown, epochs, per_epoch
        self._first = self._done = done
        self._epoch = 0
        self._loss: float | None = None
        self._validation = ""
        self._bar = _bar(done, self._total()) if shown else None

    def __enter__(self) -> Progress:
        self._start = self._written = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def _total(self) -> int | None:
        return None if self.per_epoch is None else self.per_epoch * self.epochs

    def begin(self, epoch: int) -> None:
        """Begin an epoch, the first of which is 0."""
        self._epoch = epoch

    def step(self, loss: float) -> None:
        """Say that a step is done."""
        if not self.shown:
            return
        self._done += 1
        self._loss = loss if self._loss is None else self._loss + SMOOTHING * (loss - self._loss)
        if self._bar is not None:
            self._bar.set_postfix_str(self._losses(), refresh=False)
            self._bar.set_description_str(self._where(), refresh=False)
            self._bar.update()
        elif time.monotonic() - self._written >= SILENCE:
            self._write()

    def end(self, validation: float | None, steps: int) -> None:
        """Say that an epoch is done, which had so many steps."""
        if not self.shown:
            return
        if validation is not None:
            self._validation = f", validation {validation:.4g}"
        self.per_epoch = self.per_epoch or steps or None
        if self._bar is not None:
            self._bar.total = self._total()
            self._bar.set_postfix_str(self._losses())
        elif time.monotonic() - self._written >= SILENCE or self._epoch + 1 == self.epochs:
            self._write()

    def say(self, text: str) -> None:
        """Write a line."""
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        elif self.shown:
            print(text, file=sys.stderr, flush=True)

    def _where(self) -> str:
        return f"epoch {self._epoch + 1} of {self.epochs}"

    def _losses(self) -> str:
        return f"loss {self._loss or 0:.4g}{self._validation}"

    def _write(self) -> None:
        now = time.monotonic()
        rate = (self._done - self._first) / max(now - self._start, 1e-9)
        total = self._total()
        step = f"step {self._done}" + ("" if total is None else f" of {total}")
        line = f"{self._where()}, {step}: {self._losses()}, {rate:.3g} steps/s"
        if total is not None and rate > 0:
            left = max(round((total - self._done) / rate), 0)
            line += f", {left // 60}:{left % 60:02} left"
        self._written = now
        print(line, file=sys.stderr, flush=True)


def _bar(done: int, total: int | None) -> Any:
    """Return a bar of tqdm, where it is installed and there is a terminal, or None."""
    if not sys.stderr.isatty():
        return None
    try:
        tqdm = import_module("tqdm").tqdm
    except ImportError:
        return None
    return tqdm(total=total, initial=done, unit="step", dynamic_ncols=True, file=sys.stderr)
