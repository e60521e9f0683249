"""The choice of the instruction set, and what `show_config` says of it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lstm_fast
from lstm_fast import _dispatch
from lstm_fast._engine import Cell

ISAS = _dispatch.isas()
CPUINFO = Path("/proc/cpuinfo")
PRINT_ISA = "import lstm_fast; i = lstm_fast.show_config()['isas']; print(i['active'], i['reason'])"
CPU_FLAGS = {
    "baseline": {"sse2"},
    "avx2": {"avx2", "fma"},
    "avx512": {"avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl"},
}


def run_with(forced: str | None, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter with LSTM_FAST_ISA set, or absent for None."""
    env = {name: value for name, value in os.environ.items() if name != "LSTM_FAST_ISA"}
    if forced is not None:
        env["LSTM_FAST_ISA"] = forced
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def new_cell() -> Cell:
    return Cell(np.zeros((4, 1), np.float32), np.zeros((4, 1), np.float32))


# ---- LSTM_FAST_ISA


@pytest.mark.parametrize("forced", ISAS["detected"])
def test_environment_forces_an_isa(forced):
    result = run_with(forced, PRINT_ISA)
    assert result.stdout == f"{forced} LSTM_FAST_ISA={forced}\n", result.stderr


@pytest.mark.parametrize("forced", [None, ""], ids=["unset", "empty"])
def test_the_best_detected_isa_is_the_default(forced):
    result = run_with(forced, PRINT_ISA)
    assert result.stdout == f"{ISAS['detected'][0]} the best of those detected\n", result.stderr


@pytest.mark.parametrize("forced", ["nonsense", "AVX2", " baseline", "0"])
def test_unknown_isa_is_an_import_error_that_lists_the_allowed(forced):
    code = "try: import lstm_fast\nexcept ImportError as error: print(type(error).__name__, error)"
    result = run_with(forced, code)
    assert result.stdout.startswith("ImportError LSTM_FAST_ISA:"), result.stderr
    assert f"allow {', '.join(ISAS['detected'])}; got {forced!r}" in result.stdout


def test_reason_is_that_of_the_import(monkeypatch):
    """A variable that changes afterwards changes neither the ISA nor the reason for it."""
    before = _dispatch.isas()
    monkeypatch.setenv("LSTM_FAST_ISA", "set after the import")
    assert _dispatch.isas() == before


# ---- what is detected


def test_built_detected_and_active_agree():
    assert ISAS["detected"] == [isa for isa in ISAS["built"] if isa in ISAS["detected"]]
    assert ISAS["active"] in ISAS["detected"]
    assert ISAS["needs"].keys() == set(ISAS["built"])
    assert all(ISAS["needs"].values())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="ISAs of x86-64")
def test_every_x86_isa_is_built_best_first():
    assert ISAS["built"] == ["avx512", "avx2", "baseline"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="flags of x86-64")
@pytest.mark.skipif(not CPUINFO.exists(), reason="no /proc/cpuinfo")
def test_detected_isas_are_those_of_cpuinfo():
    lines = CPUINFO.read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    assert ISAS["detected"] == [isa for isa in ISAS["built"] if CPU_FLAGS[isa] <= flags]


# ---- show_config


def test_show_config():
    config = lstm_fast.show_config()
    assert config.keys() == {"version", "isas", "blas", "openmp", "threads"}
    assert config["version"] == lstm_fast.__version__
    assert config["isas"].keys() == {"built", "detected", "active", "reason", "needs"}
    assert config["isas"] == _dispatch.isas()
    assert config["blas"].keys() == {"interface", "libraries"}
    assert config["blas"]["interface"] == "scipy.linalg.cython_blas"
    assert {library["user_api"] for library in config["blas"]["libraries"]} == {"blas"}
    assert config["openmp"].keys() == {"version", "lost_in_fork"}
    assert config["openmp"]["version"] is None or config["openmp"]["version"] >= 201107
    assert config["openmp"]["lost_in_fork"] is False
    assert config["threads"] == lstm_fast.get_num_threads()


def test_show_config_returns_a_new_dictionary_each_time():
    lstm_fast.show_config()["isas"]["detected"].clear()
    assert lstm_fast.show_config()["isas"]["detected"] == ISAS["detected"]


# ---- use, for tests


@pytest.mark.parametrize("name", ["nonsense", "", "BASELINE"])
def test_use_rejects_unknown_names_and_keeps_the_isa(name):
    before = _dispatch.isas()["active"]
    with pytest.raises(ValueError, match=f"allow {', '.join(ISAS['detected'])}; got '{name}'"):
        _dispatch.use(name)
    assert _dispatch.isas()["active"] == before


def test_use_rejects_what_was_built_and_does_not_run_here():
    missing = [isa for isa in ISAS["built"] if isa not in ISAS["detected"]]
    if not missing:
        pytest.skip("this CPU runs every ISA that was built")
    with pytest.raises(ValueError, match="isa: "):
        _dispatch.use(missing[0])


def test_a_cell_keeps_the_isa_it_was_made_under(isa):
    cell = new_cell()
    for other in ISAS["detected"]:
        _dispatch.use(other)
        assert new_cell().isa == other
        assert cell.isa == isa
    _dispatch.use(isa)


def test_elementwise_rejects_what_it_does_not_know():
    x = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"isa: .*got 'nonsense'"):
        _dispatch.elementwise("exp", x, "nonsense")
    with pytest.raises(ValueError, match=r"function: .*got 'cosh'"):
        _dispatch.elementwise("cosh", x)
    with pytest.raises(TypeError, match=r"x: .*int64"):
        _dispatch.elementwise("exp", np.zeros(3, np.int64))
