"""The choice of the instruction set, and what `show_config` says of it."""

import platform
from pathlib import Path

import numpy as np
import pytest
from support.internals import elementwise, isas, new_cell, use_isa
from support.processes import run_python

import lstm_fast

ISAS = isas()
CPUINFO = Path("/proc/cpuinfo")
AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl")
CPU_FLAGS = {
    "baseline": {"sse2"},
    "avx2": {"avx2", "fma"},
    "avx2_vnni": {"avx2", "fma", "avx_vnni"},
    "avx512": {"avx2", "fma", *AVX512},
    "avx512_vnni": {"avx2", "fma", *AVX512, "avx512_vnni"},
    "avx512_bf16": {"avx2", "fma", *AVX512, "avx512_vnni", "avx512_bf16"},
    "avx512_amx": {
        *("avx2", "fma", *AVX512, "avx512_vnni", "avx512_bf16"),
        *("amx_tile", "amx_bf16", "amx_int8"),
    },
}


# ---- LSTM_FAST_ISA


# A child for each value imports the package, which its parent has not.
IMPORTS = """
import os
import numpy
for forced in FORCED:
    os.environ.pop("LSTM_FAST_ISA", None)
    if forced is not None:
        os.environ["LSTM_FAST_ISA"] = forced
    if os.fork() == 0:
        try:
            import lstm_fast
            isas = lstm_fast.show_config()["isas"]
            print(isas["active"], isas["reason"], flush=True)
        except Exception as error:
            print(type(error).__name__, error, flush=True)
        os._exit(0)
    os.wait()
"""


def import_with(*values: str | None) -> dict[str | None, str]:
    """Return ISA and reason, or the error, for each value of LSTM_FAST_ISA; None: it is absent."""
    lines = run_python(IMPORTS.replace("FORCED", repr(values))).splitlines()
    return dict(zip(values, lines, strict=True))


def test_environment_forces_an_isa():
    expected = {isa: f"{isa} LSTM_FAST_ISA={isa}" for isa in ISAS["detected"]}
    assert import_with(*ISAS["detected"]) == expected


def test_the_best_detected_isa_is_the_default():
    best = f"{ISAS['detected'][0]} the best of those detected"
    assert import_with(None, "") == {None: best, "": best}


def test_unknown_isa_is_an_import_error_that_lists_the_allowed():
    for forced, line in import_with("nonsense", "AVX2", " baseline", "0").items():
        assert line.startswith("ImportError LSTM_FAST_ISA:")
        assert f"allow {', '.join(ISAS['detected'])}; got {forced!r}" in line


def test_reason_is_that_of_the_import(monkeypatch):
    """A variable that changes afterwards changes neither the ISA nor the reason for it."""
    before = isas()
    monkeypatch.setenv("LSTM_FAST_ISA", "set after the import")
    assert isas() == before


# ---- what is detected


def test_built_detected_and_active_agree():
    assert ISAS["detected"] == [isa for isa in ISAS["built"] if isa in ISAS["detected"]]
    assert ISAS["active"] in ISAS["detected"]
    assert ISAS["needs"].keys() == set(ISAS["built"])
    assert all(ISAS["needs"].values())


@pytest.mark.skipif(platform.machine() != "x86_64", reason="ISAs of x86-64")
def test_every_x86_isa_is_built_best_first():
    built = ["avx512_amx", "avx512_bf16", "avx512_vnni", "avx512", "avx2_vnni", "avx2", "baseline"]
    assert [isa for isa in built if isa in ISAS["built"]] == ISAS["built"]
    assert set(ISAS["built"]) >= {isa for isa in built if "_" not in isa}  # old compilers lack some


@pytest.mark.skipif(
    platform.machine() != "x86_64" or not CPUINFO.exists(), reason="/proc/cpuinfo of x86-64"
)
def test_detected_isas_are_those_of_cpuinfo():
    lines = CPUINFO.read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    assert ISAS["detected"] == [isa for isa in ISAS["built"] if CPU_FLAGS[isa] <= flags]


# Signals of the thread have too small a stack for the registers of AMX.
SMALL_STACK = """
import ctypes
from support import signal_stack
memory = ctypes.create_string_buffer(8192)
signal_stack.restore(signal_stack.Stack(ctypes.addressof(memory), 0, len(memory)))
assert signal_stack.current().size == len(memory)
import lstm_fast
print(*lstm_fast.show_config()["isas"]["detected"])
"""


@pytest.mark.skipif("avx512_amx" not in ISAS["detected"], reason="no AMX here")
def test_amx_is_left_out_where_linux_refuses_it():
    detected = run_python(SMALL_STACK, LSTM_FAST_ISA=None).split()
    assert ["avx512_amx", *detected] == ISAS["detected"]


# ---- show_config


def test_show_config():
    config = lstm_fast.show_config()
    names = {"version", "isas", "blas", "openmp", "threads", "adaptive_threads"}
    assert config.keys() == names
    assert config["version"] == lstm_fast.__version__
    names = {"built", "detected", "active", "reason", "needs", "precisions"}
    assert config["isas"].keys() == names
    assert config["isas"]["precisions"].keys() == {"bfloat16", "int8"}
    assert config["isas"] == isas()
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
    before = isas()["active"]
    with pytest.raises(ValueError, match=f"allow {', '.join(ISAS['detected'])}; got '{name}'"):
        use_isa(name)
    assert isas()["active"] == before


def test_use_rejects_what_was_built_and_does_not_run_here():
    for isa in set(ISAS["built"]) - set(ISAS["detected"]):
        with pytest.raises(ValueError, match="isa: "):
            use_isa(isa)


def test_a_cell_keeps_the_isa_it_was_made_under(isa):
    cell = new_cell()
    for other in ISAS["detected"]:
        use_isa(other)
        assert new_cell().isa == other.partition("_")[0]  # extensions have the cells of their ISA
        assert cell.isa == isa
    use_isa(isa)


def test_elementwise_rejects_what_it_does_not_know():
    x = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match=r"isa: .*got 'nonsense'"):
        elementwise("exp", x, "nonsense")
    with pytest.raises(ValueError, match=r"function: .*got 'cosh'"):
        elementwise("cosh", x)
    with pytest.raises(TypeError, match=r"x: .*int64"):
        elementwise("exp", np.zeros(3, np.int64))
