"""Ctrl-C while a model is trained."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Interrupts"]


class Interrupts:
    """As a context: the first Ctrl-C is counted, a second one raises, but not inside `shield`.

    Python handles signals in the main thread only; in another one, nothing changes.

    Attributes
    ----------
    seen : int
        How often Ctrl-C came.
    """

    def __init__(self) -> None:
        self.seen = 0
        self._shielded = False
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):  # not where the process ignores it
                self._before = before
                signal.signal(signal.SIGINT, self._count)
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.seen += 1
        if self.seen > 1 and not self._shielded:
            raise KeyboardInterrupt

    @contextmanager
    def shield(self) -> Iterator[None]:
        """What happens inside happens entirely; a second Ctrl-C raises afterwards."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False
        if self.seen > 1:
            raise KeyboardInterrupt
