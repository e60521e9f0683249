"""Names, shapes and storage of an LSTM's parameters: reading, writing, packing, copying."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _checks, _engine
from ._checks import Array
from ._options import CellOptions

__all__ = ["ParameterHolder", "WritableParameters"]


def copy_checked(
    name: str, value: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a copy of floating-point values of one shape, cast to `dtype`."""
    _checks.unmasked(name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{name}: expected shape {shape}, got rows of different lengths"
        ) from error
    if array.dtype.kind != "f":
        raise TypeError(f"{name}: expected real floating-point numbers, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array.astype(dtype)


class WritableParameters(Mapping[str, Array]):
    """Parameters that can be written in place until closed; ``p[name] = value`` copies values."""

    def __init__(self, parameters: dict[str, Array]) -> None:
        self._views = {name: value.view() for name, value in parameters.items()}

    def __getitem__(self, name: str) -> Array:
        return self._views[name]

    def __setitem__(self, name: str, value: npt.ArrayLike) -> None:
        view = self._views[name]
        if value is not view:  # p[name] -= ... assigns the array that it has changed in place
            view[...] = copy_checked(name, value, view.shape, view.dtype)

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)

    def close(self) -> None:
        """Make the arrays that were handed out read-only."""
        for view in self._views.values():
            view.flags.writeable = False


class ParameterHolder:
    """Parameters by name: read-only but in `writable`, and packed for the kernels when needed.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Arrays that own their memory, of one dtype; they now belong to the holder. Their names end
        in the suffix of their layer and direction, layer-major.
    options : CellOptions
        Of the cells.
    """

    def __init__(self, parameters: dict[str, Array], options: CellOptions) -> None:
        self._parameters, self._options = parameters, options
        self._set_writeable(False)
        self._cells: list[_engine.Cell] | None = None  # packed parameters; None: stale
        self._short: tuple[Any, ...] | None = None  # what short calls need of them; None: stale
        self._writers = 0

    def _set_writeable(self, writeable: bool) -> None:
        # Of the arrays that own the memory: a view of a read-only one cannot be made writable.
        for value in self._parameters.values():
            value.flags.writeable = writeable

    def __getattr__(self, name: str) -> Array:
        parameters = self.__dict__.get("_parameters", {})
        if name in parameters:
            view: Array = parameters[name].view()
            view.flags.writeable = False
            return view
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._parameters})

    def state_dict(self) -> dict[str, Array]:
        """Return copies of all parameters by name, in PyTorch's order."""
        return {name: value.copy() for name, value in self._parameters.items()}

    def load_state_dict(self, state_dict: Mapping[str, npt.ArrayLike]) -> None:
        """Set all parameters; nothing changes if this raises.

        Parameters
        ----------
        state_dict : mapping of str to array_like
            Exactly the keys and shapes of `state_dict`. Floating-point values of another precision
            are cast.

        Raises
        ------
        TypeError
            If `state_dict` is no mapping, or a value does not hold real floating-point numbers.
        ValueError
            If a key is missing or unknown, or a value has another shape.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict: expected a mapping, got {type(state_dict).__name__}")
        missing = [name for name in self._parameters if name not in state_dict]
        unknown = [name for name in state_dict if name not in self._parameters]
        if missing or unknown:
            wrong = [f"missing keys {missing}"] * bool(missing)
            wrong += [f"unknown keys {unknown}"] * bool(unknown)
            raise ValueError(f"state_dict: {', '.join(wrong)}")
        values = {
            name: copy_checked(f"state_dict[{name!r}]", state_dict[name], old.shape, old.dtype)
            for name, old in self._parameters.items()
        }
        with self.writable() as parameters:
            for name, value in values.items():
                parameters[name] = value

    @contextmanager
    def writable(self) -> Iterator[WritableParameters]:
        """Open the parameters for writing: ``with lstm.writable() as p: p["bias_hh_l0"] += 1``.

        The arrays are the parameters themselves. Calls inside the block and after it use the new
        values. After the block they are read-only again; do not keep views of them.
        """
        self._cells = self._short = None
        self._writers += 1
        self._set_writeable(True)
        parameters = WritableParameters(self._parameters)
        try:
            yield parameters
        finally:
            parameters.close()
            self._cells = self._short = None
            self._writers -= 1
            if not self._writers:
                self._set_writeable(False)

    def _packed(self) -> list[_engine.Cell]:
        """Return the packed parameters of every layer and direction."""
        cells = self._cells
        if cells is None:
            groups: dict[str, dict[str, Array]] = {}
            for name, value in self._parameters.items():
                kind, suffix = name.rsplit("_l", 1)
                group = groups.setdefault(suffix, {})
                group[kind.replace("weight", "w").replace("bias", "b")] = value
            cells = [_engine.Cell(**group, options=self._options) for group in groups.values()]
            if not self._writers:
                self._cells = cells
        return cells

    def __getstate__(self) -> dict[str, Any]:
        kept = self.__dict__.keys() - {"_cells", "_short", "_writers"}
        return {name: value for name, value in self.__dict__.items() if name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _cells=None, _short=None, _writers=0)
        # NumPy's own instance again, which checks of arrays recognise at once.
        self.__dict__["dtype"] = np.dtype(self.__dict__["dtype"].name)
        # Unpickled arrays may lie in a buffer that cannot be made writable again.
        self._parameters = {name: value.copy() for name, value in self._parameters.items()}
        self._set_writeable(False)

    def __copy__(self) -> Any:
        """Return a deep copy: with shared arrays, one would not see writes to the other."""
        return deepcopy(self)
