"""Every private part of the package that tests reach for: nothing else here names one."""

import copy

import numpy as np

from lstm_fast import LSTM, functional
from lstm_fast.engine import rows as engine_rows
from lstm_fast.engine import sessions as engine_sessions
from lstm_fast.engine import update
from lstm_fast.engine.backward import backward as engine_backward
from lstm_fast.engine.batch import Ragged
from lstm_fast.engine.cell import Cell
from lstm_fast.engine.chunks import segments
from lstm_fast.engine.forward import forward as engine_forward
from lstm_fast.engine.matrix import Packed, multiply, pack, sum_rows
from lstm_fast.engine.meeting import assume_meeting
from lstm_fast.engine.plan import planned
from lstm_fast.engine.runtime.isa import elementwise, isas
from lstm_fast.engine.runtime.isa import use as use_isa
from lstm_fast.engine.runtime.threads import openmp
from lstm_fast.engine.schedule import time_alone
from lstm_fast.engine.sums import bands_of
from lstm_fast.engine.tape import Cache
from lstm_fast.engine.watch import calls, hold, see, usable_now
from lstm_fast.network import cells, storage
from lstm_fast.network.block import Block
from lstm_fast.network.layout import Gradients, Layout
from lstm_fast.network.network import Network
from lstm_fast.network.parameters import Parameters
from lstm_fast.training import checkpoints, progress

__all__ = [
    "ENGINE_CALLS",
    "Cache",
    "Cell",
    "Gradients",
    "Layout",
    "Packed",
    "Parameters",
    "Ragged",
    "assume_meeting",
    "bands_of",
    "calls",
    "checkpoints",
    "elementwise",
    "engine_backward",
    "engine_forward",
    "engine_rows",
    "engine_sessions",
    "generator_of",
    "gradients_but_of_input",
    "hold",
    "isas",
    "multiply",
    "new_cell",
    "openmp",
    "pack",
    "parameters_of",
    "planned",
    "progress",
    "see",
    "segments",
    "set_generator",
    "storage",
    "sum_rows",
    "time_alone",
    "torch_engine_class",
    "update",
    "usable_now",
    "use_isa",
]


# Where arrays that are in the engine's form are handed to it.
ENGINE_CALLS = {
    Network: ("infer", "train", "differentiate"),
    cells: ("Cell",),
    functional: ("forward", "backward", "Cell"),
}


def new_cell() -> Cell:
    """Return a cell of one unit and input, packed for the ISA that is active now."""
    return Cell(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32))


def generator_of(lstm: LSTM) -> np.random.Generator:
    """Return a copy of the generator that draws the noise of the next `forward`."""
    return copy.deepcopy(lstm._network.noise.rng)


def set_generator(lstm: LSTM, rng: np.random.Generator) -> None:
    """Have the next `forward` draw its noise from a copy of this generator."""
    lstm._network.noise.rng = copy.deepcopy(rng)


def parameters_of(block: Block) -> Parameters:
    """Return the parameters of a block, which are in one flat buffer."""
    return block._parameters


def gradients_but_of_input(lstm: LSTM, dy: np.ndarray, cache: Cache) -> tuple:
    """Return dx, which is None, dh0, dc0 and the gradients of the parameters."""
    return lstm._network.differentiate(cache, dy, None, None, of_input=False)


def torch_engine_class(of: str = "all") -> type:
    """Return the class whose calls serve PyTorch, which has to be installed.

    Or, of "options", its subclass whose calls have these.
    """
    from lstm_fast.torch.engine import Engine
    from lstm_fast.torch.variants import OptionsEngine

    return OptionsEngine if of == "options" else Engine
