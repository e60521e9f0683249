"""One run of a training: all that changes while it lasts, which is what a checkpoint holds."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..engine import Array
from ..network import storage
from . import checkpoints
from .history import History
from .processes import Processes
from .protocols import Model, Optimizer, Schedule
from .sources import Source

__all__ = ["Run"]


class Run:
    """What a training has come to.

    Attributes
    ----------
    epoch : int
    position : int
        Batches of the epoch that were used.
    updates : int
    state : state of the model
        In which the last batch ended.
    best : dict of str to ndarray, or None
        Parameters after the epoch with the least validation loss.
    least : float
        That loss.
    stale : int
        Epochs since.
    history : History
    """

    def __init__(
        self,
        model: Model,
        optimizer: Optimizer,
        schedule: Schedule | None,
        source: Source,
        processes: Processes,
        updates: int,
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self._source, self._processes = source, processes
        self.epoch = self.position = self.stale = 0
        self.updates = updates
        self.state: Any = None
        self.best: dict[str, Array] | None = None
        self.least = float("inf")
        self.history = History()

    def note(self, validation: float) -> None:
        """Keep the parameters if their validation loss is the least so far."""
        if validation < self.least:
            self.best, self.least, self.stale = self.model.state_dict(), validation, 0
        else:
            self.stale += 1
        tell = getattr(self.schedule, "tell", None)
        if tell is not None:
            tell(validation)

    # ---- in a file

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint; each process has its own part in it, the first one writes it."""
        parts = self._processes.gather(checkpoints.pack(self._own_part()))
        if self._processes.rank == 0:
            arrays = [np.frombuffer(part, np.uint8) for part in parts]
            tree = self._common_part() | {"processes": arrays}
            storage.write_whole(path, checkpoints.pack(tree))

    def resume(self, path: str | os.PathLike[str]) -> bool:
        """Go on from a checkpoint and return True, or return False if there is none.

        Raises
        ------
        ValueError
            If the file does not hold a run of this model and optimizer; nothing changes.
        """
        rank = self._processes.rank
        data = self._processes.send(checkpoints.read(path) if rank == 0 else None)
        if data is None:
            return False
        found = checkpoints.unpack(data, path)
        before = self._common_part(), self._own_part()
        try:
            self._check(found)
            own = checkpoints.unpack(found["processes"][rank].tobytes(), path)
            self._restore(found, own)
        except Exception as error:  # whatever blocks, optimizers and schedules say of states
            self._restore(*before)
            raise ValueError(f"checkpoint: {path} does not fit this training: {error}") from error
        return True

    def _common_part(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("epoch", "updates", "stale", "least")}
        schedule = getattr(self.schedule, "state_dict", lambda: None)
        return {
            **kept,
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": type(self.optimizer).__name__,
            "optimizer_state": self.optimizer.state_dict(),
            "schedule": schedule(),
            "history": self.history.state_dict(),
        }

    def _own_part(self) -> dict[str, Any]:
        return {
            "position": self.position,
            "state": self.state,
            "random": self.model.random_state(),
            "source": getattr(self._source, "random_state", lambda: None)(),
        }

    def _check(self, found: dict[str, Any]) -> None:
        """Raise unless a checkpoint is one of this model, optimizer and number of processes."""
        missing = {*self._common_part(), "processes"} - found.keys()
        if missing:
            raise ValueError(f"it has no {sorted(missing)}")
        theirs = {name: (value.shape, value.dtype) for name, value in found["model"].items()}
        for name, value in self.model.state_dict().items():
            shape, dtype = theirs.pop(name, (None, None))
            if (shape, dtype) != (value.shape, value.dtype):
                there = "missing" if shape is None else f"{shape} of {dtype}"
                raise ValueError(
                    f"it is of another model, in which {name} is {there}, and here {value.shape} "
                    f"of {value.dtype}"
                )
        if theirs:
            raise ValueError(f"it is of another model, which has {[*theirs]}, too")
        optimizer = type(self.optimizer).__name__
        if found["optimizer"] != optimizer:
            raise ValueError(f"it is of a training with {found['optimizer']}, not {optimizer}")
        size = len(found["processes"])
        if size != self._processes.size:
            raise ValueError(f"it is of {size} processes, not {self._processes.size}")

    def _restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:
        for name in ("epoch", "updates", "stale", "least", "best"):
            setattr(self, name, common[name])
        self.position, self.state = own["position"], own["state"]
        self.model.load_state_dict(common["model"])
        self.optimizer.load_state_dict(common["optimizer_state"])
        self.model.set_random_state(own["random"])
        for part, load, state in (
            (self.schedule, "load_state_dict", common["schedule"]),
            (self._source, "set_random_state", own["source"]),
        ):
            if state is not None:
                getattr(part, load)(state)
        self.history.load_state_dict(common["history"])
