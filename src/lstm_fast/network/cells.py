"""The parameters of an LSTM, packed for the engine as they are now."""

from __future__ import annotations

from ..engine import Array
from ..engine.cell import Cell
from .options import CellOptions
from .parameters import Parameters, lock

__all__ = ["PackedCells"]


class PackedCells:
    """The cells of all layers and directions, layer-major; packed when first needed after a write.

    Parameters
    ----------
    parameters : Parameters
        Their names end in the suffix of their layer and direction, layer-major.
    options : CellOptions
        Of the cells.
    """

    __slots__ = ("_options", "_parameters", "kept")

    def __init__(self, parameters: Parameters, options: CellOptions) -> None:
        self._parameters, self._options = parameters, options
        # Version of the parameters, their cells, whether these have what training and BLAS need.
        self.kept: tuple[int, list[Cell], bool, bool] = -1, [], False, False

    def current(self, training: bool, blas: bool) -> list[Cell]:
        """Return the cells of the present parameters, with what training and BLAS need.

        A call beside `Parameters.load_state_dict` gets those before it or those after it.
        """
        with lock():
            while True:
                parameters = self._parameters
                now = parameters.version.number
                version, cells, for_training, for_blas = self.kept
                if version != now:
                    cells, for_training, for_blas = self._pack(), False, False
                for cell in cells:
                    cell.prepare(training, blas)
                if parameters.version.number == now:  # no signal handler has written meanwhile
                    break
            if parameters.settled:
                self.kept = now, cells, training or for_training, blas or for_blas
            return cells

    def _pack(self) -> list[Cell]:
        groups: dict[str, dict[str, Array]] = {}
        for name, value in self._parameters.items():
            kind, suffix = name.rsplit("_l", 1)
            group = groups.setdefault(suffix, {})
            group[kind.replace("weight", "w").replace("bias", "b")] = value
        return [Cell(**group, options=self._options) for group in groups.values()]
