"""What a training measured."""

from __future__ import annotations

from array import array
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import pictures

__all__ = ["Best", "History"]

STEPS = "loss", "gradient_norm", "lr"
EPOCHS = "steps", "validation", "seconds"
ROWS = 12  # of the table


class Best(NamedTuple):
    """The epoch, counted from 0, after which the validation loss was least."""

    epoch: int
    validation: float


class History:
    """What `Trainer.fit` measured: an array for each quantity.

    Attributes
    ----------
    loss, gradient_norm, lr : ndarray, shape (updates,)
        Of each update: loss before it, norm of the gradient before it was clipped, learning rate.
    steps : ndarray of int, shape (epochs,)
        Updates that had been made when an epoch ended.
    validation, seconds : ndarray, shape (epochs,)
        Validation loss after each epoch, NaN if there is none; time that the epoch took.
    best : Best or None
    interrupted : bool
        Whether Ctrl-C came.
    """

    def __init__(self) -> None:
        self._arrays = {name: array("d") for name in (*STEPS, *EPOCHS)}
        self.interrupted = False

    def add_step(self, loss: float, gradient_norm: float, lr: float) -> None:
        """Add an update."""
        for name, value in zip(STEPS, (loss, gradient_norm, lr), strict=True):
            self._arrays[name].append(value)

    def add_epoch(self, validation: float | None, seconds: float) -> None:
        """Add an epoch, of the updates since the last one."""
        values = len(self._arrays["loss"]), float("nan") if validation is None else validation
        for name, value in zip(EPOCHS, (*values, seconds), strict=True):
            self._arrays[name].append(value)

    def __getattr__(self, name: str) -> npt.NDArray[Any]:
        found = self.__dict__.get("_arrays", {}).get(name)
        if found is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return np.array(found, np.intp if name == "steps" else np.float64)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._arrays]

    @property
    def best(self) -> Best | None:
        """The best epoch, of those that have a validation loss."""
        validation = self.validation
        if np.isnan(validation).all():
            return None
        epoch = int(np.nanargmin(validation))
        return Best(epoch, float(validation[epoch]))

    def state_dict(self) -> dict[str, npt.NDArray[np.float64]]:
        """Return all arrays by name, as `load_state_dict` takes them."""
        return {name: np.array(values) for name, values in self._arrays.items()}

    def load_state_dict(self, state_dict: dict[str, npt.NDArray[np.float64]]) -> None:
        """Set all arrays."""
        self._arrays = {name: array("d", state_dict[name]) for name in self._arrays}

    def plot(self, path: Any = None) -> Any:
        """Draw the learning curve: see `learning_curve`."""
        return pictures.learning_curve(self, path)

    def __repr__(self) -> str:
        names = f"{'epoch':>6}{'steps':>9}{'loss':>12}{'validation':>12}{'lr':>11}{'norm':>11}"
        lines = [f"{names}{'seconds':>10}"]
        best, steps = self.best, self.steps
        validation, seconds = self.validation, self.seconds
        count = len(steps)
        shown = np.linspace(0, count - 1, min(count, ROWS)).round().astype(int)
        for epoch in sorted({*shown, *([] if best is None else [best.epoch])}):
            part = slice(steps[epoch - 1] if epoch else 0, steps[epoch])
            loss, lr, norm = (self._mean(name, part) for name in ("loss", "lr", "gradient_norm"))
            mark = "*" if best is not None and epoch == best.epoch else " "
            lines.append(
                f"{epoch + 1:>6}{steps[epoch]:>9}{loss:>12.5g}{validation[epoch]:>11.5g}{mark}"
                f"{lr:>11.3g}{norm:>11.3g}{seconds[epoch]:>10.1f}"
            )
        if self.interrupted:
            lines.append(f"interrupted after {len(self._arrays['loss'])} steps")
        return "\n".join(lines)

    def _mean(self, name: str, part: slice) -> float:
        values = self._arrays[name][part]
        return sum(values) / len(values) if values else float("nan")
