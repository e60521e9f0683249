"""The arguments of one call: from users' arrays to the engine's, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..engine import Array
from ..engine.batch import Ragged
from ..engine.packing import Packing, packing_of
from ..engine.tape import Cache
from . import checks
from .results import Out, Results
from .settings import Settings, StateShape
from .wiring import States

__all__ = ["Arguments", "BackwardArguments", "Input", "State", "states"]

State = tuple[Any, Any]
Input = Array | tuple[Array, npt.ArrayLike]


class Arguments:
    """What a call of an LSTM takes, checked and in the form of `Network`.

    Parameters
    ----------
    settings : Settings
    x, state, lengths, mask, padding, out
        As of a call of `LSTM`.

    Attributes
    ----------
    arrays : x, h0, c0, y, hn, cn
        The engine's, the last three to be written.
    T, B, batched : int, int, bool
        As users see them: extents, and whether states have B.
    packing : Packing or None
        Of a ragged batch.
    """

    def __init__(
        self,
        settings: Settings,
        x: Input,
        state: State | None,
        lengths: npt.ArrayLike | None,
        mask: npt.NDArray[np.bool_] | None,
        padding: checks.Padding,
        out: Out | None,
    ) -> None:
        dtype = settings.dtype
        hold = checks.padding(padding) == "hold"
        self.batched, self.packing = True, None
        if isinstance(x, tuple):
            if lengths is not None or mask is not None:
                raise ValueError("x: (concatenated, offsets) goes with neither lengths nor mask")
            concatenated, steps = checks.concatenated("x", x, dtype, settings.input_size)
            x, self.T, self.B = concatenated[:, None], len(concatenated), len(steps)
            self.packing = Packing(steps, self.T, hold, None, True)
        else:
            self.batched, x = time_major(settings, "x", x, settings.input_size)
            self.T, self.B, _ = x.shape
            self.packing = packing_of(*checks.steps(lengths, mask, self.T, self.B), self.T, hold)
        T, B, packing = self.T, self.B, self.packing
        whole = packing is not None and packing.concatenated
        checks.fits("x", (max(T, B) if whole else max(T, 1) * B) * settings.widest, dtype)
        h0, c0 = states(settings, "state", state, ("h0", "c0"), B, self.batched)
        self._results = Results(
            (T, 1 if whole else B, settings.columns),
            settings.state_shapes(B),
            dtype,
            self.batched,
            self.batched and not whole,
            settings.batch_first,
            out,
            (x, h0, c0),
        )
        self._arrays = x, h0, c0, self._results.y, self._results.hn, self._results.cn
        if packing is None:
            self.arrays: tuple[Any, ...] = checks.in_order(x), *self._arrays[1:]
        else:
            self.arrays = packing.arguments(self._arrays)

    @property
    def ragged(self) -> Ragged | None:
        """The rows of a ragged batch."""
        return None if self.packing is None else self.packing.ragged

    def results(self) -> tuple[Array, State]:
        """Return y, (hn, cn) for the user, once they are written."""
        if self.packing is not None:
            self.packing.results(self.arrays, self._arrays)
        return self._results.finished()


class BackwardArguments:
    """What `LSTM.backward` takes, checked and in the form of `Network`; and the way back.

    Parameters
    ----------
    settings : Settings
    dy, dstate
        As of `LSTM.backward`.
    cache : Cache

    Attributes
    ----------
    arrays : dy, dhn, dcn
    """

    def __init__(
        self, settings: Settings, dy: Array | None, dstate: State | None, cache: Cache
    ) -> None:
        self._settings, self._packing, self._batched = settings, cache._packing, cache._batched
        T, B, packing = cache._T, cache._B, cache._packing
        self._whole = packing is not None and packing.concatenated
        if dy is not None:
            batched, dy = time_major(settings, "dy", dy, settings.columns)
            shape = T, 1 if self._whole else B
            if batched != (self._batched and not self._whole) or dy.shape[:2] != shape:
                raise ValueError(
                    f"dy: expected the shape of y for T={T}, B={B}, got {dy.shape} (time first)"
                )
        dhn, dcn = states(settings, "dstate", dstate, ("dhn", "dcn"), B, self._batched)
        if packing is None:
            self.arrays = None if dy is None else checks.in_order(dy), dhn, dcn
        else:
            self.arrays = packing.gradients((dy, dhn, dcn))

    def results(self, dx: Any, dh0: States, dc0: States) -> tuple[Any, State]:
        """Return dx (None if it was not wanted), (dh0, dc0) for the user."""
        settings, packing = self._settings, self._packing
        if packing is not None:
            dh0, dc0 = packing.unsort(dh0), packing.unsort(dc0)
        if not self._batched:
            dh0, dc0 = _unbatched(dh0), _unbatched(dc0)
        dstate = (tuple(dh0), tuple(dc0)) if settings.differ else (dh0, dc0)
        return (None if dx is None else self._dx(dx)), dstate

    def _dx(self, dx: Array) -> Array:
        if self._packing is not None:
            dx = self._packing.unpack_gradient(dx)
        if self._whole or not self._batched:
            return dx[:, 0]
        return dx.swapaxes(0, 1) if self._settings.batch_first else dx


def time_major(settings: Settings, name: str, value: Any, columns: int) -> tuple[bool, Array]:
    """Return whether an array is batched, and it as (T, B, columns)."""
    value = checks.real(name, value, settings.dtype)
    if value.ndim not in (2, 3) or value.shape[-1] != columns:
        axes = "B, T" if settings.batch_first else "T, B"
        raise ValueError(
            f"{name}: expected shape ({axes}, {columns}) or (T, {columns}), got {value.shape}"
        )
    if value.ndim == 2:
        return False, value[:, None]
    return True, value.swapaxes(0, 1) if settings.batch_first else value


def states(
    settings: Settings, name: str, value: Any, names: tuple[str, str], B: int, batched: bool
) -> tuple[States | None, States | None]:
    """Return a state or its gradient as the engine's arrays, or None for zeros."""
    if value is None:
        return None, None
    letters = "L D, B, columns" if batched else "L D, columns"
    h, c = (
        None if part is None else _state(settings, part_name, part, shape, batched, letters)
        for part_name, part, shape in zip(
            names, checks.pair(name, value), settings.state_shapes(B), strict=True
        )
    )
    return h, c


def _state(
    settings: Settings, name: str, part: Any, shape: StateShape, batched: bool, letters: str
) -> States:
    if isinstance(shape, list):
        if not isinstance(part, (tuple, list)):
            raise TypeError(f"{name}: expected one array for each layer, got {type(part).__name__}")
        if len(part) != len(shape):
            raise ValueError(f"{name}: expected {len(shape)} arrays, got {len(part)}")
        letters = letters.removeprefix("L ")
        return [
            np.asarray(_state(settings, f"{name}[{n}]", one, part_shape, batched, letters))
            for n, (one, part_shape) in enumerate(zip(part, shape, strict=True))
        ]
    if batched:
        return checks.shaped(name, part, settings.dtype, shape, letters)
    D, _, columns = shape
    return checks.shaped(name, part, settings.dtype, (D, columns), letters)[:, None]


def _unbatched(array: Any) -> Any:
    """Return states without the axis of B."""
    return [a[:, 0] for a in array] if isinstance(array, list) else array[:, 0]
