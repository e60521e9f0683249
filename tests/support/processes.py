"""Code in a new interpreter."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
OPENMP = ("OMP_", "GOMP_", "KMP_")


def run_python(code, *options, timeout=120, **environment):
    """Run code in a new interpreter and return what it prints.

    Nothing is set for OpenMP but what `environment` says, where None takes a variable away.
    `options` are those of the interpreter. The code may import what tests may.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(OPENMP)}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), env.get("PYTHONPATH")]))
    env |= environment
    result = subprocess.run(
        [sys.executable, *options, "-c", code],
        env={name: value for name, value in env.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,  # a process that hangs
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout
