"""One run on several processes, which talk through a communicator of mpi4py, or on one."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Communicator", "Processes"]


class Communicator(Protocol):
    """What is used of ``mpi4py.MPI.Comm``."""

    def Get_rank(self) -> int:
        """Return the number of this process."""

    def Get_size(self) -> int:
        """Return how many processes there are."""

    def Allreduce(self, sendbuf: Any, recvbuf: Any) -> None:
        """Write the sum of what all processes send to all of them."""

    def Bcast(self, buf: Any, root: int = 0) -> None:
        """Write what process `root` has to all others."""


class Processes:
    """All processes of a run; only one if there is no communicator.

    Attributes
    ----------
    rank, size : int
    """

    def __init__(self, comm: Communicator | None) -> None:
        self._comm = comm
        self.rank = 0 if comm is None else comm.Get_rank()
        self.size = 1 if comm is None else comm.Get_size()

    def sum(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the sum over all processes, the same bits in all of them."""
        if self._comm is None:
            return values
        total = np.empty_like(values)
        self._comm.Allreduce(values, total)
        return total

    def copy_first(self, values: npt.NDArray[Any]) -> None:
        """Write the values of process 0 to the arrays of the others."""
        if self._comm is not None:
            self._comm.Bcast(values, root=0)

    def send(self, data: bytes | None, root: int = 0) -> bytes | None:
        """Return what process `root` has; the others' `data` does not matter."""
        if self._comm is None:
            return data
        size = np.array([-1 if data is None else len(data)])
        self._comm.Bcast(size, root=root)
        if size[0] < 0:
            return None
        found = np.empty(size[0], np.uint8)
        if self.rank == root and data is not None:
            found[:] = np.frombuffer(data, np.uint8)
        self._comm.Bcast(found, root=root)
        return found.tobytes()

    def gather(self, data: bytes) -> list[bytes]:
        """Return the data of all processes."""
        return [self.send(data, rank) or b"" for rank in range(self.size)]
