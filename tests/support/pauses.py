"""Pauses at the lines of a call: what runs there, as if Python had switched to another thread."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

# Seconds. What runs at a line may have to wait for a lock that the paused call holds: then the call
# goes on. What has not ended long after that hangs.
PATIENCE, HANGS = 0.005, 30


class Task(threading.Thread):
    """A function in another thread; what it raises is raised again by `result`."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        super().__init__(daemon=True)
        self._function, self._args = function, args
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            self._value = self._function(*self._args)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Return what the function returned, at the end of it."""
        self.join(HANGS)
        assert not self.is_alive(), f"{self._function} hangs"
        if self._error is not None:
            raise self._error
        return self._value


@contextmanager
def paused(
    n: int,
    action: Callable[[], object],
    event: str = "line",
    modules: str = "lstm_fast",
    visits: int = 2,
) -> Iterator[SimpleNamespace]:
    """Call `action` before line number `n`, from 0, of the package that this thread runs.

    Lines count in the order in which they are run, each as often as `visits`. An exception of
    `action` appears there, as if the line had raised it. With the event "call" it is the entries of
    functions that count; `modules` names others than those of the package, separated by blanks.
    Yields an object whose `count` is what it counted.
    """
    names = tuple(modules.split())
    visited: Counter[tuple[object, int]] = Counter()
    seen = SimpleNamespace(count=0)

    def trace(frame, what, _):
        if not frame.f_globals.get("__name__", "").startswith(names):
            return None
        if what == event:
            place = frame.f_code, frame.f_lineno
            visited[place] += 1
            if visited[place] <= visits:
                seen.count += 1
                if seen.count == n + 1:
                    action()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield seen
    finally:
        sys.settrace(before)


def beside(
    make: Callable[[], Any],
    call: Callable[[Any], Any],
    other: Callable[[Any], Any],
    **options: Any,
) -> Iterator[tuple[Any, Any, Any]]:
    """Run `call`, and `other` in another thread while it is at one of its lines: one after another.

    Both take what `make` made. Yields that and what both returned. Options are those of `paused`.
    """
    n = 0
    while True:
        made = make()
        task = Task(other, made)

        def start(task=task):
            task.start()
            task.join(PATIENCE)

        with paused(n, start, **options) as seen:
            result = call(made)
        if seen.count <= n:
            break
        yield made, result, task.result()
        n += 1
    assert n, "no line of the package was seen"


def lines(call: Callable[[], object]) -> int:
    """Return how many lines of the package a call runs in this thread."""
    with paused(-1, lambda: None, visits=sys.maxsize) as seen:
        call()
    return int(seen.count)
