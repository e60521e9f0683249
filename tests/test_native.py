"""The kernels checked from plain C: on this machine, with sanitizers, and NEON emulated."""

import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product as product_of
from pathlib import Path

import numpy as np
import pytest

from lstm_fast.reference.quantised import bfdot, fma, product, rounded

pytestmark = pytest.mark.no_isa

ROOT = Path(__file__).parents[1]
KERNELS = ROOT / "src/lstm_fast/kernels"
FLAGS = ["-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Werror"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
AMX = ["-mamx-tile", "-mamx-bf16", "-mamx-int8"]
AVX2 = ["-mavx2", "-mfma"]
X86 = {
    "baseline": [],
    "avx2": AVX2,
    "avx2_vnni": [*AVX2, "-mavxvnni"],
    "avx512": AVX512,
    "avx512_vnni": [*AVX512, "-mavx512vnni"],
    "avx512_bf16": [*AVX512, "-mavx512bf16"],
    "avx512_amx": [*AVX512, "-mavx512vnni", "-mavx512bf16", *AMX],
}
NEON = {
    "neon": [],
    "neon_dot": ["-march=armv8.2-a+dotprod"],
    "neon_bf16": ["-march=armv8.2-a+bf16"],
}
PYTHONS_COMPILER = shlex.split(sysconfig.get_config_var("CC") or "cc")
CLANG = next(
    (c for c in ("clang", *(f"clang-{n}" for n in range(30, 13, -1))) if shutil.which(c)), ""
)
# Not optimized: nothing undefined disappears, and it compiles in a third of the time.
SANITIZED = ["-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
only_x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="builds the x86-64 kernels")


def build(compiler: list[str], isas: dict[str, list[str]], folder: Path, *flags: str) -> Path:
    """Compile the kernels of some ISAs and the checks into a program; the linker gets flags too."""
    command = [*compiler, *FLAGS, *flags, f"-I{ROOT / 'include'}"]

    def compiled(source: Path, flags: list[str]) -> str:
        target = str(folder / f"{source.stem}.o")
        subprocess.run([*command, *flags, "-c", str(source), "-o", target], check=True)
        return target

    sources = {
        KERNELS / "dispatch.c": [f"-DLF_HAVE_{isa.upper()}" for isa in isas],
        ROOT / "tests/native/check_kernels.c": [],
        **{KERNELS / f"kernels_{isa}.c": of_isa for isa, of_isa in isas.items()},
    }
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, sources.keys(), sources.values()))
    program = folder / "check"
    subprocess.run([*command, *objects, "-lm", "-o", str(program)], check=True)
    return program


def run(command: list[str]) -> str:
    # Leaks: kernels allocate nothing, and the search for them needs ptrace, which may be forbidden.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def has_sanitizers(compiler: list[str], folder: Path, flags: Sequence[str] = SANITIZED) -> bool:
    probe = folder / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    command = [*compiler, *flags, str(probe), "-o", str(folder / "probe")]
    return subprocess.run(command, capture_output=True).returncode == 0


@only_x86
@pytest.mark.parametrize("compiler", [PYTHONS_COMPILER, [CLANG]], ids=["python's", "clang"])
def test_kernels_of_this_machine(tmp_path, compiler):
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler {compiler[0] or 'clang'}")
    level = "-O3" if compiler == [CLANG] else "-O1"  # the package has what Python's gives with -O3
    assert "baseline:" in run([str(build(compiler, X86, tmp_path, level))])


@only_x86
def test_kernels_with_sanitizers(tmp_path):
    compiler = PYTHONS_COMPILER
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler {compiler[0]}")
    if not has_sanitizers(compiler, tmp_path):
        pytest.skip(f"{compiler[0]} has no sanitizers")
    isas = {isa: X86[isa] for isa in ("baseline", "avx2")}
    assert "baseline:" in run([str(build(compiler, isas, tmp_path, *SANITIZED))])


@pytest.mark.parametrize("flags", [[], ["-O1", "-g1", "-fsanitize=thread"]], ids=["", "sanitized"])
def test_helpers(tmp_path, flags):
    compiler = PYTHONS_COMPILER
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler {compiler[0]}")
    if not has_sanitizers(compiler, tmp_path, flags):
        pytest.skip(f"{compiler[0]} has no sanitizer of threads")
    source, program = ROOT / "tests/native/check_helpers.c", tmp_path / "check"
    command = [*compiler, *FLAGS, "-D_GNU_SOURCE", *flags, f"-I{ROOT / 'include'}", str(source)]
    subprocess.run([*command, "-lpthread", "-o", str(program)], check=True)
    assert int(run([str(program)]).removeprefix("helpers: ")) in range(1, 13)


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    """Return an emulator of aarch64, and the program that runs there."""
    compiler, emulator = "aarch64-linux-gnu-gcc", "qemu-aarch64"
    for tool in (compiler, emulator):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    folder = tmp_path_factory.mktemp("neon")
    return emulator, str(build([compiler], NEON, folder, "-O3", "-static"))


def test_neon_under_emulation(emulated):
    emulator, program = emulated
    for cpu, isas in {"max": [*NEON], "cortex-a72": ["neon"]}.items():
        printed = run([emulator, "-cpu", cpu, program])
        assert [isa for isa in NEON if f"{isa}:" in printed] == isas


LOWER = [*product_of(NEON, ["bfloat16", "int8"]), ("neon_bf16", "mixed")]


@pytest.mark.parametrize(("isa", "precision"), LOWER)
def test_products_of_lower_precision_under_emulation(emulated, isa, precision, rng):
    """They have the bits of their twin: a sum of several pieces, and denormals, among them."""
    weights, inputs = ("int8", "bfloat16") if precision == "mixed" else (precision, precision)
    instruction = bfdot if isa == "neon_bf16" else None
    for rows, depth, columns in [(1, 1, 1), (2, 3, 5), (5, 64, 33), (7, 301, 18)]:
        x, w = rng.normal(size=(rows, depth)), rng.normal(size=(columns, depth))
        x[:, ::3] *= np.exp2(rng.integers(-140, 20, x[:, ::3].shape))
        w[::2] *= np.exp2(rng.integers(-20, 20, w[::2].shape))
        of_w = rounded(w.astype(np.float32), weights)
        x = x.astype(np.float32)
        scale = np.ones(columns, np.float32) if of_w.scale is None else of_w.scale
        sizes = map(str, (rows, depth, columns))
        given = b"".join(np.ascontiguousarray(a, np.float32).tobytes() for a in (x, of_w[0], scale))
        command = [emulated[0], "-cpu", "max", emulated[1], isa, precision, *sizes]
        found = subprocess.run(command, input=given, capture_output=True, check=True).stdout
        expected = product(x, of_w, inputs, fma, instruction)
        np.testing.assert_array_equal(
            np.frombuffer(found, np.float32).reshape(expected.shape), expected
        )
