"""Build of the extension modules: Cython modules, and C kernels compiled once per instruction set.

Every .pyx file below src/ is a module. What an option of the environment changes is built again.

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
from setuptools.modified import newer_group

SOURCES = Path("src")
HEADERS = Path("include")
KERNELS = SOURCES / "lstm_fast/kernels"
PXD = sorted(map(str, SOURCES.rglob("*.pxd")))
KERNELS_MODULE = "lstm_fast.engine.runtime.isa"  # which has the kernels
# (ISA, macro by which the compiler tells its target, flags). What is built depends on the compiler
# alone, never on the CPU of the machine that builds: a CPU is looked at on import.
AVX2 = ["-mavx2", "-mfma"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"]
AMX = ["-mamx-tile", "-mamx-bf16", "-mamx-int8"]
ISAS = [
    ("baseline", "__x86_64__", []),
    ("avx2", "__x86_64__", AVX2),
    ("avx2_vnni", "__x86_64__", [*AVX2, "-mavxvnni"]),
    ("avx512", "__x86_64__", AVX512),
    ("avx512_vnni", "__x86_64__", [*AVX512, "-mavx512vnni"]),
    ("avx512_bf16", "__x86_64__", [*AVX512, "-mavx512bf16"]),
    ("avx512_amx", "__x86_64__", [*AVX512, "-mavx512vnni", "-mavx512bf16", *AMX]),
    ("neon", "__aarch64__", []),
    ("neon_dot", "__aarch64__", ["-march=armv8.2-a+dotprod"]),
    ("neon_bf16", "__aarch64__", ["-march=armv8.2-a+bf16"]),
]
# No contraction: a product and a sum that the source keeps apart are rounded apart, in every tile
# alike, or results would depend on which tile a row falls into.
C_FLAGS = ["-std=c11", "-O3", "-ffp-contract=off", "-g0"]
WARNINGS = ["-Wall", "-Wextra", "-Wshadow"]
DIRECTIVES = {
    **{"language_level": 3, "cdivision": True, "embedsignature": True},
    **{"boundscheck": False, "wraparound": False, "initializedcheck": False},
}

PROGRAM = "int main(void) { return 0; }\n"
NO_COMPILER = """
There is no working C compiler: "{}" cannot build a program that does nothing.
Install one, with the headers of Python (Debian: gcc, python3-dev; Fedora: gcc, python3-devel;
macOS: xcode-select --install), or name another one:  CC=... pip install .
"""
NO_HEADERS = """
The C compiler works, but does not find Python.h: the headers of Python {}.{} are missing.
Install them (Debian: python3-dev; Fedora: python3-devel), or use a Python that comes with them.
"""
OPENMP_PROGRAM = """
#include <omp.h>
int main(void) {
    #pragma omp parallel
    omp_get_thread_num();
    return omp_get_max_threads() < 1;
}
"""
NO_OPENMP = """
The C compiler cannot build a program with OpenMP (-fopenmp), which lstm_fast needs for threads.
Install an OpenMP runtime (Debian: libgomp1, with gcc; macOS: libomp) or another compiler, or build
without threads on purpose:  LSTM_FAST_NO_OPENMP=1 pip install .
"""
NO_KERNELS = "lstm_fast has kernels for x86-64 and aarch64; the compiler's target is neither."


def extension(path: Path) -> Extension:
    name = ".".join(path.relative_to(SOURCES).with_suffix("").parts)
    depends = [*HEADERS.rglob("*.h"), *(KERNELS.glob("*.c") if name == KERNELS_MODULE else [])]
    return Extension(
        name,
        [str(path)],
        include_dirs=[str(HEADERS), np.get_include()],
        define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
        extra_compile_args=[*C_FLAGS],
        depends=["setup.py", *map(str, depends)],
    )


def generated(ext: Extension) -> str:
    return str(Path(ext.sources[0]).with_suffix(".c"))


class BuildExt(build_ext):
    """Looks at the compiler, then at what is out of date; one module has the kernels with it."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self) -> None:
        if not self.builds(PROGRAM):
            sys.exit(NO_COMPILER.format(self.compiler.compiler[0]))
        if not self.builds(f"#include <Python.h>\n{PROGRAM}"):
            sys.exit(NO_HEADERS.format(*sys.version_info))
        openmp = ["-fopenmp"] if os.environ.get("LSTM_FAST_NO_OPENMP", "0") in ("", "0") else []
        if openmp and not self.builds(OPENMP_PROGRAM, *openmp):
            sys.exit(NO_OPENMP)
        self.werror = ["-Werror"] if os.environ.get("LSTM_FAST_WERROR") else []
        self.isas = {
            isa: flags
            for isa, target, flags in ISAS
            if self.builds(f"#ifndef {target}\n#error\n#endif\n{PROGRAM}")
            and self.builds(PROGRAM, *flags)
        }
        if not self.isas:
            sys.exit(NO_KERNELS)
        print(f"lstm_fast: kernels for {', '.join(self.isas)}; OpenMP: {bool(openmp)}")

        compiler = self.compiler.compiler_so, self.compiler.linker_so
        settings, known = repr((compiler, openmp, self.werror)), Path(self.build_temp, "settings")
        if not known.exists() or known.read_text() != settings:
            known.unlink(missing_ok=True)  # until all of it is built
            self.force = True
        # What is up to date stays so beside a new NumPy, such as pip installs for every build.
        stale = [ext for ext in self.extensions if self.is_stale(ext, generated(ext), *PXD)]
        cythonize(stale, include_path=["src"], compiler_directives=DIRECTIVES)
        for ext in self.extensions:
            ext.sources = [generated(ext)]
            ext.extra_compile_args += openmp + self.werror
            ext.extra_link_args += openmp
        super().build_extensions()
        known.write_text(settings)

    def is_stale(self, ext: Extension, *others: str) -> bool:
        sources, built = [*ext.sources, *ext.depends, *others], self.get_ext_fullpath(ext.name)
        return self.force or newer_group(sources, built, missing="newer")

    def build_extension(self, ext: Extension) -> None:
        if ext.name == KERNELS_MODULE and self.is_stale(ext):
            ext.extra_objects += self.kernel_objects()
        super().build_extension(ext)

    def kernel_objects(self) -> list[str]:
        objects = []
        for name, flags in [("dispatch", []), *((f"kernels_{k}", v) for k, v in self.isas.items())]:
            objects += self.compiler.compile(
                [str(KERNELS / f"{name}.c")],
                output_dir=self.build_temp,
                macros=[(f"LF_HAVE_{isa.upper()}", "1") for isa in self.isas],
                include_dirs=[str(HEADERS)],
                extra_postargs=[*C_FLAGS, *WARNINGS, *self.werror, "-fvisibility=hidden", *flags],
            )
        return objects

    def builds(self, source: str, *flags: str) -> bool:
        """Tell whether a program can be compiled and linked."""
        with tempfile.TemporaryDirectory() as folder:
            (path := Path(folder, "probe.c")).write_text(source)
            try:
                compiled = self.compiler.compile([str(path)], folder, extra_postargs=[*flags])
                self.compiler.link_executable(compiled, f"{folder}/probe", extra_postargs=[*flags])
            except (CompileError, LinkError):
                return False
        return True


extensions = [extension(path) for path in sorted(SOURCES.rglob("*.pyx"))]
extensions.sort(key=lambda ext: ext.name != KERNELS_MODULE)  # first what takes longest
setup(ext_modules=extensions, cmdclass={"build_ext": BuildExt})
