"""The kernels checked from plain C: on this machine, and NEON cross-compiled and emulated."""

import platform
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "src/lstm_fast/kernels"
FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
X86 = {
    "baseline": [],
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"],
}


def build(compiler: list[str], isas: dict[str, list[str]], folder: Path, *link: str) -> Path:
    """Compile the kernels of some ISAs and the checks into a program."""
    have = [f"-DLF_HAVE_{isa.upper()}" for isa in isas]
    sources = {
        KERNELS / "dispatch.c": have,
        ROOT / "tests/native/check_kernels.c": [],
        **{KERNELS / f"kernels_{isa}.c": flags for isa, flags in isas.items()},
    }
    objects = []
    for source, flags in sources.items():
        objects.append(str(folder / f"{source.stem}.o"))
        command = [
            *compiler,
            *FLAGS,
            *flags,
            f"-I{ROOT / 'include'}",
            "-c",
            str(source),
            "-o",
            objects[-1],
        ]
        subprocess.run(command, check=True)
    program = folder / "check"
    subprocess.run([*compiler, *link, *objects, "-lm", "-o", str(program)], check=True)
    return program


def run(command: list[str]) -> str:
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.skipif(platform.machine() != "x86_64", reason="builds the x86-64 kernels")
def test_kernels_of_this_machine(tmp_path):
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler {compiler[0]}")
    printed = run([str(build(compiler, X86, tmp_path))])
    assert "baseline:" in printed


def test_neon_under_emulation(tmp_path):
    compiler, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64"
    for tool in (compiler, emulator):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    printed = run([emulator, str(build([compiler], {"neon": []}, tmp_path, "-static"))])
    assert "neon:" in printed
