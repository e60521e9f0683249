"""`python -m bench`: contenders are right, a wrong one is found, the report tells the numbers."""

import json
import time
import wave
from pathlib import Path

import numpy as np
import pytest

import bench.__main__ as command
from bench import accuracy, busy, contenders, precision, quiet, report
from bench.contenders import CONTENDERS, fastest
from bench.machine import identify, machine_line, peaks_line
from bench.measure import check
from bench.problems import PROBLEMS, Arguments, Problem
from bench.progress import progress, remaining
from bench.report import LEGEND, cell, readme_table, write_report
from bench.roofline import least_time, probe

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
    """Each one of ours; one of others', which are right, as a weight needs a compiled program."""
    problem = Problem("a", 1 if action == "streaming" else 4, 3, 5, 6, action)
    right = Arguments(problem)
    one = {"inference": "bias_hh_l0", "training": "weight_hh_l0", "streaming": "weight_ih_l0"}
    for weight in right.state_dict if name == "lstm_fast" else [one[action]]:
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


def test_least_time_in_lower_precision():
    """Weights of 8 bits, as floats with x, as integers with h: by the peaks, or by the L2 cache."""
    kinds = ("widened", "int8")
    limits = LIMITS | {"bfloat16": 200e9, "int8": 400e9}
    batch = Problem("a", 10, 32, 64, 64)
    half = 2 * 10 * 32 * 256 * 64
    assert least_time(batch, limits, 1, kinds) == pytest.approx(half / 100e9 + half / 400e9)
    two = least_time(batch, limits, 1, ("bfloat16", "bfloat16"))
    assert two == pytest.approx(2 * half / 200e9)
    one = Problem("a", 10, 1, 512, 512)
    weights = 4 * 512 * 512
    assert least_time(one, limits, 1, kinds) == pytest.approx(
        2 * 10 * weights / 100e9 + 10 * weights / 100e9
    )


def test_peaks():
    """The probe compiles here, and measures every kind."""
    found = probe(1)
    assert found["levels"]["memory"]["rate"] > 0
    assert all(found[kind] > 1e9 for kind in ("float32", "float64", "bfloat16", "int8"))


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


def test_what_is_behind_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "plot", lambda result, path: None)
    path = tmp_path / "some.json"
    path.write_text(json.dumps(result(4.0)))
    assert "behind at 100, 1, 64, 64: 0.75" in write_report(path)


def test_problems_are_all_different():
    assert len(set(PROBLEMS)) == len(PROBLEMS)


def test_report_marks_cells_and_warns(tmp_path, monkeypatch):
    """Only if there is something to mark or to warn of."""
    monkeypatch.setattr(report, "plot", lambda result, path: None)
    path = tmp_path / "some.json"
    found = result(2.0)
    path.write_text(json.dumps(found))
    assert "WARNING" not in write_report(path)
    table = path.with_suffix(".md").read_text()
    assert LEGEND not in table and "Warning" not in table
    assert "peak with 2 threads: 50 GFLOP/s float32, 25 GFLOP/s float64 a core" in table
    found["runs"] = json.loads(json.dumps(found["runs"]))  # each its own entries
    found["runs"][1]["entries"][0]["times"]["torch"] = [3.0, 2.0, 4.0]
    found["runs"][1]["quiet"] = {"others": 0.2, "steal": 0.0, "load": [1.0, 2.0]}
    path.write_text(json.dumps(found))
    line = "The machine was busy, with 2 threads: other processes used 20% of the CPU time."
    assert write_report(path).splitlines()[-1] == f"WARNING: {line}"
    table = path.with_suffix(".md").read_text()
    assert table.index(line) < table.index("abacus")
    assert table.count(LEGEND) == 1 and table.count("~3,000,000 ±33") == 1


def test_cells_are_marked_beyond_a_quarter():
    assert cell([4.0, 3.5, 4.5]) == "4,000,000 ±12"
    assert cell([4.0, 3.4, 4.5]) == "~4,000,000 ±14"


CPUINFO = """\
processor\t: 0
vendor_id\t: Acme
cpu family\t: 6
model\t\t: 85
model name\t: Abacus: 3000
stepping\t: 7

processor\t: 1
vendor_id\t: Another
"""


def test_machine():
    found = identify(CPUINFO)
    names = {"name": "Abacus: 3000", "vendor": "Acme"}
    assert found == {**names, "family": "6", "model": "85", "stepping": "7"}
    rest = {"cpus": 2, "system": "Linux", "python": "3"}
    line = "Abacus: 3000 (Acme family 6 model 85 stepping 7), 2 cores, Linux, Python 3"
    assert machine_line({**found, **rest}) == line
    assert machine_line({"name": "z80", **rest, "cpus": 1}) == "z80, 1 core, Linux, Python 3"
    arm = identify("CPU implementer : 0x41\nCPU part : 0xd0c\n")
    assert arm == {"vendor": "0x41", "model": "0xd0c"}
    assert identify("") == {}
    line = "peak with 1 thread: 100 GFLOP/s float32, 50 GFLOP/s float64 a core; memory 20 GB/s"
    assert peaks_line(LIMITS, 1) == line


STAT = """\
cpu  1000 0 0 1000 0 0 0 0 0 0
cpu0 900 0 0 100 0 0 0 0 0 0
cpu1 10 20 30 400 50 60 70 80 10 20
intr 1
"""


def test_clocks_of_the_cpus_that_are_used(monkeypatch):
    """Idle, waiting and stolen time is not busy; time of guests is the user's already."""
    monkeypatch.setattr(quiet.os, "sysconf", lambda name: 10)
    assert quiet.read([1], STAT)[:3] == (72.0, 19.0, 8.0)
    assert quiet.read([0, 1], STAT)[:3] == (172.0, 109.0, 8.0)
    assert quiet.read([0, 7], STAT)[:3] == (200.0, 100.0, 0.0)  # the whole
    assert quiet.read([0], "cpu0 1 2 3 4")[:3] == (1.0, 0.6, 0.0)  # an old kernel
    monkeypatch.setattr(quiet, "STAT", Path("nowhere"))
    assert quiet.read([0]) is None and quiet.between(None, None) == {}


def test_what_others_took():
    first = quiet.Reading(100.0, 50.0, 1.0, 20.0, 0.5)
    last = quiet.Reading(300.0, 200.0, 5.0, 150.0, 1.5)
    found = quiet.between(first, last)
    assert found == {"others": 0.1, "steal": 0.02, "load": [0.5, 1.5]}
    assert quiet.between(first, last._replace(own=200.0))["others"] == 0.0
    assert quiet.between(first, first) == {}


def test_spread_is_of_cells():
    cells = [[2.0, 2.0, 2.0], [2.0, 1.0, 3.0], [4.0, 3.0, 5.0]]
    assert quiet.spread(cells) == [0.25, 0.5, 0.75]
    assert quiet.spread(cells[1:2]) == [1.0] * 3
    assert quiet.spread([]) == []


@pytest.mark.parametrize(
    ("calm", "disturbed", "text"),
    [
        ({"others": 0.05}, {"others": 0.06}, "other processes used 6%"),
        ({"steal": 0.01}, {"steal": 0.011}, "the hypervisor took 1.1%"),
        ({"spread": [0.0, 0.1, 9.0]}, {"spread": [0.0, 0.11, 0.2]}, "spread by 11%"),
        (
            {"load": [1.0, 9.0], "idle": True, "cpus": 2},
            {"load": [1.1, 0.0], "idle": True, "cpus": 2},
            "the load was 1.1 on 2 CPUs",
        ),
        ({"load": [9.0, 9.0]}, {"steal": 1.0}, "100.0%"),  # the load of a run is its own
        ({"load": [None, None], "idle": True, "cpus": 1, "spread": []}, {"others": 1}, "100%"),
    ],
)
def test_limits_of_a_quiet_machine(calm, disturbed, text):
    assert quiet.complaints(calm) == []
    (found,) = quiet.complaints(disturbed)
    assert text in found
    assert quiet.warnings({"before": calm}) == quiet.warnings({}) == []
    assert quiet.warnings({"before": disturbed}) == [f"The machine was busy, before: {found}."]


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ([], command.WHOLE),
        (["--quick"], command.PARTIAL),
        (["--only", "streaming"], command.PARTIAL),
        (["--threads", "1"], command.PARTIAL),
        (["--quick", "--output", "mine/some"], Path("mine/some")),
    ],
)
def test_a_part_is_written_elsewhere(arguments, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    for name, value in {"import_time": 0.0, "memory": {}, "child": {"threads": 1}}.items():
        monkeypatch.setattr(command, name, lambda *_, value=value: value)
    monkeypatch.setattr(command, "write_report", lambda path: "")
    monkeypatch.setattr(quiet, "WATCHED", 0.0)
    command.main()
    assert [p.relative_to(tmp_path) for p in tmp_path.rglob("*.json")] == [Path(f"{place}.json")]
    assert f"written: {place}.json" in capsys.readouterr().out.splitlines()[-1]


def test_progress_in_lines(capsys, monkeypatch):
    """One for each group where stderr is no terminal, with the time that remains by cost."""
    clock = iter([0.0, 0.0, 1.0, 2.0])
    monkeypatch.setattr("bench.progress.time", type("", (), {"monotonic": lambda: next(clock)}))
    items = ["a: 1", "a: 2", "b: 3"]
    assert list(progress(items, "run", str, lambda item: float(item[-1]))) == items
    assert capsys.readouterr().err.splitlines() == [
        "run: 1 of 3, a: 1",
        "run: 3 of 3, b: 3, about 0:02 left",
    ]
    assert remaining(10.0, 1.0, 8.0) == ", about 1:10 left"


def test_busy(tmp_path, monkeypatch, capsys):
    """Every neighbour, on a tiny shape; the findings in a file, a warning of what was before."""
    monkeypatch.setattr(busy, "BLOCK", 1e-3)
    monkeypatch.setattr(busy, "STARTING", 0.0)
    monkeypatch.setattr(quiet, "before", lambda cpus: {"steal": 0.5})
    path = tmp_path / "new" / "busy.json"
    busy.main(["--shape", "3", "2", "4", "5", "--turns", "1", "--output", str(path)])
    found = json.loads(path.read_text())
    cases = [(case["beside"], case["action"]) for case in found["cases"]]
    assert cases == [(b, a) for b in busy.PROGRAMS for a in ("inference", "training")]
    assert all(case["one"] > 0 and case["p95"] > 0 for case in found["cases"])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert lines[0].startswith(found["machine"]) and "(steal)" in lines[1]
    assert len(lines) == 2 + len(cases) + 1 and lines[-1] == f"written: {path}"
    assert "bench.busy: 1 of 8, beside quiet: inference 3, 2, 4, 5, lstm_fast" in captured.err


def test_pytorch(tmp_path, monkeypatch, capsys, threads):
    """All parts, on tiny shapes: a row of each, and the same in a file."""
    pytest.importorskip("torch")
    from bench import pytorch, pytorch_memory, pytorch_operators

    for module in (pytorch, pytorch_operators):
        monkeypatch.setattr(module, "BLOCK", 1e-3)
    monkeypatch.setattr(quiet, "before", lambda cpus: {"steal": 0.5})
    cases = [pytorch.Case(action, 12, 2, 3, 4) for action in pytorch.CALLS]
    monkeypatch.setattr(pytorch, "CASES", cases)
    monkeypatch.setattr(pytorch_memory, "SHAPES", [(64, 16, 32, 64)])
    path = tmp_path / "new" / "pytorch.json"
    pytorch.main(["--threads", "1", "--turns", "1", "--output", str(path)])
    found, lines = json.loads(path.read_text()), capsys.readouterr().out.splitlines()
    assert [row["action"] for row in found["cases"]] == [*pytorch.CALLS]
    assert all(row["PyTorch"] > 0 and row["accelerated"] > 0 for row in found["cases"])
    for row in found["memory"]:
        h = 64 * 16 * 64 * 4  # bytes, of all steps
        assert all(1 < row[name] / h < 100 for name in ("PyTorch", "accelerated"))
    assert [row["operator"] for row in found["operators"]] == [*pytorch_operators.operators()]
    assert all(row["alone"] > 0 and row["after PyTorch"] > 0 for row in found["operators"])
    assert "WARNING" in lines[1] and lines[-1] == f"written: {path}"
    assert len(lines) == 3 + 2 * len(cases) + len(found["memory"]) + len(found["operators"])


@pytest.mark.filterwarnings("ignore")  # of the programs, about themselves
@pytest.mark.parametrize("name", ["skorch", "sb3_contrib"])
def test_programs(name, capsys, monkeypatch, threads):
    """They learn the same with the engine and without, and a row tells how long that took."""
    torch = pytest.importorskip("torch")
    pytest.importorskip(name)
    from support.torch_lstms import counted

    from bench import programs

    found = []
    program = programs.PROGRAMS[name]
    monkeypatch.setattr(programs, "PROGRAMS", {name: lambda size: found.append(program(size))})
    with counted() as calls:
        programs.main(["--turns", "1", "--size", "0"])
    assert calls["train"] and calls["infer"] and calls.forwards[torch.nn.LSTM]
    assert len(found) == 4 and len(found[0]) >= 5
    for one in found[1:]:
        np.testing.assert_allclose(one, found[0], rtol=1e-3, atol=1e-4)
    _, row = capsys.readouterr().out.splitlines()
    assert row.startswith(name) and " s, enabled " in row


@pytest.mark.filterwarnings("ignore")  # of the frameworks, about themselves
@pytest.mark.parametrize("name", precision.CONTENDERS)
def test_lower_precision_is_right(name, threads):
    arguments = Arguments(Problem("precision", 4, 3, 40, 48))
    try:
        call = precision.CONTENDERS[name](arguments, 1)
    except ImportError as error:
        pytest.skip(f"{name} is not installed: {error}")
    if call is None:
        pytest.skip(f"{name} has no such precision on this CPU")
    assert np.shape(call()) == (4, 3, 48)
    # Where the CPU has no VNNI, sums of ONNX Runtime's 8-bit weights may saturate.
    bound = 1e-6 if "float32" in name else 0.2 if name == "ONNX Runtime, int8" else 0.02
    assert precision.error(arguments, call) < bound


def test_accuracy(tmp_path, monkeypatch, capsys, rng):
    """On random text and noise: all precisions in all tables, near float32, also in a file."""
    language_model = pytest.importorskip("examples.language_model")
    monkeypatch.setattr(language_model, "UNITS", 16)
    text = tmp_path / "tinyshakespeare/input.txt"
    text.parent.mkdir()
    text.write_text("".join(rng.choice([*"abc "], 50_000)))
    recordings = tmp_path / "fsdd/recordings"
    recordings.mkdir(parents=True)
    for n in range(40):
        with wave.open(f"{recordings}/{n % 10}_noise_{n // 10 + 3}.wav", "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(rng.integers(-9999, 9999, 2000, np.int16).tobytes())
    path = tmp_path / "new/accuracy.json"
    arguments = ["--data", tmp_path, "--epochs", 1, 1, "--output", path]
    accuracy.main([*map(str, arguments)])
    found, names = json.loads(path.read_text()), {"float32", *accuracy.PRECISIONS}
    assert found["bits"].keys() == found["digits"]["found"].keys() == names
    assert max(found["bits"].values()) - min(found["bits"].values()) < 0.01
    assert found["digits"]["recordings"] == 20
    losses = [one["loss"][-1] for one in found["training"].values()]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=1e-3)
    for by_precision in found["drift"].values():
        assert by_precision.keys() == {*accuracy.PRECISIONS}
        assert all(0 < one["rms"][0] < one["largest"][0] for one in by_precision.values())
    assert len(found["drift"]["random, forget bias 1"]["int8"]["rms"]) == 10
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"written: {path}" and sum("int8" in line for line in lines) == 3 * 4


def test_lower_precision_in_a_file(tmp_path, monkeypatch, capsys):
    """Our times and errors, the limits of the CPU, and shares of them."""
    ours = {name: precision.CONTENDERS[name] for name in precision.PRODUCTS}
    monkeypatch.setattr(precision, "CONTENDERS", ours)
    monkeypatch.setattr(precision, "SHAPES", [(2, 1, 40, 48), (2, 16, 40, 256)])
    trained = {name: step for name, step in precision.TRAINED.items() if "lstm_fast" in name}
    monkeypatch.setattr(precision, "TRAINED", trained)
    path = tmp_path / "new/precision.json"
    precision.main(["1", "--output", str(path)])
    found = json.loads(path.read_text())
    assert found["threads"] == 1 and found["limits"]["int8"] > 1e9
    assert [cell["name"] for cell in found["cells"]] == 2 * [*ours]
    assert all(cell["roofline"] > 0 for cell in found["cells"])
    assert [cell["speed"] for cell in found["cells"]][:: len(ours)] == [1, 1]
    assert f"| 2, 16, 40, 256 | {[*ours][-1]} |" in capsys.readouterr().out
    assert found["compared"] == {}  # with others only
    assert [cell["name"] for cell in found["training"]] == [*trained]
    assert all(cell["shape"] == [2, 16, 40, 256] for cell in found["training"])


@pytest.mark.parametrize("bfloat16", [False, True])
def test_training_steps_that_are_compared_are_the_same(bfloat16, threads):
    torch = pytest.importorskip("torch")
    arguments = Arguments(Problem("precision", 4, 3, 40, 48), exact=False)
    steps = [
        make(bfloat16)(arguments, 1)()
        for make in (precision.training_step, precision.pytorch_training)
    ]
    found, expected = steps[0], steps[1].to(torch.float32).numpy()
    assert abs(found - expected).max() < (0.02 if bfloat16 else 1e-5)


def test_lower_precision_is_compared_with_the_best_of_the_others(capsys):
    """Of ours with the fastest that errs no more, or else with the more exact one."""

    def cells(shape, **found):
        return [
            {"shape": shape, "name": name, "seconds": time, "error": error}
            for name, (time, error) in found.items()
        ]

    names = ["lstm_fast, int8", "lstm_fast, int8 with x too", "PyTorch, int8", "ONNX Runtime, int8"]
    one = dict(zip(names, [(2, 0.1), (1, 0.2), (9, 0), (4, 0.3)], strict=True))
    other = dict(zip(names, [(2, 0.1), (1, 0.2), (9, 0), (4, 0.1)], strict=True))
    found = precision.compared([*cells((1, 1, 2, 3), **one), *cells((2, 1, 2, 3), **other)])
    assert found["8 bits"]["shapes"] == {"(1, 1, 2, 3)": 4, "(2, 1, 2, 3)": 2}
    assert found["8 bits"]["mean"] == pytest.approx(8**0.5) and [*found] == ["8 bits"]
    assert "geometric mean 2.83" in capsys.readouterr().out
