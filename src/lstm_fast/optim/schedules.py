"""Schedules: the learning rate as a function of the step, which counts from 0.

optimizer.lr = schedule(step)        before that step
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..network import checks
from .optimizer import not_negative

__all__ = ["Plateau", "Schedule", "constant", "cosine", "one_cycle", "plateau", "warmup"]

Schedule = Callable[[int], float]


def constant(lr: float) -> Schedule:
    """Return a schedule that is `lr` at every step."""
    return partial(_constant, not_negative("lr", lr))


def cosine(lr: float, steps: int, final: float = 0.0) -> Schedule:
    """Return a schedule that falls from `lr` at step 0 to `final` at step `steps`, and stays there.

        final + (lr - final) (1 + cos(pi step / steps)) / 2

    as `torch.optim.lr_scheduler.CosineAnnealingLR`: I. Loshchilov, F. Hutter (2017), "SGDR:
    Stochastic gradient descent with warm restarts", without restarts.

    Parameters
    ----------
    lr, final : float
        Learning rates.
    steps : int
        At least 1.
    """
    lr, final = not_negative("lr", lr), not_negative("final", final)
    return partial(_cosine, lr, final, checks.integer("steps", steps, 1))


def one_cycle(
    max_lr: float,
    steps: int,
    pct_start: float = 0.3,
    anneal_strategy: str = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Return a schedule that rises to `max_lr` and falls to nearly 0, as PyTorch's `OneCycleLR`.

    L. N. Smith, N. Topin (2018), "Super-convergence: Very fast training of neural networks using
    large learning rates", in two phases.

    Parameters
    ----------
    max_lr : float
        The highest learning rate.
    steps : int
        Of the whole cycle, at least 1; the learning rate stays as it is at the last one.
    pct_start : float
        Part of the cycle in which it rises, from 0 to 1.
    anneal_strategy : {"cos", "linear"}
        Along half a cosine, or a line.
    div_factor : float
        It begins with ``max_lr / div_factor``.
    final_div_factor : float
        It ends with ``max_lr / div_factor / final_div_factor``.
    """
    steps = checks.integer("steps", steps, 1)
    top, rise = not_negative("max_lr", max_lr), checks.fraction("pct_start", pct_start) * steps - 1
    word = checks.one_of("anneal_strategy", anneal_strategy, ("cos", "linear"))
    factors = {"div_factor": div_factor, "final_div_factor": final_div_factor}
    for name, value in factors.items():
        if not checks.number(name, value) > 0:
            raise ValueError(f"{name}: expected a positive number, got {value}")
    first = top / div_factor
    return partial(_one_cycle, first, top, first / final_div_factor, rise, steps - 1, word == "cos")


def warmup(schedule: Schedule, steps: int) -> Schedule:
    """Return a schedule whose first `steps` steps rise in proportion to what `schedule` has there.

        schedule(step) min(1, (step + 1) / steps)

    Parameters
    ----------
    schedule : function of the step
        A `Plateau` can be told losses through what is returned, too.
    steps : int
        0 changes nothing.
    """
    if not callable(schedule):
        raise TypeError(f"schedule: expected a function, got {type(schedule).__name__}")
    return _Warmup(schedule, checks.integer("steps", steps, 0))


def plateau(
    lr: float,
    factor: float = 0.1,
    patience: int = 10,
    *,
    threshold: float = 1e-4,
    cooldown: int = 0,
    min_lr: float = 0.0,
) -> Plateau:
    """Return a schedule that multiplies `lr` by `factor` when validation losses stop falling.

    As `torch.optim.lr_scheduler.ReduceLROnPlateau`; it is told the losses by `Plateau.tell`.

    Parameters
    ----------
    lr : float
        The first learning rate.
    factor : float
        At least 0 and below 1.
    patience : int
        How many losses in a row may be no better than the best one before the next reduces `lr`.
    threshold : float
        A loss is better below (1 - threshold) times the best one.
    cooldown : int
        How many losses after a reduction do not count.
    min_lr : float
        What `lr` does not fall below.
    """
    return Plateau(lr, factor, patience, threshold, cooldown, min_lr)


class Plateau:
    """A schedule that depends on validation losses. See `plateau`."""

    def __init__(
        self,
        lr: float,
        factor: float,
        patience: int,
        threshold: float,
        cooldown: int,
        min_lr: float,
    ) -> None:
        self.lr = not_negative("lr", lr)
        self.factor = not_negative("factor", factor)
        if self.factor >= 1:
            raise ValueError(f"factor: expected a number below 1, got {factor}")
        self.patience = checks.integer("patience", patience, 0)
        self.threshold = checks.fraction("threshold", threshold)
        self.cooldown = checks.integer("cooldown", cooldown, 0)
        self.min_lr = not_negative("min_lr", min_lr)
        self.best, self.worse, self.cooling = math.inf, 0, 0

    def __call__(self, step: int) -> float:
        """Return the learning rate now."""
        return self.lr

    def tell(self, loss: float) -> None:
        """Take a validation loss into account; NaN is no better than any other."""
        loss = checks.number("loss", loss)
        better = loss < self.best * (1 - self.threshold)
        if better:
            self.best = loss
        self.worse = 0 if better or self.cooling else self.worse + 1
        self.cooling = max(0, self.cooling - 1)
        if self.worse > self.patience:
            self.lr = max(self.lr * self.factor, min(self.min_lr, self.lr))
            self.worse, self.cooling = 0, self.cooldown

    def state_dict(self) -> dict[str, float]:
        """Return what losses have changed."""
        return {name: getattr(self, name) for name in ("lr", "best", "worse", "cooling")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Set what `state_dict` returned; nothing changes if this raises."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        if {*state_dict} != {*self.state_dict()}:
            expected, found = ", ".join(self.state_dict()), ", ".join(map(str, state_dict))
            raise ValueError(f"state_dict: expected the keys {expected}, got {found}")
        lr, best = float(state_dict["lr"]), float(state_dict["best"])
        worse, cooling = int(state_dict["worse"]), int(state_dict["cooling"])
        self.lr, self.best, self.worse, self.cooling = lr, best, worse, cooling


class _Warmup:
    def __init__(self, schedule: Schedule, steps: int) -> None:
        self.schedule, self.steps = schedule, steps

    def __call__(self, step: int) -> float:
        lr = self.schedule(step)
        return lr * (step + 1) / self.steps if step < self.steps else lr

    def __getattr__(self, name: str) -> Any:  # what a Plateau has
        if name.startswith("_") or name == "schedule":
            raise AttributeError(name)
        return getattr(self.schedule, name)


def _constant(lr: float, step: int) -> float:
    return lr


def _cosine(lr: float, final: float, steps: int, step: int) -> float:
    return _between(lr, final, min(step, steps) / steps, True)


def _one_cycle(
    first: float, top: float, last: float, rise: float, end: int, smooth: bool, step: int
) -> float:
    if step < rise:
        return _between(first, top, step / rise, smooth)
    return _between(
        top, last, min(1.0, (step - rise) / (end - rise)) if end > rise else 0.0, smooth
    )


def _between(start: float, end: float, part: float, smooth: bool) -> float:
    """From start to end, along half a cosine or a line."""
    if smooth:
        return end + (start - end) / 2 * (1 + math.cos(math.pi * part))
    return start + (end - start) * part
