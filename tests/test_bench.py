"""`python -m bench`: contenders are right, a wrong one is found, the report tells the numbers."""

import json
import time

import numpy as np
import pytest

from bench import contenders
from bench.contenders import CONTENDERS, fastest
from bench.measure import check
from bench.problems import PROBLEMS, Arguments, Problem
from bench.report import readme_table, write_report
from bench.roofline import least_time

pytestmark = pytest.mark.no_isa

SMALL = [
    Problem("a", 4, 3, 5, 6),
    Problem("a", 1, 3, 5, 6),
    Problem("a", 1, 3, 5, 6, "training"),
    Problem("a", 4, 3, 5, 6, "training"),
    Problem("a", 4, 3, 5, 6, "training", "float64"),
    Problem("a", 1, 2, 5, 6, "streaming"),
    Problem("a", 1, 1, 20, 16, "streaming", "float64"),
    Problem("a", 12, 3, 5, 6, "inference", ragged=True),
    Problem("a", 12, 3, 5, 6, "training", ragged=True),
    Problem("a", 4, 3, 5, 6, "inference", "float32", 2, True),
    Problem("a", 4, 3, 5, 6, "training", "float32", 3),
]


def bind(name, arguments):
    """Return a contender bound to arguments, or skip the test."""
    try:
        call = CONTENDERS[name](arguments, 1)
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    if call is None:
        pytest.skip(f"{name} has no such LSTM")
    return call


@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
@pytest.mark.parametrize("problem", SMALL, ids=repr)
@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders_are_right(name, problem, threads):
    arguments = Arguments(problem)
    call = bind(name, arguments)
    check(name, arguments, call)
    if problem.action != "streaming":
        check(name, arguments, call)  # nothing is carried over


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("problem", SMALL, ids=repr)
@pytest.mark.parametrize("way", range(3))
def test_every_way_of_pytorch_is_right(way, problem, threads, monkeypatch):
    monkeypatch.setattr(contenders, "fastest", lambda calls: calls[min(way, len(calls) - 1)])
    arguments = Arguments(problem)
    check("torch", arguments, bind("torch", arguments))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("action", ["inference", "training", "streaming"])
@pytest.mark.parametrize("name", CONTENDERS)
def test_a_wrong_weight_is_found(name, action, threads):
    problem = Problem("a", 1 if action == "streaming" else 4, 3, 5, 6, action)
    right = Arguments(problem)
    for weight in right.state_dict:
        wrong = Arguments(problem)
        wrong.state_dict[weight] = wrong.state_dict[weight].copy()
        wrong.state_dict[weight].flat[7] += 0.01
        with pytest.raises(RuntimeError, match=f"{name} is wrong"):
            check(name, right, bind(name, wrong))


@pytest.mark.parametrize("problem", SMALL[:3], ids=repr)
@pytest.mark.parametrize("error", [1e-3, np.nan])
def test_a_wrong_result_is_found(error, problem):
    arguments = Arguments(problem)
    for n in range(len(arguments.expected)):
        results = [a.copy() for a in arguments.expected]
        check("someone", arguments, lambda results=results: results)
        results[n].flat[0] += error * np.abs(results[n]).max()
        with pytest.raises(RuntimeError, match="someone is wrong"):
            check("someone", arguments, lambda results=results: results)


def test_streaming_without_a_state_is_found():
    arguments = Arguments(Problem("a", 1, 2, 5, 6, "streaming"))
    with pytest.raises(RuntimeError, match="someone is wrong"):
        check("someone", arguments, lambda: arguments.expected[0])


def test_the_fastest_way_is_chosen():
    def slow():
        time.sleep(0.01)

    def fast():
        pass

    assert fastest([slow, fast]) is fastest([fast, slow]) is fast


LIMITS = {
    "float32": 100e9,
    "float64": 50e9,
    "levels": {
        "L1": {"size": 32 << 10, "rate": 200e9},
        "L2": {"size": 1 << 20, "rate": 100e9},
        "memory": {"size": None, "rate": 20e9},
    },
}


def test_least_time():
    """By hand: bound by multiply-adds, by the L2 cache, by memory; half of the weights each."""
    batch = Problem("a", 10, 32, 64, 64)
    assert least_time(batch, LIMITS, 1) == pytest.approx(2 * 10 * 32 * 256 * 128 / 100e9)
    one = Problem("a", 10, 1, 512, 512)
    assert least_time(one, LIMITS, 1) == pytest.approx(11 * 4 * 512 * 512 * 4 / 20e9)
    half = Problem("a", 10, 1, 256, 256)._replace(H=300)
    size = 4 * 300 * 300 * 4
    assert least_time(half, LIMITS, 2) == pytest.approx(
        2 * 10 * 4 * 300 * 256 / 100e9 + 10 * size / 100e9
    )
    assert least_time(batch._replace(layers=2), LIMITS, 1) is None
    training = least_time(batch._replace(action="training"), LIMITS, 1)
    assert training == pytest.approx(3 * least_time(batch, LIMITS, 1))


def result(ours):
    """Return what is found if lstm_fast takes `ours` and everybody else 3 seconds."""
    entries = [
        {
            **problem._asdict(),
            "flop": problem.flop,
            "least": least_time(problem, LIMITS, 1),
            "times": {"lstm_fast": [ours] * 3, "torch": [3.0] * 3},
        }
        for problem in PROBLEMS
    ]
    run = {"limits": LIMITS, "versions": {"numpy": "1"}, "entries": entries}
    return {
        "date": "2000-01-01",
        "machine": "abacus",
        "isa": "beads",
        "import_seconds": 0.01,
        "memory": {"torch": 2.0**20},
        "runs": [{**run, "threads": 1}, {**run, "threads": 2}],
    }


@pytest.mark.filterwarnings("ignore")
def test_report(tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "some.json"
    path.write_text(json.dumps(result(2.0)))
    summary = write_report(path)
    assert "geometric mean 1.50, least 1.50" in summary
    assert "behind" not in summary
    table = path.with_suffix(".md").read_text()
    assert "| 100, 1, 64, 64 | 2,000,000 ±0 | 3,000,000 ±0 | 1.50 |" in table
    assert "2000-01-01" in table and "abacus" in table
    assert all(
        (tmp_path / f"some-{kind}.png").stat().st_size > 1e4 for kind in ("ratio", "roofline")
    )
    assert "| PyTorch 3,000,000 | 1.50 |" in readme_table(result(2.0))
    path.write_text(json.dumps(result(4.0)))
    assert "behind at 100, 1, 64, 64: 0.75" in write_report(path)


def test_problems_are_all_different():
    assert len(set(PROBLEMS)) == len(PROBLEMS)
