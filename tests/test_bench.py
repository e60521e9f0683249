"""`python -m bench`: contenders are right, a wrong one is found, the report tells the numbers."""

import json

import numpy as np
import pytest

from bench.contenders import CONTENDERS
from bench.measure import check
from bench.problems import PROBLEMS, Arguments, Problem
from bench.report import readme_table, write_report
from bench.roofline import least_time

SMALL = [
    Problem("a", 4, 3, 5, 6),
    Problem("a", 4, 3, 5, 6, "training"),
    Problem("a", 4, 3, 5, 6, "training", "float64"),
    Problem("a", 1, 2, 5, 6, "streaming"),
    Problem("a", 12, 3, 5, 6, "inference", ragged=True),
    Problem("a", 12, 3, 5, 6, "training", ragged=True),
    Problem("a", 4, 3, 5, 6, "inference", "float32", 2, True),
    Problem("a", 4, 3, 5, 6, "training", "float32", 3),
]


@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
@pytest.mark.parametrize("problem", SMALL, ids=repr)
@pytest.mark.parametrize("name", CONTENDERS)
def test_contenders_are_right(name, problem, threads):
    arguments = Arguments(problem)
    try:
        call = CONTENDERS[name](arguments, 1)
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    if call is None:
        pytest.skip(f"{name} has no such LSTM")
    check(name, arguments, call())
    if problem.action != "streaming":
        check(name, arguments, call())  # nothing is carried over


@pytest.mark.parametrize("problem", SMALL[:2], ids=repr)
def test_a_wrong_result_is_found(problem, threads):
    arguments = Arguments(problem)
    call = CONTENDERS["lstm_fast"](arguments, 1)
    for n in range(len(arguments.expected)):
        results = [np.array(a) for a in call()]
        results[n].flat[0] += 1e-3 * np.abs(results[n]).max()
        with pytest.raises(RuntimeError, match="lstm_fast is wrong"):
            check("lstm_fast", arguments, results)


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
