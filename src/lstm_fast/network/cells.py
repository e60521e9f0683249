"""The parameters of an LSTM, packed for the engine as they are now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from ..engine.cell import Cell
from .options import CellOptions
from .parameters import ParameterSource, lock

__all__ = ["CellSource", "PackedCells", "by_cell"]


class CellSource(Protocol):
    """What a network needs of its cells: `PackedCells`, or `LowerCells`.

    Attributes
    ----------
    kept : tuple
        Version of the parameters, their cells, whether these have all that training and BLAS need.
    """

    bfloat16: bool
    kept: tuple[int, list[Cell], bool, bool]

    def current(self, training: bool, blas: bool, of_input: bool = True) -> list[Cell]:
        """Return the cells of the present parameters, with what training and BLAS need.

        In training, the gradient `of_input` may not be wanted.
        """


def by_cell(names: Iterable[str]) -> list[dict[str, str]]:
    """Return the name of each parameter of each cell, by what `Cell` calls it."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        kind, suffix = name.rsplit("_l", 1)
        found.setdefault(suffix, {})[kind.replace("weight", "w").replace("bias", "b")] = name
    return [*found.values()]


class PackedCells:
    """The cells of all layers and directions, layer-major; packed when first needed after a write.

    Parameters
    ----------
    parameters : ParameterSource
        Their names end in the suffix of their layer and direction, layer-major.
    options : CellOptions
        Of the cells.

    Attributes
    ----------
    bfloat16 : bool
        Whether products round to bfloat16. May be set, by whoever then changes the version.
    """

    __slots__ = ("_names", "_options", "_parameters", "_read_x", "bfloat16", "kept")

    def __init__(
        self, parameters: ParameterSource, options: CellOptions, bfloat16: bool = False
    ) -> None:
        self._parameters, self._options = parameters, None if options.plain else options
        self.bfloat16 = bfloat16
        self._names = by_cell(parameters.names)
        self._read_x = [names["w_ih"].endswith(("_l0", "_l0_reverse")) for names in self._names]
        # Version of the parameters, their cells, whether these have all for training and for BLAS.
        self.kept: tuple[int, list[Cell], bool, bool] = -1, [], False, False

    def current(self, training: bool, blas: bool, of_input: bool = True) -> list[Cell]:
        """Return the cells of the present parameters, with what training and BLAS need.

        A call beside `Parameters.load_state_dict` gets those before it or those after it.
        """
        with lock():
            while True:
                parameters = self._parameters
                now = parameters.version.number
                version, cells, for_training, for_blas = self.kept
                if version != now:
                    self.kept = -1, [], False, False  # so that their memory, if free, serves again
                    del cells
                    cells = self._pack(training, of_input)
                    for_training = for_blas = False
                for cell, reads_x in zip(cells, self._read_x, strict=True):
                    cell.prepare(training, blas, of_input or not reads_x)
                if parameters.version.number == now:  # no signal handler has written meanwhile
                    break
            if parameters.settled:
                for_training |= training and of_input
                self.kept = now, cells, for_training, blas or for_blas
            return cells

    def _pack(self, training: bool, of_input: bool) -> list[Cell]:
        values: dict[str, Any] = dict(self._parameters.items())
        return [
            Cell(
                **{kind: values[name] for kind, name in names.items()},
                options=self._options,
                bfloat16=self.bfloat16,
                training=training,
                of_input=of_input or not reads_x,
            )
            for names, reads_x in zip(self._names, self._read_x, strict=True)
        ]
