"""`lstm_fast.cli`: the commands, the demonstration, its forecaster and its table of times."""

import argparse
import importlib
import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lstm_fast
from lstm_fast.cli import baselines, demo, timing
from lstm_fast.cli.main import main

pytestmark = pytest.mark.no_isa

Array = npt.NDArray[Any]


def without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Have the demonstration find some optional packages missing."""

    def import_module(name: str) -> ModuleType:
        if name.partition(".")[0] in packages:
            raise ImportError(f"No module named {name!r}")
        return importlib.import_module(name)

    monkeypatch.setattr(demo, "import_module", import_module)


def defaults() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    return parser.parse_args([])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lstm_fast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


# The series and its errors


def test_the_series_is_the_published_one() -> None:
    series = demo.SUNSPOTS
    assert series.shape == (2008 - 1700 + 1,)
    assert (series[0], series[1816 - 1700], series[-1]) == (5, 45.8, 2.9)
    assert (series.min(), series.max(), series.argmax()) == (0, 190.2, 1957 - 1700)
    sums = [series[k : k + 50].sum() for k in range(0, 309, 50)]
    expected = [1870.9, 2698.4, 1999.9, 2255.6, 2398.3, 3656.2, 494.1]
    np.testing.assert_allclose(sums, expected, rtol=1e-12)
    assert demo.FIRST_YEAR + demo.HISTORY == 1921


def test_errors() -> None:
    errors = demo.errors(np.array([11.0, 17.0]), np.array([10.0, 20.0]))
    assert errors == pytest.approx((2.0, 5**0.5, 100 * 2 / 15, -1.0))


# The baselines, against numbers worked by hand: a cycle of 11 years that grows by 1, then by half


CYCLE = np.array([2.0, 4, 6, 8, 10, 12, 10, 8, 6, 4, 2])


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        (baselines.naive, [3, 3, 6, 9, 12]),
        (baselines.seasonal_naive, CYCLE[:5] + 1),
        (baselines.with_drift, CYCLE[:5] + 2),
        # Cycles total 72 and 83; for each year on, the sums lose one value and gain a later one.
        (
            baselines.with_growth,
            (CYCLE[:5] + 1) * [83 / 72, 83 / 73, 84 / 74, 86 / 75, 89 / 76],
        ),
    ],
)
def test_baselines_by_hand(
    baseline: Callable[[Array, int], Array], expected: npt.ArrayLike
) -> None:
    series = np.concatenate((CYCLE, CYCLE + 1, [3, 6, 9, 12, 15]))
    np.testing.assert_allclose(baseline(series, 22), expected, rtol=1e-12)


def test_holt_winters_knows_a_season_and_takes_up_a_trend() -> None:
    series = np.resize(CYCLE, 77)
    np.testing.assert_allclose(baselines.holt_winters(series, 44), series[44:], rtol=1e-12)
    rising = np.resize(CYCLE, 220) + 0.5 * np.arange(220)
    np.testing.assert_allclose(baselines.holt_winters(rising, 198), rising[198:], rtol=1e-3)


def test_holt_winters_takes_the_steps_of_its_formula(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "meshgrid", lambda *_: [np.array([v]) for v in (0.5, 0.1, 0.25)])
    mean = CYCLE.mean()
    forecasts = baselines.holt_winters(np.array([*CYCLE, 6.0, 7.0, 9.0]), 11)
    # 1: level 72/11, season 2 - 72/11; the first error is 4, of which half moves the level.
    level, trend = mean + 2, 0.1 * 2
    second = level + trend + 4 - mean
    error = 7 - second
    level, trend = level + trend + 0.5 * error, trend + 0.1 * 0.5 * error
    third = level + trend + 6 - mean
    np.testing.assert_allclose(forecasts, [2, second, third], rtol=1e-12)


def test_autoregression_finds_the_rule_of_a_series() -> None:
    root = [3.0, 4.0]
    for _ in range(60):
        root.append(0.5 + 1.6 * root[-1] - 0.9 * root[-2] + 1.2)
    series = np.square(root)
    assert min(root) > 0
    np.testing.assert_allclose(baselines.autoregression(series, 40), series[40:], rtol=1e-6)


@pytest.mark.parametrize("name", demo.BASELINES)
def test_baselines_see_only_the_years_before(name: str) -> None:
    predict, year = demo.BASELINES[name], demo.HISTORY + 30
    changed = demo.SUNSPOTS.copy()
    changed[year:] = 500
    before, after = (predict(series, demo.HISTORY) for series in (demo.SUNSPOTS, changed))
    assert before.shape == (88,)
    np.testing.assert_array_equal(before[:31], after[:31])
    assert before[-1] != after[-1]


# The forecaster


@pytest.fixture(scope="module")
def forecasts() -> Array:
    """Return the forecasts of the demonstration's default options."""
    options = defaults()
    seeds = range(options.seed, options.seed + options.seeds)
    return demo.forecast(demo.SUNSPOTS, demo.HISTORY, seeds, options.epochs)


def test_the_lstm_is_better_than_every_baseline(forecasts: Array) -> None:
    truth = demo.SUNSPOTS[demo.HISTORY :]
    errors = np.array([demo.errors(forecast, truth) for forecast in forecasts])
    assert errors.shape == (5, 4)
    for name, predict in demo.BASELINES.items():
        baseline = demo.errors(predict(demo.SUNSPOTS, demo.HISTORY), truth)
        assert errors[:, 0].mean() <= baseline.mae, name
        assert errors[:, 1].mean() <= baseline.rmse, name
        assert errors[:, 0].max() <= baseline.mae, name
    assert np.abs(errors[:, 3]).max() < 4


def test_the_lstm_is_better_than_every_baseline_in_back_tests() -> None:
    history = demo.SUNSPOTS[: demo.HISTORY]
    tested = demo.back_tests(history, range(1), 100)[:, 0]
    truth = np.array([history[n : n + demo.TESTED] for n in demo.ORIGINS])
    mae = np.abs(tested - truth).mean()
    for name, predict in demo.BASELINES.items():
        forecasts = [predict(history[: n + demo.TESTED], n) for n in demo.ORIGINS]
        assert mae <= np.abs(forecasts - truth).mean(), name


def test_a_forecast_sees_only_the_years_before(forecasts: Array) -> None:
    year = demo.HISTORY + 30
    changed = demo.SUNSPOTS.copy()
    changed[year:] = 500
    again = demo.forecast(changed, demo.HISTORY, [0], 100)[0]
    np.testing.assert_array_equal(again[:31], forecasts[0, :31])
    assert np.all(again[31:] != forecasts[0, 31:])


def test_a_band_holds_as_many_years_of_the_back_tests_as_it_says() -> None:
    rng = np.random.default_rng(0)
    history = demo.SUNSPOTS[: demo.HISTORY]
    truth = np.array([history[n : n + demo.TESTED] for n in demo.ORIGINS])[:, None]
    shape = (len(demo.ORIGINS), 2, demo.TESTED)
    tested = np.square(np.sqrt(truth) + rng.uniform(0.1, 2, shape))  # all too high
    inside = []
    for forecasts, true in zip(tested, truth, strict=True):
        for forecast in forecasts:
            low, high = demo.band(forecast[None], tested, history)
            assert np.all(high < forecast)
            inside.append((low <= true[0]) & (true[0] <= high))
    assert np.mean(inside) == pytest.approx(0.8, abs=0.02)


def test_a_seed_fixes_the_forecast() -> None:
    first, second, other = demo.forecast(demo.SUNSPOTS, demo.HISTORY, (3, 3, 4), 3)
    np.testing.assert_array_equal(first, second)
    assert np.all(first != other)


def test_a_forecast_does_not_depend_on_the_unit() -> None:
    forecast, of_hundreds = (
        demo.forecast(series, demo.HISTORY, [0], 3)
        for series in (demo.SUNSPOTS, demo.SUNSPOTS / 100)
    )
    np.testing.assert_allclose(100 * of_hundreds, forecast, rtol=1e-3, atol=1e-3)


# The command


def test_demo_writes_a_plot_and_its_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    options = ("--seed", "7", "--seeds", "2", "--epochs", "2", "--no-timing")
    done = run("demo", *options, "--output", str(path))
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
    for text in (*demo.BASELINES, "bias", "seed 7", "seed 8", "mean of the seeds", "band"):
        assert text in done.stdout
    assert f"Plot: {path}" in done.stdout
    assert "8 forecasters trained" in done.stdout


def test_the_plot_says_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure
    drawn = []
    monkeypatch.setattr(figure, "savefig", lambda self, path: drawn.append(self))
    options = ("--seeds", "1", "--epochs", "2", "--no-timing")
    main(["demo", *options, "--output", str(tmp_path / "plot.png")])
    truth = demo.SUNSPOTS[demo.HISTORY :]
    ours = demo.errors(demo.forecast(demo.SUNSPOTS, demo.HISTORY, [0], 2)[0], truth).mae
    best = demo.errors(baselines.autoregression(demo.SUNSPOTS, demo.HISTORY), truth).mae
    assert f"LSTM {ours:.1f}" in drawn[0].get_suptitle()
    assert f"linear autoregression: {best:.1f}" in drawn[0].get_suptitle()
    for axes in drawn[0].axes:
        assert "sunspot number" in axes.get_ylabel()
        (line,) = [line for line in axes.get_lines() if "LSTM" in str(line.get_label())]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (1920, demo.SUNSPOTS[1920 - 1700])
        assert any("back-tests" in str(band.get_label()) for band in axes.collections)


def test_demo_times_the_layer_beside_the_reference(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "matplotlib")
    assert {action for action, _ in timing.ROWS.values()} == {"inference", "training", "streaming"}
    tiny = {name: (action, (2, 1, 3, 4)) for name, (action, _) in timing.ROWS.items()}
    monkeypatch.setattr(timing, "ROWS", tiny)
    monkeypatch.setattr(timing, "TURNS", 1)
    monkeypatch.setattr(timing, "BURST", 0.0)
    main(["demo", "--seeds", "1", "--epochs", "1"])
    output = capsys.readouterr().out
    for name in tiny:
        row = next(line for line in output.splitlines() if line.startswith(name))
        *_, ours, plain, faster, apart = row.removeprefix(name).split()
        assert all(float(n.replace(",", "")) > 0 for n in (ours, plain))
        assert faster.endswith("x")
        assert float(apart) < 1e-5
    assert "no competitor" in output and "python -m bench" in output


@pytest.mark.parametrize("action", ["inference", "training", "streaming"])
@pytest.mark.parametrize("shape", [(1, 1, 3, 5), (5, 3, 7, 17)])
def test_what_is_timed_is_the_same(action: str, shape: tuple[int, int, int, int]) -> None:
    T, B, I, H = shape
    ours, plain = timing.computations(action, T, B, I, H)
    for _ in range(3):
        for a, b in zip(ours(), plain(), strict=True):
            np.testing.assert_allclose(a, b.reshape(a.shape), rtol=1e-4, atol=1e-6)


def test_threads_are_limited_for_the_table_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    before = lstm_fast.get_num_threads()
    monkeypatch.setattr(timing, "ROWS", {"x": ("streaming", (1, 1, 2, 3))})

    def median_times(*_: object) -> list[float]:
        seen.append(lstm_fast.get_num_threads())
        return [1.0, 2.0]

    monkeypatch.setattr(timing, "_median_times", median_times)
    assert "2.0x" in timing.timing_table(threads=1)
    assert (seen, lstm_fast.get_num_threads()) == ([1], before)


def test_demo_goes_on_without_matplotlib_and_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    without(monkeypatch, "matplotlib", "tqdm")
    path = tmp_path / "plot.png"
    main(["demo", "--seeds", "1", "--epochs", "10", "--no-timing", "--output", str(path)])
    output = capsys.readouterr().out
    assert "pip install 'lstm_fast[demo]'" in output
    assert output.count("training: ") == 10
    assert "training: 100 %" in output
    assert not path.exists()


@pytest.mark.parametrize(
    "arguments", [["--seeds", "0"], ["--epochs", "x"], ["--seed", "-1"], ["--output", "/no/such/x"]]
)
def test_bad_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", *arguments])
    assert f"argument {arguments[0]}" in capsys.readouterr().err


def test_version_needs_nothing_that_is_slow_to_import() -> None:
    code = """if True:
        import sys
        from lstm_fast.cli.main import main
        try:
            main(["--version"])
        except SystemExit as done:
            slow = {"scipy", "threadpoolctl", "matplotlib", "tqdm", "numpy.random"}
            print(done.code, sorted(slow & sys.modules.keys()))
        """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"lstm_fast {lstm_fast.__version__}\n0 []\n", done.stderr
    assert run("--version").stdout == f"lstm_fast {lstm_fast.__version__}\n"


def test_the_installed_command_is_the_same() -> None:
    found = importlib.metadata.entry_points(group="console_scripts", name="lstm-fast")
    if not found:
        pytest.skip("lstm_fast is not installed")
    assert {entry.value for entry in found} == {"lstm_fast.cli.main:main"}
    assert next(iter(found)).load() is main


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    output = capsys.readouterr().out
    assert "demo" in output and "config" in output


def test_config_prints_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    main(["config"])
    output = capsys.readouterr().out
    for name in lstm_fast.show_config():
        assert name in output


def test_options_have_defaults() -> None:
    options = defaults()
    assert (options.seed, options.seeds, options.epochs) == (0, 5, 100)
