"""What a build says of the compiler, before it compiles anything."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_isa

pytest.importorskip("Cython", reason="runs setup.py")
pytest.importorskip("setuptools", minversion="77", reason="runs setup.py")

ROOT = Path(__file__).parents[1]


def build(folder: Path, compiler: str) -> subprocess.CompletedProcess[str]:
    """Start a build, which is to end before there is a result."""
    folders = ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    env = {name: value for name, value in os.environ.items() if not name.startswith("LSTM_FAST_")}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *folders],
        cwd=ROOT,
        env={**env, "CC": compiler},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert not (folder / "lib").exists()
    return done


@pytest.mark.parametrize("compiler", ["false", "/nowhere/cc"])
def test_no_compiler_is_not_taken_for_a_missing_openmp(tmp_path: Path, compiler: str) -> None:
    message = build(tmp_path, compiler).stderr
    assert f'no working C compiler: "{compiler}"' in message
    assert "python3-dev" in message and "CC=" in message
    assert "OpenMP" not in message


def test_a_compiler_without_openmp(tmp_path: Path) -> None:
    real = sysconfig.get_config_var("CC") or "cc"
    wrapper = tmp_path / "cc"
    wrapper.write_text(f'#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    message = build(tmp_path, str(wrapper)).stderr
    if "no working C compiler" in message:
        pytest.skip(f"no C compiler {real}")
    assert "LSTM_FAST_NO_OPENMP=1" in message and "libgomp" in message
