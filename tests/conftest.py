"""Fixtures: each test that asks for `isa` runs once per instruction set this machine has."""

import sys
from collections.abc import Iterator

import numpy as np
import pytest

from lstm_fast import _dispatch, _threads
from lstm_fast._engine import Cell

ISAS = _dispatch.isas()["detected"]
THREADS = _threads.get_num_threads()


def active_isa() -> str:
    """Return the ISA that a cell gets which is packed now."""
    return Cell(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32)).isa


@pytest.fixture(params=ISAS)
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Name of an ISA, active during the test."""
    before = _dispatch.isas()["active"]
    _dispatch.use(request.param)
    assert _dispatch.isas()["active"] == active_isa() == request.param
    yield request.param
    assert _dispatch.isas()["active"] == request.param, "the test changed the ISA"
    _dispatch.use(before)


@pytest.fixture(params=["float32", "float64"])
def dtype(request: pytest.FixtureRequest) -> np.dtype:
    return np.dtype(request.param)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240229)


@pytest.fixture
def threads() -> Iterator[None]:
    """Lets a test call `set_num_threads`, and sets the former number afterwards."""
    before = _threads.get_num_threads()
    yield
    _threads.set_num_threads(before)


@pytest.fixture(autouse=True)
def threads_of_pytorch() -> Iterator[None]:
    """Undo `torch.set_num_threads`: PyTorch shares the OpenMP runtime, to which this is a limit."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(THREADS)
