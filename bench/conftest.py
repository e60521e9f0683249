"""Options, defaults and the fixture of the suite.

pytest-benchmark's own defaults suit the comparison less than those in ``DEFAULTS``; an option on
the command line wins, as does one in ``addopts``.
"""

from collections.abc import Callable
from functools import lru_cache

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from .contenders import CONTENDERS, version
from .measure import check
from .problems import Arguments, Problem
from .shapes import Shape

# Option of pytest-benchmark: its default, ours.
DEFAULTS = {
    "benchmark_max_time": ("1.0", "0.3"),  # seconds per benchmark
    "benchmark_min_time": ("0.000005", "0.0001"),  # seconds per round: reading the clock is 0.1 %
    "benchmark_columns": (None, ["median", "iqr", "min", "rounds"]),
}

Timed = Callable[[Shape, str, str], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--threads", type=int, default=1, help="threads of every LSTM in bench/ (default 1)"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for name, (default, ours) in DEFAULTS.items():
        if getattr(config.option, name) == default:
            setattr(config.option, name, ours)


@pytest.fixture
def run(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> Timed:
    """Return the function that checks one contender at one shape, then times it."""
    threads = request.config.getoption("--threads")

    def run(shape: Shape, name: str, action: str) -> None:
        arguments = _arguments(Problem("suite", *shape[1:], action))
        try:
            call = CONTENDERS[name](arguments, threads)
        except ImportError as error:
            pytest.skip(f"{name} is not installed: {error}")
        if call is None:
            pytest.skip(f"{name} has no {action}")
        check(name, arguments, call)
        benchmark.group = f"{action}: {shape}"
        benchmark.extra_info.update(
            contender=name, version=version(name), threads=threads, flop=arguments.problem.flop
        )
        benchmark.extra_info.update(shape._asdict() | {"action": action})
        benchmark(call)

    return run


@lru_cache(maxsize=1)  # a shape's benchmarks follow one another
def _arguments(problem: Problem) -> Arguments:
    return Arguments(problem)
