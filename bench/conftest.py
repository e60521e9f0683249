"""Options, defaults and fixtures of the benchmarks.

pytest-benchmark's own defaults suit the comparison less than those in ``DEFAULTS``; an option on
the command line wins, as does one in ``addopts``.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Protocol

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lstm_fast.comparison import Case, limit_threads
from lstm_fast.peers import PEERS, Bound, Peer, Reference

from .shapes import Shape

# Option of pytest-benchmark: its default, ours.
DEFAULTS = {
    "benchmark_max_time": ("1.0", "0.3"),  # seconds per benchmark
    "benchmark_min_time": ("0.000005", "0.0001"),  # seconds per round: reading the clock is 0.1 %
    "benchmark_columns": (None, ["median", "iqr", "min", "rounds"]),
}

# The reference is not timed above this many operations, about half a second of one core.
REFERENCE_FLOP = 50e9

Bind = Callable[[Case, Peer], Bound]


class Timed(Protocol):
    """What the fixture `run` returns."""

    def __call__(
        self, shape: Shape, kind: type[Peer], bind: Bind, action: str, flop: int, steps: int = 0
    ) -> None:
        """Check one LSTM at one shape, then time it.

        ``bind`` is a method of `Case` and ``action`` its name in the report. The arguments have
        ``steps`` time steps, where it is given, in place of T.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--threads", type=int, default=1, help="threads of every LSTM in bench/ (default 1)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for name, (default, ours) in DEFAULTS.items():
        if getattr(config.option, name) == default:
            setattr(config.option, name, ours)


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Hold every LSTM of the session to the number of threads of ``--threads``."""
    count: int = request.config.getoption("--threads")
    with limit_threads(count):
        yield count


@pytest.fixture
def run(benchmark: BenchmarkFixture, threads: int) -> Timed:
    """Return the function that every benchmark calls."""

    def run(
        shape: Shape, kind: type[Peer], bind: Bind, action: str, flop: int, steps: int = 0
    ) -> None:
        if kind is Reference and flop > REFERENCE_FLOP:
            pytest.skip(f"the reference is timed up to {REFERENCE_FLOP:.0e} FLOP")
        case = _case(steps or shape.T, *shape[2:])
        try:
            peer = kind(case.state_dict, threads)
        except ImportError as error:
            pytest.skip(f"{kind.name} is not installed: {error}")
        benchmark.group = f"{action}: {shape}"
        benchmark.extra_info.update(
            action=action, peer=peer.name, version=peer.version, threads=threads, flop=flop
        )
        benchmark.extra_info.update(shape._asdict())
        benchmark(bind(case, peer))

    return run


@lru_cache(maxsize=1)  # a shape's benchmarks follow one another
def _case(T: int, B: int, I: int, H: int) -> Case:
    return Case(T, B, I, H)


def peer_id(kind: type[Peer]) -> str:
    """Return the name of a peer as it stands in the name of a benchmark."""
    return kind.__name__.lower()


all_peers = pytest.mark.parametrize("kind", PEERS, ids=peer_id)
training_peers = pytest.mark.parametrize(
    "kind", [kind for kind in PEERS if kind.trains], ids=peer_id
)
