"""What a build says of the compiler, before it compiles anything."""

import os
import shutil
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


def real_but(folder: Path, lines: str) -> str:
    """Return a compiler that runs some lines of shell, then the real one."""
    real = sysconfig.get_config_var("CC") or "cc"
    if shutil.which(real.split()[0]) is None:
        pytest.skip(f"no C compiler {real}")
    wrapper = folder / "cc"
    wrapper.write_text(f'#!/bin/sh\n{lines}\nexec {real} "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


def reported(message: str) -> list[str]:
    """Return which of the messages there are."""
    signs = (
        "no working C compiler",
        "does not find Python.h",
        "cannot build a program with OpenMP",
    )
    return [sign for sign in signs if sign in message]


@pytest.mark.parametrize("compiler", ["false", "/nowhere/cc"])
def test_no_compiler(tmp_path: Path, compiler: str) -> None:
    message = build(tmp_path, compiler).stderr
    assert reported(message) == ["no working C compiler"]
    assert f'"{compiler}"' in message and "python3-dev" in message and "CC=" in message


def test_no_header_of_python(tmp_path: Path) -> None:
    no_folders = 'for a do shift; case $a in -I*) ;; *) set -- "$@" "$a";; esac; done'
    message = build(tmp_path, real_but(tmp_path, no_folders)).stderr
    assert reported(message) == ["does not find Python.h"]
    assert "python3-dev" in message and "{}.{}".format(*sys.version_info) in message


def test_no_openmp(tmp_path: Path) -> None:
    message = build(tmp_path, real_but(tmp_path, 'case "$*" in *-fopenmp*) exit 1;; esac')).stderr
    assert reported(message) == ["cannot build a program with OpenMP"]
    assert "LSTM_FAST_NO_OPENMP=1" in message and "libgomp" in message
