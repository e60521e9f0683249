"""What the source promises of itself: what imports what, what import loads, how C is compiled."""

import ast
import platform
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from support.processes import run_python
from support.source import ROOT, Import, Package, circles, imports_of, upward_arrows

pytestmark = pytest.mark.no_isa

REPOSITORY = Path(__file__).parents[1]
PACKAGE = Package(REPOSITORY / "src/lstm_fast")
KERNELS = sorted((PACKAGE.root / "kernels").glob("*.c"))
HEADERS = sorted((REPOSITORY / "include").rglob("*.h"))
FILES = [path for paths in PACKAGE.files.values() for path in paths]

# From top to bottom: folders and modules of the package.
RANKS = [
    ["__main__"],
    ["cli"],
    ["estimators", "torch", "formats"],
    ["training"],
    ["nn", "optim"],
    ["lstm", "quantized", "recurrent", "stream", "functional", "config"],
    ["network"],
    ["engine"],
    ["engine.runtime"],
    ["version"],
]
# Who may import the package itself, which imports all the rest, and the specification.
ABOVE_ROOT = {"cli", "__main__"}
REFERENCE = "reference"
USERS_OF_REFERENCE = {ROOT, "cli"}
# Packages from outside, by the longest name that fits.
OUTSIDE = {
    "": {"numpy"},
    "engine.runtime.blas": {"numpy", "scipy", "threadpoolctl"},
    "network.storage": {"numpy", "safetensors"},
    "formats": {"numpy"},
    "formats.files": {"numpy", "torch"},
    "formats.jax_cells": {"numpy", "jax", "flax", "haiku", "equinox"},
    "formats.keras": {"numpy", "h5py", "keras"},
    "formats.onnx": {"numpy", "onnx", "onnxruntime"},
    "formats.openvino": {"numpy", "openvino"},
    "formats.pytorch": {"numpy", "torch"},
    "formats.safetensors": {"numpy", "safetensors", "torch"},
    "formats.tflite": {"numpy", "ai_edge_litert"},
    "cli": {"numpy", "matplotlib", "threadpoolctl", "tqdm"},
    "torch": {"numpy", "torch"},
    "training": {"numpy", "matplotlib", "tqdm"},
}
OF_CYTHON = {"libc", "cpython", "cython"}


def within(module, names):
    """Whether a module is one of these, or in one of these folders."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


def listed(offenders):
    return "\n" + "\n".join(map(str, offenders))


def relative(path):
    return str(path.relative_to(REPOSITORY))


# ---- imports in the source


def of_reference(package):
    return {module for module in package.files if within(module, [REFERENCE])}


def imports_upwards(package):
    return upward_arrows(package, RANKS, {ROOT, *of_reference(package)})


def imports_of_what_is_above(package):
    """Return modules that import the package itself, or the reference, or the command line."""
    offenders = []
    for module, targets in package.arrows().items():
        if ROOT in targets and not within(module, ABOVE_ROOT):
            offenders.append(f"{module} imports the package itself")
        if module != ROOT and not within(module, {*USERS_OF_REFERENCE, REFERENCE}):
            offenders += [f"{module} imports {t}" for t in targets & of_reference(package)]
        if module == ROOT:
            offenders += [f"{module} imports {t}" for t in targets if within(t, ABOVE_ROOT)]
        if within(module, [REFERENCE]):
            offenders += [f"{module} imports {t}" for t in targets - of_reference(package)]
    return offenders


def imports_from_outside(package):
    offenders = []
    for module, found in package.outside().items():
        longest = max((name for name in OUTSIDE if not name or within(module, [name])), key=len)
        allowed = OUTSIDE[longest] | sys.stdlib_module_names
        if any(path.suffix in {".pyx", ".pxd"} for path in package.files[module]):
            allowed = allowed | OF_CYTHON
        offenders += [f"{module} imports {name}" for name in sorted(found - allowed)]
    return offenders


def folders_without_words(package):
    """Return folders whose ``__init__.py`` does not say briefly what is there and what it imports.

    That of the reference is the specification.
    """
    offenders = []
    for folder in sorted({path.parent for paths in package.files.values() for path in paths}):
        init = folder / "__init__.py"
        name = folder.relative_to(package.root)
        text = ast.get_docstring(ast.parse(init.read_text())) if init.exists() else None
        if text is None:
            offenders.append(f"{name}: no __init__.py with a docstring")
        elif folder not in (package.root, package.root / REFERENCE):
            if len(text.splitlines()) > 12:
                offenders.append(f"{name}: a docstring of {len(text.splitlines())} lines")
            if "import" not in text:
                offenders.append(f"{name}: a docstring that does not say what it may import")
    return offenders


def test_imports_go_downwards():
    offenders = imports_upwards(PACKAGE)
    assert not offenders, listed(offenders)


def test_the_package_and_the_reference_are_imported_from_above_only():
    offenders = imports_of_what_is_above(PACKAGE)
    assert not offenders, listed(offenders)


def test_no_two_modules_import_each_other():
    assert not circles(PACKAGE.arrows()), listed(circles(PACKAGE.arrows()))


def test_the_library_needs_little_from_outside():
    offenders = imports_from_outside(PACKAGE)
    assert not offenders, listed(offenders)


def test_every_folder_says_what_is_there():
    offenders = folders_without_words(PACKAGE)
    assert not offenders, listed(offenders)


def test_only_threads_asks_openmp():
    asking = {
        relative(path)
        for path in [*FILES, *KERNELS, *HEADERS]
        if re.search(r"\bomp_|omp\.h|cimport +openmp", path.read_text())
    }
    assert asking == {"src/lstm_fast/engine/runtime/threads.pyx"}


# ---- the rules themselves


SAMPLES = {
    "import numpy as np": [Import("numpy")],
    "import a.b.c as d, e": [Import("a.b.c"), Import("e")],
    "from . import x": [Import(".", ("x",))],
    "from .x import (  # why\n    y as z,\n    w,\n)\n": [Import(".x", ("y", "w"))],
    "from ... import x": [Import("...", ("x",))],
    "from ...a.b cimport c, d": [Import("...a.b", ("c", "d"))],
    "from a cimport (b,\n               c)": [Import("a", ("b", "c"))],
    "cimport numpy as cnp": [Import("numpy")],
    "from a import b, \\\n    c": [Import("a", ("b", "c"))],
    "from a import *": [Import("a", ("*",))],
    "def f():\n    from a import b\n": [Import("a", ("b",))],
    "if TYPE_CHECKING:\n    from .a import B\n": [Import(".a", ("B",))],
    "if TYPE_CHECKING: from .a import B": [Import(".a", ("B",))],
    "x = 1; import a": [Import("a")],
    'x = import_module("a.b")': [Import("a.b")],
    'x = import_module(".b", __package__)': [Import(".b")],
    '"""\nimport a\nfrom b import c\n"""': [],
    "'''It's\nimport a'''": [],
    "# import a": [],
    'x = "#"\nimport a  # "': [Import("a")],
    "x = '\\''\nimport a": [Import("a")],
    'cdef extern from *:\n    """\n    #include <omp.h>\n    import x\n    """\n    int f()': [],
    'cdef extern from "a.h" nogil:\n    int f() except? -1': [],
    "f(a,\n  b)\nimport c": [Import("c")],
    "y = x[<int>i:\n  j]\nimport c": [Import("c")],
    "important = 1\nfrom_ = important": [],
    "yield from f": [],
    "raise E from error\n": [],
}


def test_imports_are_found():
    wrong = {text: imports_of(text) for text in SAMPLES if imports_of(text) != SAMPLES[text]}
    assert not wrong, listed(wrong.items())


def test_imports_are_those_of_pythons_own_parser():
    files = [path for path in FILES if path.suffix in {".py", ".pyi"}]
    for path in [*files, *Path(__file__).parent.rglob("*.py")]:
        expected = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                expected |= {Import(alias.name) for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                source = "." * node.level + (node.module or "")
                expected.add(Import(source, tuple(alias.name for alias in node.names)))
        assert {*imports_of(path.read_text(), by_name=False)} == expected, path


# A package that keeps all rules: its files, and what is in them.
SOUND = {
    "__init__.py": '"""All."""\nfrom . import reference, version\nfrom .lstm import LSTM\n',
    "__main__.py": "from .cli import main\n",
    "version.py": "v = 1\n",
    "lstm.py": "from .network.checks import f\nfrom .stream import S\nimport lstm_fast.engine.cell",
    "stream.py": "import numpy as np\nfrom .network import checks\n",
    "network/__init__.py": '"""Checks; imports the engine."""\n',
    "network/checks.py": "from ..engine.cell import Cell\nfrom . import options\n",
    "network/options.py": "from ..version import v\n",
    "engine/__init__.py": '"""Cells; imports NumPy."""\n',
    "engine/cell.pyx": "cimport numpy\nfrom libc.math cimport exp\nfrom .batch cimport Rows\n",
    "engine/cell.pxd": "from .runtime.isa cimport kernels\n",
    "engine/cell.pyi": "import numpy as np\n",
    "engine/batch.pxd": "from lstm_fast.engine.runtime cimport isa\n",
    "engine/runtime/__init__.py": '"""Below: imports NumPy."""\n',
    "engine/runtime/isa.pyx": "import os\n",
    "engine/runtime/blas.pyx": "from scipy.linalg cimport cython_blas\nimport threadpoolctl\n",
    "reference/__init__.py": '"""Equations."""\nfrom . import layer\n',
    "reference/layer.py": "import numpy as np\n",
    "cli/__init__.py": '"""Commands; imports all."""\nfrom .demo import main\n',
    "cli/demo.py": 'import lstm_fast\nfrom ..reference import layer\nx = import_module("tqdm")\n',
}
# What breaks a rule: a file, a line added to it, what finds it, and who is named.
BROKEN = [
    (
        "network/checks.py",
        "from ..lstm import LSTM",
        imports_upwards,
        "network.checks imports lstm",
    ),
    ("engine/runtime/isa.pyx", "from .. cimport cell", imports_upwards, "engine.cell"),
    ("engine/runtime/isa.pyx", "from ...engine import Array", imports_upwards, "imports engine"),
    ("engine/cell.pyi", "from ..network.checks import f", imports_upwards, "engine.cell imports"),
    ("version.py", "if TYPE_CHECKING:\n    from .stream import Stream", imports_upwards, "version"),
    ("engine/batch.pxd", "def f():\n    from ..network import g", imports_upwards, "engine.batch"),
    ("stream.py", "from .nowhere.else_ import f", imports_upwards, "not there"),
    ("other.py", "", imports_upwards, "other has no rank"),
    ("optim/__init__.py", "from ..nn import f", imports_upwards, "optim imports nn"),
    ("nn/__init__.py", "from ..lstm import LSTM\nfrom ..training import f", imports_upwards, "nn"),
    ("stream.py", "from . import LSTM", imports_of_what_is_above, "stream imports the package"),
    ("stream.py", "import lstm_fast", imports_of_what_is_above, "stream imports the package"),
    ("stream.py", "from .reference import f", imports_of_what_is_above, "stream imports reference"),
    ("reference/layer.py", "from ..version import v", imports_of_what_is_above, "version"),
    ("__init__.py", "from .cli import main", imports_of_what_is_above, "imports cli"),
    ("stream.py", "import scipy.linalg", imports_from_outside, "stream imports scipy"),
    ("reference/layer.py", "import torch", imports_from_outside, "reference.layer imports torch"),
    ("stream.py", "from libc.math cimport exp", imports_from_outside, "stream imports libc"),
    ("engine/cell.pxd", "from scipy cimport x", imports_from_outside, "engine.cell imports scipy"),
    ("engine/runtime/isa.pyx", 'import_module("tqdm")', imports_from_outside, "tqdm"),
    ("network/extra/a.py", "", folders_without_words, "network/extra"),
    ("network/__init__.py", '"""Silent."""', folders_without_words, "network"),
    ("network/__init__.py", '"""import' + "\n" * 12 + 'x"""', folders_without_words, "network"),
]


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Package(root)


def test_a_sound_package_passes(tmp_path):
    package = write(tmp_path / "lstm_fast", SOUND)
    assert not imports_upwards(package)
    assert not imports_of_what_is_above(package)
    assert not imports_from_outside(package)
    assert not folders_without_words(package)
    assert not circles(package.arrows())
    assert package.arrows() == {
        ROOT: {"reference", "lstm", "version"},
        "__main__": {"cli"},
        "version": set(),
        "lstm": {"stream", "network.checks", "engine.cell"},
        "stream": {"network.checks"},
        "network": set(),
        "network.checks": {"engine.cell", "network.options"},
        "network.options": {"version"},
        "engine": set(),
        "engine.cell": {"engine.batch", "engine.runtime.isa"},
        "engine.batch": {"engine.runtime.isa"},
        "engine.runtime": set(),
        "engine.runtime.isa": set(),
        "engine.runtime.blas": set(),
        "reference": {"reference.layer"},
        "reference.layer": set(),
        "cli": {"cli.demo"},
        "cli.demo": {ROOT, "reference.layer"},
    }


def test_broken_rules_are_found(tmp_path):
    for n, (name, line, find, named) in enumerate(BROKEN):
        text = line if line.startswith('"""') else f"{SOUND.get(name, '')}{line}\n"
        others = {"nn/__init__.py": '"""imports"""', "training.py": ""}
        offenders = find(write(tmp_path / str(n) / "lstm_fast", SOUND | others | {name: text}))
        assert len(offenders) == 1, (name, line, offenders)
        assert named in offenders[0]


def test_circles_are_found(tmp_path):
    files = SOUND | {
        "stream.py": "if TYPE_CHECKING:\n    from .lstm import LSTM\n",
        "engine/batch.pxd": "",
        "engine/batch.pyx": "from .tape cimport Tape\n",
        "engine/tape.pxd": "from .job cimport Job\n",
        "engine/job.pyx": "def f():\n    from . import batch\n",
    }
    found = circles(write(tmp_path / "lstm_fast", files).arrows())
    assert found == [["engine.batch", "engine.job", "engine.tape"], ["lstm", "stream"]]


# ---- imports at run time


def test_import_loads_nothing_heavy_and_changes_nothing():
    code = """if True:
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
        """
    run_python(code, "-W", "error", LSTM_FAST_ISA=None)


def test_only_blas_loads_scipy_for_inference():
    code = """if True:
        import sys
        import numpy as np
        from lstm_fast import LSTM
        for matmul in ("auto", "packed", "blas"):
            LSTM(64, 64, matmul=matmul)(np.zeros((100, 32, 64), np.float32))
            print(matmul, *(name for name in ("scipy", "threadpoolctl") if name in sys.modules))
        """
    printed = run_python(code, "-W", "error")
    assert printed.splitlines() == ["auto", "packed", "blas scipy threadpoolctl"]


# ---- C


def test_kernels_know_nothing_of_python():
    """What they include is of the system, or of ``include/lstm_fast``."""
    assert HEADERS and KERNELS
    offenders = []
    for path in [*HEADERS, *KERNELS]:
        text = path.read_text()
        offenders += [f"{relative(path)} has {name}" for name in re.findall(r"\bPy\w*_\w+", text)]
        for opening, name in re.findall(r"^\s*#\s*include\s*([<\"])([^>\"]+)", text, re.M):
            own = name.startswith("lstm_fast/") and (REPOSITORY / "include" / name).exists()
            if not own if opening == '"' else "Python" in name or "numpy" in name:
                offenders.append(f"{relative(path)} includes {name}")
    assert not offenders, listed(offenders)


def test_no_flags_break_arithmetic_or_portability():
    extensions = r"(?!=armv8\.2-a\+(dotprod|bf16)\b)"  # for which aarch64 has no other flag
    forbidden = rf"-Ofast|fast-math|-march{extensions}|-mtune|-mcpu|unsafe-math|finite-math"
    files = [REPOSITORY / "setup.py", REPOSITORY / "pyproject.toml", *FILES, *KERNELS, *HEADERS]
    offenders = [relative(path) for path in files if re.search(forbidden, path.read_text())]
    assert not offenders, listed(offenders)


NATIVE = {"x86_64": "baseline", "aarch64": "neon"}.get(platform.machine())
COMPILER = shlex.split(sysconfig.get_config_var("CC") or "cc")


@pytest.mark.skipif(not shutil.which(COMPILER[0]), reason=f"no C compiler: install {COMPILER[0]}")
@pytest.mark.skipif(NATIVE is None, reason="knows flags of x86-64 and aarch64 only")
def test_kernels_refuse_the_flags_of_another_isa():
    flags = [[], ["-mavx2"], ["-mavx2", "-mfma", "-mavx512f"]] if NATIVE == "baseline" else [[]]
    running = {}
    sources = PACKAGE.root.glob("kernels/kernels_*.c")
    for isa in (source.stem.removeprefix("kernels_") for source in sources):
        for given in flags:
            fits = isa == NATIVE or (isa == "avx2" and "-mfma" in given)
            # Preprocessing is enough to refuse.
            command = [*COMPILER, "-std=c11", *given, f"-I{REPOSITORY / 'include'}"]
            command += [
                "-fsyntax-only" if fits else "-E",
                str(PACKAGE.root / f"kernels/kernels_{isa}.c"),
            ]
            running[(isa, *given)] = (
                fits,
                subprocess.Popen(
                    command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                ),
            )
    for (isa, *given), (fits, process) in running.items():
        _, errors = process.communicate(timeout=60)
        refused = process.returncode != 0 and f"kernels_{isa}.c needs" in errors
        assert process.returncode == 0 if fits else refused, f"{isa} {given}: {errors}"


# ---- size


def test_source_files_stay_short():
    limits = dict.fromkeys([*FILES, *KERNELS, *HEADERS], 420) | {REPOSITORY / "setup.py": 180}
    lines = {path: len(path.read_text().splitlines()) for path in limits}
    offenders = [f"{relative(p)}: {n} lines" for p, n in lines.items() if n > limits[p]]
    assert not offenders, listed(offenders)
