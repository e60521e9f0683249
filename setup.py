"""Build of the extension modules: Cython modules, and C kernels compiled once per instruction set.

Environment: CC and CFLAGS as usual; LSTM_FAST_NO_OPENMP=1 builds without threads;
LSTM_FAST_WERROR=1 turns the compiler's warnings into errors.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

KERNELS = "src/lstm_fast/kernels"
# (ISA, macro by which the compiler tells its target, flags). What is built depends on the target of
# the compiler alone, never on the CPU of the machine that builds: a CPU is looked at on import.
ISAS = [
    ("baseline", "__x86_64__", []),
    ("avx2", "__x86_64__", ["-mavx2", "-mfma"]),
    ("avx512", "__x86_64__", ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]),
    ("neon", "__aarch64__", []),
]
# No contraction: a product and a sum that the source keeps apart are rounded apart, in every tile
# alike, or results would depend on which tile a row falls into.
C_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-g0"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow"]

OPENMP_PROBE = """
#include <omp.h>
int main(void) {
    int threads = 0;
    #pragma omp parallel reduction(+:threads)
    threads += 1;
    return threads < 1 || omp_get_max_threads() < 1;
}
"""
NO_OPENMP = """
The C compiler cannot build a program with OpenMP (-fopenmp), which lstm_fast needs for threads.
Install an OpenMP runtime (Debian: libgomp1, with gcc; macOS: libomp) or another compiler, or build
without threads on purpose:  LSTM_FAST_NO_OPENMP=1 pip install .
"""


def extension(name: str) -> Extension:
    return Extension(
        f"lstm_fast.{name}",
        [f"src/lstm_fast/{name}.pyx"],
        include_dirs=["include", np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=[*C_FLAGS],
        depends=[str(p) for p in Path("include/lstm_fast").glob("*.h")],
    )


class BuildExt(build_ext):
    """Compiles kernels_<isa>.c with the flags of its ISA and links all of them into _dispatch."""

    def build_extensions(self) -> None:
        werror = ["-Werror"] if os.environ.get("LSTM_FAST_WERROR") else []
        openmp = self.openmp_flags()
        isas = [
            (isa, flags)
            for isa, target, flags in ISAS
            if self.compiles(f"#ifndef {target}\n#error\n#endif\n")
        ]
        if not isas:
            sys.exit(
                "lstm_fast has kernels for x86-64 and aarch64; the compiler's target is neither."
            )
        print(f"lstm_fast: kernels for {', '.join(isa for isa, _ in isas)}; OpenMP: {bool(openmp)}")
        for ext in self.extensions:
            ext.extra_compile_args += openmp + werror
            ext.extra_link_args += openmp
            if ext.name.endswith("._dispatch"):
                ext.extra_objects += self.kernel_objects(isas, [*WARNINGS, *werror])
        super().build_extensions()

    def kernel_objects(self, isas: list[tuple[str, list[str]]], warnings: list[str]) -> list[str]:
        have = [(f"LF_HAVE_{isa.upper()}", "1") for isa, _ in isas]
        sources = [("dispatch", []), *((f"kernels_{isa}", flags) for isa, flags in isas)]
        objects = []
        for name, flags in sources:
            objects += self.compiler.compile(
                [f"{KERNELS}/{name}.c"],
                output_dir=self.build_temp,
                macros=have,
                include_dirs=["include"],
                extra_postargs=[*C_FLAGS, *warnings, "-fvisibility=hidden", *flags],
            )
        return objects

    def openmp_flags(self) -> list[str]:
        if os.environ.get("LSTM_FAST_NO_OPENMP", "0") not in ("", "0"):
            return []
        if not self.compiles(OPENMP_PROBE, ["-fopenmp"], link=True):
            sys.exit(NO_OPENMP)
        return ["-fopenmp"]

    def compiles(self, source: str, flags: list[str] = [], link: bool = False) -> bool:  # noqa: B006
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "probe.c")
            path.write_text(source)
            try:
                objects = self.compiler.compile([str(path)], output_dir="/", extra_postargs=flags)
                if link:
                    self.compiler.link_executable(
                        objects, str(Path(folder, "probe")), extra_postargs=flags
                    )
            except (CompileError, LinkError):
                return False
        return True


MODULES = [
    *("_dispatch", "_threads", "_blas", "_engine"),
    *("_variant_forward", "_layer_forward", "_forward", "_direct", "_packing"),
    *("_variant_backward", "_layer_backward", "_backward"),
]
setup(
    ext_modules=cythonize(
        [extension(name) for name in MODULES],
        include_path=["src"],
        compiler_directives={
            "language_level": 3,
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    ),
    cmdclass={"build_ext": BuildExt},
)
