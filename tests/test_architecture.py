"""What the source promises of itself: what imports what, what import loads, how C is compiled."""

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/lstm_fast"
MODULES = sorted(p for p in PACKAGE.iterdir() if p.suffix in {".py", ".pyx", ".pxd"})
KERNELS = sorted((PACKAGE / "kernels").glob("*.c"))
HEADERS = sorted((ROOT / "include").rglob("*.h"))
NAMES = {path.stem for path in MODULES}

COMPUTING = {"_forward", "_backward", "_engine"}
ALLOWED = {
    "__init__": {
        *("reference", "config", "_threads", "functional", "layers"),
        *("streaming", "version"),
    },
    "layers": {
        *("_direct", "_checks", "_engine", "_results"),
        *("settings", "_packing", "stack", "streaming"),
    },
    "settings": {"_checks", "_options", "_engine", "initial", "parameters", "_packing", "stack"},
    "initial": {"_checks"},
    "_options": {"_checks"},
    "_results": {"_checks", "_engine"},
    "stack": {*COMPUTING, "_checks", "checkpoint", "_packing"},
    "checkpoint": {*COMPUTING, "_checks"},
    "_packing": {"_engine", "_dispatch", "_kernels"},
    "streaming": {"_direct", "_checks", "_engine", "parameters", "stack"},
    "functional": {*COMPUTING, "_checks", "_options", "_packing"},
    "parameters": {*COMPUTING, "_checks", "_options"},
    "config": {"version", "_dispatch", "_threads", "_blas"},
    "_direct": {"_forward", "_engine"},
    "_forward": {"_layer_forward", "_engine", "_threads", "_kernels", "_blas"},
    "_backward": {"_layer_backward", "_engine", "_threads", "_kernels", "_blas"},
    "_layer_forward": {"_variant_forward", "_engine", "_threads", "_kernels", "_blas"},
    "_layer_backward": {"_variant_backward", "_engine", "_threads", "_kernels", "_blas"},
    # They take the job of a layer, a structure, and are called by it.
    "_variant_forward": {"_layer_forward", "_engine", "_kernels"},
    "_variant_backward": {"_layer_backward", "_engine", "_kernels", "_threads"},
    "_engine": {"_dispatch", "_kernels", "_blas", "_threads"},
    "_dispatch": {"_kernels"},
    "_threads": set(),
    "_blas": set(),
    "_kernels": set(),
    "_checks": set(),
    "version": set(),
}
REFERENCE = sorted((PACKAGE / "reference").glob("*.py"))
# Programs that use the library as anyone would.
PROGRAMS = {"__main__"}
CYTHON = {"libc", "cpython", "cython"}
OUTSIDE = {"_blas": {"numpy", "scipy", "threadpoolctl"}}


def code_of(path: Path) -> str:
    """Return the source without comments, docstrings, C in strings, and imports for types."""
    text = re.sub(r'"""[\s\S]*?"""', '""', path.read_text())
    text = re.sub(r"#.*", "", text)
    return re.sub(r"^if TYPE_CHECKING:\n(?:(?: +.*)?\n)+", "", text, flags=re.M)


def imports(path: Path) -> set[str]:
    """Return modules of the package by name, and others by the name of their package."""
    found = set()
    pattern = r"^ *(?:from +([\w.]+) +)?c?import +(\([^)]*\)|[^\n]+)"
    for source, names in re.findall(pattern, code_of(path), flags=re.M):
        imported = [name.split()[0] for name in names.strip("() \n").split(",") if name.strip()]
        if source in {".", "lstm_fast"}:
            found |= {name if name in NAMES else "__init__" for name in imported}
        else:
            for name in [source] if source else imported:
                inside = name.startswith((".", "lstm_fast."))
                own = name.split(".")[1] if inside else name.split(".")[0]
                found.add("__init__" if own == "lstm_fast" else own)
    return found


def run_python(code: str) -> str:
    """Return what a new interpreter prints, to which warnings are errors."""
    env = {k: v for k, v in os.environ.items() if k not in {"LSTM_FAST_ISA", "OMP_NUM_THREADS"}}
    command = [sys.executable, "-W", "error", "-c", code]
    result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# ---- imports in the source


def test_every_module_has_its_rules():
    assert {path.stem for path in MODULES} == ALLOWED.keys() | PROGRAMS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_go_downwards(path):
    inside = imports(path) & NAMES - {path.stem}
    if path.stem in PROGRAMS:
        assert inside <= PROGRAMS | {"__init__", "reference"}
    else:
        assert inside <= ALLOWED[path.stem]


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.name)
def test_the_reference_stands_alone(path):
    own = {p.stem for p in REFERENCE}
    assert imports(path) - own <= {"numpy", *sys.stdlib_module_names}
    assert "lstm_fast" not in code_of(path)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.stem not in PROGRAMS], ids=lambda path: path.name
)
def test_the_library_needs_little_from_outside(path):
    outside = imports(path) - NAMES - CYTHON - sys.stdlib_module_names
    assert outside <= OUTSIDE.get(path.stem, {"numpy"})


def test_the_arrows_that_the_package_documents_are_there():
    """Guards the parser: without it, a test of what is absent could pass on nothing."""
    found = {}
    for path in MODULES:
        found[path.stem] = found.get(path.stem, set()) | imports(path)
    assert {"_results", "settings", "_packing", "stack", "streaming"} <= found["layers"]
    assert {"parameters", "initial", "_options"} <= found["settings"]
    assert {"_forward", "_backward", "_engine"} <= found["stack"]
    below = {"_engine", "_threads", "_kernels"}
    assert {"_layer_forward", *below} <= found["_forward"]
    assert {"_layer_backward", *below} <= found["_backward"]
    assert {"_blas", *below} <= found["_layer_forward"] & found["_layer_backward"]
    assert {"_dispatch", "_kernels", "_blas"} <= found["_engine"]
    assert {"scipy", "threadpoolctl"} <= found["_blas"]


@pytest.mark.parametrize("path", [*MODULES, *KERNELS, *HEADERS], ids=relative)
def test_only_threads_asks_openmp(path):
    if path.name == "_threads.pyx":
        assert "omp_get_max_threads" in path.read_text()
    else:
        assert not re.search(r"\bomp_|omp\.h", path.read_text())


# ---- imports at run time


def test_import_loads_nothing_heavy_and_changes_nothing():
    run_python("""if True:
        import os, subprocess, sys
        import numpy as np
        def state():
            seen_from_c = subprocess.run(["env"], capture_output=True, check=True).stdout
            return dict(os.environ), seen_from_c, np.geterr(), np.get_printoptions()
        before, modules = state(), set(sys.modules)
        import lstm_fast
        assert state() == before
        assert "numpy.random" not in sys.modules.keys() - modules  # ten milliseconds, in NumPy 2
        heavy = {"scipy", "threadpoolctl", "matplotlib", "tqdm", "torch", "onnxruntime"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
        """)


@pytest.mark.parametrize("matmul", ["auto", "packed", "blas"])
def test_only_blas_loads_scipy_for_inference(matmul):
    printed = run_python(f"""if True:
        import sys
        import numpy as np
        from lstm_fast import LSTM
        LSTM(64, 64, matmul={matmul!r})(np.zeros((100, 32, 64), np.float32))
        print([name for name in ("scipy", "threadpoolctl") if name in sys.modules])
        """)
    assert printed.strip() == ("['scipy', 'threadpoolctl']" if matmul == "blas" else "[]")


# ---- C


@pytest.mark.parametrize("path", [*HEADERS, *KERNELS], ids=relative)
def test_kernels_know_nothing_of_python(path):
    assert not re.search(r"#\s*include.*(Python\.h|numpy)|\bPyObject\b", path.read_text())


@pytest.mark.parametrize(
    "path",
    [ROOT / "setup.py", ROOT / "pyproject.toml", *MODULES, *KERNELS, *HEADERS],
    ids=relative,
)
def test_no_flags_that_break_arithmetic_or_portability(path):
    forbidden = r"-Ofast|fast-math|-march|-mtune|-mcpu|unsafe-math|finite-math"
    assert not re.search(forbidden, path.read_text())


NATIVE = {"x86_64": "baseline", "aarch64": "neon"}.get(platform.machine())


@pytest.mark.parametrize("flags", [[], ["-mavx2"], ["-mavx2", "-mfma", "-mavx512f"]], ids=" ".join)
@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512", "neon"])
def test_kernels_refuse_the_flags_of_another_isa(isa, flags):
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    if not shutil.which(compiler[0]):
        pytest.skip(f"no C compiler {compiler[0]}")
    if NATIVE is None or (flags and NATIVE != "baseline"):
        pytest.skip("flags of x86-64")
    source = PACKAGE / f"kernels/kernels_{isa}.c"
    command = [*compiler, "-std=c11", *flags, f"-I{ROOT / 'include'}", "-fsyntax-only", str(source)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if isa == NATIVE or (isa == "avx2" and "-mfma" in flags):
        assert result.returncode == 0, result.stderr
    else:
        assert result.returncode != 0
        assert f"kernels_{isa}.c needs" in result.stderr


# ---- size


@pytest.mark.parametrize(
    "path", [*MODULES, *REFERENCE, *KERNELS, *HEADERS, *sorted(PACKAGE.glob("*.pyi"))], ids=relative
)
def test_source_files_stay_short(path):
    assert len(path.read_text().splitlines()) <= 420


def test_setup_stays_short():
    assert len((ROOT / "setup.py").read_text().splitlines()) <= 150
