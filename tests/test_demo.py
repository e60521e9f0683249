"""`lstm_fast.cli`: the commands, the demonstration, its forecaster and its table of times."""

import argparse
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import lstm_fast
from lstm_fast.cli import demo, timing
from lstm_fast.cli.forecaster import Adam, Forecaster, Linear, clip_by_global_norm
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


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lstm_fast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


# The series and the naive forecast


def test_the_series_is_the_published_one() -> None:
    series = demo.PASSENGERS
    assert series.shape == (144,)
    assert series.sum() == 40363
    assert (series[0], series[-1]) == (112, 432)
    assert (series.min(), series.max()) == (104, 622)
    by_year = series.reshape(12, 12).sum(axis=1).tolist()
    assert by_year == [1520, 1676, 2042, 2364, 2700, 2867, 3408, 3939, 4421, 4572, 5140, 5714]
    by_month = series.reshape(12, 12).sum(axis=0).tolist()
    assert by_month == [2901, 2820, 3242, 3205, 3262, 3740, 4216, 4213, 3629, 3199, 2794, 3142]


def test_the_last_two_years_are_held_out() -> None:
    history, truth = demo.split()
    assert (len(history), len(truth)) == (120, 24)
    assert (history[-1], truth[0]) == (337, 360)


def test_the_naive_forecast_repeats_the_last_year() -> None:
    history, _ = demo.split()
    forecast = demo.seasonal_naive(history, 24)
    year_1958 = [340, 318, 362, 348, 363, 435, 491, 505, 404, 359, 310, 337]
    np.testing.assert_array_equal(forecast, year_1958 * 2)


def test_errors() -> None:
    errors = demo.errors(np.array([11.0, 17.0]), np.array([10.0, 20.0]))
    assert errors == pytest.approx((2.0, 5**0.5, 12.5))


# The parts of the optimiser, against formulas worked by hand


def test_linear_is_affine_and_has_the_gradients_of_central_differences() -> None:
    rng = np.random.default_rng(0)
    head = Linear(3, 2, rng)
    parameters = head.parameters
    parameters["bias"][:] = [0.5, -1]
    x, dy = (rng.standard_normal((4, 5, n)).astype(np.float32) for n in (3, 2))
    expected = np.einsum("tbi,oi->tbo", x, parameters["weight"]) + parameters["bias"]
    np.testing.assert_allclose(head.forward(x), expected, rtol=1e-5, atol=1e-6)

    dx, grads = head.backward(dy, x)
    gradients = {"x": dx, **grads}
    for name, array in {"x": x, **parameters}.items():
        for index in np.ndindex(array.shape):
            value = array[index]
            losses = []
            for step in (0.5, -0.5):  # the loss is linear in each element: any step is exact
                array[index] = value + step
                losses.append(np.vdot(head.forward(x), dy))
            array[index] = value
            assert gradients[name][index] == pytest.approx(losses[0] - losses[1], abs=1e-4)


def test_adam_takes_the_steps_of_its_formula() -> None:
    rate, beta1, beta2, epsilon = 0.1, 0.9, 0.999, 1e-8
    start, gradients = np.array([1.0, -2.0, 3.0]), np.array([[0.5, -4, 0], [0.25, 3, 1]])

    # After one step m_hat = g1 and v_hat = g1**2; after two, weighted means of both.
    expected = start - rate * gradients[0] / (np.abs(gradients[0]) + epsilon)
    m = ((1 - beta1) * (beta1 * gradients[0] + gradients[1])) / (1 - beta1**2)
    v = ((1 - beta2) * (beta2 * gradients[0] ** 2 + gradients[1] ** 2)) / (1 - beta2**2)
    after_two = expected - rate * m / (np.sqrt(v) + epsilon)

    parameters = {"w": start.copy()}
    array = parameters["w"]
    adam = Adam(beta1, beta2, epsilon)
    adam.step(parameters, {"w": gradients[0]}, rate)
    np.testing.assert_allclose(parameters["w"], expected, rtol=1e-12)
    adam.step(parameters, {"w": gradients[1]}, rate)
    np.testing.assert_allclose(parameters["w"], after_two, rtol=1e-12)
    assert parameters["w"] is array


def test_clipping_scales_all_gradients_by_one_factor() -> None:
    grads: dict[str, Array] = {"a": np.array([[3.0, 0.0]]), "b": np.array([0.0, 4.0])}
    assert clip_by_global_norm(grads, 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose(grads["a"], [[0.6, 0.0]])
    np.testing.assert_allclose(grads["b"], [0.0, 0.8])


def test_clipping_leaves_small_gradients_alone() -> None:
    grads: dict[str, Array] = {"a": np.array([3.0]), "b": np.array([4.0])}
    assert clip_by_global_norm(grads, 5.0) == pytest.approx(5.0)
    assert (grads["a"][0], grads["b"][0]) == (3.0, 4.0)


# The forecaster


def test_every_seed_beats_the_naive_forecast_clearly() -> None:
    history, truth = demo.split()
    naive = demo.errors(demo.seasonal_naive(history, len(truth)), truth)
    for seed in range(5):
        forecaster = Forecaster(seed)
        forecaster.fit(history)
        errors = demo.errors(forecaster.forecast(len(truth)), truth)
        assert errors.rmse <= 0.5 * naive.rmse, seed
        assert errors.mae <= 0.5 * naive.mae, seed
        assert errors.mape <= 0.5 * naive.mape, seed


def test_a_seed_fixes_the_forecast() -> None:
    history, _ = demo.split()
    forecasts = []
    for seed in (3, 3, 4):
        forecaster = Forecaster(seed, epochs=3)
        forecaster.fit(history)
        forecasts.append(forecaster.forecast(5))
    np.testing.assert_array_equal(forecasts[0], forecasts[1])
    assert np.all(forecasts[0] != forecasts[2])


def test_a_forecast_does_not_depend_on_how_far_it_goes_nor_on_the_unit() -> None:
    history, _ = demo.split()
    forecaster = Forecaster(0, epochs=3)
    forecaster.fit(history)
    forecast = forecaster.forecast(24)
    np.testing.assert_array_equal(forecaster.forecast(7), forecast[:7])
    in_persons = Forecaster(0, epochs=3)
    in_persons.fit(1000 * history)
    np.testing.assert_allclose(in_persons.forecast(24), 1000 * forecast, rtol=1e-3)


# The command


def test_demo_writes_a_plot_and_its_report(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "plot.png"
    options = ("--seed", "7", "--seeds", "2", "--epochs", "2", "--no-timing")
    done = run("demo", *options, "--output", str(path))
    assert done.returncode == 0, done.stderr
    assert path.read_bytes().startswith(b"\x89PNG")
    for text in ("seasonal naive", "seed 7", "seed 8", "mean of seeds", "Dec", str(path)):
        assert text in done.stdout


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
    assert "python -m bench" in output


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
    parser = argparse.ArgumentParser()
    demo.add_arguments(parser)
    options = parser.parse_args([])
    assert (options.seed, options.seeds, options.epochs) == (0, 5, 100)
