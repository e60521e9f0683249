"""How far a measurement is, and how long it still takes: a bar, or lines where is no terminal."""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

__all__ = ["progress"]

Item = TypeVar("Item")
SILENCE = 10.0  # seconds between two lines where stderr is no terminal


def progress(
    items: Sequence[Item],
    name: str,
    describe: Callable[[Item], str],
    cost: Callable[[Item], float] = lambda item: 1.0,
) -> Iterator[Item]:
    """Yield the items, and write to stderr at which one this is.

    Parameters
    ----------
    items : sequence
        What takes long.
    name : str
        What all of them belong to.
    describe : callable
        Text of an item.
    cost : callable
        About how long an item takes relative to others, for the time that remains.
    """
    terminal = sys.stderr.isatty()
    costs = [cost(item) for item in items]
    whole, done = sum(costs), 0.0
    start, written, last = time.monotonic(), float("-inf"), ""
    style = "{l_bar}{bar}{postfix}"
    with tqdm(total=len(items), desc=name, disable=not terminal, bar_format=style) as bar:
        for n, item in enumerate(items):
            now = time.monotonic()
            left = remaining(now - start, done, whole)
            text = f"{n + 1} of {len(items)}, {describe(item)}{left}"
            bar.set_postfix_str(text)
            group = describe(item).partition(":")[0]
            if not terminal and (now - written >= SILENCE or group != last):
                print(f"{name}: {text}", file=sys.stderr, flush=True)
                written, last = now, group
            yield item
            done += costs[n]
            bar.update()


def remaining(elapsed: float, done: float, whole: float) -> str:
    """Return how long the rest takes if it goes on like this; nothing if nothing is done yet."""
    if done <= 0:
        return ""
    seconds = round(elapsed * (whole - done) / done)
    return f", about {seconds // 60}:{seconds % 60:02} left"
